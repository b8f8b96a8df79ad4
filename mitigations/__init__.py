"""The built-in mitigations, one file each, registered through the entry-point group like anybody's."""
