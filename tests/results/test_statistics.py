from __future__ import annotations

import numpy as np
import pytest

from goalposts.results import statistics


def test_mean_weighs_tasks_equally() -> None:
    assert statistics.mean([[0.0, 10.0], [40.0]]) == 22.5


def test_interquartile_mean_drops_the_outer_quarters() -> None:
    assert statistics.interquartile_mean([[0.0, 10.0, 20.0, 90.0]]) == 15.0
    assert statistics.interquartile_mean([[0.0, 10.0], [20.0, 90.0]]) == 15.0


def test_worst_seed_is_the_lowest_mean_over_tasks() -> None:
    assert statistics.worst_seed([[0.0, 30.0, 50.0], [100.0, 20.0, 90.0]]) == 25.0


def test_interval_of_one_seed_is_a_point() -> None:
    assert statistics.bootstrap_interval([[7.0]]) == (7.0, 7.0, 7.0)


def test_interval_of_equal_seeds_is_a_point_whatever_the_tasks() -> None:
    assert statistics.bootstrap_interval([[10.0, 10.0], [20.0, 20.0]]) == (15.0, 15.0, 15.0)


def test_interval_of_two_seeds_spans_both() -> None:
    # A resample of two seeds has mean 0 or 1 with probability 1/4 each, far above 2.5%.
    assert statistics.bootstrap_interval([[0.0, 1.0]]) == (0.5, 0.0, 1.0)


def test_strata_are_resampled_separately() -> None:
    means = statistics.bootstrap_means([[0.0, 1.0], [10.0, 30.0]])
    assert set(means) == {5.0, 5.25, 5.5, 10.0, 10.25, 10.5, 15.0, 15.25, 15.5}


def test_interval_matches_the_binomial_quantiles() -> None:
    # The mean of 20 resampled coin tosses, half of them heads, is binomial(20, 1/2) / 20.
    _, low, high = statistics.bootstrap_interval([[0.0] * 10 + [1.0] * 10])
    assert low == pytest.approx(6 / 20, abs=0.051)
    assert high == pytest.approx(14 / 20, abs=0.051)


def test_seed_decides_the_resamples() -> None:
    sample = [list(np.arange(7.0) ** 2)]
    assert np.array_equal(statistics.bootstrap_means(sample, 1), statistics.bootstrap_means(sample, 1))
    assert not np.array_equal(statistics.bootstrap_means(sample, 1), statistics.bootstrap_means(sample, 2))


def test_difference_is_paired_by_seed() -> None:
    baseline = [[0.0, 50.0, 90.0], [10.0, 20.0, 30.0]]
    better = [[value + 5.0 for value in task] for task in baseline]
    assert statistics.paired_difference(better, baseline) == (5.0, 5.0, 5.0)


def test_ratio_is_pooled_not_averaged() -> None:
    ratio = statistics.ratio_interval([[0.0, 0.9]], [[0.1, 0.9]])
    assert ratio is not None
    assert ratio.mean == pytest.approx(0.9)
    assert (ratio.low, ratio.high) == (0.0, 1.0)


def test_ratio_without_denominator_is_null() -> None:
    assert statistics.ratio_interval([[0.0]], [[0.0]]) is None


def test_ranks_of_separated_entries_are_exact() -> None:
    assert statistics.rank_intervals([[[1.0, 2.0]], [[8.0, 9.0]], [[4.0, 5.0]]], [True] * 3) == [(3, 3), (1, 1), (2, 2)]


def test_ranks_are_paired_by_seed() -> None:
    # Seed by seed the second is better, although their intervals overlap almost wholly.
    assert statistics.rank_intervals([[[0.0, 50.0, 100.0]], [[1.0, 51.0, 101.0]]], [True, True]) == [(2, 2), (1, 1)]


def test_overlapping_entries_share_an_interval_of_ranks() -> None:
    assert statistics.rank_intervals([[[0.0, 10.0]], [[10.0, 0.0]]], [True, True]) == [(1, 2), (1, 2)]


def test_equal_entries_share_the_better_rank() -> None:
    assert statistics.rank_intervals([[[5.0]], [[5.0]], [[1.0]]], [True] * 3) == [(1, 1), (1, 1), (3, 3)]


def test_unrated_entries_rank_last_in_every_resample() -> None:
    assert statistics.rank_intervals([[[90.0, 95.0]], [[-5.0, 0.0]]], [False, True]) == [(2, 2), (1, 1)]


def test_no_entries_have_no_ranks() -> None:
    assert statistics.rank_intervals([], []) == []
