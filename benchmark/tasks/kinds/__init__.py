"""Kinds of tasks: what several tasks share."""
