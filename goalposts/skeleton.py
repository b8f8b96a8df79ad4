"""Writes the skeleton of a task of one's own: it runs, and fails its certificate with messages that lead to passing."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmark.errors import RequestError


def write_task(name: str, folder: Path) -> tuple[Path, str]:
    """Write ``<name>.py`` into ``folder``; return its path and the name of the task's class.

    Args:
        name: in lower case, with underscores: ``forest_fire``.
        folder: where the file goes.

    Raises:
        RequestError: the name is no such name, or the file exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RequestError(
            f"The name {name!r} will not do; give lower case letters, digits and underscores: forest_fire."
        )
    path = folder / f"{name}.py"
    if path.exists():
        raise RequestError(f"{str(path)!r} exists already; choose another name, or move the file away.")
    if not folder.is_dir():
        raise RequestError(f"The folder {str(folder)!r} does not exist; make it, or leave --folder out.")
    cls = "".join(part.capitalize() for part in name.split("_"))
    environment = Environment(
        loader=PackageLoader("goalposts", "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (Python, not HTML)
    )
    text = environment.get_template("task.py.j2").render(name=cls, cls=cls, id=name, file=path.name)
    path.write_text(text)
    return path, cls
