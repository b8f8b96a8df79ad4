"""Exact plans for keys and chests: the best order in which to visit them, for many levels at once."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

TIE = 1e-12
"""Difference up to which the values of two plans count as equal."""


class Plan(NamedTuple):
    """The best order of visits on each level."""

    value: Tensor
    """``float64[num_levels]``: the discounted return."""
    order: Tensor
    """``int64[num_levels, num_visits]``: what is visited; -1 where there is nothing more to gain."""


class Stage(NamedTuple):
    """The ways in which ``n`` objects can have been visited, up to their order: a set of them, and the last one."""

    last: Tensor
    """``int64[num_ways]``: the last object."""
    before: Tensor
    """``int64[num_ways, num_predecessors]``: the ways of the stage before that lead to it, filled up with -1s."""


class Arrivals(NamedTuple):
    """Arrivals at the end of each way, soonest first; each field is ``[num_arrivals, num_ways, num_levels]``."""

    time: Tensor
    """``int32``: the step."""
    value: Tensor
    """``float64``: what is earned by then; -infinity where there is no such arrival."""
    source: Tensor
    """``int64``: which of the candidates it is."""


@functools.cache
def stages(num_keys: int, num_chests: int, most_keys: int) -> tuple[Stage, ...]:
    """Return the ways of one visit, of two and so on; every chest is visited with a key of its own.

    Args:
        num_keys: keys, the first of the objects.
        num_chests: chests, the others.
        most_keys: how many keys are taken at most.
    """
    keys = (1 << num_keys) - 1
    result = []
    ways = {(1 << key, key): [0] for key in range(num_keys)}
    while ways:
        width = max(len(before) for before in ways.values())
        filled = [before + [-1] * (width - len(before)) for before in ways.values()]
        result.append(Stage(torch.tensor([last for _, last in ways]), torch.tensor(filled)))
        grown: dict[tuple[int, int], list[int]] = {}
        for i, (visited, _) in enumerate(ways):
            taken, opened = (visited & keys).bit_count(), (visited & ~keys).bit_count()
            for further in range(num_keys + num_chests):
                allowed = taken < most_keys if further < num_keys else opened < taken
                if allowed and not visited >> further & 1:
                    grown.setdefault((visited | 1 << further, further), []).append(i)
        ways = grown
    return tuple(result)


def best_plan(legs: Tensor, tree: tuple[Stage, ...], pays: Tensor, time_limit: int, gamma: float) -> Plan:
    """Return the best order of visits, by dynamic programming over the ways and their arrivals.

    Args:
        legs: ``int64[1 + num_objects, 1 + num_objects, num_levels]``, distances; the start comes before the objects.
        tree: the ways to visit them.
        pays: ``bool[num_objects]``, whose visits earn 1, discounted.
        time_limit: steps after which nothing is earned.
        gamma: discount, at most 1.
    """
    num_levels, device, late = legs.shape[2], legs.device, time_limit + 1
    tree = tuple(Stage(last.to(device), before.to(device)) for last, before in tree)
    legs = legs.clamp(max=late).int()
    worth = torch.zeros(2, late + 1, dtype=torch.float64, device=device)
    """Of a visit that earns nothing, and of one that pays, by its time."""
    worth[1, 1:] = gamma ** torch.arange(late, device=device).double()
    worth[:, late] = -torch.inf

    time = torch.zeros(1, 1, num_levels, dtype=torch.int32, device=device)
    history = [Arrivals(time, time.double(), time.long())]
    here = torch.zeros(1, dtype=torch.int64, device=device)
    best = torch.zeros(num_levels, dtype=torch.float64, device=device)
    length, end = torch.zeros(2, num_levels, dtype=torch.int64, device=device)
    for n, (last, before) in enumerate(tree, start=1):
        # The -1s that fill up the predecessors lead to an added way, which is always too late.
        time = torch.nn.functional.pad(history[-1].time, (0, 0, 0, 1), value=late)[:, before.T]
        value = torch.nn.functional.pad(history[-1].value, (0, 0, 0, 1))[:, before.T]
        time = (time + legs[here[before.T], last + 1]).clamp_(max=late).flatten(0, 1)
        value = value.flatten(0, 1) + worth[pays[last].long().unsqueeze(1), time]
        arrivals = undominated(time, value, late)
        history.append(arrivals)
        here = last + 1
        most = arrivals.value.amax(dim=(0, 1))
        if not bool((most > -torch.inf).any()):
            break
        first = torch.where(arrivals.value >= most - TIE, arrivals.time, late).flatten(0, 1).argmin(dim=0)
        better = most > best + TIE
        best = torch.where(better, most, best)
        length = torch.where(better, n, length)
        end = torch.where(better, first, end)

    order = torch.full((num_levels, len(tree)), -1, device=device)
    for n in range(len(history) - 1, 0, -1):
        last, before = tree[n - 1]
        (row,) = (length >= n).nonzero(as_tuple=True)
        arrival, way = end[row] // len(last), end[row] % len(last)
        order[row, n - 1] = last[way]
        source = history[n].source[arrival, way, row]
        earlier, which = source // before.shape[1], source % before.shape[1]
        end[row] = earlier * history[n - 1].time.shape[1] + before[way, which]
    return Plan(best, order)


def undominated(time: Tensor, value: Tensor, late: int) -> Arrivals:
    """Return the arrivals than which no other is both as early and worth as much.

    Args:
        time: of the candidates, ``int32[num_candidates, num_ways, num_levels]``.
        value: the same of ``float64``; -infinity where there is none.
        late: the time that stands for no arrival.
    """
    shape, size = time.shape[1:], time.shape[1:].numel()
    time, value = time.flatten(1), value.flatten(1)
    pending = torch.arange(size, device=time.device)
    least = value.new_full((size,), -torch.inf)
    kept = []
    while len(pending):
        better = value > least
        soonest = torch.where(better, time, late).amin(dim=0)
        most, source = torch.where(better & (time == soonest), value, -torch.inf).max(dim=0)
        found = (
            time.new_full((size,), late).index_copy_(0, pending, soonest),
            value.new_full((size,), -torch.inf).index_copy_(0, pending, most),
            source.new_zeros(size).index_copy_(0, pending, source),
        )
        kept.append([tensor.view(shape) for tensor in found])
        more = (value > most + TIE).any(dim=0)
        pending, least, time, value = pending[more], (most + TIE)[more], time[:, more], value[:, more]
    return Arrivals(*(torch.stack(field) for field in zip(*kept, strict=True)))
