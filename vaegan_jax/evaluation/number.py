"""Metric values with standard errors and floors, and PRNG keys for evaluations."""

import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from vaegan_jax import randomness
from vaegan_jax.evaluation.batches import Progress, no_progress
from vaegan_jax.randomness import Purpose, Stage

SUBJECTS = {
    "vae_samples": "VAE samples",
    "matched_samples": "matched decoder",
    "vae_reconstructions": "VAE reconstructions",
    "gan_raw_samples": "GAN, raw weights",
    "gan_samples": "GAN, EMA",
}
"""Labels of the evaluated image sets, in report order.

The matched decoder is the GAN's generator at step 0: the VAE's decoder at latents from the Gaussian
fit of the aggregated posterior.
"""

SHARES = ("precision", "recall", "density", "coverage", "authenticity")
"""Metrics that are shares of images; density may exceed 1."""

_GROUPS = 10  # of the jackknife

Values = TypeVar("Values")


@dataclasses.dataclass(frozen=True)
class Number:
    """A metric's value with its uncertainty.

    Attributes:
      subject: the evaluated set, a key of `SUBJECTS`, or "vae".
      against: the reference set: "test", "train", or "" for none.
      embedding: the name of the embedding, or "" for a metric of pixels or latents.
      metric: the metric's name; that of a Frechet distance ends with the number of images.
      value: None if not finite.
      error: the standard error over repeated sampling from the same weights, or None.
      floor: the value for the same number of real images; None if there are too few real images
        or the metric has no floor.
      count: the number of evaluated images, draws or pairs.
      reference_count: the number of real images in the reference set, or 0.
    """

    subject: str
    against: str
    embedding: str
    metric: str
    value: float | None
    error: float | None
    floor: float | None
    count: int
    reference_count: int = 0

    def __post_init__(self) -> None:
        """Converts scalars and scalar arrays; non-finite values become None."""
        for name in ("value", "error", "floor"):
            x = getattr(self, name)
            finite = float(x) if x is not None and math.isfinite(x) else None
            object.__setattr__(self, name, finite)

    @property
    def is_informative(self) -> bool:
        """Whether a share is neither saturated at 0 or 1 nor within its error of them."""
        if self.metric not in SHARES or self.value is None:
            return True
        # No share within one image of its end is known, whatever the jackknife says.
        margin = max(self.error or 0.0, 1 / self.count)
        return self.value > margin and (self.metric == "density" or self.value < 1 - margin)


def mean(subject: str, metric: str, values: np.ndarray, floor: float | None = None) -> Number:
    """Returns the mean of n independent values with its standard error."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return Number(subject, "", "", metric, values.mean(), error, floor, len(values))


def jackknife_error(
    seed: int,
    index: int,
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], Values],
    progress: Progress = no_progress,
    purpose: Purpose = Purpose.DEALING,
) -> Values:
    """Returns the standard error of a statistic by the delete-a-group jackknife.

    Shao and Tu 1995, The Jackknife and Bootstrap, section 2.3: the rows are split at random into
    g = 10 equal groups, the statistic is computed without each group, and the variance is
    ``(g - 1) / g`` times the sum of squared deviations of these values from their mean. Unlike
    the bootstrap, it does not repeat rows, which would bias nearest-neighbour distances and
    covariances.

    `rows` is [n, ...] with n >= g; up to g - 1 rows are in no group. `statistic` maps rows to a
    smooth scalar or a tree of them, which is also the structure of the result.
    """
    key = evaluation_key(seed, index, purpose)
    order = np.asarray(jax.device_get(jax.random.permutation(key, len(rows))))
    size = len(rows) // _GROUPS
    omitted = order[: _GROUPS * size].reshape(_GROUPS, size)
    values = []
    for group in progress(omitted, omitted.size):
        kept = np.ones(len(rows), bool)
        kept[group] = False
        values.append(jax.device_get(statistic(rows[kept])))

    def error(*values: float) -> float:
        deviations = np.array(values) - np.mean(values)
        return float(np.sqrt((_GROUPS - 1) / _GROUPS * (deviations**2).sum()))

    errors: Values = jax.tree.map(error, *values)
    return errors


def format_value(value: float | None) -> str:
    """Formats a value with three significant digits, or as an integer from 1,000; "" for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def evaluation_key(seed: int, index: int, purpose: Purpose) -> jax.Array:
    """Returns a PRNG key for an evaluation; `index` separates keys with the same purpose."""
    return randomness.draw_key(randomness.step_key(seed, Stage.EVALUATION, index), purpose)


def random_subset(
    seed: int, index: int, size: int, count: int, purpose: Purpose = Purpose.SUBSET
) -> np.ndarray:
    """Returns min(count, size) distinct random rows below `size`, in ascending order."""
    if count >= size:
        return np.arange(size)
    key = evaluation_key(seed, index, purpose)
    drawn = jax.random.choice(key, size, (count,), replace=False)
    return np.sort(np.asarray(jax.device_get(drawn)))
