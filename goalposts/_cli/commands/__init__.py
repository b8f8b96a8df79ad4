"""A module for each command: its docstring is the command's help, ``app`` the command.

Heavy imports stay inside the functions, so that help and refusals come at once.
"""
