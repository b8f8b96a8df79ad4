"""Certificates: machine-checked proof that a task measures what it claims. Its class sets the claims."""
