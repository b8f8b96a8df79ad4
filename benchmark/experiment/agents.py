"""Agents as files: loads one from a finished cell or a released file, and writes such a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from goalposts.benchmark.agent import Agent, build_agent
from goalposts.benchmark.errors import CorruptFileError, GoalpostsError, RequestError
from goalposts.benchmark.experiment import record as records
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.run_folder import CellFolder
from goalposts.benchmark.files import read_regular, write_atomically
from goalposts.benchmark.plugins.hooks import Hooks
from goalposts.benchmark.plugins.registry import LoadedPlugin, load_plugin
from goalposts.benchmark.tasks.registry import load_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tensor_files import MOST_BYTES, parse_state, state_bytes
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.config import TrainingConfig

NETWORK, MITIGATION = "network", "mitigation"
"""Parts of an agent's state: the weights, and the state of its mitigation."""
_FORMAT, _RECORD = "goalposts_agent", "record"
FORMAT = "1"
"""Version of the format of an agent's file."""


class TrainedAgent(Agent):
    """An agent with the record of its training.

    Args:
        task: the task it plays.
        hooks: calls its mitigation's hooks.
        network: its network.
        record: record of the cell that it comes from.
        changed: whether the files of its mitigation have changed since.
    """

    def __init__(self, task: Task[Any], hooks: Hooks, network: nn.Module, record: Record, *, changed: bool) -> None:
        super().__init__(task, hooks, network, record.sampling)
        self.record = record
        self.changed = changed

    @property
    def name(self) -> str:
        """Its name where episodes are shown."""
        key = self.record.cell
        return f"{key.mitigation} α={key.alpha:g} seed {key.seed}"


def load_agent(path: str | os.PathLike[str], *, task: str | None = None, mitigation: str | None = None) -> TrainedAgent:
    """Load an agent.

    Args:
        path: the folder of a finished cell (``RUN/cells/CELL``), or a file of ``goalposts agent export``.
        task: ``path.py:Class`` of its task, if that is not registered.
        mitigation: ``path.py:Class`` of its mitigation, if that is not registered.

    Raises:
        RequestError: there is no agent, or it does not fit the installed code.
    """
    place = Path(path)
    try:
        record, state = _from_folder(place) if place.is_dir() else _from_file(place)
    except CorruptFileError as error:
        mend = "Run the cell again." if place.is_dir() else "Get the file again."
        raise RequestError(f"{error} {mend}") from error
    return _rebuilt(str(path), record, state, task, mitigation)


def export_agent(cell: str | os.PathLike[str], path: str | os.PathLike[str]) -> Record:
    """Write the agent of a finished cell as one file, and return its record.

    Args:
        cell: the folder of the cell.
        path: the file, which should end in ``.safetensors``.

    Raises:
        RequestError: the folder holds no finished cell, or the file cannot be written.
    """
    folder = Path(cell)
    try:
        record, state = _from_folder(folder)
    except CorruptFileError as error:
        raise RequestError(f"{error} Run the cell again.") from error
    try:
        write_atomically(Path(path), state_bytes({_FORMAT: FORMAT, _RECORD: records.to_json(record), **state}))
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise RequestError(f"The file {str(path)!r} {problem}; give another path.") from error
    return record


def _from_file(path: Path) -> tuple[Record, dict[str, Any]]:
    if not path.is_file():
        raise RequestError(f"There is no agent {str(path)!r}; give a file, or the folder of a cell, RUN/cells/CELL.")
    try:
        state = parse_state(read_regular(path.resolve(), MOST_BYTES))
    except CorruptFileError as error:
        hint = "write one with 'goalposts agent export'"
        raise RequestError(f"The file {str(path)!r} holds no agent ({error}); {hint}.") from error
    if state.get(_FORMAT) != FORMAT or {NETWORK, MITIGATION} - state.keys():
        raise RequestError(f"The file {str(path)!r} holds no agent; write one with 'goalposts agent export'.")
    return records.from_json(str(state.get(_RECORD)), f"in {str(path)!r}"), state


def _from_folder(folder: Path) -> tuple[Record, dict[str, Any]]:
    """Return the record of a finished cell, and the state of its agent."""
    cell = CellFolder(folder)
    if not cell.record.exists():
        if found := sorted(one.name for one in (folder / "cells").glob("*") if CellFolder(one).record.exists()):
            raise RequestError(
                f"{str(folder)!r} is a whole run; give one of its cells, {folder / 'cells'}/: {', '.join(found)}."
            )
        raise RequestError(f"{str(folder)!r} holds no finished cell: there is no record.json; finish its run first.")
    record = records.read(cell.record)
    if record.status != "done":
        raise RequestError(f"The cell {str(folder)!r} failed ({record.error}); fix that and run it again.")
    loaded = checkpoint.load_part(cell.checkpoint, ("module", "mitigation"))
    if loaded is None:
        raise RequestError(f"The cell {str(folder)!r} no longer has a checkpoint; run it again in another folder.")
    state, digest = loaded
    if digest != record.checkpoint_sha256:
        raise RequestError(f"The checkpoint in {str(folder)!r} is not the one its record names; run the cell again.")
    return record, {NETWORK: state["module"], MITIGATION: state["mitigation"]}


def _rebuilt(
    place: str, record: Record, state: dict[str, Any], task_reference: str | None, mitigation: str | None
) -> TrainedAgent:
    key, config = record.cell, record.config
    if task_reference is None and config.task.sha256 is not None and ":" not in key.task:
        _check_registered(place, key.task)
    cls = load_task(task_reference or key.task).cls
    if cls.id != key.task:
        raise RequestError(f"The agent of {place!r} plays {key.task!r}, not {cls.id!r}; give that task.")
    if config.task.version != cls.version:
        raise RequestError(
            f"The agent of {place!r} plays version {config.task.version} of task {key.task!r}, which is now at version "
            f"{cls.version}; run the cell again."
        )
    plugin = _plugin(place, record, mitigation)
    task = cls(**config.task.parameters)
    training = TrainingConfig.model_validate(config.training.model_dump(exclude={"version"}))
    try:
        agent = build_agent(
            task,
            plugin.cls(**plugin.hyperparameters(config.mitigation)),
            training,
            state[NETWORK],
            state[MITIGATION],
            alpha=key.alpha,
        )
    except (GoalpostsError, RuntimeError, KeyError) as error:
        problem = str(error).splitlines()[0]
        raise RequestError(
            f"The agent of {place!r} does not fit this version of the code ({problem}); run the cell again."
        ) from error
    changed = plugin.sha256 != record.plugin.sha256
    return TrainedAgent(task, agent.hooks, agent.network, record, changed=changed)


def _check_registered(place: str, task_id: str) -> None:
    try:
        load_task(task_id)
    except RequestError as error:
        raise RequestError(
            f"The agent of {place!r} plays {task_id!r}, which is not registered; give the task as path.py:Class."
        ) from error


def _plugin(place: str, record: Record, mitigation: str | None) -> LoadedPlugin:
    name = record.cell.mitigation
    if mitigation is None and ":" in name:
        raise RequestError(
            f"The agent of {place!r} was trained with the file {name!r}, and its record does not say where that is; "
            "give the mitigation as path.py:Class."
        )
    plugin = load_plugin(mitigation or name)
    if plugin.name != name:
        raise RequestError(
            f"The agent of {place!r} was trained with {name!r}, not with {plugin.name!r}; give that one."
        )
    return plugin
