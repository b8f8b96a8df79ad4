"""Tells Gymnasium the names of the tasks, without loading them."""

from __future__ import annotations

ENVIRONMENT = "goalposts.benchmark.tasks.gymnasium_env"


def register_built_in() -> None:
    """Register every built-in task under its class and version, such as ``goalposts/Corner-v1``."""
    from goalposts.benchmark.catalogue import kept_task_cards

    for card in kept_task_cards().values():
        register(card.gymnasium_id, card.id)


def register(gymnasium_id: str, task: str) -> None:
    """Register a task, single and vectorized, unless it is registered already.

    Args:
        gymnasium_id: such as ``goalposts/Corner-v1``.
        task: its id, or ``path.py:Class``.
    """
    from gymnasium.envs import registration  # Not above: Gymnasium's own import may be what brings us here.

    if gymnasium_id not in registration.registry:
        registration.register(
            gymnasium_id,
            entry_point=f"{ENVIRONMENT}:GoalpostsEnv",
            vector_entry_point=f"{ENVIRONMENT}:GoalpostsVectorEnv",
            kwargs={"task": task},
        )
