"""Procgen's games with moved goals: the serialized state, the games themselves, and what their tasks share."""
