from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.training.advantages import generalized_advantages
from tests.toy import rollout


def plain(batch: Rollout, gamma: float, gae_lambda: float) -> Tensor:
    """Return the advantages by the definition: a sum of discounted one-step errors up to the episode's end."""
    num_steps, num_envs = batch.rewards.shape
    result = torch.zeros(num_steps, num_envs)
    for n in range(num_envs):
        for start in range(num_steps):
            weight = 1.0
            for t in range(start, num_steps):
                if batch.terminated[t, n]:
                    after = 0.0
                elif batch.truncated[t, n]:
                    after = float(batch.final_values[t, n])
                else:
                    after = float(batch.values[t + 1, n] if t + 1 < num_steps else batch.last_values[n])
                error = float(batch.rewards[t, n]) + gamma * after - float(batch.values[t, n])
                result[start, n] += weight * error
                if batch.done[t, n]:
                    break
                weight *= gamma * gae_lambda * min(1.0, float(batch.importance[min(t + 1, num_steps - 1), n]))
    return result


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 0.8), (1.0, 1.0), (0.9, 0.0), (0.0, 0.95)])
@pytest.mark.parametrize("num_steps", [1, 12])
def test_equals_a_plain_double_loop(gamma: float, gae_lambda: float, num_steps: int) -> None:
    batch = rollout(num_steps, 10)
    draw = torch.rand(num_steps, 10, generator=torch.Generator().manual_seed(1))
    batch.terminated, batch.truncated = draw < 0.2, draw > 0.8
    batch.final_values = torch.where(batch.truncated, 3.0 * draw, 0.0)
    batch.importance = 2.0 * torch.rand(num_steps, 10, generator=torch.Generator().manual_seed(2))
    advantages, targets = generalized_advantages(batch, gamma, gae_lambda)
    torch.testing.assert_close(advantages, plain(batch, gamma, gae_lambda), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(targets, advantages + batch.values)


def test_the_end_decides_what_comes_after() -> None:
    # One step, reward 1, value 2; gamma 0.5: terminated, truncated at a state worth 4, going on to one worth 8.
    flags = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    batch = rollout(
        1,
        3,
        rewards=torch.ones(1, 3),
        values=torch.full((1, 3), 2.0),
        terminated=flags[0],
        truncated=flags[1],
        final_values=torch.tensor([[0.0, 4.0, 0.0]]),
        last_values=torch.full((3,), 8.0),
    )
    advantages, _ = generalized_advantages(batch, 0.5, 0.95)
    assert advantages.tolist() == [[-1.0, 1.0, 3.0]]
