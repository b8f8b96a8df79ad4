"""Experiments: suites, cells and their execution, the run folder and the record."""
