from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from benchmark.errors import RequestError
from benchmark.measurement.certificates import certify
from benchmark.tasks import make_task
from goalposts.skeleton import write_task

GUIDE = (Path(__file__).parents[2] / "docs" / "new_task.md").read_text()


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
        (re.compile(r"time_limit: int = 40"), "time_limit"),
    ):
        fresh = textwrap.dedent(snippet(start))
        if start == "time_limit":
            fresh = fresh.strip()
        else:
            fresh = textwrap.indent(fresh, " " * (4 if start == "case = Case(" else 8))
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


@pytest.mark.parametrize("name", ["", "Forest", "forest-fire", "1st", "../forest", "forest fire"])
def test_a_name_must_be_one_of_a_module(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=re.escape(repr(name))):
        write_task(name, tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_task("forest_fire", tmp_path)
    with pytest.raises(RequestError, match="exists already"):
        write_task("forest_fire", tmp_path)


def test_the_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        write_task("forest_fire", tmp_path / "nowhere")
