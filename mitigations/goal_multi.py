"""Goal conditioning: each episode is rewarded for one of several candidate goals, and the agent sees which.

It follows universal value function approximators (Schaul et al. 2015). At test the input is the aligned goal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalposts import Knowledge, Levels

from .goal_input import GoalInput


class GoalMulti(GoalInput):
    """Draws each episode's goal uniformly from the aligned goal and the candidates that are possible on its level."""

    uses = frozenset({Knowledge.GOAL_INPUT, Knowledge.CANDIDATE_REWARDS})

    def goals(self, levels: Levels) -> Tensor:
        candidates = torch.tensor(self.context.candidate_goals, device=levels.device)
        weights = self.context.achievable(levels)[:, candidates].float()
        weights[:, 0] = 1.0
        return candidates[torch.multinomial(weights, 1, generator=self.context.generator).squeeze(1)]
