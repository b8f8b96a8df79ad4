"""Value iteration over all states of an environment, to check planners that claim to be exact.

It uses only the task's environment. From each state it tries every action and keeps the distinct states. Then it goes
back from the time limit. This is feasible only on small instances.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from goalposts.benchmark.tasks.levels import Levels, hash_rows
from goalposts.benchmark.tasks.task import Task

MAX_STATES = 2_000_000
"""Largest number of states at one time, over all levels."""


def optimal_values(task: Task[Any], levels: Levels, goal: int, gamma: float) -> Tensor:
    """Return the largest discounted return from each level's start, ``float64[num_levels]``.

    Args:
        task: a task with a deterministic environment.
        levels: what to solve.
        goal: the rewarded goal. Step costs are subtracted.
        gamma: discount factor.

    Raises:
        ValueError: there are too many states.
    """
    count, device = len(levels), levels.device
    env = task.make_env(count, device)
    env.reset(levels, goals=torch.full((count,), goal, device=device))
    states = env.state_dict()
    origin = torch.arange(count, device=device)
    layers: list[tuple[Tensor, Tensor]] = []
    while len(origin):
        if len(origin) * task.num_actions > MAX_STATES:
            raise ValueError(
                f"{task.id} has {len(origin)} states at step {len(layers)}; solve fewer or smaller levels."
            )
        rows = torch.arange(len(origin), device=device).repeat_interleave(task.num_actions)
        actions = torch.arange(task.num_actions, device=device).repeat(len(origin))
        env = task.make_env(len(rows), device)
        env.load_state_dict({name: tensor[rows] for name, tensor in states.items()})
        step = env.step(actions)
        reward = step.events[:, goal].double() - step.cost.double()
        going_on = (~(step.terminated | step.truncated)).nonzero().squeeze(1)
        after = {name: tensor[going_on] for name, tensor in env.state_dict().items()}
        origin = origin[rows][going_on]
        _, which = hash_rows([origin, *after.values()]).unique(return_inverse=True)
        successor = torch.full_like(rows, -1)
        successor[going_on] = which
        distinct = torch.zeros(int(which.max()) + 1 if len(which) else 0, dtype=torch.int64, device=device)
        distinct[which] = torch.arange(len(which), device=device)
        states = {name: tensor[distinct] for name, tensor in after.items()}
        origin = origin[distinct]
        layers.append((reward.view(-1, task.num_actions), successor.view(-1, task.num_actions)))
    value = torch.zeros(1, dtype=torch.float64, device=device)
    for reward, successor in reversed(layers):
        later = torch.cat([value, value.new_zeros(1)])  # The last entry stands for the end of an episode.
        value = (reward + gamma * later[successor]).amax(dim=1)
    return value
