"""The command line's exit codes. 0 is success."""

FAILED = 1
"""A cell failed, or a claim or check does not hold."""
WRONG_REQUEST = 2
INTERRUPTED = 130
