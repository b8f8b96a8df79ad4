"""Prints how fast training and the tasks are, as ratios within one run.

Everything runs in one thread and is timed on CPU time. A duel trains two fresh agents for the same number of steps,
one right after the other, by our loop and by another one; who begins alternates, and medians are over all duels.
Gymnasium environments and learners are made before the clock starts, what the minimal loop needs while it runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minimal_ppo
import sb3_ppo
import torch

from goalposts.benchmark.experiment.suite import TaskPlan, get_suite
from goalposts.benchmark.loading import TASKS, registered
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.training.config import TrainingConfig
from goalposts.benchmark.training.loop import Trainer
from goalposts.benchmark.training.precision import native_bf16

TARGETS = {"minimal": 0.8, "sb3": 3.0}
"""Least ratio of our steps/s to a contestant's; the others are for information."""
CLOSE_DUELS = 5
"""Against the minimal loop in each repeat: it takes a second, and its target is near."""
NUM_LEVELS, NUM_ENVS, NUM_STEPS = 4096, 256, 64
"""Of the measurements of tasks."""
LABELS = {
    "ours": "this benchmark's training loop, mitigation none",
    "minimal": "minimal hand-written PPO in torch",
    "sb3": "Stable-Baselines3 PPO, make_vec_env",
    "sb3_batched": "Stable-Baselines3 PPO, our vector environment",
}


def timed(work: Callable[[], Any]) -> float:
    """Return the CPU seconds that ``work`` takes."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def ours(plan: TaskPlan, task: Task[Any], config: TrainingConfig, repeat: int) -> float:
    """Return the CPU seconds that our own training run takes, its checkpoint included."""
    mitigation = load_plugin("none").cls()
    stream = ("bench", plan.task, repeat)
    trainer = Trainer(task, mitigation, alpha=0.0, config=config, stream=stream, mitigation_name="none")
    metrics: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        return timed(lambda: trainer.train(Path(folder), log_metrics=metrics.append))


def sb3(plan: TaskPlan, config: TrainingConfig, repeat: int, make_env: Callable[[sb3_ppo.Setting], Any]) -> float:
    """Return the CPU seconds that Stable-Baselines3 takes for the same steps."""
    setting = sb3_ppo.Setting(plan.task, plan.parameters, config, seed=repeat + 1)
    env = make_env(setting)
    agent = sb3_ppo.build(env, setting)
    seconds = timed(lambda: agent.learn(config.env_steps))
    env.close()
    return seconds


def training(plan: TaskPlan, iterations: int, repeats: int) -> dict[str, Any]:
    """Return the steps per CPU second of all contestants, and the ratios of ours to each within its duels."""
    config = plan.training.model_copy(
        update={"env_steps": iterations * plan.training.steps_per_rollout, "bf16": native_bf16("cpu")}
    )
    task = make_task(plan.task, **plan.parameters)
    contestants: dict[str, Callable[[int], float]] = {
        "ours": lambda repeat: ours(plan, task, config, repeat),
        "minimal": lambda repeat: timed(lambda: minimal_ppo.train(task, config, 0.0, repeat)),
        "sb3": lambda repeat: sb3(plan, config, repeat, sb3_ppo.usual_env),
        "sb3_batched": lambda repeat: sb3(plan, config, repeat, sb3_ppo.batched_env),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    ratios: dict[str, list[float]] = {name: [] for name in contestants if name != "ours"}
    for repeat in range(repeats + 1):
        for name in ratios:
            duels = 1 if name.startswith("sb3") else CLOSE_DUELS
            for duel in range(duels):
                pair = ("ours", name) if (repeat + duel) % 2 else (name, "ours")
                duel_rates = {side: config.env_steps / contestants[side](repeat * duels + duel) for side in pair}
                progress(
                    f"{f'repeat {repeat}/{repeats}' if repeat else 'warm-up'}: "
                    + ", ".join(f"{side} {duel_rates[side]:,.0f} steps/s" for side in pair)
                )
                if repeat:
                    ratios[name].append(duel_rates["ours"] / duel_rates[name])
                    for side in pair:
                        rates[side].append(duel_rates[side])
    return {
        "task": plan.task,
        "dtype": "bfloat16" if config.bf16 else "float32",
        "env_steps": config.env_steps,
        "steps_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "ratios": ratios,
        "targets": TARGETS,
    }


def tasks(repeats: int) -> list[dict[str, Any]]:
    """Return levels and environment steps per CPU second of every task, at its default and its quick parameters."""
    plain = (
        task_id for task_id in registered(TASKS) if not task_id.endswith("_full")
    )  # Full views have the same levels.
    settings: list[tuple[str, dict[str, Any]]] = [(task_id, {}) for task_id in plain]
    settings += [(plan.task, plan.parameters) for plan in get_suite("quick").tasks if plan.parameters]
    measured: list[list[dict[str, float]]] = [[] for _ in settings]
    for repeat in range(-1, repeats):
        for (task_id, parameters), rates in zip(settings, measured, strict=True):
            measurement = task_rates(make_task(task_id, **parameters), torch.Generator().manual_seed(repeat + 1))
            if repeat >= 0:
                rates.append(measurement)
    return [
        {
            "task": task_id,
            "parameters": parameters,
            **{name: statistics.median(rate[name] for rate in rates) for name in rates[0]},
        }
        for (task_id, parameters), rates in zip(settings, measured, strict=True)
    ]


def task_rates(task: Task[Any], random: torch.Generator) -> dict[str, float]:
    """Return one measurement of ``task``; environment steps include the restarts of finished episodes."""
    levels = task.sample_levels(NUM_LEVELS, 0.0, random)
    env = task.make_env(NUM_ENVS)
    env.reset(levels[:NUM_ENVS])
    actions = torch.randint(task.num_actions, (NUM_STEPS, NUM_ENVS), generator=random)

    def plan() -> None:
        drawn = task.sample_levels(NUM_LEVELS, 1.0, random)
        for goal in (0, *task.proxies):
            task.optimal_return(drawn, goal, 0.99)

    def play() -> None:
        for row in actions:
            step = env.step(row)
            done = step.terminated | step.truncated
            if bool(done.any()):
                env.reset(levels[: int(done.sum())], done)

    return {
        "levels_per_second": NUM_LEVELS / timed(lambda: task.sample_levels(NUM_LEVELS, 0.0, random)),
        "randomized_levels_per_second": NUM_LEVELS / timed(lambda: task.sample_levels(NUM_LEVELS, 1.0, random)),
        "planned_levels_per_second": NUM_LEVELS / timed(plan),
        "env_steps_per_second": NUM_ENVS * NUM_STEPS / timed(play),
    }


def progress(line: str) -> None:
    """Tell on standard error how far it is."""
    print(line, file=sys.stderr, flush=True)


def print_tables(result: dict[str, Any]) -> None:
    """Print the result for people."""
    run = result["training"]
    print(
        f"Training {run['task']}: {run['env_steps']:,} steps, {run['dtype']} trunk (Stable-Baselines3: float32), "
        "medians on CPU time, one thread"
    )
    print(f"{'loop':48} {'steps/s':>10} {'ours / it':>10} {'lowest':>8} {'highest':>8} {'duels':>6} {'target':>7}")
    for name, rate in run["steps_per_second"].items():
        line = f"{LABELS[name]:48} {rate:10,.0f}"
        if name in run["ratio"]:
            ratios = run["ratios"][name]
            line += f" {run['ratio'][name]:10.2f} {min(ratios):8.2f} {max(ratios):8.2f} {len(ratios):6}"
        if name in run["targets"]:
            line += f" {run['targets'][name]:7.2f}"
        print(line)
    print()
    print(f"{'task':44} {'levels/s':>12} {'randomized':>12} {'and planned':>12} {'env steps/s':>12}")
    for row in result["tasks"]:
        parameters = ", ".join(f"{name} {value}" for name, value in row["parameters"].items() if "benign" not in name)
        label = f"{row['task']} ({parameters or 'defaults'})"
        figures = ("levels_per_second", "randomized_levels_per_second", "planned_levels_per_second")
        print(f"{label:44}", *(f"{row[name]:12,.0f}" for name in (*figures, "env_steps_per_second")))
    print("levels/s: at rate 0; randomized: at rate 1; and planned: with the optimal returns of aligned goal and proxy")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print clean JSON on standard output")
    parser.add_argument("--repeats", type=int, default=4, help="timed repeats")
    parser.add_argument("--iterations", type=int, default=8, help="rollouts and updates in a repeat")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.iterations < 1:
        parser.error("give at least 1 repeat and 1 iteration")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("ray").setLevel(logging.ERROR)
    result = {
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": platform.machine(),
        "training": training(get_suite("quick").tasks[0], arguments.iterations, arguments.repeats),
        "tasks": tasks(arguments.repeats),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print_tables(result)


if __name__ == "__main__":
    main()
