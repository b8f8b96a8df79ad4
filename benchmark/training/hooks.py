"""Calls a mitigation's hooks and checks what they return, so that a faulty plugin is named and not puzzled over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from benchmark.errors import GoalpostsError, HookError
from benchmark.mitigation import Context, Knowledge, Mitigation, ModuleSpec, Rollout
from benchmark.tasks.base import Task
from benchmark.tasks.levels import Levels


class Hooks:
    """A mitigation seen through its contract: every result has the shape, dtype and meaning it must have."""

    def __init__(self, mitigation: Mitigation, task: Task[Any]) -> None:
        self.mitigation = mitigation
        self.task = task
        uses = type(mitigation).uses
        self._name = type(mitigation).__name__
        self._chooses_goals = type(mitigation).overrides("goals")
        self._told = Knowledge.GOAL_INPUT in uses
        known = {0}
        if Knowledge.CANDIDATE_REWARDS in uses:
            known |= set(task.candidates)
        if Knowledge.PROXY_GOALS in uses:
            known |= set(task.proxies)
        self.known_goals = torch.tensor([goal in known for goal in range(len(task.goals))])
        """``bool[num_goals]``: the goals this mitigation may reward and whose events it may see."""

    def _call(self, hook: str, *args: Any) -> Any:
        try:
            return getattr(self.mitigation, hook)(*args)
        except GoalpostsError:
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise HookError(f"Hook {hook!r} of {self._name} raised {problem}") from error

    def _fail(self, hook: str, problem: str) -> HookError:
        return HookError(f"Hook {hook!r} of {self._name} returned {problem}.")

    def _tensor(self, hook: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise self._fail(hook, f"a {type(value).__name__}, not a tensor")
        return value

    def setup(self, context: Context) -> None:
        self._call("setup", context)

    def sample_levels(self, num_levels: int) -> Levels:
        returned = self._call("sample_levels", num_levels)
        return self.check_levels(f"Hook 'sample_levels' of {self._name} returned", returned, num_levels)

    def check_levels(self, deed: str, levels: Any, num_levels: int) -> Levels:
        """Return ``levels`` if training may play them; ``deed`` says in an error how they came.

        Raises:
            HookError: they are no ``num_levels`` levels of the task, or some are reserved for evaluation.
        """
        if not isinstance(levels, self.task.levels_type):
            raise HookError(f"{deed} a {type(levels).__name__}, not {self.task.levels_type.__name__}.")
        if len(levels) != num_levels:
            raise HookError(f"{deed} {len(levels)} levels where {num_levels} are needed.")
        if bool(levels.reserved().any()):
            raise HookError(f"{deed} levels of the share reserved for evaluation.")
        return levels

    def goals(self, levels: Levels) -> Tensor:
        goals = self._tensor("goals", self._call("goals", levels))
        if not self._chooses_goals:
            return goals
        if goals.shape != (len(levels),) or goals.dtype != torch.int64:
            raise self._fail("goals", f"{goals.dtype} of shape {tuple(goals.shape)}, not int64[{len(levels)}]")
        in_range = bool(((goals >= 0) & (goals < len(self.known_goals))).all())
        if not (in_range and bool(self.known_goals.to(goals.device)[goals].all())):
            raise self._fail("goals", f"goals {sorted(set(goals.tolist()))}, some of which it does not declare")
        return goals

    def observe(self, observation: Tensor, told_goal: Tensor) -> Tensor:
        inputs = self._tensor("observe", self._call("observe", observation, told_goal if self._told else None))
        if inputs.shape[:1] != observation.shape[:1]:
            raise self._fail("observe", f"shape {tuple(inputs.shape)} for {len(observation)} observations")
        return inputs

    def relabel(self, rollout: Rollout) -> Rollout:
        result = self._call("relabel", rollout)
        if not isinstance(result, Rollout):
            raise self._fail("relabel", f"a {type(result).__name__}, not a Rollout")
        return result

    def after_rollout(self, rollout: Rollout) -> None:
        self._call("after_rollout", rollout)

    def sample_weights(self, rollout: Rollout) -> Tensor | None:
        returned = self._call("sample_weights", rollout)
        if returned is None:
            return None
        weights = self._tensor("sample_weights", returned)
        if weights.shape != rollout.rewards.shape:
            raise self._fail("sample_weights", f"shape {tuple(weights.shape)}, not {tuple(rollout.rewards.shape)}")
        if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
            raise self._fail("sample_weights", "weights that are negative, NaN or infinite")
        return weights.float()

    def batch_columns(self, rollout: Rollout) -> dict[str, Tensor]:
        columns: Mapping[str, Tensor] = self._call("batch_columns", rollout)
        if not isinstance(columns, Mapping):
            raise self._fail("batch_columns", f"a {type(columns).__name__}, not a mapping of tensors")
        for name, column in columns.items():
            if self._tensor("batch_columns", column).shape[:2] != rollout.rewards.shape:
                raise self._fail("batch_columns", f"column {name!r} of shape {tuple(column.shape)}")
        return dict(columns)

    def extra_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor | None:
        returned = self._call("extra_loss", batch, outputs)
        if returned is None:
            return None
        loss = self._tensor("extra_loss", returned)
        if loss.dim() != 0:
            raise self._fail("extra_loss", f"shape {tuple(loss.shape)}, not a scalar")
        return loss

    def act(self, outputs: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        returned = self._call("act", outputs, generator)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise self._fail("act", f"a {type(returned).__name__}, not actions and requests for help")
        actions, asks = self._tensor("act", returned[0]), returned[1]
        count = len(outputs["action_dist_inputs"])
        if actions.shape != (count,) or actions.dtype != torch.int64:
            raise self._fail("act", f"actions {actions.dtype} of shape {tuple(actions.shape)}, not int64[{count}]")
        if asks is not None and (self._tensor("act", asks).shape != (count,) or asks.dtype != torch.bool):
            raise self._fail("act", f"requests {asks.dtype} of shape {tuple(asks.shape)}, not bool[{count}]")
        return actions, asks

    def build_module(self, spec: ModuleSpec) -> TorchRLModule:
        module = self._call("build_module", spec)
        if not isinstance(module, TorchRLModule):
            raise self._fail("build_module", f"a {type(module).__name__}, not a TorchRLModule")
        if module.is_stateful():
            raise self._fail("build_module", "a module with state; policies are feed-forward in this version")
        return module

    def state_dict(self) -> dict[str, Any]:
        state = self._call("state_dict")
        if not isinstance(state, dict):
            raise self._fail("state_dict", f"a {type(state).__name__}, not a dict")
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._call("load_state_dict", state)
