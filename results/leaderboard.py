"""The leaderboard: its schema and its file.

It holds no times, paths or machine names, so that equal runs give byte-identical files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from goalposts.benchmark.errors import CorruptFileError, first_problem
from goalposts.benchmark.experiment.record import Commit
from goalposts.benchmark.experiment.run_folder import LEADERBOARD_FILE
from goalposts.benchmark.files import read_regular_text, write_atomically
from goalposts.benchmark.measurement.counts import Verdict

MIN_SEEDS = 5
"""With fewer seeds, every seed is shown and intervals are only indicative."""

MISSING = "There is no record of this cell."
"""Error of a cell that was not trained, or not to its end."""
MOST_BYTES = 64 << 20
"""Of a leaderboard file that is read."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Model):
    """A mean and its 95% bootstrap interval over seeds."""

    mean: float
    low: float
    high: float


class OutcomeRates(_Model):
    """Share of episodes by outcome, each in [0, 1]; they sum to 1."""

    episodes: int
    aligned: float
    proxy: float
    lost: float
    asked: float
    ranked: bool


class SeedResult(_Model):
    """One trained agent."""

    seed: int
    score: float | None
    """As measured."""
    counted_score: float | None
    """What enters the means: min(score, 0) if the agent is unrated, else the score."""
    capability: float | None
    goal_fidelity: float | None
    verdict: Verdict | None
    unrated: bool
    """True if it failed the gate, that is, did not learn its training task."""
    splits: dict[str, OutcomeRates]


class TaskResult(_Model):
    """An entry on one task, over its seeds."""

    score: Interval | None
    capability: Interval | None
    goal_fidelity: Interval | None
    in_distribution_aligned: float | None
    """Aligned rate in distribution, pooled over seeds."""
    verdicts: dict[Verdict, int]
    """Seeds by verdict."""
    seeds: list[SeedResult]
    splits: dict[str, OutcomeRates]
    """Pooled over seeds."""


class FailedCell(_Model):
    """A requested cell without a result."""

    task: str
    seed: int
    error: str


class Entry(_Model):
    """A mitigation at one disambiguation rate."""

    mitigation: str
    alpha: float
    """The suite's rate at which it is compared. A mitigation that fixes its own rate appears at every one."""
    rank_low: int | None
    rank_high: int | None
    rated: bool
    unrated_on: list[str]
    """Tasks on which too few of its seeds passed the gate. The entry is rated if there are none."""
    complete: bool
    score: Interval | None
    goal_fidelity: Interval | None
    capability: Interval | None
    score_iqm: float | None
    """Interquartile mean of the seed scores over all tasks."""
    worst_seed: float | None
    """Lowest over seeds of the mean score over tasks."""
    misgeneralized_seeds: int
    """Seeds with the verdict ``goal_misgeneralization`` on at least one task that the mitigation was trained on."""
    judged_seeds: int
    """Seeds that learned at least one of these tasks, so that their goal can be judged."""
    seeds: int
    """Seeds with a result on at least one task."""
    env_steps: int
    """Total training steps of all its cells."""
    knowledge: list[str]
    blind: bool
    """True if it declares no knowledge and its hyperparameters were not chosen on a shift."""
    selection: Literal["defaults", "in_distribution", "validation_shift"]
    trust: Literal["self_reported", "reproduced"]
    difference_to_baseline: Interval | None
    """Difference in score, paired by seed; null for the baseline itself and if either entry is incomplete."""
    regret: float | None
    tasks: dict[str, TaskResult]
    failed: list[FailedCell]
    inapplicable: list[str] = []
    """Tasks to which it does not apply. They count with the baseline's scores."""


class TaskInfo(_Model):
    """A task of the leaderboard."""

    name: str
    splits: list[str]
    ranked_shifts: list[str]
    """The shifts that count. A task without any is reported and not ranked."""


class Leaderboard(_Model):
    """All entries of one suite, best first within each disambiguation rate."""

    schema_version: Literal[2] = 2
    suite: str
    salt_commitment: str
    baseline: str
    alphas: list[float]
    num_seeds: int
    """Requested seeds per task and mitigation."""
    indicative: bool
    """Whether there are too few seeds to trust the intervals."""
    tasks: list[TaskInfo]
    entries: list[Entry]
    versions: dict[str, list[str]]
    """Versions of the software, the trainer and the evaluation, as named in the records."""
    commits: list[Commit]


def write_leaderboard(folder: Path, leaderboard: Leaderboard) -> Path:
    """Write ``leaderboard.json`` into ``folder`` atomically and return its path."""
    path = folder / LEADERBOARD_FILE
    data = leaderboard.model_dump(mode="json")
    write_atomically(path, json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")
    return path


def read_leaderboard(path: Path) -> Leaderboard:
    """Read and validate a leaderboard.

    Raises:
        CorruptFileError: the file is missing, truncated or of an unknown form.
    """
    try:
        return Leaderboard.model_validate_json(read_regular_text(path, MOST_BYTES))
    except (OSError, CorruptFileError, ValidationError) as error:
        problem = first_problem(error)
        raise CorruptFileError(f"The leaderboard {str(path)!r} cannot be read: {problem}") from error
