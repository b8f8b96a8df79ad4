"""Goal conditioning: episodes are rewarded for one of several candidate goals, and the agent is told which.

After universal value function approximators (Schaul et al. 2015): at test it is told the aligned goal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalposts import Knowledge, Levels, Mitigation


class GoalMulti(Mitigation):
    """Draws each episode's goal uniformly from the aligned and the candidate goals that its level allows."""

    uses = frozenset({Knowledge.GOAL_INPUT, Knowledge.CANDIDATE_REWARDS})
    author = "Goalposts"
    licence = "MIT"
    paper = "Schaul et al. 2015, Universal Value Function Approximators"

    def goals(self, levels: Levels) -> Tensor:
        candidates = torch.tensor(self.context.candidate_goals, device=levels.device)
        weights = self.context.achievable(levels)[:, candidates].float()
        weights[:, 0] = 1.0
        return candidates[torch.multinomial(weights, 1, generator=self.context.generator).squeeze(1)]

    def observe(self, observation: Tensor, told_goal: Tensor | None) -> Tensor:
        """Append the goal as a one-hot vector; to an image, as a channel whose k-th pixel says goal k."""
        assert told_goal is not None
        if observation.dim() == 2:
            told = torch.nn.functional.one_hot(told_goal, self.context.num_goals)
        else:
            height, width = observation.shape[-2:]
            told = torch.nn.functional.one_hot(told_goal, height * width).view(-1, 1, height, width)
        return torch.cat([observation, told.to(observation.dtype)], dim=1)
