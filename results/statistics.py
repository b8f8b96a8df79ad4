"""Statistics over seeds: means, bootstrap intervals, paired differences and rank intervals.

A sample is a list with one array of seed values for each task. The tasks are the strata of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Sample = Sequence[npt.ArrayLike]
"""One ``float[num_seeds]`` for each task."""

NUM_RESAMPLES = 2000
BOOTSTRAP_SEED = 0


class Interval(NamedTuple):
    """A mean with the bounds of its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def mean(sample: Sample) -> float:
    """Return the mean over tasks of the mean over each task's seeds."""
    return float(np.mean([np.mean(_floats(task)) for task in sample]))


def interquartile_mean(sample: Sample) -> float:
    """Return the mean of the middle half of all seed values (Agarwal et al. 2021, section 4.3)."""
    values = np.concatenate([_floats(task) for task in sample])
    return float(stats.trim_mean(values, proportiontocut=0.25))


def worst_seed(sample: Sample) -> float:
    """Return the lowest seed's mean over tasks. Every task must have the same seeds in the same order."""
    return float(np.stack([_floats(task) for task in sample]).mean(axis=0).min())


def bootstrap_means(sample: Sample, seed: int = BOOTSTRAP_SEED) -> Floats:
    """Return the mean of each bootstrap resample, ``float[NUM_RESAMPLES]``.

    Seeds are resampled with replacement within each task (stratified bootstrap, Agarwal et al. 2021, section 4.1).
    Equal ``seed`` and equal numbers of seeds give the same resampled seeds. So calling this once for each mitigation
    pairs their samples.
    """
    generator = np.random.default_rng(seed)
    means = []
    for task in sample:
        values = _floats(task)
        indices = generator.integers(len(values), size=(NUM_RESAMPLES, len(values)))
        means.append(values[indices].mean(axis=1))
    return np.asarray(np.mean(means, axis=0), dtype=np.float64)


def bootstrap_interval(sample: Sample, seed: int = BOOTSTRAP_SEED) -> Interval:
    """Return the mean with its 95% stratified bootstrap interval (percentile method)."""
    return _interval(mean(sample), bootstrap_means(sample, seed))


def ratio_interval(numerator: Sample, denominator: Sample, seed: int = BOOTSTRAP_SEED) -> Interval | None:
    """Return the ratio of two means with its interval, both resampled together; None if the denominator is zero."""
    whole = mean(denominator)
    if whole == 0:
        return None
    numerators, denominators = bootstrap_means(numerator, seed), bootstrap_means(denominator, seed)
    defined = denominators > 0
    return _interval(mean(numerator) / whole, numerators[defined] / denominators[defined])


def paired_difference(sample: Sample, baseline: Sample, seed: int = BOOTSTRAP_SEED) -> Interval:
    """Return the mean difference ``sample - baseline`` with its interval, paired by seed within each task."""
    differences = [_floats(task) - _floats(other) for task, other in zip(sample, baseline, strict=True)]
    return bootstrap_interval(differences, seed)


def rank_intervals(
    samples: Sequence[Sample], rated: Sequence[bool], seed: int = BOOTSTRAP_SEED
) -> list[tuple[int, int]]:
    """Return the 95% interval of each entry's rank as ``(low, high)``; 1 is the best.

    All entries have the same seeds in every resample. Entries that are not ``rated`` rank below all rated ones. Equal
    scores share the better rank.
    """
    if not samples:
        return []
    scores = np.stack([bootstrap_means(sample, seed) for sample in samples])
    class_ = np.asarray(rated, dtype=np.int64)[:, None]
    higher_class = class_ > class_.T
    higher_score = scores[:, None] > scores[None]
    better = higher_class[..., None] | ((class_ == class_.T)[..., None] & higher_score)
    ranks = 1 + better.sum(axis=0)
    low = np.percentile(ranks, 2.5, axis=1, method="lower")
    high = np.percentile(ranks, 97.5, axis=1, method="higher")
    return [(int(first), int(last)) for first, last in zip(low, high, strict=True)]


def _interval(center: float, resamples: Floats) -> Interval:
    low, high = np.percentile(resamples, [2.5, 97.5])
    return Interval(center, float(low), float(high))


def _floats(values: npt.ArrayLike) -> npt.NDArray[Any]:
    return np.asarray(values, dtype=np.float64)
