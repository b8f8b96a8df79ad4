"""The global generators are seeded for each test by its name."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.conftest import seed_global_generators


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]


@pytest.fixture(scope="module", params=["first", "second"])
def drawn_by_a_fixture(request: pytest.FixtureRequest) -> list[float]:
    return draws()


def test_what_is_drawn_depends_on_the_test_alone(
    drawn_by_a_fixture: list[float], request: pytest.FixtureRequest
) -> None:
    drawn = draws()
    seed_global_generators(request.config, request.node.name)
    assert draws() == drawn
    seed_global_generators(request.config, "test_seeds.py", "drawn_by_a_fixture")
    assert draws() == drawn_by_a_fixture
    seed_global_generators(request.config, "another test")
    assert not set(draws()) & set(drawn)
