"""Means over seeds, and paired differences with their tests."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
POWER = 0.8

DISTANCE = re.compile(r"gan_samples/(test/(.+ )?|curve/)fi?d_\S+")
"""Names of Frechet distances of the GAN's samples."""


@dataclasses.dataclass
class Estimate:
    """A mean over runs, or over pairs of runs with the test of their difference; NaN is none.

    Attributes:
      n: number of finite values.
      of: number of runs or pairs, 0 if none has the number.
      mean: NaN unless all values are finite: the rest would not represent the group.
      half_width: half the width of the two-sided t interval at `CONFIDENCE`, of two values or more.
      p: two-sided p value of the t test of a mean of 0.
      adjusted_p: adjusted for the number of tests, see `table`.
      detectable: see `detectable`, at the level that p had to reach.
    """

    n: int
    of: int
    mean: float = math.nan
    half_width: float = math.nan
    p: float = math.nan
    adjusted_p: float = math.nan
    detectable: float = math.nan

    @property
    def is_resolved(self) -> bool:
        """Whether the difference is significant."""
        return self.adjusted_p <= 1 - CONFIDENCE


class Row(NamedTuple):
    """One number of all groups, such as "gan_samples/test/pixels fd_n100".

    There is a mean per group, and for each group after the first the difference of its values and
    those of the first group, over runs of the same key. Rows of the primary comparison are marked.
    """

    name: str
    is_primary: bool
    means: list[Estimate]
    differences: list[Estimate]


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean with its interval and its test."""
    n = int(np.isfinite(values).sum())
    if n < len(values) or not n:
        return Estimate(n, len(values))
    mean = float(np.mean(values))
    if n == 1:
        return Estimate(n, n, mean)
    half_width = float(scipy.stats.sem(values) * scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    # Coarse metrics may have equal differences but for rounding, which no t test describes.
    if half_width <= 1e-9 * abs(mean):
        return Estimate(n, n, mean, 0.0)
    return Estimate(n, n, mean, half_width, float(scipy.stats.ttest_1samp(values, 0.0).pvalue))


def detectable(half_width: float, n: int, level: float) -> float:
    """Returns the true mean difference that a paired t test finds with probability `POWER`.

    ``(t_{1 - level / 2} + t_POWER) * s / sqrt(n)`` with n - 1 degrees of freedom, for n >= 2 pairs:
    Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, chapter 2, with Student's t
    instead of the noncentral t distribution. This is optimistic for few pairs: for 3, the power is
    0.77 at a level of 0.05. The estimated s, which follows from the half width of the interval of
    the mean difference, is taken as the true one.
    """
    quantiles = scipy.stats.t.ppf([(1 + CONFIDENCE) / 2, 1 - level / 2, POWER], n - 1)
    return float(half_width / quantiles[0] * (quantiles[1] + quantiles[2]))


def holm(p: Sequence[float]) -> list[float]:
    """Returns adjusted p values of one family: Holm 1979, Scand. J. Statist. 6, 65-70.

    They control the probability of any false rejection under any dependence.
    """
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p)[order] * factors))
    return adjusted.tolist()


def table(groups: Sequence[Mapping[Any, Mapping[str, float]]]) -> list[Row]:
    """Compares the final numbers of groups of runs; the rows of the primary comparison are first.

    The primary comparison is fixed: the Frechet distances of the GAN's samples to the test images
    in all embeddings, or else the last ones of its curve. It is one test, which rejects only if
    that of every embedding does: its p value is their largest (Berger 1982, Technometrics 24,
    295-300). With several groups, it is adjusted for the differences from the first group; the p
    values of all other rows for all rows and differences (`holm`).

    Each group has the numbers of its runs by a key; runs with the same key are paired.
    """
    runs = [numbers for of in groups for numbers in of.values()]
    names = [*dict.fromkeys(name for numbers in runs for name in numbers)]
    distances = [*filter(DISTANCE.fullmatch, names)]
    primary = [x for x in distances if "/curve/" not in x] or distances
    rows = [_row(name, groups, name in primary) for name in dict.fromkeys([*primary, *names])]
    first, others = rows[: len(primary)], rows[len(primary) :]
    _adjust([[row.differences[i] for row in first] for i in range(len(groups) - 1)])
    _adjust([[test] for row in others for test in row.differences])
    return rows


def _row(name: str, groups: Sequence[Mapping[Any, Mapping[str, float]]], is_primary: bool) -> Row:
    values: list[dict[Any, float]] = []
    for of in groups:
        has_number = any(name in numbers for numbers in of.values())
        values.append({key: of[key].get(name, math.nan) for key in of} if has_number else {})
    first, *others = values
    differences = [[of[key] - first[key] for key in of if key in first] for of in others]
    means = [estimate([*of.values()]) for of in values]
    return Row(name, is_primary, means, [estimate(of) for of in differences])


def _adjust(family: Sequence[Sequence[Estimate]]) -> None:
    """Sets the adjusted p values of a family of tests, and the detectable differences.

    A test consists of estimates that must all be significant.
    """
    tests = [test for test in family if test and all(part.p >= 0 for part in test)]  # not NaN
    adjusted = holm([max(part.p for part in test) for test in tests])
    missed = sum(p > 1 - CONFIDENCE for p in adjusted)
    level = (1 - CONFIDENCE) / max(1, missed)  # that the smallest p value had to reach
    for test, p in zip(tests, adjusted, strict=True):
        for part in test:
            part.adjusted_p, part.detectable = p, detectable(part.half_width, part.n, level)
