"""The command line and composition root: the only module that may import every package.

Heavy imports stay inside the commands, so that ``--help`` and errors come at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from typer.exceptions import TyperException

from benchmark.errors import CorruptFileError, GoalpostsError, RequestError

if TYPE_CHECKING:
    from benchmark.suites import Suite
    from cluster.cells import Cell
    from results.leaderboard import Leaderboard

EXIT_FAILED_CELL = 1
EXIT_WRONG_REQUEST = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="A benchmark of training mitigations for goal misgeneralization.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print clean JSON on standard output.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The output folder of a run.")]


class Listing(StrEnum):
    """What can be listed."""

    TASKS = "tasks"
    MITIGATIONS = "mitigations"
    SUITES = "suites"


@app.command()
def run(
    suite_name: Annotated[str, typer.Argument(metavar="SUITE", help="For example quick.")],
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/<suite>.")] = None,
    address: Annotated[str | None, typer.Option(metavar="RAY", help="A Ray cluster: host:port or auto.")] = None,
    gpus_per_cell: Annotated[
        float | None, typer.Option(metavar="F", help="Share of a GPU a cell takes; default 0.25 with CUDA, else 0.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Seeds 0 to N - 1.")] = None,
    task: Annotated[list[str] | None, typer.Option(metavar="T", help="Only this task; may be repeated.")] = None,
    mitigation: Annotated[
        list[str] | None, typer.Option(metavar="M", help="A registered name or path.py:Class; may be repeated.")
    ] = None,
    alpha: Annotated[
        list[float] | None, typer.Option(metavar="A", help="Disambiguation rate; may be repeated.")
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(metavar="S", help="Least time between two checkpoints of a cell.", min=0.0)
    ] = 5.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and stop.")] = False,
) -> None:
    """Train and evaluate a suite's cells, then rank the mitigations. The same command resumes."""
    from benchmark.measurement.evaluation import evaluation_salt, salt_commitment
    from benchmark.suites import get_suite
    from cluster.cells import Selection, cells_of

    suite = get_suite(suite_name)
    gpus = _gpus_per_cell(gpus_per_cell, local=address in (None, "local"))
    salt = evaluation_salt()
    selection = Selection(tuple(task or ()), tuple(mitigation or ()), tuple(alpha or ()), seeds)
    cells = cells_of(suite, selection, device="cuda" if gpus > 0 else "cpu", salt_commitment=salt_commitment(salt))
    if dry_run:
        _print_plan(suite, cells)
        return
    target = folder if folder is not None else Path("runs") / suite.name
    failed = _run(suite, cells, target, salt, address, gpus, checkpoint_seconds)
    if failed:
        raise typer.Exit(EXIT_FAILED_CELL)


def _gpus_per_cell(requested: float | None, *, local: bool) -> float:
    """Return the share of a GPU for each cell; by default a quarter where CUDA is to be had."""
    import torch

    if requested is None:
        return 0.25 if torch.cuda.is_available() else 0.0
    if not 0 <= requested <= 8 or (requested > 1 and requested % 1):
        raise RequestError(f"--gpus-per-cell is {requested!r}; give 0, a fraction below 1, or whole GPUs up to 8.")
    if requested > 0 and local and not torch.cuda.is_available():
        raise RequestError(
            f"--gpus-per-cell is {requested!r}, but this machine has no CUDA device; leave it out, or name a cluster "
            "with --address."
        )
    return requested


def _print_plan(suite: Suite, cells: list[Cell]) -> None:
    for cell in cells:
        out.print(f"{cell.cell_id}  {cell.plan.training.env_steps:,} steps", soft_wrap=True)
    total = sum(cell.plan.training.env_steps for cell in cells)
    out.print(f"{suite.id}: {len(cells)} cells, {total:,} environment steps")


def _run(
    suite: Suite,
    cells: list[Cell],
    folder: Path,
    salt: str,
    address: str | None,
    gpus: float,
    checkpoint_seconds: float,
) -> int:
    """Run ``cells`` into ``folder`` and publish the result there; return how many cells failed."""
    from cluster.cells import library_versions, source_commit
    from cluster.connection import connected
    from cluster.driver import claimed, run_cells
    from goalposts.mirroring import MirrorThread
    from goalposts.progress import RunDisplay
    from results.table import print_leaderboard

    folder = folder.absolute()
    with claimed(folder, suite.id, cells):
        mirror = MirrorThread(folder, suite.id)
        status: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
        try:
            with RunDisplay(err) as display:
                progress = run_cells(
                    cells,
                    folder,
                    salt=salt,
                    commit=source_commit(),
                    versions=library_versions(),
                    gpus_per_cell=gpus,
                    connect=lambda: connected(address),
                    observe=display.update,
                    notify=display.notify,
                    finished=mirror.log_cell,
                    checkpoint_seconds=checkpoint_seconds,
                )
            board = _publish(folder)
            mirror.log_leaderboard(board)
            failed = [entry for entry in progress if entry.state == "failed"]
            status = "FAILED" if failed else "FINISHED"
        finally:
            problem = mirror.finish(status)
        if problem is not None:
            err.print(f"MLflow could not be written ({problem}); records and leaderboard are complete.", style="yellow")
    print_leaderboard(out, board)
    for entry in failed:
        err.print(f"Failed: {entry.cell.cell_id}: {entry.error}", style="red", soft_wrap=True)
    _print_next_steps(suite, folder)
    return len(failed)


def _publish(folder: Path) -> Leaderboard:
    """Build the leaderboard and the site from the records of the cells that the folder was last run for.

    Raises:
        RequestError: the folder belongs to no run, or holds no record of it.
    """
    from benchmark import record
    from benchmark.suites import get_suite
    from benchmark.tasks import TASKS
    from cluster.driver import read_run
    from results.leaderboard import build_leaderboard, write_leaderboard
    from results.site import write_site, write_story_svg

    suite_id, cells = read_run(folder)
    suite = get_suite(suite_id)
    paths = [folder / "cells" / cell_id / "record.json" for cell_id, _ in cells]
    found = [record.read(path) for path in paths if path.exists()]
    records = [one for one in found if (one.cell_id, one.eval_id) in cells]
    board = build_leaderboard(suite, records, list(cells.values()))
    write_leaderboard(folder, board)
    page = write_site(folder, board, suite, {name: dataclasses.asdict(task.case) for name, task in TASKS.items()})
    write_story_svg(page.with_name("capability_fidelity.svg"), board)
    return board


def _print_next_steps(suite: Suite, folder: Path) -> None:
    site = folder / "site" / "index.html"
    out.print(f"Leaderboard page:  {site.as_uri()}", soft_wrap=True)
    store = shlex.quote(f"sqlite:///{folder / 'mlflow.db'}")
    out.print(f"Training curves:   {_command('mlflow')} ui --backend-store-uri {store}", soft_wrap=True)
    example = f"{_command('goalposts')} run {suite.name} --mitigation none --mitigation path/to/yours.py:Class"
    out.print(f"Your mitigation:   {example} --out runs/mine", soft_wrap=True)


def _command(name: str) -> str:
    """Return how to call an installed command: by its name where it is on the path, else by its place."""
    import shutil

    beside = Path(sys.executable).parent / name
    if shutil.which(name) is not None or not beside.exists():
        return name
    try:
        return shlex.quote(str(beside.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(beside))


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="tasks, mitigations or suites.")], as_json: JsonOption = False
) -> None:
    """List the tasks, the installed mitigations or the suites."""
    rows = {Listing.TASKS: _tasks, Listing.MITIGATIONS: _mitigations, Listing.SUITES: _suites}[what]()
    if as_json:
        print(json.dumps(rows, indent=2, sort_keys=True))  # noqa: T201 (JSON must not pass through rich)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(
            *(", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in row.values())
        )
    out.print(table)


def _tasks() -> list[dict[str, Any]]:
    from benchmark.tasks import TASKS

    return [
        {
            "task": name,
            "version": task.version,
            "aligned_goal": task.case.aligned_goal,
            "proxy_goals": list(task.case.proxy_goals),
            "shift": task.case.shift,
        }
        for name, task in sorted(TASKS.items())
    ]


def _mitigations() -> list[dict[str, Any]]:
    from benchmark.plugins import load_plugin, registered

    rows = []
    for name in sorted(registered()):
        try:
            cls = load_plugin(name).cls
        except RequestError as error:
            err.print(str(error), style="yellow", soft_wrap=True)
            continue
        told = sorted(flag.value for flag in cls.uses)
        summary = (cls.__doc__ or "").strip().splitlines()
        rows.append(
            {"mitigation": name, "version": cls.version, "told": told or ["nothing"], "summary": (summary or [""])[0]}
        )
    return rows


def _suites() -> list[dict[str, Any]]:
    from benchmark.suites import SUITES

    return [
        {
            "suite": suite.id,
            "tasks": [plan.task for plan in suite.tasks],
            "mitigations": [plan.name for plan in suite.mitigations],
            "alphas": list(suite.alphas),
            "seeds": suite.seeds,
            "description": suite.description,
        }
        for suite in SUITES.values()
    ]


@app.command()
def leaderboard(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Rebuild the leaderboard of a run from its records, and print it."""
    from results.table import print_leaderboard

    board = _publish(folder.absolute())
    if as_json:
        print(json.dumps(board.model_dump(mode="json"), indent=2, sort_keys=True))  # noqa: T201
        return
    print_leaderboard(out, board)


@app.command()
def site(folder: FolderArgument) -> None:
    """Rebuild the static page of a run from its records, and print its address."""
    _publish(folder.absolute())
    out.print((folder.absolute() / "site" / "index.html").as_uri(), soft_wrap=True)


def _raise_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; user errors are one line and an exit code, never a traceback."""
    warnings.filterwarnings("ignore")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_interrupt)
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = app(arguments, standalone_mode=False)
    except TyperException as error:
        code = _complain(f"{error.format_message()} Try 'goalposts --help'.")
    except (RequestError, CorruptFileError) as error:
        code = _complain(str(error))
    except GoalpostsError as error:
        _complain(str(error))
        code = EXIT_FAILED_CELL
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        _complain(f"{error}. Mend that and run the same command again: it goes on where it stopped.")
        code = EXIT_FAILED_CELL
    if code == EXIT_INTERRUPTED:
        err.print("Interrupted. Nothing is lost: the same command goes on from the last checkpoints.")
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> int:
    err.print(f"Error: {' '.join(message.split())}", soft_wrap=True)
    return EXIT_WRONG_REQUEST
