"""How far a number would move with other samples."""

from collections.abc import Callable

import jax
import numpy as np


def jackknife_error(
    key: jax.Array,
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    groups: int = 10,
) -> float:
    """Returns the standard error of a statistic of rows, by the delete-a-group jackknife.

    Shao and Tu 1995, The Jackknife and Bootstrap, section 2.3: the rows are dealt into equal
    groups, the statistic is taken without each in turn, and the squared deviations of these values
    from their mean add up to ``g / (g - 1)`` times less than the variance. Unlike a bootstrap it
    repeats no row, which distances between nearest neighbours and covariances would take amiss.

    Args:
      key: of the dealing; the same key gives the same number.
      rows: [n, ...]; what does not fill the groups evenly is left out of the deal, not of the
        statistic.
      statistic: rows -> a number that changes smoothly with them.
      groups: how many.

    Returns:
      The standard error, in the units of the statistic.
    """
    order = np.asarray(jax.random.permutation(key, len(rows)))
    size = len(rows) // groups
    values = []
    for group in range(groups):
        without = np.ones(len(rows), bool)
        without[order[group * size : (group + 1) * size]] = False
        values.append(statistic(rows[without]))
    deviations = np.array(values) - np.mean(values)
    return float(np.sqrt((groups - 1) / groups * (deviations**2).sum()))
