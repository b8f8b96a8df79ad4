"""The plugin contract: what a mitigation may override, what it is handed, and what it must declare to get it.

Every hook's default is the identity, so that an empty subclass is the baseline ``none``. Nothing here trains.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError, UndeclaredKnowledgeError
from goalposts.benchmark.plain import fault_of, one_line
from goalposts.benchmark.tasks.base import Task
from goalposts.benchmark.tasks.levels import Levels

if TYPE_CHECKING:
    from ray.rllib.core.rl_module.torch import TorchRLModule


class Knowledge(StrEnum):
    """What a mitigation may have to be told. A mitigation that declares none plays in the blind track."""

    LEVEL_GENERATOR = "level_generator"
    """May draw from the randomized sampler."""
    LEVEL_EDITOR = "level_editor"
    """May mutate levels; unrestricted edits need ``level_generator`` too."""
    GOAL_INPUT = "goal_input"
    """The agent is told its goal."""
    CANDIDATE_REWARDS = "candidate_rewards"
    """May reward candidate goals other than the aligned one."""
    PROXY_GOALS = "proxy_goals"
    """Is told which proxies to fear, or rewards them."""
    PLANNER = "planner"
    """May use exact optimal values."""


@dataclasses.dataclass
class Rollout:
    """Experience of one iteration. ``T`` is ``num_steps``, ``N`` is ``num_envs``."""

    levels: Levels
    """Every level that was played in it."""
    level_index: Tensor
    """``int64[T, N]``: the row of ``levels`` that each transition belongs to."""
    observations: Tensor
    """``[T, N, *observation_shape]``, as the task gives them, before ``observe``."""
    told_goals: Tensor
    """``int64[T, N]``: the goal each episode is rewarded for."""
    actions: Tensor
    """``int64[T, N]``"""
    logits: Tensor
    """``float32[T, N, num_actions]``"""
    log_probs: Tensor
    """``float32[T, N]`` of the actions taken."""
    values: Tensor
    """``float32[T, N]``"""
    rewards: Tensor
    """``float32[T, N]``"""
    events: Tensor
    """``bool[T, N, num_goals]``; columns of goals that the mitigation did not declare are False."""
    terminated: Tensor
    """``bool[T, N]``"""
    truncated: Tensor
    """``bool[T, N]``"""
    final_values: Tensor
    """``float32[T, N]``: the value of the state in which an episode was truncated, 0 elsewhere."""
    last_values: Tensor
    """``float32[N]``: the value of the state after the last step."""
    importance: Tensor
    """``float32[T, N]``: the probability of each action under the goal told now, over that under the goal it was played
    for; 1 where ``relabel`` left the goal as it was."""
    final_observations: Tensor
    """``[K, *observation_shape]``: the state in which each of the ``K`` episodes that ended did so."""
    final_rows: Tensor
    """``int64[K]``: where that was, as ``t * N + n``."""
    last_observations: Tensor
    """``[N, *observation_shape]``: the state after the last step, of the next episode where one ended with it."""
    advantages: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    """``float32[T, N]``, unnormalized; filled in after ``relabel``."""
    value_targets: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    """``float32[T, N]``; filled in after ``relabel``."""

    @property
    def done(self) -> Tensor:
        """Return where an episode ended, ``bool[T, N]``."""
        return self.terminated | self.truncated


@dataclasses.dataclass(frozen=True)
class ModuleSpec:
    """What a network must fit, and how the suite would build it."""

    observation_shape: tuple[int, ...]
    """Of what ``observe`` returns."""
    num_actions: int
    network: str
    hidden_sizes: tuple[int, ...]
    bf16: bool
    """Run the trunk under bfloat16 autocast; heads and losses stay in float32."""
    builder: Callable[[ModuleSpec], TorchRLModule] = dataclasses.field(repr=False)
    width: int = 1
    """Multiple of a convolutional trunk's channels."""

    def build(self) -> TorchRLModule:
        """Build the suite's own network."""
        return self.builder(self)


def known_goals(task: Task[Any], uses: frozenset[Knowledge]) -> tuple[bool, ...]:
    """Return whether a mitigation which declares ``uses`` may reward each goal, and see its events."""
    known = {0}
    if Knowledge.CANDIDATE_REWARDS in uses:
        known |= set(task.candidates)
    if Knowledge.PROXY_GOALS in uses:
        known |= set(task.proxies)
    return tuple(goal in known for goal in range(len(task.goals)))


class Context:
    """What a mitigation is handed in ``setup``: its generator, the run's sizes, and what its ``uses`` declares."""

    def __init__(
        self,
        *,
        task: Task[Any],
        uses: frozenset[Knowledge],
        alpha: float,
        num_envs: int,
        num_steps: int,
        env_steps: int,
        gamma: float,
        gae_lambda: float,
        clip_param: float,
        vf_loss_coeff: float,
        entropy_coeff: float,
        generator: torch.Generator,
        level_generator: torch.Generator,
        rollout: Callable[[Levels], Rollout],
        steps_left: Callable[[], int],
    ) -> None:
        self._task: Task[Levels] = task
        self._uses = uses
        self._level_generator = level_generator
        self._rollout = rollout
        self._steps_left = steps_left
        self.alpha = alpha
        """Share of training levels that come from the randomized sampler."""
        self.num_envs = num_envs
        self.num_steps = num_steps
        self.env_steps = env_steps
        """Budget of the whole run."""
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.clip_param = clip_param
        """Of the PPO loss, like the next two: for a mitigation that brings its own."""
        self.vf_loss_coeff = vf_loss_coeff
        self.entropy_coeff = entropy_coeff
        self.generator = generator
        """The mitigation's private stream."""
        self.refused: list[str] = []
        """What the mitigation asked for and does not declare, by the name of the knowledge."""
        self.num_goals = len(task.goals)
        self.levels_type: type[Levels] = task.levels_type

    def _require(self, *knowledge: Knowledge) -> None:
        missing = [flag.value for flag in knowledge if flag not in self._uses]
        self.refused += missing
        if missing:
            raise UndeclaredKnowledgeError(
                f"The mitigation asked for what it does not declare; add {', '.join(missing)} to its 'uses'."
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
        """Move the aligned goal, and nothing else, in every level (needs ``level_generator``)."""
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

        False for goals that the mitigation does not declare.
        """
        self._require(Knowledge.CANDIDATE_REWARDS)
        known = known_goals(self._task, self._uses)
        return tuple(goal.terminal and told for goal, told in zip(self._task.goals, known, strict=True))

    @property
    def proxy_goals(self) -> tuple[int, ...]:
        """The proxies to fear (needs ``proxy_goals``)."""
        self._require(Knowledge.PROXY_GOALS)
        return self._task.proxies

    @property
    def terminal_proxies(self) -> tuple[bool, ...]:
        """Whether each of ``proxy_goals`` would end an episode that is rewarded for it (needs ``proxy_goals``)."""
        return tuple(self._task.goals[proxy].terminal for proxy in self.proxy_goals)

    def achievable(self, levels: Levels) -> Tensor:
        """Return which goals can be achieved on each level, ``bool[num_levels, num_goals]`` (``candidate_rewards``).

        False for goals that the mitigation does not declare.
        """
        self._require(Knowledge.CANDIDATE_REWARDS)
        known = torch.tensor(known_goals(self._task, self._uses), device=levels.device)
        return self._task.achievable(levels) & known

    def optimal_return(self, levels: Levels) -> Tensor:
        """Return each level's greatest discounted return, ``float[num_levels]`` (needs ``planner``)."""
        self._require(Knowledge.PLANNER)
        return self._task.optimal_return(levels, 0, self.gamma)

    def rollout(self, levels: Levels) -> Rollout:
        """Play ``num_steps`` steps on ``levels`` (``num_envs`` of them) with the current policy.

        The steps count against the budget, and once it is spent there are no more than those of one rollout. In
        ``setup`` there is no policy yet that could play.
        """
        return self._rollout(levels)

    def steps_left(self) -> int:
        """Return how many steps of the budget are left."""
        return self._steps_left()


def sample_actions(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw ``int64[n]`` actions from ``float[n, num_actions]`` logits."""
    return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator).squeeze(-1)


class Mitigation:
    """Base class of every mitigation. Override what you need; hyperparameters are keyword arguments of ``__init__``."""

    uses: ClassVar[frozenset[Knowledge]] = frozenset()
    """What it must be told."""
    version: ClassVar[str] = "1"
    author: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    """Where the method was published."""
    fixed_alpha: ClassVar[float | None] = None
    """Trains at this disambiguation rate whatever the suite's, and so is run once (needs ``level_generator``)."""
    restart_rollouts: ClassVar[bool] = False
    """True: every rollout starts all environments on the levels of one ``sample_levels(num_envs)`` call, and each
    environment repeats its level until the rollout ends, so that a level can be scored as a whole. A suite's rollouts
    are then as long as the task's episodes may be, of fewer environments. False: episodes run on across rollouts, and
    each is followed by the next level of the stream."""

    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Where tuning looks for hyperparameters, by name: ``{"low": 0.1, "high": 10.0, "log": True}``, whole numbers where
    both bounds and the default are whole, or ``{"choices": [...]}``. Defaults lie inside; what is not listed keeps its
    default."""

    context: Context

    def setup(self, context: Context) -> None:
        """Take the context; called once before training and before evaluation."""
        self.context = context

    def sample_levels(self, num_levels: int) -> Levels:
        """Return the training levels that come next."""
        return self.context.sample_levels(num_levels)

    def goals(self, levels: Levels) -> Tensor:
        """Return what the episode on each newly drawn level is rewarded for, ``int64[num_levels]`` goals."""
        return torch.zeros(len(levels), dtype=torch.int64, device=levels.device)

    def observe(self, observation: Tensor, told_goal: Tensor | None) -> Tensor:
        """Return the agent's input, at evaluation too; ``told_goal`` is None without ``goal_input``."""
        return observation

    def relabel(self, rollout: Rollout) -> Rollout:
        """Rewrite a rollout before advantages are computed.

        Logits, log-probabilities and all values are then recomputed under the current policy and the goals now told,
        and ``importance`` is filled in: the actions were drawn for the goals told before.
        """
        return rollout

    def after_rollout(self, rollout: Rollout) -> None:
        """Read a finished rollout, advantages included."""

    def sample_weights(self, rollout: Rollout) -> Tensor | None:
        """Return the weight of each transition in the update, ``float[T, N]`` ≥ 0; None for equal weights."""
        return None

    def batch_columns(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Return further columns ``[T, N, ...]`` for ``extra_loss``."""
        return {}

    def build_module(self, spec: ModuleSpec) -> TorchRLModule:
        """Return the network: a feed-forward ``TorchRLModule`` with a value function."""
        return spec.build()

    def extra_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return a scalar to add to the PPO loss of a minibatch, or None."""
        return None

    def act(self, outputs: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Choose test-time actions, ``int64[n]``, and optionally which episodes ask for help, ``bool[n]``."""
        return sample_actions(outputs["action_dist_inputs"], generator), None

    def state_dict(self) -> dict[str, Any]:
        """Return the mitigation's own state as tensors and JSON values; its generator is kept for it."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""

    @classmethod
    def inapplicable(cls, task: Task[Any]) -> str | None:
        """Return in a word what ``task`` lacks that the mitigation works with; None where it applies."""
        if Knowledge.LEVEL_EDITOR in cls.uses and not task.has_editor:
            return "no level editor"
        if Knowledge.PLANNER in cls.uses and not task.has_planners:
            return "no exact planner"
        if Knowledge.CANDIDATE_REWARDS in cls.uses and set(task.candidates) <= set(task.polled):
            return "no candidate goal that training can watch"
        if Knowledge.PROXY_GOALS in cls.uses and set(task.proxies) & set(task.polled):
            return "a proxy that training cannot watch"
        return None

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Return whether the class has its own version of ``hook``."""
        return getattr(cls, hook) is not getattr(Mitigation, hook)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the hyperparameters with their default values."""
        if cls.__init__ is object.__init__:
            return {}
        return {
            name: parameter.default
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }


def check_mitigation(cls: object, source: str) -> type[Mitigation]:
    """Return ``cls`` if it is a mitigation whose declarations are consistent.

    Raises:
        RequestError: it is no subclass of ``Mitigation``, or declares something impossible.
    """
    if not (isinstance(cls, type) and issubclass(cls, Mitigation)):
        raise RequestError(f"{source} is no mitigation: {cls!r} must be a subclass of goalposts.Mitigation.")
    try:
        cls.uses = frozenset(Knowledge(flag) for flag in cls.uses)
    except (TypeError, ValueError) as error:
        known = ", ".join(flag.value for flag in Knowledge)
        raise RequestError(f"{source} declares unknown knowledge: {error}. Known flags: {known}.") from error
    for field in ("version", "author", "licence", "paper"):
        if not isinstance(getattr(cls, field), str):
            raise RequestError(f"{source} has {field} {getattr(cls, field)!r}; make it a text.")
        if (fault := fault_of(getattr(cls, field))) is not None:
            raise RequestError(f"{source} has as its {field} {fault}; shorten it, or take them out.")
    if cls.fixed_alpha is not None:
        if not isinstance(cls.fixed_alpha, int | float):
            raise RequestError(f"{source} has fixed_alpha {cls.fixed_alpha!r}; give a number in [0, 1].")
        if not 0.0 <= cls.fixed_alpha <= 1.0:
            raise RequestError(f"{source} has fixed_alpha {cls.fixed_alpha!r}; give a number in [0, 1].")
        if Knowledge.LEVEL_GENERATOR not in cls.uses:
            raise RequestError(f"{source} fixes alpha, which needs 'level_generator' in its 'uses'.")
    try:
        cls()
    except Exception as error:
        problem = f"{type(error).__name__}: {one_line(error)}"
        raise RequestError(f"{source} cannot be built without arguments ({problem}); give each a default.") from error
    for name, value in cls.defaults().items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"{source} has {name}={value!r} by default; use a finite JSON value.") from error
        if (fault := fault_of(value)) is not None:
            raise RequestError(f"{source} has by default {name} with {fault}; use a plain JSON value.")
    _check_search_space(cls, source)
    return cls


def _check_search_space(cls: type[Mitigation], source: str) -> None:
    defaults = cls.defaults()
    if not isinstance(cls.search_space, Mapping):
        raise RequestError(f"{source} has search_space {cls.search_space!r}; make it a dict by hyperparameter.")
    for name, where in cls.search_space.items():
        if not isinstance(where, Mapping):
            raise RequestError(f"{source} searches for {name!r} in {where!r}; give a dict with 'low' and 'high'.")
        if name not in defaults:
            raise RequestError(f"{source} searches for {name!r}, which is no hyperparameter of it; take it out.")
        given, default = dict(where), defaults[name]
        choices, low, high, log = (given.pop(key, None) for key in ("choices", "low", "high", "log"))
        if choices is not None:
            fits = not given and low is high is log is None and isinstance(choices, list | tuple) and default in choices
        else:
            numbers = all(isinstance(value, int | float) for value in (low, high, default))
            fits = not given and numbers and low < high and low <= default <= high and (low > 0 or not log)
        if not fits:
            raise RequestError(
                f"{source} searches for {name!r} in {dict(where)!r}, its default being {default!r}; give 'choices', or "
                "'low' and 'high' (and 'log', above 0), with the default among them."
            )
