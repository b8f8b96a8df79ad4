"""Kinds of tasks: code that several tasks share."""
