"""The live display of a run: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from goalposts.cluster.driver import Progress

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines."""
SHOWN = 8
"""Running cells shown at once."""


def duration(seconds: float) -> str:
    """Return seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class RunDisplay:
    """Shows cells done, running cells with steps and steps/s, and the time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()
        self._last_line = self._started
        self._last_counts = (-1, -1)
        self._first_steps: int | None = None
        self._moving_since: tuple[float, int] | None = None
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def notify(self, message: str) -> None:
        """Print a message above the display."""
        self.console.print(Text(message, style="yellow"))

    def update(self, progress: Sequence[Progress]) -> None:
        """Show the state of all cells."""
        if self._live is not None:
            self._live.update(self._table(progress))
            return
        counts = (_count(progress, "done"), _count(progress, "failed"))
        now = time.monotonic()
        if counts != self._last_counts or now - self._last_line >= PLAIN_SECONDS:
            self._last_counts, self._last_line = counts, now
            self.console.print(self._summary(progress), soft_wrap=True, highlight=False)

    def _seconds_left(self, progress: Sequence[Progress]) -> float | None:
        total = sum(entry.cell.training.env_steps for entry in progress)
        steps = sum(min(entry.env_steps, entry.cell.training.env_steps) for entry in progress)
        now = time.monotonic()
        if self._first_steps is None:
            self._first_steps = steps
        if self._moving_since is None and steps > self._first_steps:
            self._moving_since = (now, steps)  # Count from here on, without the start of the workers.
        if self._moving_since is None or steps <= self._moving_since[1]:
            return None
        since, first = self._moving_since
        return (now - since) * (total - steps) / (steps - first)

    def _summary(self, progress: Sequence[Progress]) -> str:
        running = [entry for entry in progress if entry.state == "running"]
        failed = _count(progress, "failed")
        rate = sum(entry.steps_per_second for entry in running)
        left = self._seconds_left(progress)
        parts = [f"{_count(progress, 'done')}/{len(progress)} cells done"]
        if failed:
            parts.append(f"{failed} failed")
        if running:
            parts.append(f"{len(running)} running at {rate:,.0f} steps/s")
        elif left is None:
            parts.append("workers are starting")
        parts.append(f"{duration(time.monotonic() - self._started)} elapsed")
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _table(self, progress: Sequence[Progress]) -> Group:
        table = Table(box=None, pad_edge=False, expand=False)
        table.add_column("running cell", no_wrap=True, overflow="ellipsis", max_width=44)
        table.add_column("", width=16)
        table.add_column("steps", justify="right")
        table.add_column("steps/s", justify="right")
        running = [entry for entry in progress if entry.state == "running"]
        for entry in running[:SHOWN]:
            total = entry.cell.training.env_steps
            key = entry.cell.key
            table.add_row(
                Text(f"{key.task} {key.mitigation} α={key.alpha:g} seed {key.seed}"),
                ProgressBar(total=total, completed=min(entry.env_steps, total), width=16),
                f"{entry.env_steps:,}",
                f"{entry.steps_per_second:,.0f}",
            )
        if len(running) > SHOWN:
            table.add_row(f"and {len(running) - SHOWN} more", "", "", "")
        summary = Text(self._summary(progress))
        return Group(summary, table) if running else Group(summary)


def _count(progress: Sequence[Progress], state: str) -> int:
    return sum(entry.state == state for entry in progress)
