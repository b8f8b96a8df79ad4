"""Checks a plugin against the contract. It runs in a separate process, which is ended if a hook does not return."""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from goalposts.benchmark.errors import GoalpostsError, RequestError

CHECKS = {
    "hooks": "valid levels, declared goals, inputs that can be repeated",
    "training": "shapes, dtypes and devices are kept, nothing is NaN",
    "seed": "the same seed gives the same run",
    "resume": "a resumed run ends in the same bits",
    "evaluation": "a loaded agent acts as the trained one",
    "knowledge": "nothing undeclared is asked for or handed over",
}
"""What each check tests."""
HOOK_SECONDS = 10.0
"""Longest time for one call of a hook."""
LOAD_SECONDS = 60.0
"""Longest time for the import of a plugin, and for anything else outside hooks."""
START_SECONDS = 180.0
"""Longest time for the process to load Goalposts itself."""
TOTAL_SECONDS = 300.0
"""Longest time for all checks. The built-in mitigations take a tenth of it."""
IMPORT = "import"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check on one task and device."""

    check: str
    task: str
    device: str
    problem: str | None
    """One line. None if the check passed."""


@dataclasses.dataclass
class CheckReport:
    """The results of all checks of a plugin."""

    mitigation: str
    version: str = ""
    uses: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    """The hooks that it overrides. The others do nothing."""
    findings: list[Finding] = dataclasses.field(default_factory=list)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    """Tasks that the mitigation does not apply to, with the reason."""
    ended: str | None = None
    """Why the checks ended early, in one line."""
    wall_seconds: float = 0.0

    @property
    def conforms(self) -> bool:
        """Whether at least one check ran and every check passed."""
        return bool(self.findings) and self.ended is None and all(finding.problem is None for finding in self.findings)

    def json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**dataclasses.asdict(self), "conforms": self.conforms}


def check(reference: str, tasks: Sequence[str] = (), hook_seconds: float = HOOK_SECONDS) -> CheckReport:
    """Run the conformance suite on a plugin.

    Args:
        reference: a registered name, or ``path.py:Class``.
        tasks: ids or ``path.py:Class`` of the tasks to check it on. By default every tensor task and one game.
        hook_seconds: longest time for one call of a hook.

    Raises:
        RequestError: there is no such plugin or task, or the plugin cannot be loaded.
    """
    started = time.monotonic()
    watch = Watch(CheckReport(reference), hook_seconds)
    with _process(reference, tasks) as (process, descriptor):
        for line in _lines(descriptor, watch):
            watch.take(json.loads(line))
            if watch.done:
                break
        if watch.report.ended is None and not watch.done:
            watch.report.ended = watch.lost(process.wait())
    watch.report.wall_seconds = round(time.monotonic() - started, 1)
    return watch.report


class Watch:
    """The known state of the process: the report so far, and its present activity."""

    def __init__(self, report: CheckReport, hook_seconds: float) -> None:
        self.report = report
        self.hook_seconds = hook_seconds
        self.done = False
        self._class = report.mitigation
        self._imported = self._class
        """The object being imported: the plugin or a task."""
        self._check: tuple[str, str, str] | None = None
        """The running check, its task and its device."""
        self._inside: list[tuple[str, float]] = []
        """The hooks that were entered but not left, the outermost first, with the times of entry."""
        self._begun = self._heard = time.monotonic()
        self._started = False
        self._spent: defaultdict[str, float] = defaultdict(float)
        """Seconds in each hook."""

    def take(self, message: dict[str, Any]) -> None:
        """Process a message.

        Raises:
            RequestError: the message reports that the request is wrong.
        """
        self._heard, self._started = time.monotonic(), True
        if "refused" in message:
            raise RequestError(message["refused"])
        if "enter" in message:
            self._inside.append((message["enter"], self._heard))
            self._imported = message.get("of", self._class)
        elif "leave" in message:
            hook, since = self._inside.pop()
            self._spent[hook] += self._heard - since
        elif "plugin" in message:
            plugin = message["plugin"]
            self._class = plugin["class"]
            self.report.mitigation, self.report.version = plugin["name"], plugin["version"]
            self.report.uses, self.report.hooks = tuple(plugin["uses"]), tuple(plugin["hooks"])
        elif "skipped" in message:
            self.report.skipped[message["skipped"]] = message["reason"]
        elif "check" in message:
            self._check = (message["check"], message["task"], message["device"])
        elif "result" in message:
            assert self._check is not None
            self.report.findings.append(Finding(message["result"], *self._check[1:], message["problem"]))
        else:
            self.done = True

    def seconds_left(self) -> float:
        """Return how many seconds the process may run without another message."""
        if not self._inside:
            since, limit = self._heard, LOAD_SECONDS if self._started else START_SECONDS
        else:
            hook, since = self._inside[0]
            limit = LOAD_SECONDS if hook == IMPORT else self.hook_seconds
        return min(since + limit, self._begun + TOTAL_SECONDS) - time.monotonic()

    def stuck(self) -> str:
        """Return the message about a process that made no progress. It is a finding of the running check."""
        if not self._started:
            return f"Goalposts did not start within {START_SECONDS:g} s; try again on a less busy machine."
        if self._spent and time.monotonic() - self._begun >= TOTAL_SECONDS:
            hook, seconds = max(self._spent.items(), key=lambda item: item[1])
            return self._found(
                f"The checks of {self._class} took more than {TOTAL_SECONDS:g} s, of which {seconds:.0f} in its hook "
                f"{hook!r}; make it faster, or name fewer tasks with --task."
            )
        if not self._inside:
            return self._found(
                f"Outside of its hooks {self._class} made no progress within {LOAD_SECONDS:g} s; "
                "is its network too slow?"
            )
        if self._inside[0][0] == IMPORT:
            return f"Importing {self._imported} did not return within {LOAD_SECONDS:g} s; import less, and build less."
        now = time.monotonic()
        long = [hook for hook, since in self._inside if now - since > self.hook_seconds / 2]
        return self._found(f"Hook {long[-1]!r} of {self._class} did not return within {self.hook_seconds:g} s.")

    def lost(self, code: int) -> str:
        """Return the message about a process that ended itself with exit ``code``.

        It is a finding of the running check.

        Raises:
            RequestError: an import ended it.
        """
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not self._inside:
            return self._found(f"The process ended ({how}) outside of the hooks of {self._class}.")
        hook = self._inside[-1][0]
        if hook == IMPORT:
            raise RequestError(f"{self._imported!r} ended the process at import ({how}); fix it.")
        return self._found(f"Hook {hook!r} of {self._class} ended the process ({how}).")

    def _found(self, problem: str) -> str:
        if self._check is not None:
            self.report.findings.append(Finding(*self._check, problem))
        return problem


@contextmanager
def _process(reference: str, tasks: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the checks in a separate process. Yield it and the descriptor of its messages. It ends with the context."""
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "goalposts._cli.watched", str(write), reference, *tasks],
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            pass_fds=(write,),
            start_new_session=True,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )
        os.close(write)
        with process:
            try:
                yield process, read
            finally:
                process.kill()
    finally:
        os.close(read)


def _lines(descriptor: int, watch: Watch) -> Iterator[bytes]:
    """Yield the lines of a pipe until its end, or until the time limit of ``watch`` has passed."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(max(watch.seconds_left(), 0.0)):
                watch.report.ended = watch.stuck()
                return
            read = os.read(descriptor, 1 << 16)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            yield from lines


def print_report(out: Console, report: CheckReport) -> None:
    """Print a table of the checks, and each problem once."""
    tasks = list(dict.fromkeys(finding.task for finding in report.findings))
    devices = list(dict.fromkeys(finding.device for finding in report.findings))
    told = ", ".join(report.uses) or "nothing"
    hooks = f"It overrides {', '.join(report.hooks)}." if report.hooks else "It overrides no hook: it is the baseline."
    out.print(
        f"{report.mitigation}, version {report.version}, told {told}: "
        f"{'conforms' if report.conforms else 'does NOT conform'} ({len(tasks)} tasks on {' and '.join(devices)}, "
        f"{report.wall_seconds:.0f} s)",
        style="bold",
        soft_wrap=True,
    )
    out.print(hooks, soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in CHECKS.items():
        found = [finding for finding in report.findings if finding.check == name]
        passed = sum(finding.problem is None for finding in found)
        if passed < len(found):
            mark = Text("✗", style="red")
        elif found:
            mark = Text("✓", style="green")
        else:
            mark = Text("–", style="yellow")
        table.add_row(mark, name, f"{passed}/{len(found)}" if found else "not run", text)
    out.print(table)
    problems: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.problem is not None:
            problems.setdefault(finding.problem, []).append(f"{finding.task} on {finding.device}")
    for problem, where in problems.items():
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        out.print(f"✗ {problem}", style="red", soft_wrap=True)
        out.print(f"  {', '.join(where[:3])}{more}", soft_wrap=True)
    if report.ended is not None:
        out.print("The checks ended there; fix that and check again.", style="yellow")
    for task, reason in report.skipped.items():
        out.print(f"– {task} was left out: {reason}", style="yellow", soft_wrap=True)


def failure(report: CheckReport) -> GoalpostsError | None:
    """Return the message about a plugin that was never reached. None if there is a report to print."""
    if report.findings:
        return None
    if report.ended is not None:
        return GoalpostsError(report.ended)
    return RequestError(f"{report.mitigation!r} applies to none of these tasks; name others with --task.")
