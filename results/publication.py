"""Published entries: a file for each mitigation with one record a line, and the leaderboard built from them.

The records may come from anybody, so every line is validated. It must match its checksum and the schema. Its figures
must follow from its counts. Its settings and budget must be the suite's. A record cannot show whether its counts are
what really came out, nor whether a plugin had more knowledge than it declares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from goalposts.benchmark.canonical import canonical_json
from goalposts.benchmark.catalogue import task_card
from goalposts.benchmark.errors import CorruptFileError, RequestError
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.record import CellKey, Record
from goalposts.benchmark.experiment.run_folder import SUITE_FILE
from goalposts.benchmark.experiment.suite import (
    FACTORS,
    Suite,
    TaskPlan,
    get_suite,
    read_suite,
    released_ids,
    suite_toml,
)
from goalposts.benchmark.files import read_regular_text, write_atomically
from goalposts.benchmark.measurement import scores
from goalposts.benchmark.measurement.counts import SplitResult
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, salt_commitment
from goalposts.benchmark.plain import one_line
from goalposts.results.leaderboard import write_leaderboard
from goalposts.results.ranking import build_leaderboard

MOST_BYTES = 256 << 20
"""Of a published file that is read."""


def is_published(folder: Path) -> bool:
    """Return whether a folder holds published entries."""
    return folder.is_dir() and any(folder.glob("*.jsonl"))


def published_suite(folder: Path) -> Suite:
    """Return the suite of a folder, as named in its first entry. A suite of one's own lies beside the entries.

    Raises:
        CorruptFileError: the first entry is no record.
        RequestError: there is no such suite.
    """
    path = min(folder.glob("*.jsonl"))
    line, place = next(iter(_lines(path)), ("", f"in {str(path)!r}"))
    suite_id = records.from_json(line, place).cell.suite
    own = folder / SUITE_FILE
    return read_suite(own) if suite_id not in released_ids() and own.is_file() else get_suite(suite_id)


def _lines(path: Path) -> list[tuple[str, str]]:
    """Return the lines of a published file, each with a description of its place."""
    try:
        lines = read_regular_text(path, MOST_BYTES).splitlines()
    except (OSError, CorruptFileError) as error:
        raise CorruptFileError(f"The published file {str(path)!r} cannot be read: {error}.") from error
    return [(line, f"in line {i} of {str(path)!r}") for i, line in enumerate(lines, start=1)]


def read_published(folder: Path, suite: Suite) -> list[Record]:
    """Return all published records of ``suite``, by file and in the order of their lines.

    Raises:
        CorruptFileError: a line is no valid record, a file is no text, or two records contradict each other. The
            message names the place.
    """
    return _agreeing(record for records in _by_file(folder, suite).values() for record in records)


def _by_file(folder: Path, suite: Suite) -> dict[Path, list[Record]]:
    found: dict[Path, list[Record]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        found[path] = [_checked(records.from_json(line, place), suite, place) for line, place in _lines(path)]
    return found


def _checked(record: Record, suite: Suite, place: str) -> Record:
    """Return ``record``; raise if its figures do not follow from its counts or its settings are not the suite's."""
    plan = next((plan for plan in suite.tasks if plan.task == record.cell.task), None)
    problem = None
    if record.cell.suite != suite.id or plan is None:
        problem = f"is of the suite {record.cell.suite!r} and the task {record.cell.task!r}, not of {suite.id!r}"
    elif (problem := _unlike_suite(record, suite, plan)) is None and record.status == "done":
        problem = _fault_of_splits(plan.task, suite.episodes, record.splits)
        for name, value in scores.summary(record.splits).items() if problem is None else ():
            if not _agree(getattr(record, name), value):
                problem = f"says {name} {getattr(record, name)!r}; from its counts it is {value!r}"
        if not plan.training.env_steps <= record.env_steps < plan.training.most_env_steps:
            problem = f"trained for {record.env_steps:,} steps; the suite's budget is {plan.training.env_steps:,}"
        if record.cell.task in record.inapplicable:
            problem = f"says that its mitigation does not apply to {record.cell.task!r}, on which it was trained"
        if record.fixed_rate and "level_generator" not in record.knowledge:
            problem = "sets its own rate, and does not declare the knowledge 'level_generator'"
        if record.trust == "reproduced" and record.salt_commitment == salt_commitment(PUBLIC_SALT):
            problem = "says it was reproduced, which takes a secret salt, and was evaluated with the public one"
    if problem is not None:
        raise CorruptFileError(f"The record {place} {problem}; take it out.")
    return record


def _fault_of_splits(task: str, episodes: int, splits: Mapping[str, SplitResult]) -> str | None:
    """Return why a suite's evaluation cannot have come to ``splits``; None if it can."""
    card = task_card(task)
    if card is None:
        return f"is of the task {task!r}, which is not installed here"
    if set(splits) != set(card.splits):
        return f"has the splits {', '.join(sorted(splits))}; the task has {', '.join(sorted(card.splits))}"
    for name, one in splits.items():
        if one.episodes != episodes:
            return f"has {one.episodes:,} episodes of {name}; the suite has {episodes:,}"
        aligned, proxy = (round(rate * episodes) for rate in (one.aligned_reference, one.proxy_reference))
        if one.ranked != scores.is_ranked(card.rankable_shifts, name, aligned, proxy, episodes):
            return f"{'ranks' if one.ranked else 'does not rank'} {name}, against what its references say"
    return None


def _unlike_suite(record: Record, suite: Suite, plan: TaskPlan) -> str | None:
    """Return which setting of a record is not the suite's; None if all are."""
    own = next((one for one in suite.mitigations if one.name == record.cell.mitigation), None)
    config = record.config
    evaluation = {
        name: getattr(suite, name) for name in ("episodes", "milestones", "milestone_episodes", "sampling", "ask_share")
    }
    evaluation |= {"suite": suite.id, "task": record.cell.task, "parameters": plan.parameters, "selects": None}
    evaluation |= {"salt_commitment": record.salt_commitment, "task_version": config.task.version}
    found = config.training.model_dump(mode="json")
    training = plan.training.model_dump(mode="json")
    rollout = {name: training.pop(name) for name in ("num_envs", "num_steps")}  # Others where rollouts restart.
    for name in ("bf16", "overlap"):  # The machine decides.
        training.pop(name)
    if own is not None:
        training |= {name: training[name] * factor for name, factor in own.factors.items()}
    elif record.study is not None:  # A plugin from elsewhere may have been tuned, as the suite's own are.
        for name, (least, most) in FACTORS.items():
            value, own_value = getattr(config.training, name), getattr(plan.training, name)
            if not round(least * own_value, 9) <= round(value, 9) <= round(most * own_value, 9):
                return f"has training.{name} {found.get(name)!r}, beyond what tuning may make of the suite's"
            training.pop(name)
    expected = [
        ("task.parameters", config.task.parameters, plan.parameters),
        *((f"training.{name}", found.get(name), value) for name, value in training.items()),
        *((f"evaluation.{name}", getattr(config.evaluation, name), value) for name, value in evaluation.items()),
        ("sampling", record.sampling, suite.sampling),
    ]
    if own is not None:
        expected += [
            *((f"mitigation.{k}", config.mitigation.get(k), value) for k, value in own.hyperparameters.items()),
            ("selection", record.selection, own.selection),
            ("study", record.study, own.study),
        ]
    for name, value, wanted in expected:
        if canonical_json(value) != canonical_json(wanted):
            return f"has {name} {value!r}; the suite has {wanted!r}"
    if (record.selection == "defaults") != (record.study is None):
        return f"says selection {record.selection!r} and study {record.study!r}, of which there are both or neither"
    num_envs, num_steps = config.training.num_envs, config.training.num_steps
    together = math.prod(rollout.values())
    if num_envs * num_steps != together:
        return f"has rollouts of {num_envs!r} × {num_steps!r} steps; the suite has {together} together"
    if not record.fixed_rate and record.cell.alpha not in suite.alphas:
        return f"has the rate {record.cell.alpha:g}; the suite has {', '.join(f'{one:g}' for one in suite.alphas)}"
    named = records.cell_id_of(record.cell, config, record.plugin.sha256, record.device)
    return None if record.cell_id == named else f"is called {record.cell_id!r}; by its settings it is {named!r}"


def _agree(first: float | str | None, second: float | str | None) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-9)
    return first == second


def _agreeing(found: Iterable[Record]) -> list[Record]:
    """Return the records, after checking that they agree on each task and each mitigation.

    Raises:
        CorruptFileError: two records are of one cell or disagree. The message names both.
    """
    first: dict[tuple[str, str], tuple[str, Record]] = {}
    agreeing: dict[CellKey, Record] = {}
    for record in found:
        if (other := agreeing.setdefault(record.cell, record)) is not record:
            raise CorruptFileError(f"There are two records of {other.cell_id} ({record.cell_id}); take one out.")
        for about, said in ((record.cell.task, _of_task(record)), (record.cell.mitigation, _of_mitigation(record))):
            for what, value in said.items():
                before, of = first.setdefault((about, what), (value, record))
                if before != value:
                    raise CorruptFileError(
                        f"The records of {of.cell_id} and {record.cell_id} differ in {what} ({one_line(before)}; "
                        f"{one_line(value)}), and cannot be ranked together; take the wrong one out."
                    )
    return list(agreeing.values())


def _of_task(record: Record) -> dict[str, str]:
    """Return what must be equal in all records of a task."""
    return {
        "the task's version": str(record.config.task.version),
        "the evaluation's version": str(record.config.evaluation.version),
        **{
            f"references on {name}": f"{split.aligned_reference:g} and {split.proxy_reference:g}"
            for name, split in record.splits.items()
        },
    }


def _of_mitigation(record: Record) -> dict[str, str]:
    """Return what must be equal in all records of a mitigation, for every task, rate and seed."""
    names = ("plugin", "knowledge", "selection", "study", "fixed_rate", "inapplicable")
    said = record.model_dump(mode="json", include=set(names))
    return {
        **{name: canonical_json(said[name]) for name in names},
        "hyperparameters": canonical_json(record.config.mitigation),
    }


def publish(found: Iterable[Record], folder: Path, suite: Suite) -> list[Path]:
    """Add finished records to a suite's published ones, rebuild the leaderboard, and return the written files.

    A record replaces an earlier one of the same cell, in any file. Others stay. Nothing is written before everything is
    checked.

    Args:
        found: records of the suite. Records of failed cells are left out.
        folder: the suite's folder, such as ``results/published/quick-v1``.
        suite: the suite of the records.

    Raises:
        CorruptFileError: a published record cannot be read, or a new record contradicts it.
        RequestError: there is no finished record, or it was evaluated with another salt.
    """
    fresh = {one.cell: _checked(one, suite, f"of {one.cell_id}") for one in found if one.status == "done"}
    if not fresh:
        raise RequestError("There is no finished record; run the suite first.")
    files = _by_file(folder, suite)
    kept = {path: [one for one in published if one.cell not in fresh] for path, published in files.items()}
    changed = {path for path, published in files.items() if len(kept[path]) < len(published)}
    for record in fresh.values():
        path = folder / f"{quote(record.cell.mitigation, safe='')}.jsonl"  # No two mitigations share a file.
        kept.setdefault(path, []).append(record)
        changed.add(path)
    leaderboard = build_leaderboard(suite, _agreeing(record for path in sorted(kept) for record in kept[path]))
    folder.mkdir(parents=True, exist_ok=True)
    if suite.id not in released_ids():
        write_atomically(folder / SUITE_FILE, suite_toml(suite))
    for path in changed:
        if not kept[path]:
            path.unlink()
            continue
        own = sorted(kept[path], key=lambda record: tuple(record.cell.model_dump().values()))
        write_atomically(path, "".join(records.to_json(record) + "\n" for record in own))
    return [*sorted(path for path in changed if kept[path]), write_leaderboard(folder, leaderboard)]
