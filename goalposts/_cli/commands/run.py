"""Train and evaluate a suite's cells, then rank the mitigations. The same command resumes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.exit_codes import FAILED
from goalposts._cli.options import AddressOption, GpusOption, RatesOption, TasksOption, gpus_per_cell, is_local
from goalposts._cli.printing import command, err, out
from goalposts._cli.probe import refuse_silent_ends
from goalposts.benchmark.errors import RequestError

MOST_SEEDS = 1000
MOST_GIGABYTES = 1_000_000

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def run(
    suite_name: Annotated[str, typer.Argument(metavar="SUITE", help="A name such as quick, or a .toml file.")],
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/<suite>.")] = None,
    address: AddressOption = None,
    share: GpusOption = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Seeds 0 to N - 1.", min=1, max=MOST_SEEDS)] = None,
    task: TasksOption = None,
    mitigation: Annotated[
        list[str] | None, typer.Option(metavar="M", help="A registered name or path.py:Class; may be repeated.")
    ] = None,
    alpha: RatesOption = None,
    tuned: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The tuned.json of 'goalposts tune' for a mitigation; may be repeated."),
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(metavar="S", help="Least time between two checkpoints of a cell.", min=0.0, max=86_400)
    ] = 5.0,
    max_disk: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Delete checkpoints of finished cells to keep DIR below this; else stop."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and the estimated time, and stop.")
    ] = False,
) -> None:
    from goalposts.benchmark.experiment.matrix import Selection, cells_of
    from goalposts.benchmark.experiment.suite import get_suite, read_tuned
    from goalposts.benchmark.measurement.plan import evaluation_salt, salt_commitment

    suite = get_suite(suite_name)
    most_bytes = _disk_bytes(max_disk)
    gpus = gpus_per_cell(share, address)
    salt = evaluation_salt()
    plans = tuple(read_tuned(path) for path in tuned or ())
    refuse_silent_ends(*(mitigation or ()), *(task or ()))
    selection = Selection(tuple(task or ()), tuple(mitigation or ()), tuple(alpha or ()), seeds, plans)
    cells = cells_of(suite, selection, device="cuda" if gpus > 0 else "cpu", salt_commitment=salt_commitment(salt))
    if dry_run:
        if not is_local(address):
            raise RequestError(f"--dry-run measures this machine, not the cluster at {address!r}; leave out --address.")
        from goalposts._cli.running import print_plan

        print_plan(suite, cells, gpus, out=out, err=err)
        return
    from goalposts._cli.running import run_into
    from goalposts.benchmark.experiment.run_folder import RunFolder
    from goalposts.results.table import print_leaderboard

    target = (folder if folder is not None else Path("runs") / suite.name).absolute()
    board, records, failed = run_into(
        RunFolder(target),
        suite,
        cells,
        salt=salt,
        address=address,
        gpus_per_cell=gpus,
        checkpoint_seconds=checkpoint_seconds,
        max_disk_bytes=most_bytes,
        err=err,
    )
    print_leaderboard(out, board, records)
    for entry in failed:
        err.print(f"Failed: {entry.cell.cell_id}: {entry.error}", style="red", soft_wrap=True)
    _print_next_steps(suite_name, target)
    if failed:
        raise typer.Exit(FAILED)


def _disk_bytes(max_disk: float | None) -> int | None:
    from goalposts.cluster.disk import GIGABYTE

    if max_disk is None:
        return None
    if not 0 < max_disk <= MOST_GIGABYTES:
        raise RequestError(
            f"--max-disk is {max_disk!r}; give gigabytes above 0, at most {MOST_GIGABYTES:,}, or leave it out."
        )
    return int(max_disk * GIGABYTE)


def _print_next_steps(suite: str, folder: Path) -> None:
    site = folder / "site" / "index.html"
    out.print(f"Leaderboard page:  {site.as_uri()}", soft_wrap=True)
    store = shlex.quote(f"sqlite:///{folder / 'mlflow.db'}")
    out.print(f"Training curves:   {command('mlflow')} ui --backend-store-uri {store}", soft_wrap=True)
    example = f"{command('goalposts')} run {suite} --mitigation none --mitigation path/to/yours.py:Class"
    out.print(f"Your mitigation:   {example} --out runs/mine", soft_wrap=True)
