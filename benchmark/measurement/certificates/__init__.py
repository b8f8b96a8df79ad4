"""Certificates: machine-checked proof that a task measures what it says, by its class."""
