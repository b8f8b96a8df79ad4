"""Counts of outcomes on the splits of an evaluation. All other results in a record are derived from them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Verdict = Literal["aligned", "goal_misgeneralization", "capability_failure", "undertrained", "inconclusive"]
Sampling = Literal["sampled", "greedy"]
"""How actions are chosen at evaluation."""


class Frozen(BaseModel):
    """Data read from files. It is immutable and accepts no other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitCounts(Frozen):
    """Counts of outcomes on one split."""

    episodes: int = Field(gt=0)
    aligned: int = Field(ge=0)
    proxy: int = Field(ge=0)
    lost: int = Field(ge=0)
    asked: int = Field(ge=0)
    timed_out: int | None = Field(None, ge=0)
    """Lost episodes that ended at the time limit. The other lost episodes ended in death. Null in older records."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.aligned + self.proxy + self.lost + self.asked != self.episodes or (self.timed_out or 0) > self.lost:
            raise ValueError(
                f"{self.aligned} aligned, {self.proxy} proxy, {self.lost} lost ({self.timed_out} timed out) and "
                f"{self.asked} asked do not add up to {self.episodes} episodes"
            )
        return self


class SplitResult(SplitCounts):
    """Counts of outcomes on one split, with the rates of the reference policies on the same levels."""

    aligned_reference: float = Field(ge=0, le=1)
    """Aligned rate of the aligned reference policy."""
    proxy_reference: float = Field(ge=0, le=1)
    """Aligned rate of the proxy reference policy."""
    ranked: bool
    """Whether the references are far enough apart for the split to count."""


class Milestone(Frozen):
    """The evaluation of an agent during its training."""

    env_steps: int = Field(gt=0)
    splits: dict[str, SplitCounts]
    """Counts on the first levels of each split only."""
