"""Goal conditioning: episodes are rewarded for one of several candidate goals, and the agent is told which.

After universal value function approximators (Schaul et al. 2015): at test it is told the aligned goal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalposts import Knowledge, Levels

from .goal_input import GoalInput


class GoalMulti(GoalInput):
    """Draws each episode's goal uniformly from the aligned and the candidate goals that its level allows."""

    uses = frozenset({Knowledge.GOAL_INPUT, Knowledge.CANDIDATE_REWARDS})

    def goals(self, levels: Levels) -> Tensor:
        candidates = torch.tensor(self.context.candidate_goals, device=levels.device)
        weights = self.context.achievable(levels)[:, candidates].float()
        weights[:, 0] = 1.0
        return candidates[torch.multinomial(weights, 1, generator=self.context.generator).squeeze(1)]
