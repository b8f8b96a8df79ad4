"""The built-in mitigations, one file each. They register through the entry-point group, as any plugin does."""
