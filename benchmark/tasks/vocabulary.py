"""Terms that every task uses: case, goals, splits and the outcomes of an episode. It does not import torch."""

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
"""Discount at which reference policies plan, if a plan depends on it. The published grid worlds use it."""

CertificateClass = Literal["exact", "correlated", "scripted", "preference"]
"""The kind of proof that a task measures what it claims."""


@dataclasses.dataclass(frozen=True)
class Case:
    """The description of a misgeneralization risk that a task makes executable."""

    system: str
    """The deployed system."""
    aligned_goal: str
    """What its makers want."""
    proxy_goals: tuple[str, ...]
    """What it may learn to want instead."""
    shift: str
    """The change of distribution that separates the goals."""
    harm: str
    """The harm if it is deployed all the same."""
    training_change: str
    """A change to the training distribution that would reduce the risk."""
    evaluation_change: str
    """A change to the evaluation that would show the risk before deployment."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """Something that an episode can achieve and be rewarded for."""

    name: str
    role: Literal["aligned", "proxy", "candidate"]
    """``candidate`` goals do not coincide with the aligned one in training. Goal-conditioned methods may use them."""
    terminal: bool
    """Whether achieving it ends an episode that is rewarded for it."""


@dataclasses.dataclass(frozen=True)
class SmallPlan:
    """A size and a budget at which a task trains in seconds, for the suite ``smoke`` and for first tries."""

    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The task's own parameters."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of ``TrainingConfig`` that differ from the settings that suit most small tasks."""


@dataclasses.dataclass(frozen=True)
class SamplingTraits:
    """The cost of drawing levels."""

    expected_share: float = 0.75
    """Expected share of admissible levels among the drawn ones, used before the first draw."""
    spare_levels: int = 16
    """Levels drawn beyond the expected need. None if a level is expensive."""


@dataclasses.dataclass(frozen=True)
class EvaluationTraits:
    """How the episodes of an evaluation are drawn and played."""

    paired_splits: bool = False
    """Whether all splits use the same random stream, so that they show the same levels in different ways."""
    together: int | None = None
    """Most episodes played in parallel. None for all of them."""
    settled_by_first_event: bool = False
    """Whether an episode ends with its first event of the aligned goal or a proxy. That event names its outcome."""
