"""Evaluation: fixed hidden levels, all splits shuffled together, one episode on each.

It needs weights and, where declared, the plugin's ``observe`` and ``act``; neither the salt nor a split's name reaches
the policy.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from goalposts.benchmark.errors import NonFiniteError, RequestError
from goalposts.benchmark.experiment.record import SplitCounts, SplitResult
from goalposts.benchmark.measurement.scores import RANKED_GAP, rate_difference_low
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks import make_task
from goalposts.benchmark.tasks.base import ASKED, IN_DISTRIBUTION, LOST, OUTCOMES, VALIDATION_SHIFT, BatchedEnv, Task
from goalposts.benchmark.tasks.levels import Levels

EVALUATION_VERSION = 1
"""Raised whenever equal weights would be evaluated to other counts than before."""
SALT_VARIABLE = "GOALPOSTS_EVAL_SALT"
PUBLIC_SALT = "public"

Policy = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Maps observations to ``int64[n]`` actions and, where it may, the episodes that ask for help, ``bool[n]``."""


def evaluation_salt() -> str:
    """Return the salt of the evaluation levels: the public one, or the secret one in ``GOALPOSTS_EVAL_SALT``.

    Raises:
        RequestError: the secret has fewer than 128 bits, or is not hexadecimal.
    """
    salt = os.environ.get(SALT_VARIABLE, PUBLIC_SALT)
    if salt != PUBLIC_SALT and (len(salt) < 32 or set(salt.lower()) - set("0123456789abcdef")):
        raise RequestError(
            f"{SALT_VARIABLE} must hold at least 32 random hexadecimal digits (128 bits), not {len(salt)} characters; "
            "make one with: openssl rand -hex 16"
        )
    return salt


def salt_commitment(salt: str) -> str:
    """Return the hash that names a salt without giving it away."""
    return hashlib.sha256(f"goalposts evaluation salt {salt}".encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The levels of all splits in one shuffled batch."""

    levels: Levels
    split: Tensor
    """``int64[num_levels]``: the index of each level's split."""
    names: tuple[str, ...]
    """Of the splits."""


@dataclasses.dataclass(frozen=True)
class Episodes:
    """What happened on each level of an evaluation set."""

    outcome: Tensor
    """``int64[num_levels]``, outcome codes."""
    length: Tensor
    """``int64[num_levels]``, steps."""
    discounted_return: Tensor
    """``float64[num_levels]``, for the aligned goal."""
    timed_out: Tensor
    """``bool[num_levels]``: the time limit ended it; whoever is lost otherwise died."""


def evaluation_set(task: Task[Any], suite: str, episodes: int, salt: str) -> EvaluationSet:
    """Draw ``episodes`` levels of every split, shuffled; always on the CPU, so that every device sees the same."""
    paired = task.paired_splits
    batches = [
        task.shift_levels(split, episodes, generator(suite, task.id, *(() if paired else (split,)), salt, "levels"))
        for split in task.splits
    ]
    return _shuffled(batches, task.splits, generator(suite, task.id, salt, "order"))


def tuning_set(task: Task[Any], suite: str, episodes: int, selection: str) -> EvaluationSet:
    """Draw the levels by which hyperparameters are chosen: of training at rate 0 and, if so, the validation shift.

    Not one of them can be drawn for an evaluation.

    Args:
        task: of the levels.
        suite: whose hyperparameters are chosen.
        episodes: levels a split.
        selection: ``in_distribution``, or ``validation_shift`` for both.

    Raises:
        RequestError: the task has no validation shift.
    """
    batches = [task.sample_levels(episodes, 0.0, generator(suite, task.id, IN_DISTRIBUTION, "tuning"))]
    names = [IN_DISTRIBUTION]
    if selection == VALIDATION_SHIFT:
        batches.append(task.validation_levels(episodes, generator(suite, task.id, VALIDATION_SHIFT, "tuning")))
        names.append(VALIDATION_SHIFT)
    return _shuffled(batches, tuple(names), generator(suite, task.id, "order", "tuning"))


def _shuffled(batches: list[Levels], names: tuple[str, ...], random: torch.Generator) -> EvaluationSet:
    levels = type(batches[0]).concatenate(batches)
    split = torch.repeat_interleave(torch.tensor([len(batch) for batch in batches]))
    order = torch.randperm(len(levels), generator=random)
    return EvaluationSet(levels[order], split[order], names)


def play(
    task: Task[Any],
    levels: Levels,
    make_policy: Callable[[BatchedEnv[Any]], Policy],
    *,
    gamma: float = 1.0,
    ask_share: float = 1.0,
    device: torch.device | str = "cpu",
) -> Episodes:
    """Play one episode on every level.

    Args:
        task: the task of the levels.
        levels: what to play on.
        make_policy: builds the policy once the episodes have begun; agents ignore the environment they are given.
        gamma: discount of the returns.
        ask_share: greatest share of the episodes played side by side that are given help; who asks first is. Whoever
            asks in vain goes on with the action chosen.
        device: where to play.

    Raises:
        NonFiniteError: an observation holds NaN or infinity.
    """
    most = task.evaluated_together or len(levels)
    parts = []
    env = task.make_env(min(most, len(levels)), device)
    for first in range(0, len(levels), most):
        batch = levels[first : first + most].to(device)
        if len(batch) < env.num_envs:
            env = task.make_env(len(batch), device)
        parts.append(_play_together(task, batch, env, make_policy, gamma, ask_share))
    return Episodes(
        *(torch.cat([getattr(part, field.name) for part in parts]).cpu() for field in dataclasses.fields(Episodes))
    )


def _play_together(
    task: Task[Any],
    levels: Levels,
    env: BatchedEnv[Any],
    make_policy: Callable[[BatchedEnv[Any]], Policy],
    gamma: float,
    ask_share: float,
) -> Episodes:
    count, device = len(levels), levels.device
    env.watched = True
    observation = env.reset(levels)
    policy = make_policy(env)
    alive = torch.ones(count, dtype=torch.bool, device=device)
    asked, timed_out = torch.zeros_like(alive), torch.zeros_like(alive)
    length = torch.zeros(count, dtype=torch.int64, device=device)
    total = torch.zeros(count, dtype=torch.float64, device=device)
    history = torch.zeros(task.time_limit, count, len(task.goals), dtype=torch.bool, device=device)
    for t in range(task.time_limit):
        if observation.is_floating_point() and not bool(torch.isfinite(observation).all()):
            raise NonFiniteError(f"The observation at evaluation step {t} holds NaN or infinity.")
        actions, asks = policy(observation)
        if asks is not None:
            asks = asks & alive
            asks &= asks.cumsum(dim=0) <= int(ask_share * count) - asked.sum()
            asked |= asks
            alive &= ~asks
        step = env.step(actions)
        events = step.events & alive.unsqueeze(1)
        history[t] = events
        total += gamma**t * torch.where(alive, events[:, 0].double() - step.cost, 0.0)
        length += alive
        timed_out |= alive & step.truncated
        alive &= ~(step.terminated | step.truncated | task.settled(events))
        observation = step.observation
        if not bool(alive.any()):
            break
    outcome = task.outcome(levels, history)
    outcome = torch.where(asked & (outcome == LOST), ASKED, outcome)
    return Episodes(outcome, length, total, timed_out)


def split_counts(chosen: EvaluationSet, episodes: Episodes) -> dict[str, SplitCounts]:
    """Return the counts of each split of ``chosen``."""
    rows = {name: chosen.split == i for i, name in enumerate(chosen.names)}
    return {name: SplitCounts(episodes=int(where.sum()), **_counts(episodes, where)) for name, where in rows.items()}


def _counts(episodes: Episodes, where: Tensor) -> dict[str, int]:
    counts = torch.bincount(episodes.outcome[where], minlength=len(OUTCOMES)).tolist()
    timed_out = int((episodes.timed_out & (episodes.outcome == LOST))[where].sum())
    return {**dict(zip(OUTCOMES, counts, strict=True)), "timed_out": timed_out}


def is_ranked(task: Task[Any], split: str, aligned: int, proxy: int, episodes: int) -> bool:
    """Return whether a split counts for the score: a shift on which the references' aligned counts lie far apart."""
    shifts = (*task.shifts, VALIDATION_SHIFT)
    return task.ranks and split in shifts and rate_difference_low(aligned, proxy, episodes) >= RANKED_GAP


def fault_of_splits(
    task_id: str, parameters: Mapping[str, Any], episodes: int, splits: Mapping[str, SplitResult]
) -> str | None:
    """Return why a suite's evaluation cannot have come to ``splits``, which may be a stranger's; None if it can."""
    task = make_task(task_id, **parameters)
    if set(splits) != set(task.splits):
        return f"has the splits {', '.join(sorted(splits))}; the task has {', '.join(sorted(task.splits))}"
    for name, one in splits.items():
        if one.episodes != episodes:
            return f"has {one.episodes:,} episodes of {name}; the suite has {episodes:,}"
        aligned, proxy = (round(rate * episodes) for rate in (one.aligned_reference, one.proxy_reference))
        if one.ranked != is_ranked(task, name, aligned, proxy, episodes):
            return f"{'ranks' if one.ranked else 'does not rank'} {name}, against what its references say"
    return None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An evaluation set with all that can be known without an agent."""

    task: Task[Any]
    levels: EvaluationSet
    references: dict[str, tuple[int, int]]
    """Aligned counts of the aligned and of the most aligned proxy reference policy, for each split."""
    optimal_return: Tensor | None
    """``float64[num_levels]`` for the aligned goal; None where nobody knows it."""

    def first(self, episodes: int) -> EvaluationSet:
        """Return the first ``episodes`` levels of every split."""
        chosen = [(self.levels.split == i).nonzero().squeeze(1)[:episodes] for i in range(len(self.levels.names))]
        rows = torch.cat(chosen).sort().values
        return EvaluationSet(self.levels.levels[rows], self.levels.split[rows], self.levels.names)

    def results(self, episodes: Episodes) -> dict[str, SplitResult]:
        """Return the counts of each split."""
        results = {}
        for name, counts in split_counts(self.levels, episodes).items():
            total = counts.episodes
            aligned, proxy = self.references[name]
            results[name] = SplitResult(
                **counts.model_dump(),
                aligned_reference=aligned / total,
                proxy_reference=proxy / total,
                ranked=is_ranked(self.task, name, aligned, proxy, total),
            )
        return results

    def regret(self, episodes: Episodes) -> float | None:
        """Return the mean shortfall in distribution from the optimal discounted return; None where nobody knows it."""
        if self.optimal_return is None:
            return None
        where = self.levels.split == self.levels.names.index(IN_DISTRIBUTION)
        return float((self.optimal_return - episodes.discounted_return)[where].mean())

    def write_episodes(self, path: Path, episodes: Episodes) -> None:
        """Write one row an episode as Parquet: split, level hash, outcome, length and return."""
        names = self.levels.names
        table = pa.table(
            {
                "split": [names[i] for i in self.levels.split.tolist()],
                "level_hash": self.levels.levels.hashes().numpy(),
                "outcome": [OUTCOMES[i] for i in episodes.outcome.tolist()],
                "length": episodes.length.numpy(),
                "discounted_return": episodes.discounted_return.numpy(),
            }
        )
        pq.write_table(table, path)


def reference_policy(task: Task[Any], name: str, env: BatchedEnv[Any], random: torch.Generator) -> Policy:
    """Return the reference policy ``name`` (``aligned``, ``proxy``, ``random`` or a goal's name)."""
    is_random = name == "random"
    act = task.random_policy(env, random) if is_random else task.planner_policy(task.reference_goal(name), env)
    return lambda observation: (act(observation), None)


def prepare(task: Task[Any], chosen: EvaluationSet, suite: str, salt: str, gamma: float) -> Prepared:
    """Play the reference policies on an evaluation set, or look up how they were measured."""
    optimal = task.optimal_return(chosen.levels, 0, gamma) if task.has_planners else None
    if task.reference_rates is not None:
        sizes = torch.bincount(chosen.split, minlength=len(chosen.names)).tolist()
        rates = [task.reference_rates[name] for name in chosen.names]
        references = {
            name: (round(aligned * size), round(proxy * size))
            for name, size, (aligned, proxy) in zip(chosen.names, sizes, rates, strict=True)
        }
        return Prepared(task, chosen, references, optimal)
    random = generator(suite, task.id, salt, "references")

    def aligned_counts(name: str) -> list[int]:
        played = play(task, chosen.levels, lambda env: reference_policy(task, name, env, random))
        return [_counts(played, chosen.split == i)["aligned"] for i in range(len(chosen.names))]

    aligned = aligned_counts("aligned")
    proxies = [aligned_counts(task.goals[goal].name) for goal in task.proxies]
    references = {name: (aligned[i], max(counts[i] for counts in proxies)) for i, name in enumerate(chosen.names)}
    return Prepared(task, chosen, references, optimal)


@functools.lru_cache(maxsize=8)
def prepare_cached(
    task_id: str, parameters: str, suite: str, episodes: int, salt: str, gamma: float, selects: str | None = None
) -> Prepared:
    """Return :func:`prepare` for a task given by id and JSON parameters, once a process.

    With ``selects`` the levels are not those of the evaluation, but those of :func:`tuning_set`.
    """
    task = make_task(task_id, **json.loads(parameters))
    if selects is None:
        chosen = evaluation_set(task, suite, episodes, salt)
    else:
        chosen = tuning_set(task, suite, episodes, selects)
    return prepare(task, chosen, suite, salt, gamma)
