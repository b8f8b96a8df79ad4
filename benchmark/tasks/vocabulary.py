"""The words of every task: its case, its goals, its splits and the outcomes of an episode. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

IN_DISTRIBUTION = "in_distribution"
BENIGN_SHIFT = "benign_shift"
VALIDATION_SHIFT = "validation_shift"

ALIGNED, PROXY, LOST, ASKED = range(4)
"""Outcome codes of an evaluated episode."""
OUTCOMES = ("aligned", "proxy", "lost", "asked")

PLANNING_GAMMA = 0.999
"""Discount at which reference policies plan, where a plan depends on it: that of the published grid worlds."""

CertificateClass = Literal["exact", "correlated", "scripted", "preference"]
"""What kind of proof a task gives that it measures what it says."""


@dataclasses.dataclass(frozen=True)
class Case:
    """The description of a misgeneralization risk that a task makes executable."""

    system: str
    """What is deployed."""
    aligned_goal: str
    """What its makers want."""
    proxy_goals: tuple[str, ...]
    """What it may learn to want instead."""
    shift: str
    """The change of distribution that tells them apart."""
    harm: str
    """What happens if it is deployed all the same."""
    training_change: str
    """A change to the training distribution that would reduce the risk."""
    evaluation_change: str
    """A change to the evaluation that would show the risk before deployment."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """Something an episode can achieve, and be rewarded for."""

    name: str
    role: Literal["aligned", "proxy", "candidate"]
    """``candidate`` goals do not coincide with the aligned one in training; goal-conditioned methods may use them."""
    terminal: bool
    """Whether achieving it ends an episode that is rewarded for it."""


@dataclasses.dataclass(frozen=True)
class SmallPlan:
    """A size and a budget at which a task trains in seconds: for the suite ``smoke`` and for first tries."""

    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The task's own parameters."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of ``TrainingConfig`` that differ from those that suit most small tasks."""


@dataclasses.dataclass(frozen=True)
class SamplingTraits:
    """What drawing levels costs."""

    expected_share: float = 0.75
    """Share of drawn levels that are expected to be admissible, before the first is drawn."""
    spare_levels: int = 16
    """Levels drawn beyond those expected to be needed; none where a level is expensive."""


@dataclasses.dataclass(frozen=True)
class EvaluationTraits:
    """How the episodes of an evaluation are drawn and played."""

    paired_splits: bool = False
    """Whether all splits are drawn from the same stream, so that they show the same levels in different ways."""
    together: int | None = None
    """Most episodes that are played side by side; None for all of them."""
    settled_by_first_event: bool = False
    """Whether an episode ends with its first event of the aligned goal or of a proxy, which names its outcome."""
