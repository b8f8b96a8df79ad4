"""Options and arguments that several commands share, and the meaning of their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.plain import fault_of

GREATEST_SEED = 2**63 - 1

JsonOption = Annotated[bool, typer.Option("--json", help="Print clean JSON on standard output.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The output folder of a run, or a suite's published records.")
]
AddressOption = Annotated[str | None, typer.Option(metavar="RAY", help="A Ray cluster: host:port or auto.")]
GpusOption = Annotated[
    float | None,
    typer.Option("--gpus-per-cell", metavar="F", help="Share of a GPU for each cell; default 0.25 with CUDA, else 0."),
]
TasksOption = Annotated[list[str] | None, typer.Option(metavar="T", help="Only this task; may be repeated.")]
RatesOption = Annotated[list[float] | None, typer.Option(metavar="A", help="Disambiguation rate; may be repeated.")]
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="An id from 'list tasks', or path.py:Class.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the task; may be repeated.")
]


def is_local(address: str | None) -> bool:
    """Return whether ``--address`` means this machine instead of a cluster."""
    return address in (None, "local")


def gpus_per_cell(requested: float | None, address: str | None) -> float:
    """Return the share of a GPU for each cell. By default it is a quarter if CUDA is available.

    Raises:
        RequestError: it is not a valid share of a GPU, or this machine has no GPU.
    """
    import torch

    if requested is None:
        return 0.25 if torch.cuda.is_available() else 0.0
    if not 0 <= requested <= 8 or (requested > 1 and requested % 1):
        raise RequestError(f"--gpus-per-cell is {requested!r}; give 0, a fraction below 1, or whole GPUs up to 8.")
    if requested > 0 and is_local(address) and not torch.cuda.is_available():
        raise RequestError(
            f"--gpus-per-cell is {requested!r}, but this machine has no CUDA device; leave it out, or name a cluster "
            "with --address."
        )
    return requested


def parameters(settings: list[str] | None) -> dict[str, Any]:
    """Return the values of ``--set``, read as JSON if possible, and as text otherwise.

    Raises:
        RequestError: a setting is not ``NAME=VALUE``.
    """
    found: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise RequestError(f"--set is {setting!r}; write it as NAME=VALUE, such as --set size=7.")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
        if (fault := fault_of(found[name])) is not None:
            raise RequestError(f"--set gives {name!r} {fault}; give another value.")
    return found
