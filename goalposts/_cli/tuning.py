"""Tunes a mitigation: runs the trials on Ray, stores their results, and draws plots of them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from optuna.exceptions import ExperimentalWarning
from optuna.visualization import matplotlib as plots
from rich.console import Console

from goalposts._cli.progress import RunDisplay
from goalposts.benchmark.experiment.cell import Cell
from goalposts.benchmark.experiment.provenance import provenance
from goalposts.benchmark.experiment.record import Record
from goalposts.benchmark.experiment.run_folder import RunFolder
from goalposts.benchmark.files import write_atomically
from goalposts.cluster.connection import connected
from goalposts.cluster.driver import run_cells
from goalposts.cluster.tuning import StudyPlan, Tuned, counted, open_study, tune

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna import Study

TUNED_FILE = "tuned.json"


def tune_into(
    folder: Path, plan: StudyPlan, trials: int, *, salt: str, address: str | None, gpus_per_cell: float, err: Console
) -> Tuned:
    """Run a study in ``folder`` until it has ``trials`` trials, and write ``tuned.json`` and its plots there.

    Raises:
        RequestError: the folder belongs to something else, or no trial was completed.
    """
    run_folder = RunFolder(folder)
    with run_folder.claimed(plan.study, ()):
        study = open_study(plan, folder)
        with connected(address) if len(counted(study)) < trials else contextlib.nullcontext():

            def run(cells: Sequence[Cell]) -> Mapping[str, Record]:
                records: dict[str, Record] = {}
                with RunDisplay(err) as display:
                    run_cells(
                        cells,
                        run_folder,
                        salt=salt,
                        driver=provenance(plan.device),
                        gpus_per_cell=gpus_per_cell,
                        connect=contextlib.nullcontext,
                        observe=display.update,
                        notify=display.notify,
                        finished=lambda record: records.update({record.cell_id: record}),
                        checkpoint_seconds=5.0,
                    )
                return records

            tuned = tune(plan, study, trials, run, lambda line: err.print(line, soft_wrap=True))
        write_atomically(folder / TUNED_FILE, json.dumps(tuned_json(tuned), indent=2, sort_keys=True) + "\n")
        write_plots(study, folder)
    return tuned


def tuned_json(tuned: Tuned) -> dict[str, Any]:
    """Return the choice as JSON values. ``plan`` has the form for a suite."""
    return {**dataclasses.asdict(tuned), "plan": tuned.plan.model_dump(mode="json")}


def write_plots(study: Study, folder: Path) -> None:
    """Draw ``history.png`` and, once trials can be compared, ``importance.png`` of the study's parameters."""
    drawings: dict[str, Callable[[Study], Axes]] = {"history": plots.plot_optimization_history}
    if len({trial.value for trial in study.trials if trial.value is not None}) > 1:
        drawings["importance"] = plots.plot_param_importances
    for name, draw in drawings.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            figure = draw(study).get_figure(root=True)
        assert figure is not None
        content = io.BytesIO()
        figure.savefig(content, format="png", bbox_inches="tight", dpi=120)
        write_atomically(folder / f"{name}.png", content.getvalue())
        plt.close(figure)
