"""Calls a mitigation's hooks and checks their results, so that an error names the faulty hook."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from goalposts.benchmark.errors import GoalpostsError, HookError
from goalposts.benchmark.plain import one_line
from goalposts.benchmark.plugins.context import Context
from goalposts.benchmark.plugins.knowledge import Knowledge, known_goals
from goalposts.benchmark.plugins.mitigation import LOGITS, VALUES, Mitigation, ModuleSpec
from goalposts.benchmark.plugins.rollout import Rollout
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.task import Task
from goalposts.benchmark.tensor_files import TENSOR_KEY


class Hooks:
    """Calls a mitigation's hooks. Every result is checked for its shape, dtype and range."""

    def __init__(self, mitigation: Mitigation, task: Task[Any]) -> None:
        self.mitigation = mitigation
        self.task = task
        uses = type(mitigation).uses
        self._name = type(mitigation).__name__
        self._chooses_goals = type(mitigation).overrides("goals")
        self._observes = type(mitigation).overrides("observe")
        self._told = Knowledge.GOAL_INPUT in uses
        self.known_goals = torch.tensor(known_goals(task, uses))
        """``bool[num_goals]``: the goals this mitigation may reward and whose events it may see."""

    def _call(self, hook: str, *args: Any) -> Any:
        try:
            return getattr(self.mitigation, hook)(*args)
        except GoalpostsError as error:
            if error.hook is not None:
                raise
            raise type(error)(f"Hook {hook!r} of {self._name} failed: {error}", hook=hook) from error
        except Exception as error:
            raise HookError(f"Hook {hook!r} of {self._name} raised {_problem(error)}", hook=hook) from error

    def _fail(self, hook: str, problem: str) -> HookError:
        return HookError(f"Hook {hook!r} of {self._name} returned {problem}.", hook=hook)

    def _tensor(self, hook: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise self._fail(hook, f"a {type(value).__name__}, not a tensor")
        return value

    def _kept(
        self, hook: str, what: str, value: Any, shape: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return ``value`` if it is a tensor of this shape and dtype on this device."""
        tensor = self._tensor(hook, value)
        found, needed = _kind(tensor.shape, tensor.dtype, tensor.device), _kind(shape, dtype, device)
        if found != needed:
            raise self._fail(hook, f"{what}{found}, not {needed}")
        return tensor

    def _finite(self, hook: str, what: str, tensor: Tensor) -> None:
        if not _is_finite(tensor):
            raise self._fail(hook, f"{what}NaN or infinity")

    def _declared(self, hook: str, goals: Tensor) -> None:
        in_range = bool(((goals >= 0) & (goals < len(self.known_goals))).all())
        if not (in_range and bool(self.known_goals.to(goals.device)[goals].all())):
            raise self._fail(hook, f"goals {sorted(set(goals.flatten().tolist()))}, some of which it does not declare")

    def setup(self, context: Context) -> None:
        self.mitigation.context = context  # In case an overridden ``setup`` does not call its parent's.
        self._call("setup", context)

    def sample_levels(self, num_levels: int) -> Levels:
        returned = self._call("sample_levels", num_levels)
        deed = f"Hook 'sample_levels' of {self._name} returned"
        return self.check_levels(deed, returned, num_levels, hook="sample_levels")

    def check_levels(self, deed: str, levels: Any, num_levels: int, hook: str | None = None) -> Levels:
        """Return ``levels`` if training may play them. ``deed`` opens the error message and says where they came from.

        Raises:
            HookError: they are not ``num_levels`` levels of the task, or some are reserved for evaluation.
        """
        problem = None
        if not isinstance(levels, self.task.levels_type):
            problem = f"a {type(levels).__name__}, not {self.task.levels_type.__name__}"
        elif len(levels) != num_levels:
            problem = f"{len(levels)} levels where {num_levels} are needed"
        elif bool(levels.reserved().any()):
            problem = "levels of the share reserved for evaluation"
        if problem is not None:
            raise HookError(f"{deed} {problem}.", hook=hook)
        assert isinstance(levels, Levels)
        return levels

    def goals(self, levels: Levels) -> Tensor:
        goals = self._call("goals", levels)
        if self._chooses_goals:
            self._kept("goals", "", goals, (len(levels),), torch.int64, levels.device)
            self._declared("goals", goals)
        return self._tensor("goals", goals)

    def observe(self, observation: Tensor, told_goal: Tensor) -> Tensor:
        inputs = self._tensor("observe", self._call("observe", observation, told_goal if self._told else None))
        if not self._observes:
            return inputs
        self._kept("observe", "", inputs, (len(observation), *inputs.shape[1:]), inputs.dtype, observation.device)
        self._finite("observe", "", inputs)
        return inputs

    def relabel(self, rollout: Rollout) -> Rollout:
        before = {name: getattr(rollout, name) for name in _TENSORS}
        result = self._call("relabel", rollout)
        if not isinstance(result, Rollout):
            raise self._fail("relabel", f"a {type(result).__name__}, not a Rollout")
        for name, tensor in before.items():
            self._kept("relabel", f"{name} ", getattr(result, name), tensor.shape, tensor.dtype, tensor.device)
            self._finite("relabel", f"{name} that hold ", getattr(result, name))
        self._declared("relabel", result.told_goals)
        return result

    def after_rollout(self, rollout: Rollout) -> None:
        before = {name: getattr(rollout, name) for name in _TENSORS}
        self._call("after_rollout", rollout)
        for name, tensor in before.items() if type(self.mitigation).overrides("after_rollout") else ():
            left = getattr(rollout, name)
            if not isinstance(left, Tensor) or (left.shape, left.dtype) != (tensor.shape, tensor.dtype):
                raise HookError(
                    f"Hook 'after_rollout' of {self._name} changed the shape or dtype of {name}.",
                    hook="after_rollout",
                )
            if not name.endswith("observations") and not _is_finite(left):
                raise HookError(
                    f"Hook 'after_rollout' of {self._name} left {name} with NaN or infinity.", hook="after_rollout"
                )

    def sample_weights(self, rollout: Rollout) -> Tensor | None:
        returned = self._call("sample_weights", rollout)
        if returned is None:
            return None
        weights = self._tensor("sample_weights", returned).float()
        self._kept("sample_weights", "", weights, rollout.rewards.shape, torch.float32, rollout.rewards.device)
        if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
            raise self._fail("sample_weights", "weights that are negative, NaN or infinite")
        return weights

    def batch_columns(self, rollout: Rollout, taken: Collection[str] = ()) -> dict[str, Tensor]:
        """Return extra columns. ``taken`` holds the names of the learner's own columns."""
        columns: Mapping[str, Tensor] = self._call("batch_columns", rollout)
        if not isinstance(columns, Mapping):
            raise self._fail("batch_columns", f"a {type(columns).__name__}, not a mapping of tensors")
        shape, device = rollout.rewards.shape, rollout.rewards.device
        for name, value in columns.items():
            if name in taken:
                raise self._fail(
                    "batch_columns", f"{name!r}, which is one of the learner's own columns; choose another name"
                )
            column = self._tensor("batch_columns", value)
            self._kept("batch_columns", f"{name!r} ", column, (*shape, *column.shape[2:]), column.dtype, device)
            self._finite("batch_columns", f"{name!r} that holds ", column)
        return dict(columns)

    def extra_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return the hook's loss. The learner checks once per update that the losses of all minibatches are finite."""
        returned = self._call("extra_loss", batch, outputs)
        if returned is None:
            return None
        loss = self._tensor("extra_loss", returned)
        return self._kept("extra_loss", "", loss, (), loss.dtype, outputs[VALUES].device)

    def act(self, outputs: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        returned = self._call("act", outputs, generator)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise self._fail("act", f"a {type(returned).__name__}, not actions and requests for help")
        logits = outputs[LOGITS]
        count, num_actions = logits.shape
        actions = self._kept("act", "actions ", returned[0], (count,), torch.int64, logits.device)
        if not bool(((actions >= 0) & (actions < num_actions)).all()):
            raise self._fail("act", f"actions {sorted(set(actions.tolist()))}, not in 0 to {num_actions - 1}")
        if returned[1] is not None:
            self._kept("act", "requests ", returned[1], (count,), torch.bool, logits.device)
        return actions, returned[1]

    def build_module(self, spec: ModuleSpec) -> nn.Module:
        module = self._call("build_module", spec)
        if not isinstance(module, nn.Module):
            raise self._fail("build_module", f"a {type(module).__name__}, not a torch.nn.Module")
        return module

    def check_network(self, module: nn.Module, inputs: Tensor) -> None:
        """Refuse a network that does not return valid logits and values for ``inputs``.

        Args:
            module: the network.
            inputs: ``[n, ...]``, as ``observe`` returns them.

        Raises:
            HookError: the network raises, or its logits or values are missing, on another device or not finite, or have
                the wrong shape.
        """
        module.eval()
        try:
            with torch.no_grad():
                outputs = module(inputs)
        except Exception as error:
            raise self._fail("build_module", f"a network that raised {_problem(error)}") from error
        if not isinstance(outputs, Mapping):
            raise self._fail("build_module", f"a network that returns a {type(outputs).__name__}, not a dict")
        count = len(inputs)
        for name, shape in ((LOGITS, (count, self.task.num_actions)), (VALUES, (count,))):
            if name not in outputs:
                raise self._fail("build_module", f"a network without {name!r} among its outputs")
            deed = f"a network with {name!r} that are "
            self._kept("build_module", deed, outputs[name], shape, torch.float32, inputs.device)
            self._finite("build_module", deed, outputs[name])

    def state_dict(self) -> dict[str, Any]:
        state = self._call("state_dict")
        if not isinstance(state, dict):
            raise self._fail("state_dict", f"a {type(state).__name__}, not a dict")
        _check_state(state, lambda problem: self._fail("state_dict", problem))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._call("load_state_dict", state)


_TENSORS = tuple(field.name for field in dataclasses.fields(Rollout) if field.name != "levels")


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _problem(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _kind(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> str:
    return f"{str(dtype).removeprefix('torch.')}[{', '.join(map(str, shape))}] on {device}"


def _check_state(tree: Any, fail: Callable[[str], HookError], path: str = "state") -> None:
    """Raise the error that ``fail`` builds if ``tree`` holds something that a checkpoint cannot store."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if not isinstance(key, str):
                raise fail(f"{path} with the key {key!r}, which is not a string")
            if key == TENSOR_KEY:
                raise fail(f"{path} with the key {key!r}, which checkpoints reserve; choose another key")
            _check_state(value, fail, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            _check_state(value, fail, f"{path}[{i}]")
    elif not (tree is None or isinstance(tree, Tensor | str | int | float)):
        raise fail(f"{path} of type {type(tree).__name__}; keep tensors and JSON values")
