"""The arrows between the packages: who may import what."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import goalposts

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmark", "mitigations", "cluster", "results", "goalposts")
COMMON = tuple(
    f"benchmark.{name}"
    for name in (
        "canonical",
        "errors",
        "files",
        "loading",
        "plain",
        "randomness",
        "rows",
        "sources",
        "tensor_files",
    )
)
"""What everything may rest on."""

ARROWS: dict[str, tuple[str, ...]] = {
    "benchmark/__init__.py": (),
    "benchmark/canonical.py": (),
    "benchmark/errors.py": ("benchmark.plain",),
    "benchmark/plain.py": (),
    "benchmark/randomness.py": (),
    "benchmark/files.py": ("benchmark.errors",),
    "benchmark/rows.py": ("benchmark.errors", "benchmark.files"),
    "benchmark/tensor_files.py": ("benchmark.errors",),
    "benchmark/loading.py": ("benchmark.errors", "benchmark.plain"),
    "benchmark/sources.py": ("benchmark.loading",),
    "benchmark/catalogue.py": (
        "benchmark.errors",
        "benchmark.loading",
        "benchmark.plugins.registry",
        "benchmark.tasks.registry",
        "benchmark.tasks.vocabulary",
    ),
    "benchmark/tasks/vocabulary.py": (),
    "benchmark/tasks/gymnasium_ids.py": ("benchmark.catalogue",),
    "benchmark/tasks/": ("benchmark.tasks", *COMMON),
    "benchmark/plugins/": ("benchmark.plugins", "benchmark.tasks", *COMMON),
    "benchmark/networks.py": ("benchmark.plugins.mitigation", *COMMON),
    "benchmark/agent.py": ("benchmark.networks", "benchmark.plugins", "benchmark.tasks", *COMMON),
    "benchmark/training/config.py": (),
    "benchmark/training/": (
        "benchmark.training",
        "benchmark.agent",
        "benchmark.plugins",
        "benchmark.tasks",
        *COMMON,
    ),
    "benchmark/measurement/counts.py": (),
    "benchmark/measurement/plan.py": ("benchmark.measurement.counts", *COMMON),
    "benchmark/measurement/scores.py": ("benchmark.measurement.counts", "benchmark.tasks.vocabulary", *COMMON),
    "benchmark/measurement/": ("benchmark.measurement", "benchmark.agent", "benchmark.tasks", *COMMON),
    "benchmark/experiment/record.py": (
        "benchmark.measurement.counts",
        "benchmark.measurement.plan",
        "benchmark.training.config",
        *COMMON,
    ),
    "benchmark/experiment/suite.py": (
        "benchmark.measurement.counts",
        "benchmark.tasks.registry",
        "benchmark.training.config",
        *COMMON,
    ),
    "benchmark/experiment/run_folder.py": ("benchmark.experiment.record", "benchmark.experiment.suite", *COMMON),
    "benchmark/experiment/": ("benchmark",),
    "mitigations/": ("goalposts:", "mitigations"),
    "cluster/": ("benchmark", "cluster"),
    "results/": (
        "results",
        "benchmark.measurement",
        "benchmark.experiment.record",
        "benchmark.experiment.run_folder",
        "benchmark.experiment.suite",
        "benchmark.catalogue",
        "benchmark.tasks.vocabulary",
        *COMMON,
    ),
    "goalposts/__init__.py": ("goalposts._gymnasium",),
    "goalposts/_gymnasium.py": ("benchmark.tasks.gymnasium_ids",),
    "goalposts/__main__.py": ("goalposts._cli.main",),
    "goalposts/_cli/": ("benchmark", "cluster", "results", "goalposts:", "goalposts._cli"),
}
"""What each file, or each file of a folder, may import of this project: modules with all that is in them, or with a
colon that module alone. The first match counts. ``TYPE_CHECKING`` imports are free. The four packages stand without
the ``goalposts.`` before their names."""

HEAVY: dict[str, tuple[str, ...]] = {
    "ray": ("benchmark/training/", "cluster/"),
    "mlflow": ("results/",),
    "optuna": ("cluster/tuning.py", "goalposts/_cli/tuning.py"),
    "pyarrow": ("benchmark/measurement/",),
    "PIL": ("goalposts/_cli/images.py",),
    "typer": ("goalposts/_cli/",),
    "rich": ("goalposts/_cli/", "results/table.py"),
}
"""Libraries, and where alone they may be imported."""

LIGHT = (
    "benchmark/canonical.py",
    "benchmark/catalogue.py",
    "benchmark/errors.py",
    "benchmark/files.py",
    "benchmark/loading.py",
    "benchmark/plain.py",
    "benchmark/rows.py",
    "benchmark/sources.py",
    "benchmark/tasks/__init__.py",
    "benchmark/tasks/gymnasium_ids.py",
    "benchmark/tasks/vocabulary.py",
    "benchmark/measurement/counts.py",
    "benchmark/measurement/plan.py",
    "benchmark/measurement/scores.py",
    "benchmark/experiment/record.py",
    "benchmark/experiment/run_folder.py",
    "benchmark/experiment/suite.py",
    "results/",
)
"""What commands that train nothing rest on: none of it loads torch or Ray."""


def sources() -> list[str]:
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def nodes(tree: ast.AST, late: bool = True) -> Iterator[ast.AST]:
    """Yield every node that runs: all but the bodies of ``if TYPE_CHECKING`` and, if not ``late``, of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not late:
            continue
        yield node
        yield from nodes(node, late)


def without_root(name: str) -> str:
    """Return a module's name as the table has it: ``benchmark.errors`` for ``goalposts.benchmark.errors``."""
    inner = name.removeprefix("goalposts.")
    return inner if inner.split(".")[0] in PACKAGES else name


def module_name(source: str) -> str:
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_module(name: str) -> bool:
    path = ROOT / without_root(name).replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(source: str, late: bool = True) -> set[str]:
    """Return the absolute names of the modules that a file imports when it runs.

    Args:
        source: the file.
        late: count also what its functions import when they are called.
    """
    found = set()
    for node in nodes(ast.parse((ROOT / source).read_text()), late):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0 or (node.level == 1 and source.startswith("mitigations/")), (
                f"{source} imports relatively"
            )
            if node.level:
                found.add(f"mitigations.{node.module}")
                continue
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {member for member in members if is_module(member)}
            found |= modules | ({node.module} if modules != members else set())
    return {without_root(name) for name in found}


def allowed(name: str, rules: tuple[str, ...]) -> bool:
    return any(
        name == rule.removesuffix(":") or (not rule.endswith(":") and name.startswith(f"{rule}.")) for rule in rules
    )


def rules_of(source: str) -> tuple[str, ...]:
    for place, rules in ARROWS.items():
        if source == place or (place.endswith("/") and source.startswith(place)):
            return rules
    pytest.fail(f"{source} has no place in the table of arrows")


@pytest.mark.parametrize("source", sources())
def test_imports_follow_the_arrows(source: str) -> None:
    ours = {name for name in imports(source) if name.split(".")[0] in PACKAGES}
    assert not {name for name in ours if not allowed(name, rules_of(source))}


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_stay_in_their_place(library: str) -> None:
    users = {source for source in sources() if any(name.split(".")[0] == library for name in imports(source))}
    assert users
    assert not {source for source in users if not source.startswith(HEAVY[library])}


def test_light_modules_load_neither_torch_nor_ray() -> None:
    light = [f"goalposts.{module_name(source)}" for source in sources() if source.startswith(LIGHT)]
    assert len(light) > len(LIGHT)
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if loaded := {'ray', 'torch'} & sys.modules.keys():\n"
        "        sys.exit(f'{name} loads {loaded}')\n"
    )
    found = subprocess.run([sys.executable, "-c", program, *light], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr


def test_modules_import_each_other_in_no_circle() -> None:
    """What functions import when they are called, and what types alone need, may point back."""
    modules = {module_name(source): source for source in sources()}
    graph = {name: imports(source, late=False) & modules.keys() for name, source in modules.items()}
    assert any(graph.values())
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_imports_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "package").mkdir()
    for name in ("__init__.py", "module.py"):
        (tmp_path / "package" / name).write_text("")
    (tmp_path / "source.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import os.path\n"
        "from package import module\n"
        "if TYPE_CHECKING:\n    import hidden\n"
        "def late():\n    from package.module import name\n    from package import value\n"
    )
    assert imports("source.py") == {"typing", "os.path", "package.module", "package"}
    assert imports("source.py", late=False) == {"typing", "os.path", "package.module"}


@pytest.mark.parametrize(
    ("name", "rules", "expected"),
    [
        ("benchmark.tasks.base", ("benchmark.tasks",), True),
        ("benchmark.tasksets", ("benchmark.tasks",), False),
        ("goalposts", ("goalposts:",), True),
        ("goalposts._cli.main", ("goalposts:",), False),
        ("benchmark", (), False),
    ],
)
def test_rules_mean_whole_modules(name: str, rules: tuple[str, ...], expected: bool) -> None:
    assert allowed(name, rules) == expected


def test_facade_is_sorted_and_complete() -> None:
    constants = [name for name in goalposts.__all__ if name.isupper()]
    others = [name for name in goalposts.__all__ if not name.isupper()]
    assert goalposts.__all__ == sorted(constants) + sorted(others)
    assert all(hasattr(goalposts, name) for name in goalposts.__all__)


def test_every_module_imports() -> None:
    for source in sources():
        if not source.endswith("__main__.py"):
            name = module_name(source)
            importlib.import_module(name if name.startswith("goalposts") else f"goalposts.{name}")


def test_docker_is_no_package() -> None:
    assert not (ROOT / "docker" / "__init__.py").exists()
