"""What the goal-conditioned mitigations share: the told goal as a part of the agent's input.

After universal value function approximators (Schaul et al. 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalposts import Knowledge, Mitigation


class GoalInput(Mitigation):
    """Appends the told goal to the observation."""

    uses = frozenset({Knowledge.GOAL_INPUT})
    author = "Goalposts"
    licence = "MIT"
    paper = "Schaul et al. 2015, Universal Value Function Approximators"

    def observe(self, observation: Tensor, told_goal: Tensor | None) -> Tensor:
        """Append the goal as a one-hot vector; to an image, as a channel whose k-th pixel says goal k.

        What says so is as bright as the observation's type can be: 255 among bytes, 1 elsewhere.
        """
        assert told_goal is not None
        if observation.dim() == 2:
            told = torch.nn.functional.one_hot(told_goal, self.context.num_goals)
        else:
            height, width = observation.shape[-2:]
            told = torch.nn.functional.one_hot(told_goal, height * width).view(-1, 1, height, width)
        brightest = 255 if observation.dtype == torch.uint8 else 1
        return torch.cat([observation, (brightest * told).to(observation.dtype)], dim=1)
