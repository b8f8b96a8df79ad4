"""The evaluation plan: everything that determines an evaluation, in one object for cell, job and record."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from goalposts.benchmark.canonical import content_sha256
from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.measurement.counts import Frozen, Sampling

if TYPE_CHECKING:
    from goalposts.benchmark.tasks.task import Task

EVALUATION_VERSION = 1
"""Increased whenever equal weights would be evaluated to different counts."""
SALT_VARIABLE = "GOALPOSTS_EVAL_SALT"
PUBLIC_SALT = "public"

Selects = Literal["in_distribution", "validation_shift"]
"""The levels on which hyperparameters may be chosen."""


class EvaluationPlan(Frozen):
    """Everything that determines an evaluation of given weights."""

    version: int = EVALUATION_VERSION
    """Version of the code that evaluates."""
    suite: str
    """The suite whose levels are played. It is part of the key of their random stream."""
    task: str
    task_version: int
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The task's own parameters."""
    shifts: tuple[str, ...] = ()
    """The names of the task's shifts."""
    reference_rates: dict[str, tuple[float, float]] | None = None
    """Aligned rates of the two reference policies on each split, for tasks with rates measured once."""
    episodes: int = Field(gt=0)
    """Number of episodes on each split."""
    milestones: int = Field(0, ge=0)
    """How often the agent is evaluated during training, not counting the end."""
    milestone_episodes: int = Field(200, gt=0)
    """Number of episodes on each split at each milestone."""
    gamma: float = Field(ge=0, le=1)
    """Discount of the returns."""
    sampling: Sampling = "sampled"
    ask_share: float = Field(1.0, ge=0, le=1)
    """Largest share of the episodes that may receive help."""
    salt_commitment: str
    """Identifies the salt of the levels without revealing it."""
    selects: Selects | None = None
    """For tuning: the levels to evaluate on, in place of the splits."""

    @classmethod
    def of(cls, task: Task[Any], **settings: Any) -> EvaluationPlan:
        """Return the plan for a task as it is built now.

        Args:
            task: the task to evaluate on. The plan takes its id, version, parameters, shifts and reference rates.
            settings: the other fields.
        """
        rates = task.reference_rates
        return cls(
            task=task.id,
            task_version=task.version,
            parameters=task.parameters.model_dump(mode="json", exclude_unset=True),
            shifts=task.shifts,
            reference_rates=None if rates is None else dict(rates),
            **settings,
        )

    @property
    def id(self) -> str:
        """The hash of the plan."""
        return content_sha256(self.model_dump(mode="json"))[:16]


def evaluation_salt() -> str:
    """Return the salt of the evaluation levels: the public one, or the secret in ``GOALPOSTS_EVAL_SALT``.

    Raises:
        RequestError: the secret has fewer than 128 bits, or is not hexadecimal.
    """
    salt = os.environ.get(SALT_VARIABLE, PUBLIC_SALT)
    if salt != PUBLIC_SALT and (len(salt) < 32 or set(salt.lower()) - set("0123456789abcdef")):
        raise RequestError(
            f"{SALT_VARIABLE} must hold at least 32 random hexadecimal digits (128 bits), not {len(salt)} characters; "
            "make one with: openssl rand -hex 16"
        )
    return salt


def salt_commitment(salt: str) -> str:
    """Return a hash that identifies a salt without revealing it."""
    return hashlib.sha256(f"goalposts evaluation salt {salt}".encode()).hexdigest()
