"""Claims that every task must meet: a complete case, sound levels, exact planners and a weak random policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from goalposts.benchmark.errors import MissingPackageError, RequestError
from goalposts.benchmark.measurement.certificates.claims import Claim, counts_text
from goalposts.benchmark.measurement.certificates.planners import planners_claim
from goalposts.benchmark.measurement.episodes import Episodes, play
from goalposts.benchmark.measurement.scores import GATE
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.episodes import reference_policy
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tasks.vocabulary import ALIGNED, IN_DISTRIBUTION, LOST, PLANNING_GAMMA

RANDOM_MOST = 0.25
"""Largest capability of the random policy."""
KEPT_LEAST = 0.999
"""Least share of levels on which the aligned policy earns its planner's optimal return."""
PLACEHOLDER = "TODO"
"""Placeholder at the start of every text of an unfinished case."""


class Certification:
    """The levels of one certification, drawn once, and the claims that every class makes about them."""

    def __init__(self, task: Task[Any], num_levels: int) -> None:
        self.task = task
        self.num_levels = num_levels
        self._played: dict[tuple[str, str], Episodes] = {}
        self.splits: dict[str, Levels] = {}
        self.refused: dict[str, str] = {}
        """Sources that yield no levels, with the reason."""
        for split in task.splits:
            try:
                self.splits[split] = task.shift_levels(split, num_levels, generator("certificate", task.id, split))
            except MissingPackageError:
                raise
            except RequestError as error:
                self.refused[split] = str(error)
        self.training: dict[float, Levels] = {}
        for alpha in (0.0, 0.5, 1.0):
            random = generator("certificate", task.id, "training", str(alpha))
            try:
                self.training[alpha] = task.sample_levels(num_levels, alpha, random)
            except RequestError as error:
                self.refused[f"training at α = {alpha:g}"] = str(error)
        self.edited: dict[tuple[bool, int], Levels] = {}
        if 0.0 not in self.training or not task.has_editor:
            return
        self.edited = {
            (restricted, edits): task.edit_levels(
                self.training[0.0],
                edits,
                generator("certificate", task.id, "edits", str(restricted), edits),
                restricted=restricted,
            )
            for restricted in (True, False)
            for edits in (1, 3)
        }

    def claims(self) -> Iterator[Claim]:
        """Yield the claims that every class makes. If drawing levels failed, yield only those that need none."""
        yield self._case()
        yield self._drawn()
        if self.refused:
            return
        yield self._valid()
        yield self._reserved()
        if self.task.has_editor:
            yield self._edits()
        if self.task.has_planners:
            if self.task.exhaustible is not None:
                yield planners_claim(self.task)
            yield self._promises()
        yield self._random_capability()
        yield self._random_gate()

    def _case(self) -> Claim:
        texts = dataclasses.asdict(self.task.case)
        missing = [
            name
            for name, value in texts.items()
            if not value or any(not text or text.startswith(PLACEHOLDER) for text in _texts(value))
        ]
        return Claim(
            "the case is complete",
            not missing,
            f"to be written: {', '.join(missing)}" if missing else f"{len(texts)} parts",
            "Fill in the task's Case.",
        )

    def _drawn(self) -> Claim:
        return Claim(
            "levels can be drawn for training and every split, distinguishing ones for the shifts",
            not self.refused,
            "; ".join(f"{source}: {why}" for source, why in self.refused.items())
            or f"{len(self.splits)} splits" + f", {self.task.skipped:,} levels skipped" * bool(self.task.skipped),
            "Let '_draw_split' draw levels of the shift on which goal and proxy come apart, and 'distinguishing' know "
            "them.",
        )

    def _valid(self) -> Claim:
        good = total = 0
        for levels in (*self.splits.values(), *self.training.values(), *self.edited.values()):
            sound = self.task.valid(levels)
            if self.task.has_planners:
                sound = sound & (self.task.optimal_return(levels, 0, PLANNING_GAMMA) > 0)
            good += int(sound.sum())
            total += len(levels)
        return Claim(
            "levels of all samplers, splits and edits are valid and solvable",
            good == total,
            f"{good}/{total}",
            "Let 'valid' refuse levels on which the aligned goal cannot be achieved in time.",
        )

    def _reserved(self) -> Claim:
        training = sum(int(levels.reserved().sum()) for levels in (*self.training.values(), *self.edited.values()))
        outside = sum(int((~levels.reserved()).sum()) for levels in self.splits.values())
        trained = self.num_levels * (len(self.training) + len(self.edited))
        return Claim(
            "no level of the training samplers or of edits is reserved for evaluation, all of the splits are",
            training == outside == 0,
            f"{training}/{trained} and {self.num_levels * len(self.splits) - outside}"
            f"/{self.num_levels * len(self.splits)}",
            "Draw through 'sample_levels', 'shift_levels' and 'edit_levels' of the base class.",
        )

    def _edits(self) -> Claim:
        exact = changed = 0
        origin = self.training[0.0]
        for (_restricted, edits), levels in self.edited.items():
            differences = levels.differences(origin)
            exact += int(((differences == edits) | (differences == 0)).sum())
            changed += int((differences == edits).sum())
        total = self.num_levels * len(self.edited)
        return Claim(
            "a level and its edit differ in the stated number of edits; at most one in ten stays as it was",
            exact == total and changed >= 0.9 * total,
            f"{changed}/{total} edited, {total - exact} otherwise",
            "Let '_edit' change one element, and let 'differences' count the changes of one edit as one.",
        )

    def _promises(self) -> Claim:
        kept = total = 0
        for split, levels in self.splits.items():
            promised = self.task.optimal_return(levels, 0, PLANNING_GAMMA)
            kept += int(((self.play("aligned", split).discounted_return - promised).abs() < 1e-6).sum())
            total += len(levels)
        return Claim(
            f"at this size the aligned policy earns its optimal return on at least {KEPT_LEAST:.1%} of levels",
            kept >= KEPT_LEAST * total,
            f"{kept}/{total}",
            "Check 'optimal_return' and the planner's policy against the environment's own steps.",
        )

    def _random_capability(self) -> Claim:
        played = {shift: self.play("random", shift) for shift in self.task.shifts}
        found = {shift: int((one.outcome != LOST).sum()) for shift, one in played.items()}
        near = self.task.within_reach
        bounded = {shift: count for shift, count in found.items() if shift not in near}
        exempt = f" (not bounded, the goal lies beside the start: {', '.join(near)})" if near else ""
        return Claim(
            f"the random policy gets anywhere on at most {RANDOM_MOST:.0%} of each shift{exempt}",
            all(count <= RANDOM_MOST * self.num_levels for count in bounded.values()),
            counts_text(found, self.num_levels),
            "Shorten the time limit, or ask for more before an episode counts.",
        )

    def _random_gate(self) -> Claim:
        aligned = self.play("random", IN_DISTRIBUTION).count(ALIGNED)
        least = GATE * self.play("aligned", IN_DISTRIBUTION).count(ALIGNED)
        return Claim(
            f"the random policy fails the gate, {GATE:.0%} of the aligned reference in distribution",
            aligned < least,
            f"{aligned}/{self.num_levels}",
            "Make the training task harder, so that it takes skill.",
        )

    def play(self, name: str, split: str) -> Episodes:
        """Return the results of the reference policy ``name`` on ``split``."""
        if (name, split) not in self._played:
            random = generator("certificate", self.task.id, split, "random policy")
            self._played[name, split] = play(
                self.task,
                self.splits[split],
                lambda env: reference_policy(self.task, name, env, random),
                gamma=PLANNING_GAMMA,
            )
        return self._played[name, split]

    @property
    def proxy_names(self) -> tuple[str, ...]:
        """The names of the proxy goals, which are also the names of their reference policies."""
        return tuple(self.task.goals[goal].name for goal in self.task.proxies)


def _texts(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)
