from __future__ import annotations

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("goalposts", derandomize=True, deadline=None)
settings.load_profile("goalposts")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
