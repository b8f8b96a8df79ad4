"""Certifies the tasks that the user names, and prints the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.experiment.suite import get_suite
from goalposts.benchmark.loading import TASKS, registered
from goalposts.benchmark.measurement.certificates.claims import Certificate
from goalposts.benchmark.measurement.certificates.classes import certify
from goalposts.benchmark.tasks.registry import make_task


def certificates(
    references: list[str], suite_name: str | None, parameters: dict[str, Any], num_levels: int
) -> Iterator[Certificate]:
    """Yield the certificate of each task, as soon as it is complete.

    Args:
        references: ids or ``path.py:Class``. Empty for every task, or every one of the suite.
        suite_name: the suite whose parameters the tasks are built with. None for the tasks' own.
        parameters: parameters of the tasks. They replace the suite's.
        num_levels: levels of each split.

    Raises:
        RequestError: there is no such task, suite or parameter.
    """
    plans = {} if suite_name is None else {plan.task: plan.parameters for plan in get_suite(suite_name).tasks}
    for reference in references or plans or registered(TASKS):
        if suite_name is not None and reference not in plans:
            raise RequestError(f"Suite {suite_name!r} has no task {reference!r}. Known: {', '.join(plans)}.")
        chosen = {**plans.get(reference, {}), **parameters}
        task = make_task(reference, **chosen)
        yield certify(task, chosen, num_levels)


def print_certificate(out: Console, certificate: Certificate) -> None:
    """Print every claim with its result, and how to fix it if it does not hold."""
    parameters = ", ".join(f"{name}={value!r}" for name, value in certificate.parameters.items())
    verdict = "holds" if certificate.holds else "FAILS"
    out.print(
        f"{certificate.task} (version {certificate.version}, {certificate.certificate_class}"
        f"{', ' + parameters if parameters else ''}): certificate {verdict}, {certificate.num_levels} levels a split",
        style="bold",
        soft_wrap=True,
    )
    for claim in certificate.claims:
        mark, style = ("✓", "green") if claim.holds else ("✗", "red")
        out.print(f"  {mark} ", style=style, end="")
        out.print(f"{claim.text}: {claim.found}", soft_wrap=True)
        if not claim.holds:
            out.print(f"    → {claim.mend}", style="yellow", soft_wrap=True)


def certificate_json(certificate: Certificate) -> dict[str, Any]:
    """Return the certificate as JSON values."""
    return {**dataclasses.asdict(certificate), "holds": certificate.holds}
