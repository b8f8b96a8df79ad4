"""Training, checkpoints and evaluation on a GPU, for every mitigation on every task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.measurement.evaluation import evaluation_set, play, prepare
from benchmark.plugins import load_plugin, registered
from benchmark.randomness import generator
from benchmark.tasks import make_task
from benchmark.training import checkpoint
from benchmark.training.config import TrainingConfig
from benchmark.training.loop import Trainer
from tests.small import TENSOR_TASKS, parameters

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

TINY = TrainingConfig(env_steps=4096, num_envs=32, num_steps=32, minibatch_size=256, hidden_sizes=(16,))


@pytest.mark.parametrize("task_id", TENSOR_TASKS)
@pytest.mark.parametrize("name", registered())
def test_a_cell_trains_resumes_and_is_evaluated_on_cuda(task_id: str, name: str, tmp_path: Path) -> None:
    task = make_task(task_id, **parameters(task_id))
    cls = load_plugin(name).cls
    if cls.inapplicable(task) is not None:
        pytest.skip("does not apply")

    def trainer() -> Trainer:
        return Trainer(task, cls(), alpha=0.0, config=TINY, stream=("cuda", 0), mitigation_name=name, device="cuda")

    trainer().train(tmp_path, checkpoint_seconds=0.0)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    resumed = trainer()
    resumed.load_state_dict(loaded[0])
    resumed.iterate()
    assert next(resumed.module.parameters()).device.type == "cuda"
    prepared = prepare(task, evaluation_set(task, "cuda", 1000, "public"), "cuda", "public", TINY.gamma)
    policy = resumed.policy("sampled", generator("evaluation", device="cuda"))
    results = prepared.results(play(task, prepared.levels.levels, lambda _env: policy, device="cuda"))
    assert all(split.aligned + split.proxy + split.lost == 1000 for split in results.values())
