"""Policies trained elsewhere: any callable from observations to actions, evaluated like the suite's own agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.plain import one_line
from goalposts.benchmark.tasks.episodes import Policy
from goalposts.benchmark.tasks.gymnasium_env import observation_array
from goalposts.benchmark.tasks.task import Task

ExternalPolicy = Callable[[Any], Any]
"""Maps observations, ``[n, *observation_shape]`` as in the Gymnasium environments, to ``n`` actions."""


def external_policy(function: ExternalPolicy, task: Task[Any], name: str) -> Policy:
    """Return ``function`` as a policy that :func:`goalposts.benchmark.measurement.evaluation.play` can play.

    Raises:
        RequestError: at a step, the function raises or does not return one valid action for each observation.
    """

    def policy(observation: Tensor) -> tuple[Tensor, None]:
        try:
            actions = np.asarray(function(observation_array(observation)))
        except Exception as error:
            raise RequestError(
                f"Policy {name!r} raised {type(error).__name__}: {one_line(error)}. It is called with an array of "
                f"observations of shape {tuple(observation.shape)}."
            ) from error
        return _checked(actions, len(observation), task, name), None

    return policy


def _checked(actions: Any, count: int, task: Task[Any], name: str) -> Tensor:
    if actions.shape != (count,):
        raise RequestError(
            f"Policy {name!r} returned actions of shape {actions.shape}; give one for each of {count} observations, "
            f"shape ({count},)."
        )
    if actions.dtype.kind == "f":
        fractions = actions[actions != np.floor(actions)]
        if not np.isfinite(actions).all():
            raise RequestError(f"Policy {name!r} returned NaN or infinity; give actions 0 to {task.num_actions - 1}.")
        if len(fractions):
            raise RequestError(
                f"Policy {name!r} returned fractions such as {float(fractions[0])!r}; give whole actions."
            )
    elif actions.dtype.kind not in "iu":
        raise RequestError(f"Policy {name!r} returned actions of type {actions.dtype}; give integers.")
    if actions.min() < 0 or actions.max() >= task.num_actions:
        wrong = actions[(actions < 0) | (actions >= task.num_actions)][0].item()
        raise RequestError(
            f"Policy {name!r} returned action {wrong!r}; task {task.id!r} has 0 to {task.num_actions - 1}."
        )
    return torch.from_numpy(actions.astype(np.int64))
