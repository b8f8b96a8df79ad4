"""The command line in this process, which saves the imports."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest

from goalposts._cli.main import main
from goalposts._cli.signals import ENDING

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def goalposts(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return a function that runs the command line, and undoes what that does to the process."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["goalposts", *arguments])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            main()
        output = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), output.out, output.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.modules.pop("policies", None)
