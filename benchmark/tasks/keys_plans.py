"""Exact plans for keys and chests: the best order in which to visit them, for many levels at once."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

TIE = 1e-12
"""Largest difference at which the values of two plans count as equal."""


class Plan(NamedTuple):
    """The best order of visits on each level."""

    value: Tensor
    """``float64[num_levels]``: the discounted return."""
    order: Tensor
    """``int64[num_levels, num_visits]``: the visited objects. -1 once there is no more reward to gain."""


class Stage(NamedTuple):
    """The ways in which ``n`` objects can have been visited, ignoring their order.

    A way is the set of the visited objects, and the last one.
    """

    last: Tensor
    """``int64[num_ways]``: the last object."""
    before: Tensor
    """``int64[num_ways, num_predecessors]``: the ways of the previous stage that lead to it, padded with -1s."""


class Arrivals(NamedTuple):
    """Arrivals at the end of each way, soonest first. Each field is ``[num_arrivals, num_ways, num_levels]``."""

    time: Tensor
    """``int32``: the step."""
    value: Tensor
    """``float64``: the reward earned by then. -infinity if there is no such arrival."""
    source: Tensor
    """``int64``: the index of the candidate that it came from."""


@functools.cache
def stages(num_keys: int, num_chests: int, most_keys: int) -> tuple[Stage, ...]:
    """Return the ways of one visit, of two and so on. Every chest is visited with its own key.

    Args:
        num_keys: keys, the first of the objects.
        num_chests: chests, the others.
        most_keys: largest number of keys taken.
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
        legs: ``int64[1 + num_objects, 1 + num_objects, num_levels]``, distances. The start comes before the objects.
        tree: the ways to visit them.
        pays: ``bool[num_objects]``, the objects whose visits earn 1, discounted.
        time_limit: steps after which nothing is earned.
        gamma: discount, at most 1.
    """
    num_levels, device, late = legs.shape[2], legs.device, time_limit + 1
    tree = tuple(Stage(last.to(device), before.to(device)) for last, before in tree)
    legs = legs.clamp(max=late).int()
    worth = torch.zeros(2, late + 1, dtype=torch.float64, device=device)
    """Value of a visit by its time: first of a visit that earns nothing, then of one that pays."""
    worth[1, 1:] = gamma ** torch.arange(late, device=device).double()
    worth[:, late] = -torch.inf

    time = torch.zeros(1, 1, num_levels, dtype=torch.int32, device=device)
    history = [Arrivals(time, time.double(), time.long())]
    here = torch.zeros(1, dtype=torch.int64, device=device)
    best = torch.zeros(num_levels, dtype=torch.float64, device=device)
    length, end = torch.zeros(2, num_levels, dtype=torch.int64, device=device)
    for n, (last, before) in enumerate(tree, start=1):
        # The padding of -1s leads to an extra way, which always arrives too late.
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
    """Return the arrivals that no other arrival dominates by being as early and worth as much.

    Args:
        time: times of the candidates, ``int32[num_candidates, num_ways, num_levels]``.
        value: their values, ``float64`` of the same shape. -infinity if there is no candidate.
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
