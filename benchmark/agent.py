"""An agent: a network with its mitigation's ``observe`` and ``act``. It needs no trainer, no learner and no Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from goalposts.benchmark.errors import HookError, NonFiniteError, RequestError
from goalposts.benchmark.networks import build
from goalposts.benchmark.plugins.context import Context
from goalposts.benchmark.plugins.hooks import Hooks
from goalposts.benchmark.plugins.mitigation import LOGITS, VALUES, Mitigation, ModuleSpec
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.episodes import Policy
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task

if TYPE_CHECKING:
    from goalposts.benchmark.measurement.counts import Sampling
    from goalposts.benchmark.training.config import TrainingConfig


class Outputs(NamedTuple):
    """A network's outputs for observations."""

    logits: Tensor
    """``float32[n, num_actions]``"""
    values: Tensor
    """``float32[n]``"""


class Agent:
    """A trained policy that can be queried.

    Args:
        task: the task it plays.
        hooks: calls its mitigation's hooks.
        network: its network.
        sampling: ``sampled`` as in training, or ``greedy``.
    """

    def __init__(self, task: Task[Any], hooks: Hooks, network: nn.Module, sampling: Sampling = "sampled") -> None:
        self.task = task
        self.hooks = hooks
        self.network = network
        self.sampling = sampling

    def outputs(self, observations: Tensor, told_goals: Tensor | None = None) -> Outputs:
        """Return logits and values.

        Args:
            observations: ``[n, *observation_shape]``, as the task returns them.
            told_goals: ``int64[n]``, for goal-conditioned agents. By default the aligned goal.

        Raises:
            NonFiniteError: the outputs hold NaN or infinity.
            RequestError: the observations do not have the task's shape.
        """
        outputs = self._outputs(observations, told_goals)
        return Outputs(outputs[LOGITS], outputs[VALUES])

    def act(
        self, observations: Tensor, random: torch.Generator, told_goals: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Choose actions, ``int64[n]``, and the episodes that ask for help, ``bool[n]`` or None.

        Args:
            observations: ``[n, *observation_shape]``, as the task returns them.
            random: the generator for the actions.
            told_goals: ``int64[n]``, for goal-conditioned agents. By default the aligned goal.

        Raises:
            NonFiniteError: the network's outputs hold NaN or infinity.
            RequestError: the observations do not have the task's shape.
        """
        outputs = self._outputs(observations, told_goals)
        if self.sampling == "greedy":
            best = outputs[LOGITS].argmax(dim=-1, keepdim=True)
            outputs = {**outputs, LOGITS: torch.full_like(outputs[LOGITS], -torch.inf).scatter(1, best, 0.0)}
        return self.hooks.act(outputs, random)

    def activations(self, observations: Tensor, told_goals: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs of every layer of the network's trunk by the layer's name, ``[n, ...]`` each.

        If a network has no part called ``trunk``, all of its layers count. Layers that return no tensor are left out.

        Args:
            observations: ``[n, *observation_shape]``, as the task returns them.
            told_goals: ``int64[n]``, for goal-conditioned agents. By default the aligned goal.

        Raises:
            RequestError: the observations do not have the task's shape.
        """
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                if isinstance(output, Tensor):
                    found[name] = output.float()

            return hook

        of_trunk = hasattr(self.network, "trunk")
        layers = [
            (name, module)
            for name, module in self.network.named_modules()
            if (name.startswith("trunk.") if of_trunk else name)
        ]
        handles = [module.register_forward_hook(keep(name)) for name, module in layers]
        try:
            self._outputs(observations, told_goals)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def policy(self, random: torch.Generator) -> Policy:
        """Return the test-time policy. Its goal input is the aligned goal."""
        self.network.eval()
        return lambda observation: self.act(observation, random)

    def _outputs(self, observations: Tensor, told_goals: Tensor | None) -> dict[str, Tensor]:
        if tuple(observations.shape[1:]) != self.task.observation_shape:
            raise RequestError(
                f"Observations have the shape {tuple(observations.shape)}; task {self.task.id!r} has "
                f"(n, {', '.join(map(str, self.task.observation_shape))})."
            )
        if told_goals is None:
            told_goals = torch.zeros(len(observations), dtype=torch.int64, device=observations.device)
        self.network.eval()
        with torch.no_grad():
            outputs: dict[str, Tensor] = self.network(self.hooks.observe(observations, told_goals))
        for name in (LOGITS, VALUES):
            if not bool(torch.isfinite(outputs[name]).all()):
                raise NonFiniteError(f"The network's {name} hold NaN or infinity at evaluation.")
        return outputs


class NoRollouts:
    """Takes the place of a trainer: an agent at test time plays no extra rollouts."""

    def extra_rollout(self, levels: Levels) -> Rollout:
        """Refuse.

        Raises:
            HookError: always.
        """
        raise HookError("The mitigation asked for a rollout, but this agent is not in training; ask only in training.")

    def steps_left(self) -> int:
        """Return 0."""
        return 0


def build_agent(
    task: Task[Any],
    mitigation: Mitigation,
    training: TrainingConfig,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    alpha: float = 0.0,
    sampling: Sampling = "sampled",
) -> Agent:
    """Rebuild an agent from its weights.

    Args:
        task: the task it plays.
        mitigation: a fresh instance.
        training: the settings that it was trained with.
        weights: weights of the network.
        state: what the mitigation's ``state_dict`` returned.
        alpha: the disambiguation rate that it was trained at.
        sampling: how it chooses actions.

    Raises:
        HookError: a hook of the mitigation is at fault.
        RuntimeError: the weights do not fit the network.
    """
    hooks = Hooks(mitigation, task)
    streams = {name: generator("agent", task.id, name) for name in ("mitigation", "levels")}
    hooks.setup(
        Context(
            task,
            type(mitigation).uses,
            alpha=alpha,
            training=training,
            generator=streams["mitigation"],
            level_generator=streams["levels"],
            rollouts=NoRollouts(),
        )
    )
    network = build_network(hooks, training, 0, torch.device("cpu"))
    network.load_state_dict(dict(weights))
    hooks.load_state_dict(state)
    return Agent(task, hooks, network, sampling)


def build_network(hooks: Hooks, training: TrainingConfig, seed: int, device: torch.device) -> nn.Module:
    """Return a mitigation's network with fresh weights.

    Args:
        hooks: hooks of the mitigation.
        training: the settings of the network.
        seed: seed of the initial weights.
        device: device of the network.

    Raises:
        HookError: the mitigation returns no network that fits its task.
    """
    observation = torch.zeros(1, *hooks.task.observation_shape, device=device)
    inputs = hooks.observe(observation, torch.zeros(1, dtype=torch.int64, device=device))
    spec = ModuleSpec(
        observation_shape=tuple(inputs.shape[1:]),
        num_actions=hooks.task.num_actions,
        network=training.network,
        hidden_sizes=training.hidden_sizes,
        width=training.width,
        bf16=training.bf16,
        builder=build,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = hooks.build_module(spec)
    network.to(device)
    hooks.check_network(network, inputs)
    return network
