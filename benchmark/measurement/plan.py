"""The evaluation plan: all that determines an evaluation, in one object that travels with cell, job and record."""

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
"""Raised whenever equal weights would be evaluated to other counts than before."""
SALT_VARIABLE = "GOALPOSTS_EVAL_SALT"
PUBLIC_SALT = "public"

Selects = Literal["in_distribution", "validation_shift"]
"""What hyperparameters may be chosen on."""


class EvaluationPlan(Frozen):
    """What determines an evaluation of given weights."""

    version: int = EVALUATION_VERSION
    """Of the code that evaluates."""
    suite: str
    """Whose levels are played; it is in the key of their random stream."""
    task: str
    task_version: int
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The task's own."""
    shifts: tuple[str, ...] = ()
    """The names of the task's shifts."""
    reference_rates: dict[str, tuple[float, float]] | None = None
    """Aligned rates of the two references on each split, for tasks whose references were measured once."""
    episodes: int = Field(gt=0)
    """Of each split."""
    milestones: int = Field(0, ge=0)
    """How often the agent is evaluated in the course of training, the end not counted."""
    milestone_episodes: int = Field(200, gt=0)
    """Of each split, at each of them."""
    gamma: float = Field(ge=0, le=1)
    """Discount of the returns."""
    sampling: Sampling = "sampled"
    ask_share: float = Field(1.0, ge=0, le=1)
    """Largest share of the episodes that are given help."""
    salt_commitment: str
    """Names the salt of the levels without giving it away."""
    selects: Selects | None = None
    """For tuning: what is evaluated instead of the splits."""

    @classmethod
    def of(cls, task: Task[Any], **settings: Any) -> EvaluationPlan:
        """Return the plan for a task as it is built now.

        Args:
            task: what is evaluated on; the plan takes its id, version, parameters, shifts and reference rates.
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
    """Return the salt of the evaluation levels: the public one, or the secret one in ``GOALPOSTS_EVAL_SALT``.

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
    """Return the hash that names a salt without giving it away."""
    return hashlib.sha256(f"goalposts evaluation salt {salt}".encode()).hexdigest()
