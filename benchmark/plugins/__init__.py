"""The plugin contract: what a mitigation may override, how it is found, called and checked."""
