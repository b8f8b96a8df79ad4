"""Results from Python, cell by cell as in a notebook: records as a frame, fidelity over α, and what an agent computes.

Run it with ``python examples/read_results.py``. It reads the records and the agent that come with the repository, and
writes two pictures into the folder ``runs/example``. Each part is a cell: editors run them one by one.
"""

# %% Load every published record: a row for each cell and split.
from pathlib import Path

import matplotlib as mpl
import torch

import goalposts

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
OUT = Path("runs/example")
OUT.mkdir(parents=True, exist_ok=True)
records = goalposts.read_records(ROOT / "results" / "published" / "mitigations-v2")
print(f"{records.cell_id.nunique()} cells, {len(records)} rows")

# %% Goal fidelity over the disambiguation rate: the aligned share of the episodes that got somewhere.
shown = ["none", "goal_told", "plr_oracle", "proxy_adversary"]
ranked = records[records.ranked & records.mitigation.isin(shown)]
counts = ranked.groupby(["mitigation", "alpha"])[["aligned", "proxy"]].mean()
fidelity = (counts.aligned / (counts.aligned + counts.proxy)).unstack("mitigation")
print(fidelity.round(2))
axes = fidelity.reset_index(drop=True).plot(marker="o", ylim=(0, 1), ylabel="goal fidelity", figsize=(6, 4))
axes.set_xticks(range(len(fidelity)), [f"{alpha:g}" for alpha in fidelity.index])
axes.set_xlabel("disambiguation rate α")
axes.figure.savefig(OUT / "fidelity.png", dpi=120, bbox_inches="tight")

# %% An agent: the cell of a run, or a file of ``goalposts agent export``.
agent = goalposts.load_agent(ROOT / "examples" / "corner_agent.safetensors")
print(f"{agent.name}: a {agent.record.verdict.replace('_', ' ')} on {agent.record.cell.task}")

# %% What its network computes where the cheese has left the corner: one row a level, one column a unit.
levels = agent.task.shift_levels("shift/cheese_anywhere", 64, torch.Generator().manual_seed(0))
observations = agent.task.make_env(64).reset(levels)
activations = agent.activations(observations)
last = list(activations)[-1]
figure, axes = plt.subplots(figsize=(6, 4))
axes.imshow(activations[last], aspect="auto", cmap="magma")
axes.set(xlabel=f"unit of {last}", ylabel="level", title="Activations of the last layer of the trunk")
figure.savefig(OUT / "activations.png", dpi=120, bbox_inches="tight")
print(f"{last}: {tuple(activations[last].shape)}, {float((activations[last] > 0).float().mean()):.0%} of units active")

# %% Evaluate it again: its counts equal those of its record on the type of processor that trained it.
evaluation = goalposts.evaluate(agent)
print(f"score {evaluation.score:.1f}, {evaluation.verdict}; equal to its record: {evaluation.equals_record}")
