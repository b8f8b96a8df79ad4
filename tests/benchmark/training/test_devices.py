"""Training, checkpoints and evaluation on every device: all of it on a GPU, a part on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from goalposts.benchmark.loading import MITIGATIONS, registered
from goalposts.benchmark.measurement.evaluation import play_agent, prepare
from goalposts.benchmark.measurement.plan import PUBLIC_SALT, EvaluationPlan, salt_commitment
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.config import TrainingConfig
from goalposts.benchmark.training.loop import Trainer
from tests.small import TENSOR_TASKS, parameters
from tests.toy import going_on

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
TINY = TrainingConfig(env_steps=8192, num_envs=32, num_steps=32, minibatch_size=256, hidden_sizes=(16,))
"""Eight iterations."""
REPLAYED = {"buffer_size": 64, "replay_probability": 0.9}
"""Fills within one iteration, so that levels are replayed, and edited, in the next."""


def made(task: Task[Any], mitigation: Mitigation, config: TrainingConfig, device: str) -> Trainer:
    return Trainer(
        task, mitigation, alpha=0.5, config=config, stream=("devices", 0), mitigation_name="subject", device=device
    )


@pytest.mark.parametrize(
    ("device", "task_id"),
    [("cpu", "corner"), *(pytest.param("cuda", task_id, marks=ON_GPU) for task_id in TENSOR_TASKS)],
)
@pytest.mark.parametrize("name", registered(MITIGATIONS))
def test_a_cell_trains_resumes_and_is_evaluated(name: str, device: str, task_id: str, tmp_path: Path) -> None:
    task = make_task(task_id, **parameters(task_id))
    plugin = load_plugin(name)
    if plugin.cls.inapplicable(task) is not None:
        pytest.skip("does not apply")
    changes = {key: value for key, value in REPLAYED.items() if key in plugin.hyperparameters({})}

    def trainer() -> Trainer:
        return made(task, plugin.cls(**changes), TINY, device)

    trainer().train(tmp_path, checkpoint_seconds=0.0)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    resumed = trainer()
    resumed.load_state_dict(loaded[0])
    resumed.iterate()
    assert next(resumed.network.parameters()).device.type == device
    commitment = salt_commitment(PUBLIC_SALT)
    plan = EvaluationPlan.of(task, suite="devices", episodes=1000, gamma=TINY.gamma, salt_commitment=commitment)
    prepared = prepare(task, plan, PUBLIC_SALT)
    random = generator("evaluation", device=device)
    results = prepared.results(play_agent(resumed.agent("sampled"), plan, prepared.levels, random, device=device))
    assert {split.episodes for split in results.values()} == {1000}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
@pytest.mark.parametrize("network", ["strided", "patches", pytest.param("impala", marks=pytest.mark.slow)])
def test_a_game_is_played_beside_the_update_and_goes_on_from_the_middle_of_it(
    network: str, device: str, tmp_path: Path
) -> None:
    task = make_task("coinrun", mode="easy", plain=True, backgrounds=False, pixels=32)
    changes: dict[str, Any] = {"network": network, "overlap": True, "normalize_rewards": True, "num_envs": 8}
    config = TINY.model_copy(update=changes)

    def trainer() -> Trainer:
        return made(task, Mitigation(), config, device)

    straight = trainer()
    assert [straight.iterate()["policy_lag"] for _ in range(2)] == [0.0, 1.0]
    resumed = going_on(trainer(), straight, tmp_path)
    assert straight.iterate()["policy_lag"] == resumed.iterate()["policy_lag"] == 1.0
    near = 0.0 if device == "cpu" else 1e-2  # A GPU adds up in no fixed order.
    for name, weight in straight.network.state_dict().items():
        torch.testing.assert_close(weight, resumed.network.state_dict()[name], atol=near, rtol=near)
