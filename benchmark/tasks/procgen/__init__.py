"""Procgen's games with their goals moved: the serialized state, the games themselves, and the tasks' common ground."""
