"""Evaluation sets: hidden levels of all splits, shuffled together, and the results of the reference policies on them.

An evaluation needs weights and, if declared, the plugin's ``observe`` and ``act``. The policy sees neither the salt nor
the name of a split.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from goalposts.benchmark.agent import Agent
from goalposts.benchmark.files import write_atomically
from goalposts.benchmark.measurement.counts import SplitCounts, SplitResult
from goalposts.benchmark.measurement.episodes import Episodes, play
from goalposts.benchmark.measurement.plan import EvaluationPlan, salt_commitment
from goalposts.benchmark.measurement.scores import is_ranked
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.episodes import reference_policy
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import IN_DISTRIBUTION, LOST, OUTCOMES, VALIDATION_SHIFT


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The levels of all splits in one shuffled batch."""

    levels: Levels
    split: Tensor
    """``int64[num_levels]``: the index of each level's split."""
    names: tuple[str, ...]
    """Names of the splits."""


def evaluation_set(task: Task[Any], suite: str, episodes: int, salt: str) -> EvaluationSet:
    """Draw ``episodes`` levels of every split, shuffled.

    They are always drawn on the CPU, so that every device gets the same levels.
    """
    paired = task.evaluation_traits.paired_splits
    batches = [
        task.shift_levels(split, episodes, generator(suite, task.id, *(() if paired else (split,)), salt, "levels"))
        for split in task.splits
    ]
    return _shuffled(batches, task.splits, generator(suite, task.id, salt, "order"))


def tuning_set(task: Task[Any], suite: str, episodes: int, selection: str) -> EvaluationSet:
    """Draw the levels for choosing hyperparameters: training levels at rate 0 and, if selected, the validation shift.

    None of them can be drawn for an evaluation.

    Args:
        task: the task of the levels.
        suite: the suite whose hyperparameters are chosen.
        episodes: levels of each split.
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


def rankable_shifts(task: Task[Any]) -> tuple[str, ...]:
    """Return the shifts that may count for the score. A task that measures a preference has none."""
    return (*task.shifts, VALIDATION_SHIFT) if task.ranks else ()


def split_counts(chosen: EvaluationSet, episodes: Episodes) -> dict[str, SplitCounts]:
    """Return the counts of each split of ``chosen``."""
    rows = {name: chosen.split == i for i, name in enumerate(chosen.names)}
    return {name: SplitCounts(episodes=int(where.sum()), **_counts(episodes, where)) for name, where in rows.items()}


def _counts(episodes: Episodes, where: Tensor) -> dict[str, int]:
    counts = torch.bincount(episodes.outcome[where], minlength=len(OUTCOMES)).tolist()
    timed_out = int((episodes.timed_out & (episodes.outcome == LOST))[where].sum())
    return {**dict(zip(OUTCOMES, counts, strict=True)), "timed_out": timed_out}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An evaluation set with all results that do not depend on an agent."""

    task: Task[Any]
    levels: EvaluationSet
    references: dict[str, tuple[int, int]]
    """Aligned counts on each split of two reference policies: the aligned one and the most aligned proxy one."""
    optimal_return: Tensor | None
    """``float64[num_levels]`` for the aligned goal. None if it is unknown."""

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
                ranked=is_ranked(rankable_shifts(self.task), name, aligned, proxy, total),
            )
        return results

    def regret(self, episodes: Episodes) -> float | None:
        """Return the mean shortfall from the optimal discounted return in distribution.

        None if the optimum is unknown.
        """
        if self.optimal_return is None:
            return None
        where = self.levels.split == self.levels.names.index(IN_DISTRIBUTION)
        return float((self.optimal_return - episodes.discounted_return)[where].mean())

    def write_episodes(self, path: Path, episodes: Episodes) -> None:
        """Write one row per episode as Parquet: split, level hash, outcome, length and return."""
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
        content = io.BytesIO()
        pq.write_table(table, content)
        write_atomically(path, content.getvalue())


def prepare(task: Task[Any], plan: EvaluationPlan, salt: str) -> Prepared:
    """Draw the levels of a plan. Play the reference policies on them, or look up their measured rates.

    Args:
        task: the plan's task.
        plan: the plan of the evaluation.
        salt: the salt that the plan commits to.
    """
    assert plan.salt_commitment == salt_commitment(salt)
    if plan.selects is None:
        chosen = evaluation_set(task, plan.suite, plan.episodes, salt)
    else:
        chosen = tuning_set(task, plan.suite, plan.episodes, plan.selects)
    return prepared_on(task, chosen, plan.suite, salt, plan.gamma)


def prepared_on(task: Task[Any], chosen: EvaluationSet, suite: str, salt: str, gamma: float) -> Prepared:
    """Return the reference policies' results on given levels: played here, or from rates measured once."""
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


def action_stream(plan: EvaluationPlan, seed: int, salt: str, purpose: str, device: str = "cpu") -> torch.Generator:
    """Return the generator for an evaluated agent's actions.

    Args:
        plan: the plan of the evaluation.
        seed: seed of the agent's training.
        salt: salt of the levels.
        purpose: ``evaluation``, or the milestone.
        device: where the agent plays.
    """
    return generator(plan.suite, plan.task, seed, salt, purpose, device=device)


def play_agent(
    agent: Agent,
    plan: EvaluationPlan,
    chosen: EvaluationSet,
    random: torch.Generator,
    *,
    task: Task[Any] | None = None,
    device: torch.device | str = "cpu",
) -> Episodes:
    """Play an agent on the levels of an evaluation, with the plan's settings.

    Args:
        agent: the agent.
        plan: sets the discount and the share of help.
        chosen: the levels.
        random: the generator for its actions.
        task: another instance of the agent's task that has cached the levels.
        device: where the agent's network is.
    """
    policy = agent.policy(random)
    return play(
        task or agent.task,
        chosen.levels,
        lambda _env: policy,
        gamma=plan.gamma,
        ask_share=plan.ask_share,
        device=device,
    )
