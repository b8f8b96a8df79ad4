"""ACCEL: adversarial level generation by replaying and editing levels of high regret.

Parker-Holder et al. 2022, "Evolving Curricula with Regret-Based Environment Design", algorithm 1. It extends robust
prioritized level replay: after every iteration that replays levels, one iteration plays their edited children. The
children carry no gradient either, and enter the buffer with their regret.

Every replayed level has one child, as in the paper's algorithm. The released maze configuration edits only four of
them, many times over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from goalposts import Knowledge, Levels

from .plr import Plr


@dataclasses.dataclass(eq=False)
class Accel(Plr):
    """ACCEL with unrestricted edits: a child may be any level, also one that distinguishes the goals.

    The defaults are those published for mazes. Their sources are the paper's table of hyperparameters and the released
    configuration ``mg_60b_uni_accel_empty`` of facebookresearch/dcd.
    """

    uses = frozenset({Knowledge.LEVEL_EDITOR, Knowledge.LEVEL_GENERATOR})
    version = "2"
    paper = "Parker-Holder et al. 2022, Evolving Curricula with Regret-Based Environment Design"
    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **Plr.search_space,
        "num_edits": {"low": 1, "high": 20, "log": True},
    }
    restricted: ClassVar[bool] = False
    """Whether the child of an ambiguous level is ambiguous."""

    replay_probability: float = 0.8
    temperature: float = 0.3
    num_edits: int = 5
    """Elementary edits in each child."""

    def sample_levels(self, num_levels: int) -> Levels:
        if self.phase == "replay":
            self.phase = "edit"
            return self.context.edit_levels(self.replayed_levels(), self.num_edits, restricted=self.restricted)
        return super().sample_levels(num_levels)


@dataclasses.dataclass(eq=False)
class AccelOracle(Accel):
    """ACCEL with unrestricted edits that knows the optimal return of each level."""

    uses = Accel.uses | {Knowledge.PLANNER}
    regret: str = "oracle"


@dataclasses.dataclass(eq=False)
class AccelRestricted(Accel):
    """ACCEL with restricted edits: only the training distribution yields levels that distinguish the goals."""

    uses = frozenset({Knowledge.LEVEL_EDITOR})
    restricted = True
