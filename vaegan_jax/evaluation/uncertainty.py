"""How far a number would move with other samples."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from vaegan_jax.evaluation.batches import Watch, unwatched

GROUPS = 10
MIN_SAMPLES = 4 * GROUPS
"""Images, below which errors and neighbours mean nothing."""

Numbers = TypeVar("Numbers")


def jackknife_error(
    key: jax.Array,
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], Numbers],
    groups: int = GROUPS,
    watch: Watch = unwatched,
    label: str = "",
) -> Numbers:
    """Returns the standard error of statistics of rows, by the delete-a-group jackknife.

    Shao and Tu 1995, The Jackknife and Bootstrap, section 2.3: the rows are dealt into equal
    groups, the statistic is taken without each in turn, and the squared deviations of these values
    from their mean add up to ``g / (g - 1)`` times less than the variance. Unlike a bootstrap it
    repeats no row, which distances between nearest neighbours and covariances would take amiss.

    Args:
      key: of the dealing; the same key gives the same number.
      rows: [n, ...], n no less than the groups; what does not fill the groups evenly is left out
        of the deal, not of the statistic.
      statistic: rows -> a number that changes smoothly with them, or a tree of such numbers.
      groups: how many.
      watch: sees the groups go by, as the indices of their rows.
      label: what is being done, for the watch.

    Returns:
      The standard errors as floats, in the units of the statistic and in the same tree.
    """
    order = np.asarray(jax.device_get(jax.random.permutation(key, len(rows))))
    size = len(rows) // groups
    values = []
    dealt = order[: groups * size].reshape(groups, size)
    for group in watch(dealt, dealt.size, label):
        without = np.ones(len(rows), bool)
        without[group] = False
        values.append(jax.device_get(statistic(rows[without])))

    def error(*values: float) -> float:
        deviations = np.array(values) - np.mean(values)
        return float(np.sqrt((groups - 1) / groups * (deviations**2).sum()))

    errors: Numbers = jax.tree.map(error, *values)
    return errors


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Returns the mean of independent values, [n], and its standard error."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
