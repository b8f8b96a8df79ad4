from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.loading import MITIGATIONS, registered
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.sources import OURS, source_files, source_sha256

GOOD = """
from goalposts import Knowledge, Mitigation

class Mine(Mitigation):
    uses = {"level_generator"}
    author = "Ada"

    def __init__(self, rate=0.5, *, size=3):
        self.rate = rate
"""


def plugin(folder: Path, source: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(source)
    return path


def test_file_and_class(tmp_path: Path) -> None:
    path = plugin(tmp_path, GOOD)
    loaded = load_plugin(f"{path}:Mine")
    assert (loaded.name, loaded.reference) == ("mine:Mine", f"{path}:Mine")
    assert issubclass(loaded.cls, Mitigation)
    assert loaded.cls.uses == {Knowledge.LEVEL_GENERATOR}
    assert loaded.hyperparameters({}) == {"rate": 0.5, "size": 3}
    assert loaded.hyperparameters({"size": 4}) == {"rate": 0.5, "size": 4}
    assert load_plugin(loaded.reference).sha256 == loaded.sha256


def test_a_relative_path_is_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    reference = load_plugin("mine.py:Mine").reference
    monkeypatch.chdir("/")
    assert load_plugin(reference).name == "mine:Mine"


def test_hash_changes_with_the_file(tmp_path: Path) -> None:
    path = plugin(tmp_path, GOOD)
    before = load_plugin(f"{path}:Mine")
    plugin(tmp_path, GOOD.replace("0.5", "0.25"))
    after = load_plugin(f"{path}:Mine")
    assert before.sha256 != after.sha256
    assert after.hyperparameters({})["rate"] == 0.25


def test_unknown_hyperparameter_is_refused(tmp_path: Path) -> None:
    loaded = load_plugin(f"{plugin(tmp_path, GOOD)}:Mine")
    with pytest.raises(RequestError, match=r"'sise'.*Did you mean 'size'"):
        loaded.hyperparameters({"sise": 1})


SUBCLASS = "from goalposts import Mitigation\nclass Mine(Mitigation):\n"


@pytest.mark.parametrize(
    ("source", "reference", "problem", "mend"),
    [
        pytest.param(None, "mine.py:Mine", "does not exist", "give the path", id="no_file"),
        pytest.param(GOOD, "mine.py", "names no class", "path.py:Class", id="no_class_named"),
        pytest.param(GOOD, "mine.py:Mime", "Unknown class", "Did you mean 'Mine'", id="class_misspelt"),
        pytest.param(GOOD, "mine.py:", "Unknown class", "Mine", id="class_empty"),
        pytest.param(
            "class Mine: pass", "mine.py:Mine", "not a mitigation", "subclass of goalposts.Mitigation", id="other_class"
        ),
        pytest.param("Mine = 3", "mine.py:Mine", "not a mitigation", "subclass of goalposts.Mitigation", id="no_class"),
        pytest.param("import nowhere_to_be_found", "mine.py:Mine", "ModuleNotFoundError", "fix it", id="import_fails"),
        pytest.param("class Mine(:", "mine.py:Mine", "SyntaxError", "fix it", id="syntax"),
        pytest.param("raise ValueError('one\\ntwo')", "mine.py:Mine", "ValueError: one two", "fix it", id="raises"),
        pytest.param(
            SUBCLASS + "    uses = {'telepathy'}",
            "mine.py:Mine",
            "telepathy",
            "level_generator",
            id="knowledge_unknown",
        ),
        pytest.param(
            SUBCLASS + "    uses = 3", "mine.py:Mine", "unknown knowledge", "level_generator", id="knowledge_no_set"
        ),
        pytest.param(SUBCLASS + "    fixed_alpha = 1.5", "mine.py:Mine", "1.5", r"\[0, 1\]", id="alpha_range"),
        pytest.param(
            SUBCLASS + "    fixed_alpha = 1.0",
            "mine.py:Mine",
            "fixes alpha",
            "'level_generator' in its 'uses'",
            id="alpha_undeclared",
        ),
        pytest.param(
            SUBCLASS + "    def __init__(self, x): ...",
            "mine.py:Mine",
            "without arguments",
            "default",
            id="needs_arguments",
        ),
        pytest.param(
            SUBCLASS + "    def __init__(self): 1 / 0",
            "mine.py:Mine",
            "ZeroDivisionError",
            "without arguments",
            id="init_raises",
        ),
    ],
)
def test_a_wrong_plugin_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, reference: str, problem: str, mend: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if source is not None:
        plugin(tmp_path, source)
    with pytest.raises(RequestError, match=problem) as caught:
        load_plugin(reference)
    assert caught.match(mend)
    assert "\n" not in str(caught.value)


def test_unknown_name_is_refused_with_the_nearest() -> None:
    name = sorted(registered(MITIGATIONS))[0]
    with pytest.raises(RequestError, match=f"Did you mean '{name}'"):
        load_plugin(f"{name}x")


def test_registered_names_load() -> None:
    for name in registered(MITIGATIONS):
        loaded = load_plugin(name)
        assert loaded.name == loaded.reference == name
        assert len(loaded.sha256) == 64


def test_the_sha256_covers_what_the_plugin_imports_of_its_package_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lab_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mine.py").write_text(
        "from goalposts import Mitigation\nfrom .helper import X\n\nclass Mine(Mitigation): pass\n"
    )
    (package / "helper.py").write_text("from lab_package import deeper\nX = 1\n")
    (package / "deeper.py").write_text("Y = 1\n")
    (package / "unrelated.py").write_text("Z = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    cls = importlib.import_module("lab_package.mine").Mine
    before = source_sha256(cls, Mitigation)
    (package / "unrelated.py").write_text("Z = 2\n")
    assert source_sha256(cls, Mitigation) == before
    (package / "deeper.py").write_text("Y = 2\n")
    assert source_sha256(cls, Mitigation) != before


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("none", {"", "none"}),
        ("plr", {"", "plr", "level_buffer", "regret"}),
        ("accel", {"", "accel", "plr", "level_buffer", "regret"}),
        ("ask_for_help", {"", "ask_for_help", "ensemble"}),
    ],
)
def test_the_sha256_of_a_built_in_mitigation_covers_its_own_folder_alone(name: str, files: set[str]) -> None:
    found = source_files(load_plugin(name).cls, Mitigation)
    assert set(found) == {f"{OURS}.{file}".rstrip(".") for file in files}


def test_the_sha256_covers_a_base_class_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = plugin(tmp_path, "from goalposts import Mitigation\n\nclass Base(Mitigation): pass\n", "lab_base.py")
    monkeypatch.syspath_prepend(tmp_path)
    derived = plugin(tmp_path, "from lab_base import Base\n\nclass Derived(Base): pass\n", "derived.py")
    before = load_plugin(f"{derived}:Derived").sha256
    base.write_text(base.read_text() + "# changed\n")
    assert load_plugin(f"{derived}:Derived").sha256 != before


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("version = 2", "version 2; use a string"),
        ("fixed_alpha = '1'", "fixed_alpha '1'; give a number"),
        ("def __init__(self, rate=float('inf')): pass", "rate=inf by default"),
        ("def __init__(self, function=print): pass", "use a finite JSON value"),
        (
            "search_space = {'rate': {'low': 0, 'high': 1}}",
            "searches for 'rate', which is not one of its hyperparameters",
        ),
        ("author = 'Eve\\x1b[2J'", "has as its author a text with characters that cannot be shown"),
        ("def __init__(self, name='x' * 2000): pass", "has by default name with a text of 2,000 characters"),
        ("search_space = [1]", "search_space [1]; use a dict"),
        ("search_space = {'rate': 3}\n    def __init__(self, rate=0.5): pass", "searches for 'rate' in 3; give a dict"),
        *(
            (f"search_space = {{'rate': {where}}}\n    def __init__(self, rate=0.5): pass", "its default is 0.5")
            for where in (
                "{}",
                "{'low': 0}",
                "{'low': 0.6, 'high': 1.0}",
                "{'low': 1.0, 'high': 0.0}",
                "{'low': 0.0, 'high': 1.0, 'log': True}",
                "{'low': 0.0, 'high': 1.0, 'step': 0.1}",
                "{'low': 0.0, 'high': 1.0, 'choices': [0.5]}",
                "{'choices': [0.1, 0.2]}",
                "{'low': '0', 'high': '1'}",
            )
        ),
    ],
)
def test_an_impossible_declaration_is_refused(tmp_path: Path, body: str, message: str) -> None:
    path = plugin(tmp_path, f"from goalposts import Mitigation\n\nclass Mine(Mitigation):\n    {body}\n")
    with pytest.raises(RequestError, match=re.escape(message)):
        load_plugin(f"{path}:Mine")


def test_a_name_that_no_record_can_have_is_refused(tmp_path: Path) -> None:
    path = plugin(tmp_path, "from goalposts import Mitigation\n\nclass Mine(Mitigation): pass\n", "my|own.py")
    with pytest.raises(RequestError, match=r"name 'my\|own:Mine' is not allowed"):
        load_plugin(f"{path}:Mine")
