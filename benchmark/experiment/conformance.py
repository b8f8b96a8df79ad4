"""The conformance suite: checks a mitigation against the plugin contract, on small instances of the tasks.

Every check runs the code that also trains. It passes by returning, and fails by raising a one-line error.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goalposts.benchmark.errors import GoalpostsError, HookError, NonFiniteError, UndeclaredKnowledgeError
from goalposts.benchmark.experiment.suite import TaskPlan, get_suite, small_plan
from goalposts.benchmark.measurement.episodes import play
from goalposts.benchmark.plain import one_line
from goalposts.benchmark.plugins.context import Context
from goalposts.benchmark.plugins.hooks import Hooks
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.registry import LoadedPlugin
from goalposts.benchmark.tasks.levels import Levels
from goalposts.benchmark.tasks.registry import make_task
from goalposts.benchmark.tasks.vocabulary import BENIGN_SHIFT
from goalposts.benchmark.training import checkpoint
from goalposts.benchmark.training.loop import Trainer

SIZES: dict[str, Any] = {"num_envs": 64, "num_steps": 8, "num_epochs": 1, "minibatch_size": 256, "hidden_sizes": (8,)}
FEW_ITERATIONS = 6
"""Iterations of a run on most tasks."""
ITERATIONS = 40
"""Iterations of a long run: enough for the curricula to fill their buffers and reach all of their phases."""
INTERRUPTED = (1, 2, 4, 34, 35, 36, 37, 38)
"""The iterations after which the resumed run stops and continues from its checkpoint."""
GAME = "maze_corner"
"""The fastest Procgen task, whose observations are bytes."""
EPISODES = 8
"""Evaluation episodes on each split."""

ASKS: Mapping[Knowledge, Callable[[Context, Levels], Any]] = {
    Knowledge.LEVEL_GENERATOR: lambda context, levels: context.randomized_levels(1),
    Knowledge.LEVEL_EDITOR: lambda context, levels: context.edit_levels(levels, 1),
    Knowledge.CANDIDATE_REWARDS: lambda context, levels: context.candidate_goals,
    Knowledge.PROXY_GOALS: lambda context, levels: context.proxy_goals,
    Knowledge.PLANNER: lambda context, levels: context.optimal_return(levels),
}
"""Requests that a context grants only to mitigations that declare the knowledge."""


def tiny_plan(task: str) -> TaskPlan:
    """Return how the conformance suite trains a task: by the task's small plan, made even smaller."""
    plan = small_plan(task)
    env_steps = ITERATIONS * SIZES["num_envs"] * SIZES["num_steps"]
    changes = {**SIZES, "env_steps": env_steps, "bf16": False, "overlap": False}
    return plan.model_copy(update={"training": plan.training.model_copy(update=changes)})


def default_tasks() -> tuple[str, ...]:
    """Return the tasks that are checked by default: all tensor tasks, and one Procgen game."""
    return (*(plan.task for plan in get_suite("smoke").tasks), GAME)


class Check(NamedTuple):
    """One check of a mitigation on one task and device."""

    name: str
    run: Callable[[], None]


class Conformance:
    """Checks a mitigation on one small task and device.

    Args:
        plugin: the plugin to check.
        plan: plan of the task.
        device: ``cpu`` or ``cuda``.
        iterations: iterations of each run.
        hooks: calls the mitigation's hooks.
    """

    def __init__(
        self,
        plugin: LoadedPlugin,
        plan: TaskPlan,
        device: str = "cpu",
        iterations: int = FEW_ITERATIONS,
        hooks: type[Hooks] = Hooks,
    ) -> None:
        self.plugin = plugin
        self.plan = plan
        self.device = device
        self.task = make_task(plan.task, **plan.parameters)
        self._hooks = hooks
        self._uses = plugin.cls.uses
        self._exact = device == "cpu"
        """Whether equal runs must have bit-identical results."""
        self._iterations = iterations
        self._trained: Trainer | None = None

    def checks(self) -> Iterator[Check]:
        """Yield the checks. A check after a failed one may fail as well."""
        yield Check("hooks", self.check_hooks)
        yield Check("training", self.check_training)
        if self._exact:
            yield Check("seed", self.check_seed)
        yield Check("resume", self.check_resume)
        yield Check("evaluation", self.check_evaluation)
        yield Check("knowledge", self.check_knowledge)

    def trainer(self) -> Trainer:
        """Return a run before its first step."""
        return Trainer(
            self.task,
            self.plugin.cls(),
            alpha=0.0,
            config=self.plan.training,
            stream=("conformance", self.plan.task, 0),
            mitigation_name=self.plugin.name,
            device=self.device,
            hooks=self._hooks,
        )

    def trained(self) -> Trainer:
        """Return the uninterrupted run after its end."""
        assert self._trained is not None
        return self._trained

    def _run(self, interrupted: Collection[int] = ()) -> Trainer:
        """Train. After each of the ``interrupted`` iterations, stop and continue in a fresh run."""
        trainer = self.trainer()
        for iteration in range(1, self._iterations + 1):
            if trainer.env_steps < self.plan.training.env_steps:
                trainer.iterate()
            if iteration in interrupted:
                trainer = self._resumed(trainer)
        return trainer

    def check_hooks(self) -> None:
        """Levels are valid, and goals are declared. The agent's input depends on the observation and its goal alone.

        Neither levels nor observation are changed, since both are still played. Training checks the results of the
        other hooks whenever it calls them.
        """
        trainer = self.trainer()
        hooks, count = trainer.hooks, self.plan.training.num_envs
        levels = hooks.sample_levels(count)
        if levels.device.type != self.device:
            raise self._faulty("sample_levels", f"returned levels on {levels.device}, not on {self.device}")
        if not bool(self.task.valid(levels).all()):
            raise self._faulty("sample_levels", "returned levels that are not valid")
        drawn = {name: tensor.clone() for name, tensor in levels.tensors().items()}
        goals = hooks.goals(levels)
        if difference(drawn, levels.tensors()) is not None:
            raise self._faulty("goals", "changed its levels; return goals and leave the levels unchanged")
        observation = self.task.make_env(count, self.device).reset(levels, goals=goals)
        seen = observation.clone()
        whole = hooks.observe(observation, goals)
        if not torch.equal(observation, seen):
            raise self._faulty("observe", "changed the observation it was given; work on a copy of it")
        if not torch.equal(hooks.observe(observation, goals), whole):
            raise self._faulty("observe", "returned two inputs for one observation; draw no random numbers in it")
        half = slice(count // 2, count)
        if not torch.equal(hooks.observe(observation[half], goals[half]), whole[half]):
            raise self._faulty("observe", "used other rows of the batch; let each row depend only on itself")

    def check_training(self) -> None:
        """A run completes."""
        self._trained = self._run()

    def check_seed(self) -> None:
        """The same seed gives the same run."""
        where = difference(self.trained().state_dict(), self._run().state_dict())
        if where is not None:
            raise HookError(
                f"Two runs of {self.plugin.cls.__name__} with the same seed differ in {where}; draw only "
                f"from context.generator, and keep nothing outside the instance."
            )

    def check_resume(self) -> None:
        """An interrupted run continues from its checkpoint as if it had not stopped.

        On a CPU the results are bit-identical.
        """
        resumed = self._run(INTERRUPTED)
        where = difference(self.trained().state_dict(), resumed.state_dict())
        if where is not None and self._exact:
            raise self._faulty("state_dict", f"leaves something out: a resumed run differs in {where}")

    def _resumed(self, trainer: Trainer) -> Trainer:
        """Return a fresh run that continues from a checkpoint of ``trainer``."""
        fresh = self.trainer()
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), trainer.state_dict(), trainer.env_steps)
            loaded = checkpoint.load(Path(folder))
        assert loaded is not None
        state, fresh.env_steps, _ = loaded
        fresh.load_state_dict(state)
        where = difference(state["mitigation"], fresh.hooks.state_dict())
        if where is not None:
            raise self._faulty("load_state_dict", f"did not restore state{where}")
        return fresh

    def check_evaluation(self) -> None:
        """An agent rebuilt from the checkpoint acts like the trained one, and plays on every split."""
        resumed = self._resumed(self.trained())
        splits = [split for split in self.task.splits if split != BENIGN_SHIFT]
        random = torch.Generator().manual_seed(0)
        levels = self.task.levels_type.concatenate(
            [self.task.shift_levels(split, EPISODES, random) for split in splits]
        )
        first, second = self._returns(self.trained(), levels), self._returns(resumed, levels)
        if self._exact and not torch.equal(first, second):
            raise self._faulty("act", "chooses other actions in an agent loaded from a checkpoint")

    def _returns(self, trainer: Trainer, levels: Levels) -> Tensor:
        """Return the returns of the agent of ``trainer`` on each level, ``float64[num_levels]``."""
        policy = trainer.agent("sampled").policy(torch.Generator(self.device).manual_seed(0))
        return play(self.task, levels, lambda _env: policy, device=self.device).discounted_return

    def check_knowledge(self) -> None:
        """The mitigation asks only for declared knowledge, and the context refuses everything else."""
        mitigation = self.trained().hooks.mitigation
        uses = type(mitigation).uses
        if uses != self._uses or mitigation.uses != self._uses:
            raise UndeclaredKnowledgeError(
                f"{self.plugin.cls.__name__} changed its 'uses' while it ran; declare them once, in the class."
            )
        context = getattr(mitigation, "context", None)
        if not isinstance(context, Context):
            return
        if context.refused:
            raise UndeclaredKnowledgeError(
                f"{self.plugin.cls.__name__} asked its context for {', '.join(sorted(set(context.refused)))}, which it "
                "does not declare, and went on without; add it to its 'uses', or do not ask."
            )
        levels = context.sample_levels(1)
        for knowledge, ask in ASKS.items():
            if knowledge not in uses and _hands_over(ask, context, levels):
                raise UndeclaredKnowledgeError(
                    f"The context of {self.plugin.cls.__name__} hands over {knowledge.value}, which it does not "
                    "declare; add it to its 'uses', and leave the context as it is."
                )

    def _faulty(self, hook: str, problem: str) -> HookError:
        return HookError(f"Hook {hook!r} of {self.plugin.cls.__name__} {problem}.", hook=hook)

    def _suspects(self, among: Sequence[str]) -> str:
        hooks = [hook for hook in among if self.plugin.cls.overrides(hook)]
        return f" It overrides {', '.join(hooks)}." if hooks else ""

    def explained(self, error: Exception) -> str:
        """Return one line on why a check failed.

        If the error names no hook, add its place and the hooks it may come from.
        """
        message = one_line(error)
        if not isinstance(error, GoalpostsError):
            places = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__) if self._owns(frame)]
            place = f" in {places[-1]!r}" if places else ""
            message = f"{type(error).__name__}{place}: {message}"
        elif error.hook is not None or isinstance(error, UndeclaredKnowledgeError):
            return message
        if isinstance(error, NonFiniteError) and error.what == "extra_loss":
            return f"Hook 'extra_loss' of {self.plugin.cls.__name__} returned NaN or infinity: {message}"
        return f"{message.rstrip('.')}.{self._suspects(UNSEEN if isinstance(error, NonFiniteError) else HOOKS)}"

    def _owns(self, frame: FrameType) -> bool:
        """Return whether ``frame`` runs code of the plugin's module or package."""
        package = self.plugin.cls.__module__.split(".")[0]
        return str(frame.f_globals.get("__name__")).split(".")[0] == package


HOOKS = (
    "sample_levels", "goals", "observe", "relabel", "after_rollout", "sample_weights", "batch_columns",
    "build_module", "extra_loss", "act", "state_dict", "load_state_dict",
)  # fmt: skip
"""The hooks that an error without a hook's name may come from."""
UNSEEN = ("build_module", "extra_loss")
"""The hooks whose NaN may first show in a gradient. The results of the others are checked directly."""


def _hands_over(ask: Callable[[Context, Levels], Any], context: Context, levels: Levels) -> bool:
    try:
        ask(context, levels)
    except UndeclaredKnowledgeError:
        return False
    return True


def difference(first: Any, second: Any) -> str | None:
    """Return the first place where two states differ, such as ``['buffer']['scores']``. None if they are equal.

    Numbers and tensors must agree bit for bit, on any device. Lists equal tuples, as in checkpoints.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        if set(map(str, first)) != set(map(str, second)):
            return f" keys {sorted(map(str, first))} and {sorted(map(str, second))}"
        pairs = [(f"[{str(key)!r}]", value, second[key]) for key, value in first.items()]
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return f" lengths {len(first)} and {len(second)}"
        pairs = [(f"[{i}]", one, other) for i, (one, other) in enumerate(zip(first, second, strict=True))]
    elif isinstance(first, Tensor) or isinstance(second, Tensor):
        return None if isinstance(first, Tensor) and isinstance(second, Tensor) and _same(first, second) else ""
    else:
        return None if first == second or (first != first and second != second) else ""
    for name, one, other in pairs:
        where = difference(one, other)
        if where is not None:
            return name + where
    return None


def _same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    first, second = first.detach().cpu(), second.detach().cpu()
    if first.is_floating_point():
        return bool(((first == second) | (first.isnan() & second.isnan())).all())
    return torch.equal(first, second)
