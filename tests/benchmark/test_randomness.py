from __future__ import annotations

import torch

from goalposts.benchmark.randomness import generator, stream_seed


def test_seeds_are_frozen() -> None:
    # Records of one suite are comparable only as long as its streams stay the same.
    assert stream_seed("quick-v1", "corner", 0, "levels") == 2719487332143701414


def test_every_part_of_the_key_counts() -> None:
    keys = [("a",), ("a", "b"), ("ab",), ("b", "a"), ("a", 0), ("a", "0"), ("a", 0.5)]
    assert len({stream_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= stream_seed(*key) < 2**63 for key in keys)


def test_equal_keys_give_equal_streams() -> None:
    one, other, third = (torch.rand(4, generator=generator("a", seed)) for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
