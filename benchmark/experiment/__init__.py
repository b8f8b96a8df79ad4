"""Experiments: suites, cells and how one is run, the run folder and the record."""
