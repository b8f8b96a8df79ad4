"""Settings of every test: one thread, the seeds of the global generators, and the order.

Tests draw from generators of their own. What reads a global generator all the same, such as the first weights of a
network, is seeded for each fixture and test by its name, so that it does not depend on what ran before.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from goalposts.benchmark.randomness import stream_seed

torch.set_num_threads(1)
settings.register_profile("goalposts", derandomize=True, deadline=None)
settings.load_profile("goalposts")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--random-seed",
        type=int,
        help="shuffle the modules, and the tests of each, by this seed; seed the global generators by it too",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed = config.getoption("--random-seed")
    if seed is not None:
        random.Random(seed).shuffle(items)
        modules = list(dict.fromkeys(item.path for item in items))
        items.sort(key=lambda item: modules.index(item.path))


def seed_global_generators(config: pytest.Config, *name: str) -> None:
    seed = stream_seed("tests", str(config.getoption("--random-seed")), *name)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    seed_global_generators(request.config, request.node.name, fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed_global_generators(item.config, item.name)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
