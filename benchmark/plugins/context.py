"""The context: the object that a mitigation receives in ``setup``. It gives access only to declared knowledge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from goalposts.benchmark.errors import UndeclaredKnowledgeError
from goalposts.benchmark.plugins.knowledge import Knowledge, known_goals
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task

if TYPE_CHECKING:
    from goalposts.benchmark.training.config import TrainingConfig


class ExtraRollouts(Protocol):
    """Plays extra rollouts for a mitigation. Their steps count against the budget."""

    def extra_rollout(self, levels: Levels) -> Rollout:
        """Play one rollout on ``levels``, one in each environment."""

    def steps_left(self) -> int:
        """Return how many steps of the budget are left."""


class Context:
    """What a mitigation receives in ``setup``: its generator, the run's sizes and its declared knowledge."""

    def __init__(
        self,
        task: Task[Any],
        uses: frozenset[Knowledge],
        *,
        alpha: float,
        training: TrainingConfig,
        generator: torch.Generator,
        level_generator: torch.Generator,
        rollouts: ExtraRollouts,
    ) -> None:
        self._task: Task[Levels] = task
        self._uses = uses
        self._level_generator = level_generator
        self._rollouts = rollouts
        self.alpha = alpha
        """Share of training levels that come from the randomized sampler."""
        self.training = training
        """The settings of the run: budget, sizes, discounts and the coefficients of the PPO loss."""
        self.generator = generator
        """The mitigation's private stream."""
        self.refused: list[str] = []
        """Names of the knowledge that the mitigation asked for without declaring it."""
        self.num_goals = len(task.goals)
        self.levels_type: type[Levels] = task.levels_type

    def _require(self, *knowledge: Knowledge) -> None:
        missing = [flag.value for flag in knowledge if flag not in self._uses]
        self.refused += missing
        if missing:
            raise UndeclaredKnowledgeError(
                f"The mitigation asked for undeclared knowledge; add {', '.join(missing)} to its 'uses'."
            )

    def sample_levels(self, num_levels: int) -> Levels:
        """Draw from the training distribution at this run's ``alpha``."""
        return self._task.sample_levels(num_levels, self.alpha, self._level_generator)

    def randomized_levels(self, num_levels: int) -> Levels:
        """Draw from the randomized sampler (needs ``level_generator``)."""
        self._require(Knowledge.LEVEL_GENERATOR)
        return self._task.sample_levels(num_levels, 1.0, self._level_generator)

    def edit_levels(self, levels: Levels, num_edits: int, *, restricted: bool = True) -> Levels:
        """Edit every level (needs ``level_editor``; unrestricted edits need ``level_generator`` too)."""
        self._require(Knowledge.LEVEL_EDITOR)
        if not restricted:
            self._require(Knowledge.LEVEL_GENERATOR)
        return self._task.edit_levels(levels, num_edits, self.generator, restricted=restricted)

    def place_goals(self, levels: Levels) -> Levels:
        """Move the aligned goal in every level and change nothing else (needs ``level_generator``)."""
        self._require(Knowledge.LEVEL_GENERATOR)
        return self._task.place_goals(levels, self.generator)

    @property
    def candidate_goals(self) -> tuple[int, ...]:
        """The aligned goal and the candidate goals of the task (needs ``candidate_rewards``)."""
        self._require(Knowledge.CANDIDATE_REWARDS)
        return (0, *self._task.candidates)

    @property
    def terminal_goals(self) -> tuple[bool, ...]:
        """Whether achieving each goal ends an episode that is rewarded for it (needs ``candidate_rewards``).

        It is False for goals outside the mitigation's declared knowledge.
        """
        self._require(Knowledge.CANDIDATE_REWARDS)
        known = known_goals(self._task, self._uses)
        return tuple(goal.terminal and told for goal, told in zip(self._task.goals, known, strict=True))

    @property
    def proxy_goals(self) -> tuple[int, ...]:
        """The proxies to avoid (needs ``proxy_goals``)."""
        self._require(Knowledge.PROXY_GOALS)
        return self._task.proxies

    @property
    def terminal_proxies(self) -> tuple[bool, ...]:
        """Whether each of ``proxy_goals`` would end an episode that is rewarded for it (needs ``proxy_goals``)."""
        return tuple(self._task.goals[proxy].terminal for proxy in self.proxy_goals)

    def achievable(self, levels: Levels) -> Tensor:
        """Return which goals can be achieved on each level, ``bool[num_levels, num_goals]`` (``candidate_rewards``).

        It is False for goals outside the mitigation's declared knowledge.
        """
        self._require(Knowledge.CANDIDATE_REWARDS)
        known = torch.tensor(known_goals(self._task, self._uses), device=levels.device)
        return self._task.achievable(levels) & known

    def optimal_return(self, levels: Levels) -> Tensor:
        """Return each level's greatest discounted return, ``float[num_levels]`` (needs ``planner``)."""
        self._require(Knowledge.PLANNER)
        return self._task.optimal_return(levels, 0, self.training.gamma)

    def rollout(self, levels: Levels) -> Rollout:
        """Play ``num_steps`` steps on ``levels`` (``num_envs`` of them) with the current policy.

        The steps count against the budget. Once the budget is spent, at most one more rollout can be played. In
        ``setup`` there is no policy yet, so no rollout can be played.
        """
        return self._rollouts.extra_rollout(levels)

    def steps_left(self) -> int:
        """Return how many steps of the budget are left."""
        return self._rollouts.steps_left()
