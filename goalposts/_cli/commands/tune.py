"""Choose a mitigation's hyperparameters without using the test shifts. The same command resumes."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from goalposts._cli.options import AddressOption, GpusOption, JsonOption, RatesOption, TasksOption, gpus_per_cell
from goalposts._cli.printing import err, out, print_json, print_table
from goalposts._cli.probe import refuse_silent_ends

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class SelectBy(StrEnum):
    """The levels on which hyperparameters may be chosen."""

    IN_DISTRIBUTION = "in_distribution"
    VALIDATION_SHIFT = "validation_shift"


@app.command(help=__doc__)
def tune(
    mitigation: Annotated[str, typer.Argument(metavar="MITIGATION", help="A registered name or path.py:Class.")],
    suite_name: Annotated[
        str, typer.Option("--suite", metavar="SUITE", help="The suite that sets tasks, rates and budgets.")
    ],
    trials: Annotated[
        int,
        typer.Option(
            metavar="N", help="Number of trials, the same for every mitigation; pruned ones count.", min=1, max=10_000
        ),
    ] = 32,
    select_by: Annotated[
        SelectBy, typer.Option("--selection", help="Levels to choose on; the validation shift is not a test shift.")
    ] = SelectBy.VALIDATION_SHIFT,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/tune-<suite>-<mitigation>.")
    ] = None,
    address: AddressOption = None,
    share: GpusOption = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Seeds of each trial, none of them the suite's.", min=1, max=100)
    ] = 1,
    task: TasksOption = None,
    alpha: RatesOption = None,
    as_json: JsonOption = False,
) -> None:
    from goalposts._cli.tuning import tune_into, tuned_json
    from goalposts.benchmark.experiment.suite import get_suite
    from goalposts.benchmark.measurement.plan import evaluation_salt, salt_commitment
    from goalposts.cluster.tuning import plan_tuning

    suite = get_suite(suite_name)
    gpus = gpus_per_cell(share, address)
    salt = evaluation_salt()
    refuse_silent_ends(mitigation, *(task or ()))
    plan = plan_tuning(
        suite,
        mitigation,
        selection=select_by.value,
        tasks=task or (),
        alphas=alpha or (),
        seeds=seeds,
        device="cuda" if gpus > 0 else "cpu",
        salt_commitment=salt_commitment(salt),
    )
    name = "-".join(("tune", suite.name, re.sub(r"[^A-Za-z0-9_.]+", "_", plan.plugin.name)))
    suffix = "" if select_by is SelectBy.VALIDATION_SHIFT else f"-{select_by.value}"
    target = (folder if folder is not None else Path("runs") / f"{name}{suffix}").absolute()
    tuned = tune_into(target, plan, trials, salt=salt, address=address, gpus_per_cell=gpus, err=err)
    if as_json:
        print_json(tuned_json(tuned))
        return
    default = "pruned" if tuned.default_value is None else f"{tuned.default_value:.1f}"
    out.print(
        f"{plan.plugin.name}: {tuned.value:.1f} after {tuned.trials} trials, {tuned.pruned} of them pruned; "
        f"with its defaults {default}. Study {tuned.study}.",
        soft_wrap=True,
    )
    print_table(
        ("parameter", "value"),
        [(n, f"{v:g}" if isinstance(v, float) else str(v)) for n, v in plan.parameters(tuned.plan).items()],
    )
    out.print(f"For the suite's next version, and plots: {target}", soft_wrap=True)
