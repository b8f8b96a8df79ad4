"""Tasks: levels as data, batched environments, goals, exact planners and reference policies."""
