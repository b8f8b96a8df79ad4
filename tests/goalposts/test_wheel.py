"""What is installed: one import root with all its files, which files beside a plugin do not stand in for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import goalposts

ROOT = Path(__file__).parents[2]
PLUGIN = """
from goalposts import Mitigation

class Mine(Mitigation):
    pass
"""
LOADS = """
from goalposts import Mitigation
from goalposts.benchmark.plugins.registry import load_plugin

plugin = load_plugin("mine.py:Mine")
assert issubclass(plugin.cls, Mitigation)
print(plugin.name)
"""


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "published")
    for name in ("goalposts", "benchmark", "cluster", "mitigations", "results", "tests", "bench"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    built = run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", "dist", "./source", cwd=folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    done = run(*pip, "install", "--no-deps", "--no-index", "--target", "site", str(wheel), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_has_one_top_level_name_and_every_file(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert names - {f"goalposts-{goalposts.__version__}.dist-info", "bin"} == {"goalposts"}
    assert not any(path.is_symlink() for path in installed.rglob("*"))
    package = Path(goalposts.__file__).parent

    kept = ("results/published/", "results/studies/")  # Of the checkout alone.

    def files(folder: Path) -> set[str]:
        found = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
        names = {path.relative_to(folder).as_posix() for path in found}
        return {name for name in names if "__pycache__" not in name and not name.startswith(kept)}

    assert files(installed / "goalposts") == files(package)
    for name in ("benchmark/catalogue.json", "benchmark/experiment/suites/quick-v1.toml", "py.typed"):
        assert (installed / "goalposts" / name).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("list", "tasks"), "keys_and_chests"),
        (("list", "mitigations"), "goal_hindsight"),
        (("list", "suites"), "quick-v1"),
        (("suite", "show", "quick"), 'name = "quick"'),
        (("case", "new", "forest_fire"), "forest_fire.py:ForestFire"),
        (("plugin", "new", "forest_fire"), "forest_fire"),
        (("leaderboard", str(ROOT / "results" / "published" / "quick-v1")), "accel"),
    ],
    ids=str,
)
def test_the_wheel_works_on_its_own(arguments: tuple[str, ...], text: str, installed: Path, tmp_path: Path) -> None:
    """Its folder goes before a checkout that is installed; the place of the package is printed first."""
    start = "import goalposts; print(goalposts.__file__); from goalposts._cli.main import main; main()"
    result = run(sys.executable, "-c", start, *arguments, cwd=tmp_path, PYTHONPATH=str(installed))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(installed / "goalposts" / "__init__.py"))
    assert text in result.stdout


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with a plugin, and modules of its own by the names of our folders; none can be imported."""
    for name in ("benchmark.py", "results.py", "cluster/__init__.py", "mitigations/__init__.py", "tests.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('{name} was imported')\n")
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


def test_a_plugin_loads_beside_modules_by_the_names_of_our_folders(beside: Path) -> None:
    result = run(sys.executable, "-c", LOADS, cwd=beside)
    assert (result.returncode, result.stdout, result.stderr) == (0, "mine:Mine\n", "")


def test_a_plugin_is_planned_beside_modules_by_the_names_of_our_folders(beside: Path) -> None:
    arguments = ("run", "smoke", "--task", "fraud", "--mitigation", "mine.py:Mine", "--dry-run")
    result = run(sys.executable, "-m", "goalposts", *arguments, cwd=beside)
    assert result.returncode == 0, result.stderr
    assert "fraud-mine_Mine-a0-s0-" in result.stdout
    assert "was imported" not in result.stderr
