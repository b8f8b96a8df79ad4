from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from goalposts._cli.checking import CHECKS
from goalposts._cli.skeleton import write_plugin, write_task
from goalposts.benchmark.errors import HookError, RequestError
from goalposts.benchmark.experiment.conformance import Conformance, tiny_plan
from goalposts.benchmark.measurement.certificates.classes import certify
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "new_task.md").read_text()
PLUGIN_GUIDE = (DOCS / "your-own-mitigation.md").read_text()

Write = Callable[[str, Path], tuple[Path, str]]


def failed(path: Path) -> list[str]:
    return [claim.text for claim in certify(make_task(f"{path}:ForestFire")).claims if not claim.holds]


def snippet(start: str) -> str:
    """Return the Python of the guide that begins with ``start``."""
    return next(block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if start in block)


def test_the_guide_leads_from_the_skeleton_to_a_certificate(tmp_path: Path) -> None:
    path, cls = write_task("forest_fire", tmp_path)
    assert (path.name, cls) == ("forest_fire.py", "ForestFire")
    stages = [failed(path)]
    text = path.read_text()
    for edited, start in (
        (re.compile(r"    case = Case\(.*?\n    \)\n", re.DOTALL), "case = Case("),
        (re.compile(r"        apart = False.*\n"), "apart ="),
        (re.compile(r"    time_limit: int = Field\(40, .*\n"), "time_limit"),
    ):
        fresh = textwrap.indent(textwrap.dedent(snippet(start)), " " * (8 if start == "apart =" else 4))
        text, count = edited.subn(lambda _match, fresh=fresh: fresh, text)
        assert count == 1
        written = path.with_name(f"stage_{len(stages)}.py")
        written.write_text(text)
        stages.append(failed(written))
    assert [len(stage) for stage in stages] == [2, 1, 1, 0]
    assert stages[0][0] == "the case is complete"
    assert stages[1] == stages[0][1:]
    assert stages[1][0].startswith("levels can be drawn")
    assert stages[2][0].startswith("the random policy gets anywhere")
    for text in (*stages[0], *stages[2]):
        assert text in GUIDE


@pytest.mark.parametrize("write", [write_task, write_plugin])
@pytest.mark.parametrize(
    "name",
    ["class", "true", "none", "", "Forest", "forest-fire", "1st", "../forest", "forest fire", "forest__fire", "fire_"],
)
def test_a_name_must_be_one_of_a_module(write: Write, name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=re.escape(repr(name))):
        write(name, tmp_path)


@pytest.mark.parametrize(("write", "name"), [(write_task, "forest_fire.py"), (write_plugin, "forest_fire")])
def test_a_link_to_nothing_is_not_followed(write: Write, name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(RequestError, match="exists already"):
        write("forest_fire", tmp_path)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("write", [write_task, write_plugin])
def test_nothing_is_overwritten(write: Write, tmp_path: Path) -> None:
    write("forest_fire", tmp_path)
    with pytest.raises(RequestError, match="exists already"):
        write("forest_fire", tmp_path)


@pytest.mark.parametrize("write", [write_task, write_plugin])
def test_the_folder_must_exist(write: Write, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        write("forest_fire", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["torch", "plr"])
def test_a_plugin_takes_no_name_that_is_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"'{name}' is taken"):
        write_plugin(name, tmp_path)


@pytest.mark.slow
def test_a_plugin_is_installed_and_its_own_test_passes(tmp_path: Path) -> None:
    """What the guide has in its first three steps and its last, with the package installed into a folder of its own."""
    path, cls = write_plugin("small_logits", tmp_path)
    site = tmp_path / "site"
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(path)]

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "pip", *install)
    (distribution,) = metadata.distributions(path=[str(site)])
    assert (distribution.metadata["Name"], distribution.version) == ("small-logits", "0.1.0")
    assert distribution.metadata["License-Expression"] == "MIT"
    assert distribution.requires is not None
    assert distribution.requires[0] == "goalposts"
    (point,) = distribution.entry_points
    assert (point.group, point.name, point.value) == ("goalposts.mitigations", "small_logits", f"small_logits:{cls}")
    assert "small_logits" in run("-m", "goalposts", "list", "mitigations")
    assert "2 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(path))


def test_the_plugin_guide_shows_what_is_written(tmp_path: Path) -> None:
    path, _ = write_plugin("small_logits", tmp_path)
    source = (path / "src" / "small_logits" / "__init__.py").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", PLUGIN_GUIDE, re.DOTALL)
    assert code in source
    assert "".join(re.findall(r"✓  (\w+) ", PLUGIN_GUIDE)) == "".join(CHECKS)
    for name, text in CHECKS.items():
        assert re.search(rf"{name} +12/12  {re.escape(text)}\n", PLUGIN_GUIDE)


def test_the_fault_of_the_plugin_guide_is_found(tmp_path: Path) -> None:
    path, cls = write_plugin("small_logits", tmp_path)
    source = path / "src" / "small_logits" / "__init__.py"
    source.write_text(source.read_text().replace(".mean()", ""))
    conformance = Conformance(load_plugin(f"{source}:{cls}"), tiny_plan("fraud"))
    with pytest.raises(HookError) as caught:
        conformance.check_training()
    assert f"✗ {caught.value}" in PLUGIN_GUIDE
