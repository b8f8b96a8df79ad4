"""The plugin contract: the hooks that a mitigation may override.

Every hook defaults to the identity, so an empty subclass is the baseline ``none``. Nothing here trains.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from goalposts.benchmark.plugins.context import Context
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task

LOGITS, VALUES, EMBEDDINGS = "action_dist_inputs", "vf_preds", "embeddings"
"""Keys of a network's outputs, as RLlib names them."""


class Network(nn.Module):
    """The parts of the suite's own networks."""

    trunk: nn.Module
    """Maps observations to embeddings, ``float32[n, width]``."""
    policy_head: nn.Module
    """Maps embeddings to logits."""
    value_head: nn.Module
    """Maps embeddings to values, ``float32[n, 1]``."""


@dataclasses.dataclass(frozen=True)
class ModuleSpec:
    """The interface that a network must fit, and how the suite would build it.

    A network is a ``torch.nn.Module``. Its ``forward`` takes observations, ``[n, *observation_shape]``. It returns a
    dict with ``action_dist_inputs``, the logits (``float32[n, num_actions]``), and ``vf_preds``, the values
    (``float32[n]``). The suite's own network also returns ``embeddings``, the output of its trunk. Its parts are
    ``trunk``, ``policy_head`` and ``value_head``.
    """

    observation_shape: tuple[int, ...]
    """Shape of one observation that ``observe`` returns."""
    num_actions: int
    network: str
    hidden_sizes: tuple[int, ...]
    bf16: bool
    """Run the trunk under bfloat16 autocast. Heads and losses stay in float32."""
    builder: Callable[[ModuleSpec], Network] = dataclasses.field(repr=False)
    width: int = 1
    """Multiplier of a convolutional trunk's channels."""

    def build(self) -> Network:
        """Build the suite's own network."""
        return self.builder(self)


def sample_actions(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw ``int64[n]`` actions from ``float[n, num_actions]`` logits."""
    return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator).squeeze(-1)


class Mitigation:
    """Base class of every mitigation.

    Override the hooks you need. Hyperparameters are keyword arguments of ``__init__``.
    """

    uses: ClassVar[frozenset[Knowledge]] = frozenset()
    """The knowledge it needs."""
    version: ClassVar[str] = "1"
    author: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    """Where the method was published."""
    fixed_alpha: ClassVar[float | None] = None
    """Disambiguation rate used in place of the suite's. The mitigation then runs once (needs ``level_generator``)."""
    restart_rollouts: ClassVar[bool] = False
    """Whether every rollout restarts all environments.

    True: each rollout starts on the levels of one ``sample_levels(num_envs)`` call. Each environment repeats its level
    until the rollout ends, so that a level can be scored as a whole. A suite then uses rollouts as long as the task's
    longest episode, with fewer environments. False: episodes continue across rollouts, and each is followed by the next
    level of the stream."""

    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Search range of each hyperparameter, by name.

    A range is ``{"low": 0.1, "high": 10.0, "log": True}`` or ``{"choices": [...]}``. It holds whole numbers if both
    bounds and the default are whole. Defaults lie inside. A hyperparameter that is not listed keeps its default."""

    context: Context

    def setup(self, context: Context) -> None:
        """Receive the context. Called once before training and once before evaluation."""
        self.context = context

    def sample_levels(self, num_levels: int) -> Levels:
        """Return the next training levels."""
        return self.context.sample_levels(num_levels)

    def goals(self, levels: Levels) -> Tensor:
        """Return the goal that the episode on each new level is rewarded for, ``int64[num_levels]``."""
        return torch.zeros(len(levels), dtype=torch.int64, device=levels.device)

    def observe(self, observation: Tensor, told_goal: Tensor | None) -> Tensor:
        """Return the agent's input. Also called at evaluation. ``told_goal`` is None without ``goal_input``."""
        return observation

    def relabel(self, rollout: Rollout) -> Rollout:
        """Rewrite a rollout before advantages are computed.

        Logits, log-probabilities and all values are then recomputed under the current policy and the new goals. The
        actions were drawn for the old goals, so ``importance`` is filled in as well.
        """
        return rollout

    def after_rollout(self, rollout: Rollout) -> None:
        """Read a finished rollout, including its advantages."""

    def sample_weights(self, rollout: Rollout) -> Tensor | None:
        """Return the weight of each transition in the update, ``float[T, N]`` ≥ 0. None means equal weights."""
        return None

    def batch_columns(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Return extra columns ``[T, N, ...]`` for ``extra_loss``."""
        return {}

    def build_module(self, spec: ModuleSpec) -> nn.Module:
        """Return a feed-forward network with a policy and a value, as :class:`ModuleSpec` describes it."""
        return spec.build()

    def extra_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return a scalar to add to the PPO loss of a minibatch, or None."""
        return None

    def act(self, outputs: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Choose test-time actions, ``int64[n]``, and optionally the episodes that ask for help, ``bool[n]``."""
        return sample_actions(outputs["action_dist_inputs"], generator), None

    def state_dict(self) -> dict[str, Any]:
        """Return the mitigation's own state as tensors and JSON values. Its generator is saved separately."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""

    @classmethod
    def inapplicable(cls, task: Task[Any]) -> str | None:
        """Name what ``task`` lacks and the mitigation needs, in a few words. None if the mitigation applies."""
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
