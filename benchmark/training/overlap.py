"""Collects the next rollout while the learner updates on the last, for environments that step on the CPU.

Each rollout is played with the weights from before the update that runs at the same time. The policy therefore always
lags by one update. A checkpoint does not hold the rollout in progress: a resumed run collects it again from its start.

On a GPU the rollout is played in its own stream. Otherwise every read of its results would wait for the whole update.
The rollout begins after all earlier work on the GPU, and is handed over when it is complete. Its memory is freed when
the learner has read the losses of its update, and so has waited for the rollout.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.training.rollout import Collector

SHARED_HOOKS = ("relabel", "after_rollout", "sample_weights", "batch_columns", "extra_loss", "state_dict")
"""Hooks that see a rollout or the mitigation's state, which would change while the next rollout is being collected."""


def can_overlap(mitigation: type[Mitigation]) -> bool:
    """Return whether collecting and updating in parallel share no state of the mitigation."""
    return not mitigation.restart_rollouts and not any(mitigation.overrides(hook) for hook in SHARED_HOOKS)


class OverlappedCollector:
    """Runs a collector in its own thread.

    Args:
        collector: plays with ``actor``.
        actor: a copy of the learner's network.
        network: the learner's network.
        generators: the generators that collecting draws from.
    """

    def __init__(
        self,
        collector: Collector,
        actor: nn.Module,
        network: nn.Module,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        self.collector = collector
        self.actor = actor
        self.network = network
        self.generators = generators
        self.waited_seconds = 0.0
        """Seconds that the learner has waited for rollouts."""
        self._stream = torch.cuda.Stream(collector.device) if collector.device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="collector")
        self._coming: Future[Rollout] | None = None
        self._origin: dict[str, Any] | None = None
        """Everything that the rollout in progress depends on."""

    def collect(self, *, last: bool) -> Rollout:
        """Return a rollout played with the weights before the last update.

        Start another one unless this is the ``last``.
        """
        if self._coming is None:
            self._begin()
        assert self._coming is not None
        begun = time.perf_counter()
        rollout = self._coming.result()
        self.waited_seconds += time.perf_counter() - begun
        self._coming, self._origin = None, None
        if not last:
            self._begin()
        return rollout

    def _begin(self) -> None:
        self.actor.load_state_dict(self.network.state_dict())
        self._submit()

    def _submit(self) -> None:
        self._origin = self._now()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.collector.device))
        self._coming = self._thread.submit(self._play)

    def _play(self) -> Rollout:
        if self._stream is None:
            return self.collector.collect()
        with torch.cuda.stream(self._stream):
            rollout = self.collector.collect()
            self._stream.synchronize()
        return rollout

    def _now(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "collector": self.collector.state_dict(),
                "generators": {name: stream.get_state() for name, stream in self.generators.items()},
                "actor": self.actor.state_dict(),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state at the start of the rollout in progress."""
        if self._coming is None:
            return {**self._now(), "under_way": False}
        assert self._origin is not None
        return {**self._origin, "under_way": True}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned, and restart the rollout that was in progress."""
        self.actor.load_state_dict(state["actor"])
        for name, saved in state["generators"].items():
            self.generators[name].set_state(saved)
        self.collector.load_state_dict(state["collector"])
        self._coming, self._origin = None, None
        if state["under_way"]:
            self._submit()
