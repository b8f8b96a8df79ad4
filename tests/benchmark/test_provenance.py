"""Provenance: who works for whom, and what is hashed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from goalposts.benchmark.errors import GoalpostsError
from goalposts.benchmark.experiment import provenance as module
from goalposts.benchmark.experiment.provenance import ALIKE, LIBRARIES, PACKAGE, Provenance, provenance
from goalposts.benchmark.experiment.record import Commit, Machine

HERE = Provenance(
    versions={"goalposts": "0.1.0", "torch": "2.13.0", "numpy": "1.26.4"},
    commit=Commit(id="a" * 40, clean=True),
    source_sha256="1" * 64,
    machine=Machine(processor="One", gpu=None),
)


def test_it_names_libraries_and_machine() -> None:
    found = provenance("cpu")
    assert set(found.versions) == {"python", *LIBRARIES}
    assert set(ALIKE) <= set(found.versions)
    assert found.machine.gpu is None
    assert found.machine.processor
    assert len(found.source_sha256) == 64


@pytest.mark.parametrize(
    ("changes", "here", "there"),
    [
        ({"source_sha256": "2" * 64}, "the source of goalposts 111111111111", "222222222222"),
        ({"versions": {**HERE.versions, "torch": "2.12.0"}}, "torch 2.13.0", "2.12.0"),
        ({"versions": {**HERE.versions, "goalposts": "0.2.0"}}, "goalposts 0.1.0", "0.2.0"),
    ],
)
def test_a_driver_with_other_code_is_refused(changes: dict[str, Any], here: str, there: str) -> None:
    with pytest.raises(
        GoalpostsError, match=f"has {here}, the driver on another machine has {there}; install"
    ) as caught:
        HERE.check_like(dataclasses.replace(HERE, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"machine": Machine(processor="Two", gpu="A GPU")},
        {"commit": Commit(id=None, clean=None)},
        {"versions": {**HERE.versions, "numpy": "2.0.0"}},
    ],
)
def test_another_machine_with_the_same_code_is_taken(changes: dict[str, Any]) -> None:
    HERE.check_like(dataclasses.replace(HERE, **changes))


def test_all_source_files_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: dict[str, Any] = {}
    monkeypatch.setattr(module, "files_sha256", lambda files: hashed.update(files) or "")
    module.package_sha256(PACKAGE)
    expected = {
        f"{folder}{path.relative_to(PACKAGE / folder).as_posix()}"
        for folder in ("", "benchmark/", "cluster/", "mitigations/", "results/", "_cli/")
        for path in (PACKAGE / folder).rglob("*.py")
    }
    assert set(hashed) == expected
    assert {"benchmark/training/loop.py", "mitigations/none.py", "_cli/main.py", "__init__.py"} <= set(hashed)
