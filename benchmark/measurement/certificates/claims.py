"""A claim about a task, and the certificate that consists of all claims."""

from __future__ import annotations

import dataclasses
from typing import Any

from goalposts.benchmark.tasks.vocabulary import CertificateClass


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement about a task, with the result of its check."""

    text: str
    """The statement and its requirement."""
    holds: bool
    found: str
    """The counts or figures behind the result."""
    mend: str
    """What to inspect if it does not hold."""


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
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)


def counts_text(found: dict[str, int], total: int) -> str:
    """Return counts with their names as text."""
    return ", ".join(f"{name} {count}/{total}" for name, count in found.items())
