"""Goal position randomization: in a share of the training levels the goal alone is moved.

Langosco et al. 2022, "Goal Misgeneralization in Deep Reinforcement Learning", section 3.1, place the coin of CoinRun at
random in a small share of the levels. Everything else in a level stays as in the training distribution. That
distribution keeps the suite's own rate of randomized levels.
"""

from __future__ import annotations

from typing import Any

import torch

from goalposts import Knowledge, Levels, Mitigation, Task


class GoalPositionRandomization(Mitigation):
    """Moves the goal in a share of the ordinary levels.

    It applies to tasks whose training fixes the goal's place. Elsewhere nothing would change.

    Args:
        rate: probability that the goal of a training level is moved, in [0, 1].
    """

    uses = frozenset({Knowledge.LEVEL_GENERATOR})
    author = "Goalposts"
    licence = "MIT"
    paper = "Langosco et al. 2022, Goal Misgeneralization in Deep Reinforcement Learning"

    def __init__(self, rate: float = 0.1) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate!r}; give a number in [0, 1]")
        self.rate = rate

    @classmethod
    def inapplicable(cls, task: Task[Any]) -> str | None:
        return super().inapplicable(task) or (None if task.has_goal_position else "no fixed goal position")

    def sample_levels(self, num_levels: int) -> Levels:
        levels = self.context.sample_levels(num_levels)
        draws = torch.rand(num_levels, generator=self.context.generator, device=levels.device)
        moved = (draws < self.rate).nonzero().squeeze(1)
        return levels.replaced(moved, self.context.place_goals(levels[moved]))
