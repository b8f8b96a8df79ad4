"""Cells: one training run with its evaluation, and the ids that decide what must be computed again."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from goalposts.benchmark.experiment.record import (
    CellKey,
    Config,
    Plugin,
    TaskSettings,
    TrainingSettings,
    cell_id_of,
    eval_id_of,
)
from goalposts.benchmark.measurement.plan import EvaluationPlan
from goalposts.benchmark.training.config import TRAINER_VERSION, TrainingConfig


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run and its evaluation, with everything that determines them."""

    key: CellKey
    task: str
    """The task's reference: its id, or ``path.py:Class``."""
    task_sha256: str | None
    """Hash of the task's source files, if it is not built in."""
    training: TrainingConfig
    """With ``bf16`` and ``overlap`` resolved for the device."""
    reference: str
    """The mitigation's reference: a registered name, or ``path.py:Class``."""
    hyperparameters: dict[str, Any]
    selection: Literal["defaults", "in_distribution", "validation_shift"]
    study: str | None
    """The study that chose the hyperparameters."""
    plugin: Plugin
    knowledge: tuple[str, ...]
    fixed_rate: bool
    """Whether the mitigation sets its own disambiguation rate."""
    inapplicable: tuple[str, ...]
    """Tasks of the suite to which the mitigation does not apply."""
    device: Literal["cpu", "cuda"]
    evaluation: EvaluationPlan

    @property
    def cell_id(self) -> str:
        """A readable name that ends in a hash of everything that determines training."""
        return cell_id_of(self.key, self.config, self.plugin.sha256, self.device)

    @property
    def eval_id(self) -> str:
        """A hash of everything that determines the evaluation."""
        return eval_id_of(self.cell_id, self.evaluation)

    @property
    def parameters(self) -> dict[str, Any]:
        """The task's own parameters."""
        return self.evaluation.parameters

    @property
    def config(self) -> Config:
        """All settings, as in the record."""
        task: dict[str, Any] = {"version": self.evaluation.task_version, "parameters": self.parameters}
        if self.task_sha256 is not None:
            task["sha256"] = self.task_sha256
        return Config(
            task=TaskSettings(**task),
            training=TrainingSettings(version=TRAINER_VERSION, **self.training.model_dump()),
            mitigation=self.hyperparameters,
            evaluation=self.evaluation,
        )
