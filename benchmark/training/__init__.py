"""Training: rollouts, networks, the learner, the loop and its checkpoints."""
