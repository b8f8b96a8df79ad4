"""The plugin contract: what a mitigation may override, and how it is found, called and checked."""
