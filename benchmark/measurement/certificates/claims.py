"""A claim about a task, and the certificate that all claims make up."""

from __future__ import annotations

import dataclasses
from typing import Any

from goalposts.benchmark.tasks.vocabulary import CertificateClass


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement about a task, with what was found."""

    text: str
    """The statement, with what it requires."""
    holds: bool
    found: str
    """The counts or figures behind it."""
    mend: str
    """What to look at where it does not hold."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """All claims about one task."""

    task: str
    version: int
    certificate_class: CertificateClass
    parameters: dict[str, Any]
    num_levels: int
    """Levels drawn for each sampler and split."""
    claims: tuple[Claim, ...]

    @property
    def holds(self) -> bool:
        """Whether every claim does."""
        return all(claim.holds for claim in self.claims)


def counts_text(found: dict[str, int], total: int) -> str:
    """Return counts by name as text."""
    return ", ".join(f"{name} {count}/{total}" for name, count in found.items())
