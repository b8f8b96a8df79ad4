"""What the command line's exit codes mean; 0 is a success."""

FAILED = 1
"""A cell failed, or a claim or check does not hold."""
WRONG_REQUEST = 2
INTERRUPTED = 130
