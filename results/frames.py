"""Results in a notebook: records as a pandas frame, and leaderboards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.tasks.vocabulary import OUTCOMES
from goalposts.results.leaderboard import Leaderboard
from goalposts.results.leaderboard import read_leaderboard as read_file
from goalposts.results.reading import read_results

if TYPE_CHECKING:
    import pandas as pd


def read_records(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a frame with a row for each finished cell and split.

    Args:
        path: the output folder of a run, or a suite's published records.

    Returns:
        These columns. Of the cell: ``suite``, ``task``, ``mitigation``, ``alpha``, ``seed``, ``cell_id``. Its result:
        ``score``, ``capability``, ``goal_fidelity``, ``verdict``, ``env_steps``. Of the split: ``split`` (its name),
        ``ranked``, ``episodes``, and rates in [0, 1]: ``aligned``, ``proxy``, ``lost``, ``asked``,
        ``aligned_reference``, ``proxy_reference``.

    Raises:
        CorruptFileError: a record is damaged.
        RequestError: the folder holds no results.
    """
    import pandas as pd

    results = read_results(Path(path))
    return pd.DataFrame([row for record in results.records if record.status == "done" for row in _rows(record)])


def _rows(record: Record) -> list[dict[str, Any]]:
    cell = {
        **record.cell.model_dump(),
        "cell_id": record.cell_id,
        **{name: getattr(record, name) for name in ("score", "capability", "goal_fidelity", "verdict", "env_steps")},
    }
    return [
        {
            **cell,
            "split": name,
            "ranked": split.ranked,
            "episodes": split.episodes,
            **{outcome: getattr(split, outcome) / split.episodes for outcome in OUTCOMES},
            "aligned_reference": split.aligned_reference,
            "proxy_reference": split.proxy_reference,
        }
        for name, split in record.splits.items()
    ]


def read_leaderboard(path: str | os.PathLike[str]) -> Leaderboard:
    """Return a leaderboard: that of a file, or the one that the records of a folder make up.

    Raises:
        CorruptFileError: the file or a record is damaged.
        RequestError: the folder holds no results.
    """
    place = Path(path)
    return read_results(place).leaderboard() if place.is_dir() else read_file(place)
