"""What a few independent runs say about all such runs: Student's t.

Student 1908, The Probable Error of a Mean; every formula is that of a textbook, for values that are
about normal over seeds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

CONFIDENCE = 0.95


class Mean(NamedTuple):
    """A mean over runs.

    Attributes:
      n: how many runs.
      mean: over them.
      low: where its confidence interval begins; None for a single run, which has none.
      high: where it ends.
    """

    n: int
    mean: float
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """A mean difference between runs that are alike but for one thing.

    Attributes:
      n: how many pairs.
      mean: of the differences.
      low: where its confidence interval begins.
      high: where it ends.
      p: of a paired, two-sided t test of no difference; None where all pairs are equal.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float | None

    @property
    def within_noise(self) -> bool:
        """Whether the interval holds zero."""
        return self.low <= 0 <= self.high


def mean(values: Sequence[float]) -> Mean:
    """Returns the mean of one or more values and its interval ``mean ± t s / sqrt(n)``."""
    n = len(values)
    middle = float(np.mean(values))
    if n == 1:
        return Mean(n, middle, None, None)
    # `stdtrit` is the quantile of Student's t.
    reach = float(scipy.special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * _error(values)
    return Mean(n, middle, middle - reach, middle + reach)


def paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Returns by how much `b` exceeds `a`, from two or more pairs."""
    differences = np.subtract(b, a).tolist()
    found = mean(differences)
    assert found.low is not None
    assert found.high is not None
    error = _error(differences)
    if error == 0:
        p = None if found.mean == 0 else 0.0
    else:
        # `stdtr` is the distribution function of Student's t.
        p = 2 * float(scipy.special.stdtr(found.n - 1, -abs(found.mean) / error))
    return Difference(found.n, found.mean, found.low, found.high, p)


def _error(values: Sequence[float]) -> float:
    """Returns the standard error of a mean."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
