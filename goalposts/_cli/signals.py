"""Signals that end a command. The first one ends it cleanly, another one ends it at once.

The exit code is the same.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from goalposts._cli.exit_codes import INTERRUPTED
from goalposts._cli.printing import err

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_in_order() -> None:
    """Let the next signal interrupt the command for a clean end. Another signal meanwhile ends it at once."""
    _handle(_interrupt)


def end_at_once() -> None:
    """From now on, let every signal end the process at once."""
    _handle(_end)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP.
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    end_at_once()
    raise KeyboardInterrupt


def _end(_number: int, _frame: FrameType | None) -> None:
    err.show_cursor()  # A live display hides the cursor.
    os._exit(INTERRUPTED)
