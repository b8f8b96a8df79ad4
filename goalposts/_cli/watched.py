"""The process in which ``goalposts check`` runs a plugin. It announces every step before taking it.

Messages are lines of JSON on a pipe. So a hook that never returns, or ends the process, is known by name.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from goalposts.benchmark.errors import RequestError, UndeclaredKnowledgeError
from goalposts.benchmark.experiment.conformance import (
    FEW_ITERATIONS,
    HOOKS,
    ITERATIONS,
    Conformance,
    default_tasks,
    tiny_plan,
)
from goalposts.benchmark.plugins.hooks import Hooks
from goalposts.benchmark.plugins.mitigation import Mitigation
from goalposts.benchmark.plugins.registry import load_plugin
from goalposts.benchmark.tasks.registry import make_task, task_class
from goalposts.benchmark.tasks.task import Task

Tell = Callable[..., None]


def announcing(tell: Tell) -> type[Hooks]:
    """Return a subclass of ``Hooks`` that reports the start and end of every call of an overridden hook."""

    class AnnouncingHooks(Hooks):
        def _call(self, hook: str, *args: Any) -> Any:
            if not type(self.mitigation).overrides(hook):
                return super()._call(hook, *args)
            tell(enter=hook)
            try:
                returned = super()._call(hook, *args)
            except Exception:  # An exit of the process is not caught, so that the hook counts as still running.
                tell(leave=hook)
                raise
            tell(leave=hook)
            return returned

    return AnnouncingHooks


def check_plugin(reference: str, tasks: Sequence[str], tell: Tell) -> None:
    """Run every check that applies, and report its result.

    Raises:
        RequestError: there is no such plugin or task, or the plugin cannot be loaded.
    """
    tell(enter="import")
    plugin = load_plugin(reference)
    tell(leave="import")
    for name in tasks:
        tell(enter="import", of=name)
        task_class(name)
        tell(leave="import")
    cls = plugin.cls
    tell(
        plugin={
            "name": plugin.name,
            "class": cls.__name__,
            "version": cls.version,
            "uses": sorted(flag.value for flag in cls.uses),
            "hooks": [hook for hook in ("setup", *HOOKS) if cls.overrides(hook)],
        }
    )
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    hooks, iterations = announcing(tell), ITERATIONS
    for name in tasks or default_tasks():
        plan = tiny_plan(name)
        lack = _lack(cls, make_task(plan.task, **plan.parameters), tell)
        if lack is not None:
            tell(skipped=name, reason=f"it has {lack}")
            continue
        for device in devices:
            _run_checks(Conformance(plugin, plan, device, iterations, hooks), tell)
            iterations = FEW_ITERATIONS


def _lack(cls: type[Mitigation], task: Task[Any], tell: Tell) -> str | None:
    """Return what the task lacks. If the mitigation's own answer fails, the checks will find out why."""
    tell(enter="inapplicable")
    try:
        return cls.inapplicable(task)
    except Exception:
        return None
    finally:
        tell(leave="inapplicable")


def _run_checks(conformance: Conformance, tell: Tell) -> None:
    """Run the checks of one task and device, up to the first failure."""
    for check in conformance.checks():
        tell(check=check.name, task=conformance.plan.task, device=conformance.device)
        try:
            check.run()
        except Exception as error:
            name = "knowledge" if isinstance(error, UndeclaredKnowledgeError) else check.name
            tell(result=name, problem=conformance.explained(error))
            return
        tell(result=check.name, problem=None)


def main(descriptor: str, reference: str, *tasks: str) -> None:
    """Run the checks. Messages go to the file ``descriptor``. The end of standard input ends the process."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with os.fdopen(int(descriptor), "w", buffering=1) as pipe:

        def tell(**message: Any) -> None:
            pipe.write(json.dumps(message) + "\n")

        try:
            check_plugin(reference, tasks, tell)
        except RequestError as error:
            tell(refused=str(error))
        else:
            tell(done=True)


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
