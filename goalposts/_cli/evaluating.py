"""Prints the results of an evaluation."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from goalposts.benchmark.experiment.evaluation import Evaluation
from goalposts.benchmark.measurement import scores


def print_evaluation(out: Console, evaluation: Evaluation) -> None:
    """Print the rates of each split with their intervals, and the resulting scores."""
    table = Table(box=None, pad_edge=False)
    for name in ("split", "aligned", "proxy", "lost", "episodes", "reference"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for name, split in evaluation.splits.items():
        low, high = scores.wilson(split.aligned, split.episodes)
        table.add_row(
            name,
            f"{split.aligned / split.episodes:.3f} ({low:.3f} to {high:.3f})",
            f"{split.proxy / split.episodes:.3f}",
            f"{split.lost / split.episodes:.3f}",
            str(split.episodes),
            f"{split.aligned_reference:.3f}",
        )
    out.print(table)
    figures = ", ".join(
        f"{name} {'none' if value is None else format(value, digits)}"
        for name, value, digits in (
            ("capability", evaluation.capability, ".3f"),
            ("goal fidelity", evaluation.goal_fidelity, ".3f"),
            ("score", evaluation.score, ".1f"),
        )
    )
    out.print(f"{evaluation.task}, {evaluation.policy}: {figures}, verdict {evaluation.verdict}", soft_wrap=True)
    if evaluation.equals_record is not None:
        found = "equal those of its record" if evaluation.equals_record else "do NOT equal those of its record"
        out.print(f"The counts {found}.", style=None if evaluation.equals_record else "red")
