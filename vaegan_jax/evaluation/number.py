"""What an evaluation's numbers are made of, and the keys of their draws."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from vaegan_jax import randomness
from vaegan_jax.evaluation import uncertainty
from vaegan_jax.randomness import Purpose, Stage


@dataclasses.dataclass(frozen=True)
class Number:
    """One number, with what is needed to believe it.

    Attributes:
      subject: what is judged, such as "gan_samples".
      against: what it is compared with: "train", "held_out", "statistics", or "" for nothing.
      metric: its name.
      value: None where it is not finite.
      error: its standard error, over other samples of the same model.
      floor: what as many real images give; None where there are not as many, or it has none.
      count: how many images, draws or pairs were judged.
      reference_count: how many real images they were compared with, or 0.
    """

    subject: str
    against: str
    metric: str
    value: float | None
    error: float | None
    floor: float | None
    count: int
    reference_count: int = 0


def number(
    subject: str,
    against: str,
    metric: str,
    value: Any,
    error: Any,
    floor: Any,
    count: int,
    reference_count: int = 0,
) -> Number:
    """Returns a `Number` of floats or scalar arrays, with None for values that are not finite.

    So that a number can be written as JSON, which knows no infinities.
    """

    def finite(x: Any) -> float | None:
        return float(x) if x is not None and math.isfinite(x) else None

    return Number(
        subject,
        against,
        metric,
        finite(value),
        finite(error),
        finite(floor),
        count,
        reference_count,
    )


def mean(subject: str, metric: str, values: np.ndarray, floor: float | None = None) -> Number:
    """Returns the mean of independent values, [n], with its standard error."""
    value, error = uncertainty.mean_and_error(values)
    return number(subject, "", metric, value, error, floor, len(values))


def text(value: float | None) -> str:
    """Returns a number to three digits, or to its last whole one; nothing for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def draw_key(seed: int, index: int, purpose: Purpose) -> jax.Array:
    """Returns the key of one draw of an evaluation; `index` tells apart draws of one purpose."""
    return randomness.draw_key(randomness.step_key(seed, Stage.EVALUATION, index), purpose)


def choose(key: jax.Array, size: int, count: int) -> np.ndarray:
    """Returns `count` of the numbers below `size`, rising: int [count]; all of them if no more."""
    if count >= size:
        return np.arange(size)
    drawn = jax.random.choice(key, size, (count,), replace=False)
    return np.sort(np.asarray(jax.device_get(drawn)))
