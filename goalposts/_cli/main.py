"""The command line: options and their mistakes, exit codes, and what is printed; the modules beside it do the work.

Heavy imports stay inside the commands, so that ``--help`` and errors come at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from goalposts.benchmark.errors import CorruptFileError, GoalpostsError, RequestError
from goalposts.benchmark.loading import is_file
from goalposts.benchmark.plain import one_line

EXIT_FAILED_CELL = 1
EXIT_WRONG_REQUEST = 2
EXIT_INTERRUPTED = 130
RESUMABLE = ("run", "tune")
"""Commands that go on where they stopped."""

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
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The output folder of a run, or a suite's published records.")
]
AddressOption = Annotated[str | None, typer.Option(metavar="RAY", help="A Ray cluster: host:port or auto.")]
GpusOption = Annotated[
    float | None, typer.Option(metavar="F", help="Share of a GPU a cell takes; default 0.25 with CUDA, else 0.")
]
TasksOption = Annotated[list[str] | None, typer.Option(metavar="T", help="Only this task; may be repeated.")]
RatesOption = Annotated[list[float] | None, typer.Option(metavar="A", help="Disambiguation rate; may be repeated.")]


class Listing(StrEnum):
    """What can be listed."""

    TASKS = "tasks"
    MITIGATIONS = "mitigations"
    SUITES = "suites"


class SelectBy(StrEnum):
    """What hyperparameters may be chosen by."""

    IN_DISTRIBUTION = "in_distribution"
    VALIDATION_SHIFT = "validation_shift"


@app.command()
def run(
    suite_name: Annotated[str, typer.Argument(metavar="SUITE", help="For example quick.")],
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/<suite>.")] = None,
    address: AddressOption = None,
    gpus_per_cell: GpusOption = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Seeds 0 to N - 1.")] = None,
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
        float, typer.Option(metavar="S", help="Least time between two checkpoints of a cell.", min=0.0)
    ] = 5.0,
    max_disk: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Delete checkpoints of finished cells to keep DIR below this; else stop."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and an estimate of the time, and stop.")
    ] = False,
) -> None:
    """Train and evaluate a suite's cells, then rank the mitigations. The same command resumes."""
    from goalposts.benchmark.experiment.cell import Selection, cells_of
    from goalposts.benchmark.experiment.suite import get_suite, read_tuned
    from goalposts.benchmark.measurement.evaluation import evaluation_salt, salt_commitment

    suite = get_suite(suite_name)
    most_bytes = _disk_bytes(max_disk)
    gpus = _gpus_per_cell(gpus_per_cell, local=address in (None, "local"))
    salt = evaluation_salt()
    plans = tuple(read_tuned(path) for path in tuned or ())
    selection = Selection(tuple(task or ()), tuple(mitigation or ()), tuple(alpha or ()), seeds, plans)
    cells = cells_of(suite, selection, device="cuda" if gpus > 0 else "cpu", salt_commitment=salt_commitment(salt))
    if dry_run:
        if address not in (None, "local"):
            raise RequestError(f"--dry-run measures this machine, not the cluster at {address!r}; leave out --address.")
        from goalposts._cli.running import print_plan

        print_plan(suite, cells, gpus, out=out, err=err)
        return
    from goalposts._cli.running import run_into
    from goalposts.results.table import print_leaderboard

    target = (folder if folder is not None else Path("runs") / suite.name).absolute()
    board, records, failed = run_into(
        target,
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
    _print_next_steps(suite.name, target)
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


def _disk_bytes(max_disk: float | None) -> int | None:
    from goalposts.cluster.disk import GIGABYTE

    if max_disk is None:
        return None
    if not 0 < max_disk < math.inf:
        raise RequestError(f"--max-disk is {max_disk!r}; give gigabytes above 0, or leave it out.")
    return int(max_disk * GIGABYTE)


def _print_next_steps(suite: str, folder: Path) -> None:
    site = folder / "site" / "index.html"
    out.print(f"Leaderboard page:  {site.as_uri()}", soft_wrap=True)
    store = shlex.quote(f"sqlite:///{folder / 'mlflow.db'}")
    out.print(f"Training curves:   {_command('mlflow')} ui --backend-store-uri {store}", soft_wrap=True)
    example = f"{_command('goalposts')} run {suite} --mitigation none --mitigation path/to/yours.py:Class"
    out.print(f"Your mitigation:   {example} --out runs/mine", soft_wrap=True)


def _command(name: str) -> str:
    """Return how to call a command of this environment: by its name where that finds it, else by its place."""
    beside = Path(sys.executable).parent / name
    if not beside.exists() or shutil.which(name) == str(beside):
        return name
    try:
        return shlex.quote(str(beside.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(beside))


@app.command()
def tune(
    mitigation: Annotated[str, typer.Argument(metavar="MITIGATION", help="A registered name or path.py:Class.")],
    suite_name: Annotated[str, typer.Option("--suite", metavar="SUITE", help="Its tasks, rates and budgets.")],
    trials: Annotated[
        int, typer.Option(metavar="N", help="Give every mitigation the same; pruned ones count.", min=1)
    ] = 32,
    select_by: Annotated[
        SelectBy, typer.Option("--selection", help="What may be looked at; the validation shift is no test shift.")
    ] = SelectBy.VALIDATION_SHIFT,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/tune-<suite>-<mitigation>.")
    ] = None,
    address: AddressOption = None,
    gpus_per_cell: GpusOption = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds of each trial, none of them the suite's.", min=1)] = 1,
    task: TasksOption = None,
    alpha: RatesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose a mitigation's hyperparameters without a look at the test shifts. The same command resumes."""
    from goalposts._cli.tuning import tune_into, tuned_json
    from goalposts.benchmark.experiment.suite import get_suite
    from goalposts.benchmark.measurement.evaluation import evaluation_salt, salt_commitment
    from goalposts.cluster.tuning import plan_tuning

    suite = get_suite(suite_name)
    gpus = _gpus_per_cell(gpus_per_cell, local=address in (None, "local"))
    salt = evaluation_salt()
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
        print(json.dumps(tuned_json(tuned), indent=2, sort_keys=True))  # noqa: T201
        return
    default = "pruned" if tuned.default_value is None else f"{tuned.default_value:.1f}"
    out.print(
        f"{plan.plugin.name}: {tuned.value:.1f} after {tuned.trials} trials, {tuned.pruned} of them pruned; "
        f"with its defaults {default}. Study {tuned.study}.",
        soft_wrap=True,
    )
    _print_table(
        ("parameter", "value"),
        [(n, f"{v:g}" if isinstance(v, float) else str(v)) for n, v in plan.parameters(tuned.plan).items()],
    )
    out.print(f"For the suite's next version, and plots: {target}", soft_wrap=True)


TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="An id from 'list tasks', or path.py:Class.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the task; may be repeated.")
]


def _parameters(settings: list[str] | None) -> dict[str, Any]:
    """Return what ``--set`` was given, its values read as JSON where they are, as text elsewhere."""
    parameters: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise RequestError(f"--set is {setting!r}; write it as NAME=VALUE, such as --set size=7.")
        try:
            parameters[name] = json.loads(value)
        except ValueError:
            parameters[name] = value
    return parameters


@app.command()
def certify(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Ids, or path.py:Class; default: every task.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="With this suite's parameters; default: the tasks' own.")
    ] = None,
    settings: SetOption = None,
    num_levels: Annotated[
        int, typer.Option("--levels", metavar="N", help="Levels of each split.", min=100, max=100_000)
    ] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Prove, claim by claim, that tasks measure what they say. Exits with 1 where one does not."""
    from goalposts._cli.certifying import certificate_json, certificates, print_certificate

    found = []
    for certificate in certificates(tasks or [], suite, _parameters(settings), num_levels):
        found.append(certificate)
        if not as_json:
            print_certificate(out, certificate)
    if as_json:
        print(json.dumps([certificate_json(one) for one in found], indent=2, sort_keys=True))  # noqa: T201
    if not all(certificate.holds for certificate in found):
        raise typer.Exit(EXIT_FAILED_CELL)


@app.command()
def check(
    reference: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="A registered name from 'list mitigations', or path.py:Class.")
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="T", help="Only on this task, or path.py:Class; may be repeated."),
    ] = None,
    hook_seconds: Annotated[
        float, typer.Option(metavar="S", help="Longest that one call of a hook may take.", min=0.1, max=3600)
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Hold a mitigation against the plugin contract, in less than a minute. Exits with 1 where it does not conform."""
    from goalposts._cli.checking import check as check_plugin
    from goalposts._cli.checking import failure, print_report

    with err.status(f"Checking {reference}…"):
        report = check_plugin(reference, tasks or (), hook_seconds)
    error = failure(report)
    if error is not None:
        raise error
    if as_json:
        print(json.dumps(report.json(), indent=2, sort_keys=True))  # noqa: T201
    else:
        print_report(out, report)
    if not report.conforms:
        raise typer.Exit(EXIT_FAILED_CELL)


@app.command()
def play(
    task: TaskArgument,
    policy: Annotated[
        str, typer.Option(metavar="POLICY", help="aligned, proxy, random, a goal, or a run's folder RUN/cells/CELL.")
    ] = "aligned",
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Default: the task's first shift.")] = None,
    episodes: Annotated[int, typer.Option(metavar="N", help="How many.", min=1, max=1000)] = 3,
    fps: Annotated[float, typer.Option(metavar="F", help="Frames a second.")] = 6.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the levels and of what a policy draws.")] = 0,
    level_file: Annotated[
        Path | None, typer.Option("--levels", metavar="FILE", help="The first levels of this file instead of a split.")
    ] = None,
    gif: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a GIF instead.")] = None,
    still: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the first level, whole, with the agent's path, as a PNG.")
    ] = None,
    scale: Annotated[int, typer.Option(metavar="N", help="Side of a pixel of these images, 1 to 4.")] = 1,
    mitigation: Annotated[
        str | None, typer.Option(metavar="path.py:Class", help="The agent's mitigation, if it is not registered.")
    ] = None,
    settings: SetOption = None,
) -> None:
    """Watch episodes: animated in the terminal, as plain text into a pipe, or as images."""
    from goalposts._cli.playing import play as play_episodes

    play_episodes(
        task,
        policy,
        console=out,
        split=split,
        parameters=_parameters(settings),
        mitigation=mitigation,
        seed=seed,
        level_file=level_file,
        episodes=episodes,
        fps=fps,
        gif=gif,
        still=still,
        scale=scale,
    )


case = typer.Typer(help="Case studies of one's own.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(case, name="case")


@case.command("new")
def new_case(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case with underscores, such as forest_fire.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the file goes.")] = Path(),
) -> None:
    """Write the skeleton of a task: it runs, and fails its certificate with messages that lead to a passing one."""
    from goalposts._cli.skeleton import write_task

    path, cls = write_task(name, folder)
    out.print(f"Wrote {path}. See what is left to do with:", soft_wrap=True)
    out.print(f"  {_command('goalposts')} certify {path}:{cls}", soft_wrap=True)


plugin = typer.Typer(help="Mitigations of one's own.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(plugin, name="plugin")


@plugin.command("new")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case with underscores, such as small_logits.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the package goes.")] = Path(),
) -> None:
    """Write an installable package with a small mitigation, its entry point and a test that passes."""
    from goalposts._cli.skeleton import write_plugin

    path, _ = write_plugin(name, folder)
    python = _command("python")
    out.print(f"Wrote {path}. Install it, hold it against the contract, and run its test with:", soft_wrap=True)
    out.print(f'  {python} -m pip install -e "{path}[dev]"', soft_wrap=True)
    out.print(f"  {_command('goalposts')} check {name}", soft_wrap=True)
    out.print(f"  {python} -m pytest {path}", soft_wrap=True)


@app.command()
def levels(
    task: TaskArgument,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write them, as safetensors.")],
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Of evaluation, or train.")] = "in_distribution",
    alpha: Annotated[float, typer.Option(metavar="A", help="Disambiguation rate of split train.")] = 0.0,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many.", min=1, max=1_000_000)] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Other levels for another seed.")] = 0,
    settings: SetOption = None,
) -> None:
    """Write a file of levels, to play or evaluate on exactly these."""
    from goalposts.benchmark.randomness import generator
    from goalposts.benchmark.tasks.gymnasium_env import draw_levels
    from goalposts.benchmark.tasks.registry import make_task

    made = make_task(task, **_parameters(settings))
    drawn = draw_levels(made, split, alpha, count, generator("level file", made.id, split, seed))
    drawn.save(path, task=made.id, version=made.version)
    out.print(f"Wrote {count} levels of {made.id} ({split}) to {path}.", soft_wrap=True)


@app.command()
def evaluate(
    task: TaskArgument,
    policy: Annotated[
        str, typer.Option(metavar="MODULE:CALLABLE", help="A function from an array of observations to actions.")
    ],
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="With this suite's parameters, on its levels.")
    ] = None,
    level_file: Annotated[
        Path | None, typer.Option("--levels", metavar="FILE", help="On these levels instead of the splits.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a policy that was trained elsewhere, as our own are evaluated."""
    from goalposts._cli.evaluating import evaluate_policy, print_evaluation

    evaluation = evaluate_policy(task, policy, suite, _parameters(settings), level_file)
    if as_json:
        print(json.dumps(evaluation.json(), indent=2, sort_keys=True))  # noqa: T201
        return
    print_evaluation(out, evaluation)


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="tasks, mitigations or suites.")], as_json: JsonOption = False
) -> None:
    """List the tasks, the installed mitigations or the suites."""
    from goalposts._cli import listing

    def mitigations() -> list[dict[str, Any]]:
        return listing.mitigations(lambda problem: err.print(problem, style="yellow", soft_wrap=True))

    tables = {Listing.TASKS: listing.tasks, Listing.MITIGATIONS: mitigations, Listing.SUITES: listing.suites}
    rows = tables[what]()
    if as_json:
        print(json.dumps(rows, indent=2, sort_keys=True))  # noqa: T201 (JSON must not pass through rich)
        return
    values = [
        [", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in row.values()]
        for row in rows
    ]
    _print_table([name.replace("_", " ") for name in (rows[0] if rows else ())], values)


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    out.print(table)


@app.command()
def leaderboard(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Rebuild the leaderboard of a run from its records, and print it."""
    from goalposts._cli.reporting import rebuild
    from goalposts.results.table import print_leaderboard

    board, records = rebuild(folder.absolute())
    if as_json:
        print(json.dumps(board.model_dump(mode="json"), indent=2, sort_keys=True))  # noqa: T201
        return
    print_leaderboard(out, board, records)


@app.command()
def rates(
    folder: FolderArgument,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print how often a run's agents ended aligned, with the proxy or lost, on every split of every task."""
    from goalposts._cli.reporting import read_records
    from goalposts.results.rates import markdown, sections
    from goalposts.results.rates import rates as rates_of

    rows = rates_of(read_records(folder.absolute())[1])
    if as_json:
        print(json.dumps([row.json() for row in rows], indent=2, sort_keys=True))  # noqa: T201
    elif as_markdown:
        print(markdown(rows))  # noqa: T201 (not to be wrapped)
    elif not rows:
        out.print("No cell has finished yet.")
    else:
        for title, (header, *splits) in sections(rows):
            out.print(title, style="bold")
            _print_table(header, splits)
            out.print()
        out.print("Percent of episodes: mean and range of the seeds; of one seed, the 95% interval of its episodes.")
        out.print("References: how often the reference policies for the goal and for the proxy end aligned.")


@app.command()
def curves(
    folder: FolderArgument,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print goal fidelity and capability over the disambiguation rate, and from which rate on the goal is learned."""
    from goalposts._cli.reporting import rebuild
    from goalposts.results import curves as module
    from goalposts.results.rates import markdown_table

    board, _ = rebuild(folder.absolute())
    found = module.curves(board)
    if as_json:
        print(json.dumps([curve.json() for curve in found], indent=2, sort_keys=True))  # noqa: T201
    elif as_markdown:
        print(markdown_table(module.header(board), (module.cells_of(curve, bounds=True) for curve in found)))  # noqa: T201 (not to be wrapped)
    else:
        rates = module.header(board)[len(module.HEADER) :]
        stacked = ([text.replace(" / ", "\n") for text in module.cells_of(curve)] for curve in found)
        _print_table(("mitigation", "least\nα", "area\n(fid.)", "area\n(cap.)", *rates), stacked)
        out.print(
            "At each rate fidelity, and capability below it; * where too few seeds learned the training task. Least α: "
            "from which on fidelity is .9 and enough seeds learned it. Areas take the rates as evenly spaced."
        )


@app.command()
def site(folder: FolderArgument) -> None:
    """Rebuild the static page of a run from its records, and print its address."""
    from goalposts._cli.reporting import rebuild

    rebuild(folder.absolute())
    out.print((folder.absolute() / "site" / "index.html").as_uri(), soft_wrap=True)


@app.command()
def publish(
    folder: FolderArgument,
    root: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where published entries are kept.")] = Path(
        "results/published"
    ),
) -> None:
    """Add a run's finished records to the published ones, and rebuild the leaderboard beside them."""
    from goalposts._cli.reporting import read_records
    from goalposts.results import publication

    suite, records, _ = read_records(folder.absolute())
    for path in publication.publish(records, root.absolute() / suite.id, suite):
        out.print(f"Wrote {path}", soft_wrap=True)


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
        if arguments[0] in RESUMABLE:
            _complain(f"{error}. Mend that and run the same command again: it goes on where it stopped.")
            code = EXIT_FAILED_CELL
        else:
            code = _complain(f"{error}. Give another place, or mend that.")
    except Exception as error:
        if not any(is_file(argument) for argument in arguments):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        _complain(f"{type(error).__name__}: {one_line(error)} ({place.filename}, line {place.lineno}). Mend that file.")
        code = EXIT_FAILED_CELL
    if code == EXIT_INTERRUPTED:
        resumes = arguments[0] in RESUMABLE
        err.print("Interrupted." + " The same command goes on from the last checkpoints." * resumes)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> int:
    err.print(f"Error: {' '.join(message.split())}", soft_wrap=True)
    return EXIT_WRONG_REQUEST
