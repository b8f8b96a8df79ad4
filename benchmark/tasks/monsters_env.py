"""The world of ``monsters``: its levels and its environment."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from goalposts.benchmark.tasks.drawing import Picture
from goalposts.benchmark.tasks.environment import Advance
from goalposts.benchmark.tasks.kinds.grid import (
    CORNERS,
    UNREACHABLE,
    GridEnv,
    GridLevels,
)

if TYPE_CHECKING:
    from goalposts.benchmark.tasks.monsters import Monsters

CYCLE = 4
"""Number of places of apples, and of shields, in a level. After the last place the first one comes again."""
NEVER = UNREACHABLE
"""The arrival time of a monster that does not come."""
SOON = (1, 2, 4, 8)
"""The gauge shows whether the next monster arrives within each of these numbers of steps."""


@dataclasses.dataclass(frozen=True)
class MonstersLevels(GridLevels):
    """Grids with places for apples and shields, and arrivals of monsters."""

    apples: Tensor
    """``int64[num_levels, CYCLE]``, in the order in which they appear."""
    shields: Tensor
    """``int64[num_levels, CYCLE]``, in the order in which they appear."""
    supply: Tensor
    """``int64[num_levels]``, the total number of shields that appear."""
    duration: Tensor
    """``int64[num_levels]``, the episode's length in steps."""
    arrivals: Tensor
    """``int64[num_levels, monsters]``: the step after which each monster strikes, or ``NEVER``."""

    def differences(self, other: MonstersLevels) -> Tensor:
        """Count a change of monsters as one edit. Only whether they come matters, since the grid sets their times."""
        come, came = self.arrivals[:, 0] < NEVER, other.arrivals[:, 0] < NEVER
        return super().differences(other) - (self.arrivals != other.arrivals).sum(dim=1) + (come != came).long()


class MonstersEnv(GridEnv[MonstersLevels]):
    """Shows walls, apple, shield and gauges: shields held, monsters to come, and how soon the next one arrives."""

    task: Monsters

    def _objects(self, levels: MonstersLevels) -> list[Tensor]:
        shield = torch.where(levels.supply > 0, levels.shields[:, 0], -1)
        return [levels.apples[:, :1], shield.unsqueeze(1)]

    def _start(self, levels: MonstersLevels) -> dict[str, Tensor]:
        zero = torch.zeros_like(levels.start)
        corners = torch.tensor([self.task.corner_cell(name) for name in CORNERS], device=self.device)
        return {
            **super()._start(levels),
            "apples": self.inner[levels.apples],
            "shields": self.inner[levels.shields],
            "corners": self.inner[corners].expand(len(levels), -1),
            "supply": levels.supply,
            "arrivals": levels.arrivals,
            "time_limit": levels.duration,
            "eaten": zero,
            "taken": zero,
            "held": zero,
        }

    def fresh_levels(self) -> MonstersLevels:
        """Return the level of each episode. No episode may have taken a step."""
        state = self.state
        return MonstersLevels(
            self.walls(),
            self.agent_cell(),
            self.to_cell[state["apples"]],
            self.to_cell[state["shields"]],
            state["supply"],
            state["time_limit"],
            state["arrivals"],
        )

    def _advance(self, actions: Tensor) -> Advance:
        state = self.state
        agent = self.move(actions)
        eats = state["apples"].gather(1, state["eaten"].unsqueeze(1) % CYCLE).squeeze(1) == agent
        arms = state["shields"].gather(1, state["taken"].unsqueeze(1) % CYCLE).squeeze(1) == agent
        arms &= state["taken"] < state["supply"]
        state["eaten"] = state["eaten"] + eats
        state["taken"] = state["taken"] + arms
        struck = (state["arrivals"] == state["elapsed"].unsqueeze(1) + 1).any(dim=1)
        died = struck & (state["held"] + arms == 0)
        state["held"] = (state["held"] + arms - struck.long()).clamp(min=0)
        self._lay(1, "apples", state["eaten"], torch.ones_like(eats))
        self._lay(2, "shields", state["taken"], state["taken"] < state["supply"])
        corners = state["corners"] == agent.unsqueeze(1)
        return Advance(torch.cat([eats.unsqueeze(1), arms.unsqueeze(1), corners], dim=1), None, died)

    def _lay(self, channel: int, name: str, number: Tensor, where: Tensor) -> None:
        """Show the current object of a sequence on its map."""
        place = self.state[name].gather(1, number.unsqueeze(1) % CYCLE)
        shown = self.state["maps"][:, channel]
        shown.zero_()
        shown.scatter_(1, place, where.unsqueeze(1))

    def _gauges(self, state: dict[str, Tensor]) -> Tensor:
        wait = state["arrivals"] - state["elapsed"].unsqueeze(1)
        coming = (wait > 0) & (wait < NEVER // 2)
        number = torch.arange(self.task.monsters, device=self.device)
        held = state["held"].unsqueeze(1) > number
        left = coming.sum(dim=1, keepdim=True) > number
        soonest = torch.where(coming, wait, NEVER).amin(dim=1, keepdim=True)
        return torch.cat([held, left, soonest <= torch.tensor(SOON, device=self.device)], dim=1)

    def picture(self, index: int = 0) -> Picture:
        wait = self.state["arrivals"][index] - self.state["elapsed"][index]
        near = [
            self.task.corner_cell(name) for name, steps in zip(CORNERS, wait.tolist(), strict=False) if 0 < steps <= 4
        ]
        layers = [("apple", self.shown_cells(index, 1)), ("shield", self.shown_cells(index, 2)), ("monster", near)]
        return self.grid_picture(index, layers)
