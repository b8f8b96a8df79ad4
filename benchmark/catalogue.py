"""The catalogue: the descriptions of tasks and mitigations, read without importing them.

Importing a task or a mitigation imports torch. So ``catalogue.json`` stores the cards of the built-in ones. Each card
has the hash of the file that it was made from. A card that is missing or out of date is made from the class itself.
``python -m goalposts.benchmark.catalogue`` rewrites the file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.loading import MITIGATIONS, TASKS, registered
from goalposts.benchmark.tasks.vocabulary import BENIGN_SHIFT, IN_DISTRIBUTION, Case, CertificateClass

FILE = Path(__file__).with_name("catalogue.json")


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = ""
    """SHA-256 of the module that the card was made from."""


class TaskCard(_Card):
    """The description of a task."""

    id: str
    version: int
    class_name: str
    case: Case
    shifts: tuple[str, ...]
    certificate_class: CertificateClass

    @property
    def gymnasium_id(self) -> str:
        """The task's id in Gymnasium."""
        return f"goalposts/{self.class_name}-v{self.version}"

    @property
    def splits(self) -> tuple[str, ...]:
        """All evaluation splits."""
        return (IN_DISTRIBUTION, BENIGN_SHIFT, *self.shifts)

    @property
    def rankable_shifts(self) -> tuple[str, ...]:
        """The shifts that may count for a score. A task that measures a preference has none."""
        return () if self.certificate_class == "preference" else self.shifts


class MitigationCard(_Card):
    """The description of a mitigation."""

    name: str
    version: str
    knowledge: tuple[str, ...]
    summary: str
    """The first line of its docstring."""


def task_card(task_id: str) -> TaskCard | None:
    """Return the card of an installed task. None if there is no such task."""
    point = registered(TASKS).get(task_id)
    return None if point is None else _task_card(point)


def task_cards() -> dict[str, TaskCard]:
    """Return the cards of all installed tasks, by id."""
    return {task_id: _task_card(point) for task_id, point in registered(TASKS).items()}


def mitigation_cards(complain: Callable[[str], object]) -> dict[str, MitigationCard]:
    """Return the cards of all installed mitigations, by name. ``complain`` reports those that cannot be loaded."""
    cards = {}
    for name, point in registered(MITIGATIONS).items():
        try:
            cards[name] = _mitigation_card(point)
        except RequestError as error:
            complain(str(error))
    return cards


def _task_card(point: EntryPoint) -> TaskCard:
    kept = _kept(TASKS, point)
    return TaskCard.model_validate(kept) if kept is not None else fresh_task_card(point)


def _mitigation_card(point: EntryPoint) -> MitigationCard:
    kept = _kept(MITIGATIONS, point)
    return MitigationCard.model_validate(kept) if kept is not None else fresh_mitigation_card(point)


def fresh_task_card(point: EntryPoint) -> TaskCard:
    """Return the card of a task, from its class."""
    from goalposts.benchmark.tasks.registry import load_task

    cls = load_task(point.name).cls
    return TaskCard(
        source=_source(point),
        id=cls.id,
        version=cls.version,
        class_name=cls.__name__,
        case=cls.case,
        shifts=cls.shifts,
        certificate_class=cls.certificate_class,
    )


def fresh_mitigation_card(point: EntryPoint) -> MitigationCard:
    """Return the card of a mitigation, from its class."""
    from goalposts.benchmark.plugins.registry import load_plugin

    cls = load_plugin(point.name).cls
    summary = (cls.__doc__ or "").strip().splitlines()
    return MitigationCard(
        source=_source(point),
        name=point.name,
        version=cls.version,
        knowledge=tuple(sorted(flag.value for flag in cls.uses)),
        summary=summary[0] if summary else "",
    )


def kept_task_cards() -> dict[str, TaskCard]:
    """Return the stored cards of tasks, including outdated ones."""
    return {name: TaskCard.model_validate(card) for name, card in _catalogue()[TASKS].items()}


def _kept(group: str, point: EntryPoint) -> Mapping[str, Any] | None:
    """Return the stored card of an entry point, if it was made from the present file."""
    card = _catalogue()[group].get(point.name)
    return card if card is not None and card["source"] == _source(point) else None


@functools.cache
def _catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    if not FILE.exists():
        return {TASKS: {}, MITIGATIONS: {}}
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def _source(point: EntryPoint) -> str:
    """Return the hash of an entry point's module, without importing it. Empty if there is no such module."""
    try:
        spec = importlib.util.find_spec(point.module)
    except ImportError:
        return ""
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def catalogue_text() -> str:
    """Return the correct content of ``catalogue.json``: the cards of the built-in tasks and mitigations."""
    makers: dict[str, Callable[[EntryPoint], _Card]] = {TASKS: fresh_task_card, MITIGATIONS: fresh_mitigation_card}
    catalogue = {
        group: {
            name: make(point).model_dump(mode="json")
            for name, point in registered(group).items()
            if point.module.startswith("goalposts.")
        }
        for group, make in makers.items()
    }
    return json.dumps(catalogue, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(catalogue_text(), encoding="utf-8")
