"""What moving the goal costs in Procgen's games, and what bounds training in them.

    python bench/games.py                      # goal moving against untouched games, then training on this machine
    python bench/games.py --device cuda        # the same, with collecting and learning side by side

Ratios are of processor time (goal moving) or wall time (training) measured in one run; medians over repetitions.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from goalposts.benchmark.experiment.suite import get_suite
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.procgen.games import Games, Look
from goalposts.benchmark.tasks.procgen.state import edited_bytes
from goalposts.benchmark.tasks.procgen.task import FIRST_RESERVED, ProcgenLevels, ProcgenTask
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.training.config import TrainingConfig
from goalposts.benchmark.training.loop import Trainer

EPISODE = 100
"""Steps an episode, in which the cost of a reset is told."""
GAMES = 64
STEPS = 400
"""Steps of all games in one measurement: a multiple of ``EPISODE``."""


def stepping(games: Games, actions: NDArray[np.int64], restart: Callable[[int], None]) -> float:
    """Return the processor seconds of playing ``actions``; ``restart`` is called for each game that begins again."""
    begun = time.process_time()
    for row in actions:
        for index in games.step(row).ended.nonzero()[0].tolist():
            restart(index)
        games.observe()
    return time.process_time() - begun


def with_time_limit(games: Games, task: ProcgenTask) -> None:
    """Let every game end its episodes after ``EPISODE`` steps, all from now, and choose its own levels."""
    state = task.level_states([1])[0].copy()
    state.options = state.options.copy()
    state.options["level_seed_low"], state.options["level_seed_high"] = 0, FIRST_RESERVED
    state.status["timeout"] = EPISODE
    for index in range(games.count):
        games.set(index, edited_bytes(state, task.game))


def goal_moving(task: ProcgenTask, repeats: int) -> list[float]:
    """Return the share that moving the goal in every episode adds, of each repetition."""
    games = Games(task.game, GAMES, task.look)
    random = np.random.default_rng(0)
    shares = []
    for repeat in range(repeats + 1):
        actions = random.integers(3, 6, (STEPS, GAMES))  # Down, nothing and up: nobody runs into anything.
        with_time_limit(games, task)
        untouched = stepping(games, actions, lambda index: None)
        stream = generator("bench", task.id, repeat)
        queue: list[ProcgenLevels] = []

        def restart(index: int, stream: torch.Generator = stream, queue: list[ProcgenLevels] = queue) -> None:
            if not queue:  # As the collector draws them.
                levels = task.sample_levels(GAMES, 1.0, stream)
                queue += [levels[i : i + 1] for i in range(GAMES)]
            state = task.start_states(queue.pop(0))[0]
            state.status["timeout"] = EPISODE
            games.set(index, edited_bytes(state, task.game))

        with_time_limit(games, task)
        moved = stepping(games, actions, restart)
        shares.append(moved / untouched - 1)
    return shares[1:]  # The first one warms up.


def training(task: ProcgenTask, config: TrainingConfig, device: str, iterations: int) -> dict[str, float]:
    """Return steps a second of collecting alone, of learning alone and of both; and the share of waiting."""

    def trainer(**changes: Any) -> Trainer:
        return Trainer(
            task,
            Mitigation(),
            alpha=0.0,
            config=config.model_copy(update=changes),
            stream=("bench",),
            mitigation_name="none",
            device=device,
        )

    def timed(deed: Callable[[], Any]) -> float:
        deed()
        if device == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(iterations):
            deed()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    steps = iterations * config.steps_per_rollout
    alone = trainer(overlap=False)
    collecting = timed(alone.collector.collect)
    rollout = alone.collector.collect()
    alone._estimate(rollout)
    columns = alone._columns(rollout)
    learning = timed(
        lambda: alone.learner.update_on(
            columns,
            num_epochs=config.num_epochs,
            minibatch_size=config.minibatch_size,
            env_steps=0,
            generator=alone.generators["minibatches"],
        )
    )
    together = trainer(overlap=device == "cuda")
    waits = []

    def iterate() -> None:
        together.iterate()
        waits.append(0.0 if together.overlapped is None else together.overlapped.waited_seconds)

    both = timed(iterate)
    waited = collecting if together.overlapped is None else waits[-1] - waits[0]  # The first one warms up.
    return {
        "collecting alone, steps/s": steps / collecting,
        "learning alone, steps/s": steps / learning,
        "both, steps/s": steps / both,
        "share of the time the learner waits for the games": min(waited / both, 1.0),
    }


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--suite", default=None, help="whose CoinRun is trained; by default one for the device")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, look in (("plain, easy", Look("easy", False, True)), ("full colour, easy", Look("easy")),
                       ("full colour, hard", Look("hard"))):  # fmt: skip
        task = make_task("coinrun", mode=look.mode, backgrounds=look.backgrounds, plain=look.plain)
        assert isinstance(task, ProcgenTask)
        shares = goal_moving(task, options.repeats)
        print(
            f"moving the coin in every {EPISODE}-step episode, {name}: {statistics.median(shares):+.1%} "
            f"({min(shares):+.1%} to {max(shares):+.1%}, {len(shares)} repetitions)"
        )
    suite = get_suite(options.suite or ("procgen" if options.device == "cuda" else "coinrun-laptop"))
    plan = next(plan for plan in suite.tasks if plan.task == "coinrun")
    task = make_task("coinrun", **plan.parameters)
    assert isinstance(task, ProcgenTask)
    for name, value in training(task, plan.training, options.device, iterations=3).items():
        print(f"{suite.id} on {options.device}, {name}: {value:,.{3 if value <= 1 else 0}f}")


if __name__ == "__main__":
    main()
