"""One module for each command. Its docstring is the command's help, and ``app`` is the command.

Heavy imports stay inside the functions, so that help and errors appear at once.
"""
