"""Writes skeletons of a task and of a plugin.

The task fails its certificate at first. The messages lead to a passing one.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.files import write_atomically
from goalposts.benchmark.loading import MITIGATIONS, registered


def write_task(name: str, folder: Path) -> tuple[Path, str]:
    """Write ``<name>.py`` into ``folder``. Return its path and the name of the task's class.

    Args:
        name: in lower case, with underscores: ``forest_fire``.
        folder: where the file goes.

    Raises:
        RequestError: the name is malformed, or the file exists.
    """
    cls = _class_name(name)
    path = _free(folder, f"{name}.py")
    _render("task.py.j2", path, name)
    return path, cls


def write_plugin(name: str, folder: Path) -> tuple[Path, str]:
    """Write an installable package ``<name>`` into ``folder``. Return its path and the name of the mitigation's class.

    Args:
        name: in lower case, with underscores. The mitigation is registered and imported under it.
        folder: where the package goes.

    Raises:
        RequestError: the name is malformed or taken, or the package exists.
    """
    cls = _class_name(name)
    if name in registered(MITIGATIONS) or importlib.util.find_spec(name) is not None:
        raise RequestError(f"The name {name!r} is taken by an installed package; choose another.")
    path = _free(folder, name)
    for template, target in (
        ("pyproject.toml.j2", "pyproject.toml"),
        ("README.md.j2", "README.md"),
        ("LICENSE.j2", "LICENSE"),
        ("mitigation.py.j2", f"src/{name}/__init__.py"),
        ("test.py.j2", f"tests/test_{name}.py"),
    ):
        (path / target).parent.mkdir(parents=True, exist_ok=True)
        _render(f"plugin/{template}", path / target, name)
    return path, cls


def _class_name(name: str) -> str:
    cls = "".join(part.capitalize() for part in name.split("_"))
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or keyword.iskeyword(cls):
        raise RequestError(
            f"The name {name!r} is not allowed; give lower case letters and digits, with "
            "underscores between: forest_fire."
        )
    return cls


def _free(folder: Path, name: str) -> Path:
    path = folder / name
    if os.path.lexists(path):
        raise RequestError(f"{str(path)!r} exists already; choose another name, or move it away.")
    if not folder.is_dir():
        raise RequestError(f"The folder {str(folder)!r} does not exist; make it, or leave --folder out.")
    return path


def _render(template: str, path: Path, name: str) -> None:
    environment = Environment(
        loader=PackageLoader("goalposts._cli", "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (no HTML)
    )
    text = environment.get_template(template).render(cls=_class_name(name), id=name, file=path.name)
    write_atomically(path, text)
