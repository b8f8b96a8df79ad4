"""The plugin contract: the hooks that a mitigation may override.

Every hook's default is the identity, so that an empty subclass is the baseline ``none``. Nothing here trains.
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
"""Keys of a network's outputs, which are RLlib's."""


class Network(nn.Module):
    """What the suite's own networks consist of."""

    trunk: nn.Module
    """From observations to embeddings, ``float32[n, width]``."""
    policy_head: nn.Module
    """From embeddings to logits."""
    value_head: nn.Module
    """From embeddings to values, ``float32[n, 1]``."""


@dataclasses.dataclass(frozen=True)
class ModuleSpec:
    """What a network must fit, and how the suite would build it.

    A network is a ``torch.nn.Module``. Its ``forward`` takes observations, ``[n, *observation_shape]``. It returns a
    dict with ``action_dist_inputs``, the logits (``float32[n, num_actions]``), and ``vf_preds``, the values
    (``float32[n]``). The suite's own also returns ``embeddings``, the output of its trunk; its parts are ``trunk``,
    ``policy_head`` and ``value_head``.
    """

    observation_shape: tuple[int, ...]
    """Of what ``observe`` returns."""
    num_actions: int
    network: str
    hidden_sizes: tuple[int, ...]
    bf16: bool
    """Run the trunk under bfloat16 autocast; heads and losses stay in float32."""
    builder: Callable[[ModuleSpec], Network] = dataclasses.field(repr=False)
    width: int = 1
    """Multiple of a convolutional trunk's channels."""

    def build(self) -> Network:
        """Build the suite's own network."""
        return self.builder(self)


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

    def build_module(self, spec: ModuleSpec) -> nn.Module:
        """Return the network, as :class:`ModuleSpec` describes it: feed-forward, with a policy and a value."""
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
