from __future__ import annotations

from collections.abc import Mapping

import pytest
import ray
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from goalposts.benchmark.errors import NonFiniteError
from goalposts.benchmark.networks import build
from goalposts.benchmark.plugins.mitigation import ModuleSpec
from goalposts.benchmark.training.learner import WEIGHTS, PPOLearner, build_learner
from tests.toy import config


def learner(**changes: object) -> PPOLearner:
    settings = config(**{"entropy_coeff": 0.1, "hidden_sizes": (16,), **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = ModuleSpec((5,), 3, "mlp", settings.hidden_sizes, settings.bf16, build).build()
    return build_learner(module, settings)


def test_building_a_learner_leaves_ray_alone() -> None:
    learner()
    assert not ray.is_initialized()


def test_rllib_sees_the_network_itself() -> None:
    subject, batch = learner(), rows(6)
    module = subject.module[DEFAULT_MODULE_ID]
    assert module.network is subject.network
    assert {id(one) for one in module.parameters()} == {id(one) for one in subject.network.parameters()}
    outputs = subject.network(batch[Columns.OBS])
    for name, output in module.forward_train(batch).items():
        assert torch.equal(output, outputs[name])
    assert torch.equal(module.compute_values(batch), outputs[Columns.VF_PREDS])


def rows(count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return made-up transitions whose probability ratios lie on both sides of the clipping range."""
    random = torch.Generator().manual_seed(seed)
    return {
        Columns.OBS: torch.randn(count, 5, generator=random),
        Columns.ACTIONS: torch.randint(3, (count,), generator=random),
        Columns.ACTION_LOGP: torch.empty(count).uniform_(-2.0, -0.5, generator=random),
        Columns.ACTION_DIST_INPUTS: torch.randn(count, 3, generator=random),
        Postprocessing.ADVANTAGES: torch.randn(count, generator=random),
        Postprocessing.VALUE_TARGETS: 3 * torch.randn(count, generator=random),
    }


def loss_of(subject: PPOLearner, batch: Mapping[str, Tensor], method: object = None) -> Tensor:
    method = method or PPOLearner.compute_loss_for_module
    return method(  # type: ignore[operator]
        subject,
        module_id=DEFAULT_MODULE_ID,
        config=subject.config.get_config_for_module(DEFAULT_MODULE_ID),
        batch=batch,
        fwd_out=subject.network(batch[Columns.OBS]),
    )


def weights_of(subject: PPOLearner) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in subject.network.parameters()])


def update(subject: PPOLearner, batch: dict[str, Tensor], env_steps: int = 48, seed: int = 0) -> dict[str, float]:
    random = torch.Generator().manual_seed(seed)
    return subject.update_on(batch, num_epochs=2, minibatch_size=8, env_steps=env_steps, generator=random)


@pytest.mark.parametrize("weight", [None, 1.0, 0.25])
def test_equal_weights_give_the_loss_of_rllib(weight: float | None) -> None:
    subject, batch = learner(), rows(64)
    expected = loss_of(subject, batch, PPOTorchLearner.compute_loss_for_module)
    if weight is not None:
        batch[WEIGHTS] = torch.full((64,), weight)
    torch.testing.assert_close(loss_of(subject, batch), expected)


def test_clipping_takes_part() -> None:
    batch = rows(64)
    assert loss_of(learner(clip_param=0.01), batch) != loss_of(learner(clip_param=10.0), batch)


def test_a_weight_counts_like_repeated_rows() -> None:
    subject, batch = learner(), rows(20)
    times = torch.arange(20) % 4
    repeated = {name: column.repeat_interleave(times, dim=0) for name, column in batch.items()}
    weighted = {**batch, WEIGHTS: 0.5 * times}
    torch.testing.assert_close(loss_of(subject, weighted), loss_of(subject, repeated))


def test_extra_loss_is_added() -> None:
    subject, batch = learner(), rows(16)
    plain = loss_of(subject, batch)
    subject.extra_loss = lambda batch, outputs: outputs[Columns.VF_PREDS].square().mean() + batch["bonus"].mean()
    extra = subject.network(batch[Columns.OBS])[Columns.VF_PREDS].square().mean() + 2.0
    torch.testing.assert_close(loss_of(subject, {**batch, "bonus": torch.full((16,), 2.0)}), plain + extra)


def test_extra_loss_may_pass() -> None:
    subject, batch = learner(), rows(16)
    plain = loss_of(subject, batch)
    subject.extra_loss = lambda batch, outputs: None
    assert torch.equal(loss_of(subject, batch), plain)


def test_extra_loss_may_pass_on_some_minibatches() -> None:
    subject, calls = learner(), iter(range(100))
    subject.extra_loss = lambda batch, outputs: torch.tensor(3.0) if next(calls) % 2 else None
    assert update(subject, rows(16))["extra_loss"] == 1.5


@pytest.mark.parametrize(
    ("column", "named"),
    [(Postprocessing.ADVANTAGES, "policy_loss"), (Postprocessing.VALUE_TARGETS, "value_loss"), (Columns.OBS, "loss")],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_ends_the_run(column: str, named: str, value: float) -> None:
    batch = rows(16)
    batch[column][3] = value
    with pytest.raises(NonFiniteError, match=rf"{named} is .* at environment step 48\.") as caught:
        update(learner(), batch)
    assert "\n" not in str(caught.value)


def test_minibatches_depend_on_the_generator_alone() -> None:
    def trained(seed: int) -> Tensor:
        subject = learner()
        torch.rand(seed + 1)
        update(subject, rows(30), seed=seed)
        return weights_of(subject)

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_good_actions_become_likelier_and_values_truer() -> None:
    subject, batch = learner(anneal=False, learning_rate=0.01), rows(64)
    outputs = subject.network(batch[Columns.OBS])
    log_probs = outputs[Columns.ACTION_DIST_INPUTS].log_softmax(-1).detach()
    batch[Columns.ACTION_LOGP] = log_probs.gather(1, batch[Columns.ACTIONS].unsqueeze(1)).squeeze(1)
    batch[Postprocessing.ADVANTAGES] = torch.where(batch[Columns.ACTIONS] == 2, 1.0, -1.0)
    first = update(subject, batch, seed=1)
    for _ in range(10):
        last = update(subject, batch, seed=1)
    after = subject.network(batch[Columns.OBS])[Columns.ACTION_DIST_INPUTS].log_softmax(-1)
    assert bool((after[:, 2] > log_probs[:, 2]).all())
    assert last["value_loss"] < first["value_loss"]


@pytest.mark.parametrize("num_rows", [1, 8, 9])
def test_every_row_is_used_once_an_epoch(num_rows: int) -> None:
    subject, seen = learner(), []
    subject.extra_loss = lambda batch, outputs: seen.append(batch["row"])
    update(subject, {**rows(num_rows), "row": torch.arange(num_rows)})
    assert all(len(part) <= 8 for part in seen)
    assert len(seen) == 2 * -(-num_rows // 8)
    for epoch in (seen[: len(seen) // 2], seen[len(seen) // 2 :]):
        assert torch.cat(epoch).sort().values.tolist() == list(range(num_rows))


def rates(subject: PPOLearner) -> list[float]:
    return [
        float(group["lr"])
        for _, each in subject.get_optimizers_for_module(DEFAULT_MODULE_ID)
        for group in each.param_groups
    ]


def test_learning_rate_falls_to_zero_at_the_budget() -> None:
    subject = learner(learning_rate=0.01, env_steps=100)
    found = [rates(subject)]
    for env_steps in (25, 50, 100, 125):
        subject.set_schedules(env_steps)
        found.append(rates(subject))
    assert found == [[pytest.approx(rate)] for rate in (0.01, 0.0075, 0.005, 0.0, 0.0)]


def test_learning_rate_may_stay() -> None:
    subject = learner(learning_rate=0.01, env_steps=100, anneal=False)
    update(subject, rows(16), 100)
    assert rates(subject) == [pytest.approx(0.01)]


def test_gradient_norm_is_clipped() -> None:
    subject = learner(grad_clip=1e-3)
    gradients = {parameter: torch.ones_like(parameter) for parameter in subject.network.parameters()}
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    subject.minibatch_metrics = [{}]
    subject.postprocess_gradients(gradients)
    total = torch.cat([parameter.grad.flatten() for parameter in gradients if parameter.grad is not None])
    assert float(total.norm()) == pytest.approx(1e-3, rel=1e-3)
    assert float(subject.minibatch_metrics[0]["gradient_norm"]) == pytest.approx(len(total) ** 0.5)
