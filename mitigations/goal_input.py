"""Shared by the goal-conditioned mitigations: the goal is part of the agent's input.

It follows universal value function approximators (Schaul et al. 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalposts import Knowledge, Mitigation


class GoalInput(Mitigation):
    """Appends the goal to the observation."""

    uses = frozenset({Knowledge.GOAL_INPUT})
    author = "Goalposts"
    licence = "MIT"
    paper = "Schaul et al. 2015, Universal Value Function Approximators"

    def observe(self, observation: Tensor, told_goal: Tensor | None) -> Tensor:
        """Append the goal as a one-hot vector; to an image, as a channel whose k-th pixel stands for goal k.

        That entry has the greatest value of the observation's type: 255 for bytes, 1 otherwise.
        """
        assert told_goal is not None
        if observation.dim() == 2:
            told = torch.nn.functional.one_hot(told_goal, self.context.num_goals)
        else:
            height, width = observation.shape[-2:]
            told = torch.nn.functional.one_hot(told_goal, height * width).view(-1, 1, height, width)
        brightest = 255 if observation.dtype == torch.uint8 else 1
        return torch.cat([observation, (brightest * told).to(observation.dtype)], dim=1)
