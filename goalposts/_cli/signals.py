"""What ends a command from outside: the first signal in order, another one at once; the exit code is the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from goalposts._cli.exit_codes import INTERRUPTED
from goalposts._cli.printing import err

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_in_order() -> None:
    """Let the next signal interrupt the command, which then ends in order; one that comes meanwhile ends it at once."""
    _handle(_interrupt)


def end_at_once() -> None:
    """Let every signal from now on end the process at once."""
    _handle(_end)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # As nohup has it.
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    end_at_once()
    raise KeyboardInterrupt


def _end(_number: int, _frame: FrameType | None) -> None:
    err.show_cursor()  # A live display hides it.
    os._exit(INTERRUPTED)
