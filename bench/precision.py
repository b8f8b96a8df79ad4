"""Trains the quick suite's tasks with a bfloat16 and with a float32 trunk, and writes the comparison into the docs.

Every finished cell is a line of the results file, and the same command goes on after the last of them. On a CPU without
bfloat16 instructions torch emulates them, which is slower and may round sums otherwise than the instructions do.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import torch

from goalposts.benchmark.canonical import canonical_json, content_sha256
from goalposts.benchmark.experiment.suite import Suite, TaskPlan, get_suite
from goalposts.benchmark.files import write_atomically
from goalposts.benchmark.measurement import scores
from goalposts.benchmark.measurement.evaluation import play_agent, prepare
from goalposts.benchmark.measurement.plan import EVALUATION_VERSION, PUBLIC_SALT, EvaluationPlan, salt_commitment
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.registry import make_task, task_class
from goalposts.benchmark.tasks.vocabulary import IN_DISTRIBUTION
from goalposts.benchmark.training.config import TRAINER_VERSION
from goalposts.benchmark.training.loop import Trainer
from goalposts.benchmark.training.precision import native_bf16
from goalposts.results.statistics import Interval, bootstrap_interval, paired_difference

ROOT = Path(__file__).parents[1]
MITIGATIONS = ("none", "domain_randomization")
DTYPES = ("float32", "bfloat16")

Cell = tuple[str, str, str, int]
"""Task, mitigation, dtype and seed."""


def identity(suite: Suite, plan: TaskPlan, mitigation: str) -> str:
    """Return a hash of all but dtype and seed that determines a result."""
    versions = (TRAINER_VERSION, EVALUATION_VERSION, task_class(plan.task).version, load_plugin(mitigation).cls.version)
    return content_sha256([suite.id, suite.episodes, plan.model_dump(mode="json"), versions])[:16]


def run_cell(suite: Suite, plan: TaskPlan, mitigation: str, dtype: str, seed: int) -> dict[str, Any]:
    """Train and evaluate one cell as the suite would, but for the dtype."""
    config = plan.training.model_copy(update={"bf16": dtype == "bfloat16"})
    task = make_task(plan.task, **plan.parameters)
    evaluation = EvaluationPlan.of(
        task,
        suite=suite.id,
        episodes=suite.episodes,
        gamma=config.gamma,
        salt_commitment=salt_commitment(PUBLIC_SALT),
    )
    prepared = prepare(task, evaluation, PUBLIC_SALT)
    plugin = load_plugin(mitigation).cls()
    alpha = plugin.fixed_alpha if plugin.fixed_alpha is not None else 0.0
    stream = (suite.id, plan.task, seed)
    begun = time.process_time()
    trainer = Trainer(task, plugin, alpha=alpha, config=config, stream=stream, mitigation_name=mitigation, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(Path(folder), checkpoint_seconds=float("inf"))
    seconds = time.process_time() - begun
    random = generator(*stream, PUBLIC_SALT, "evaluation")
    splits = prepared.results(play_agent(trainer.agent(suite.sampling), evaluation, prepared.levels, random))
    ranked = scores.Fidelity.pooled(scores.ranked_shifts(splits).values())
    in_distribution = splits[IN_DISTRIBUTION]
    return {
        "score": scores.score(splits),
        "capability": ranked.capability,
        "goal_fidelity": ranked.goal_fidelity,
        "in_distribution": in_distribution.aligned / in_distribution.episodes,
        "verdict": scores.verdict(splits),
        "cpu_seconds": round(seconds, 1),
    }


def read_results(path: Path, identities: dict[tuple[str, str], str]) -> dict[Cell, dict[str, Any]]:
    """Return the finished cells that are still current."""
    found: dict[Cell, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # A line that an interruption cut short: its cell runs again.
        if row["identity"] == identities.get((row["task"], row["mitigation"])):
            found[row["task"], row["mitigation"], row["dtype"], row["seed"]] = row
    return found


def wording(interval: Interval) -> str:
    """Return the mean and its interval in words."""
    return f"{interval.mean:.1f} ({interval.low:.1f} to {interval.high:.1f})"


def table(suite: Suite, found: dict[Cell, dict[str, Any]], seeds: int) -> str:
    """Return the page in Markdown."""
    lines = [
        "# bfloat16 trunk against float32",
        "",
        "Does a trunk under bfloat16 autocast learn what a float32 trunk learns? We compare them on suite "
        f"`{suite.id}` with {seeds} seeds",
        "each. The comparison is paired: a seed has the same levels and the same initial weights in both.",
        "",
        "Scores and their difference are means with 95% bootstrap intervals over seeds. The other columns are means, "
        "float32 /",
        "bfloat16.",
        "",
        "| task | mitigation | score, float32 | score, bfloat16 | difference | in distribution | capability "
        "| goal fidelity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for plan, mitigation in product(suite.tasks, MITIGATIONS):
        rows = {dtype: [found[plan.task, mitigation, dtype, seed] for seed in range(seeds)] for dtype in DTYPES}
        by_dtype = {dtype: [[row["score"] for row in rows[dtype]]] for dtype in DTYPES}
        cells = [wording(bootstrap_interval(by_dtype[dtype])) for dtype in DTYPES]
        cells.append(wording(paired_difference(by_dtype["bfloat16"], by_dtype["float32"])))
        for name in ("in_distribution", "capability", "goal_fidelity"):
            means = (sum(row[name] for row in rows[dtype]) / seeds for dtype in DTYPES)
            cells.append(" / ".join(f"{value:.3f}" for value in means))
        lines.append(f"| `{plan.task}` | `{mitigation}` | {' | '.join(cells)} |")
    kind = "with" if native_bf16("cpu") else "without"
    lines += [
        "",
        f"`python bench/precision.py` made this table with torch {torch.__version__} on a {platform.machine()} CPU "
        f"{kind} bfloat16 instructions.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "precision.jsonl", help="one line a cell")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "precision.md", help="written at the end")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("give at least 1 seed")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("ray").setLevel(logging.ERROR)
    suite = get_suite("quick")
    identities = {(plan.task, name): identity(suite, plan, name) for plan in suite.tasks for name in MITIGATIONS}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    found = read_results(arguments.results, identities)
    cells = list(product(range(arguments.seeds), suite.tasks, MITIGATIONS, DTYPES))
    for number, (seed, plan, mitigation, dtype) in enumerate(cells, start=1):
        cell = (plan.task, mitigation, dtype, seed)
        if cell in found:
            continue
        row = run_cell(suite, plan, mitigation, dtype, seed)
        found[cell] = {
            "identity": identities[plan.task, mitigation],
            "task": plan.task,
            "mitigation": mitigation,
            "dtype": dtype,
            "seed": seed,
            **row,
        }
        with arguments.results.open("a") as file:
            file.write(f"{canonical_json(found[cell])}\n")
        print(f"{number}/{len(cells)} {' '.join(map(str, cell))}: {row}", flush=True)
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.page, table(suite, found, arguments.seeds))


if __name__ == "__main__":
    main()
