"""Imports users' files in a separate process first, to detect imports that end their process.

Nothing inside a process can stop ``os._exit``. All other import errors are left to the code that imports the file
later.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings

from goalposts.benchmark.errors import GoalpostsError, RequestError
from goalposts.benchmark.loading import (
    MITIGATIONS,
    TASKS,
    import_point,
    is_file,
    load_from_file,
    load_from_module,
    registered,
)


def refuse_silent_ends(*references: str) -> None:
    """Import modules that are not ours, one after another.

    Args:
        references: registered names, ``path.py:Class`` or ``module:callable``.

    Raises:
        RequestError: an import ended the process.
    """
    for reference in dict.fromkeys(filter(_is_foreign, references)):
        read, write = os.pipe()
        with os.fdopen(read, "rb") as word:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "goalposts._cli.probe", str(write), reference],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(write,),
            )
            os.close(write)
            with process:
                code = process.wait()
            if not word.read():
                raise RequestError(f"{reference!r} ended the process at import (exit code {code}); fix it.")


def _is_foreign(reference: str) -> bool:
    if is_file(reference) or ":" in reference:
        return True
    points = [registered(group).get(reference) for group in (TASKS, MITIGATIONS)]
    return any(point is not None and not point.module.startswith("goalposts.") for point in points)


def _import(reference: str) -> None:
    """Import one reference, and ignore any error."""
    if is_file(reference):
        load_from_file(reference, "File")
    elif ":" in reference:
        load_from_module(reference, "Module")
    for group in (TASKS, MITIGATIONS):
        if (point := registered(group).get(reference)) is not None:
            import_point(point, "Module")


def main(descriptor: str, reference: str) -> None:
    """Import ``reference`` and write a word to the file ``descriptor``, unless the import ends the process."""
    warnings.filterwarnings("ignore")
    with contextlib.suppress(GoalpostsError):
        _import(reference)
    os.write(int(descriptor), b"imported")


if __name__ == "__main__":
    main(*sys.argv[1:])
