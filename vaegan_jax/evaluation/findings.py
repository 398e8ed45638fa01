"""Threshold rules that detect common failures from an evaluation and compare the two stages."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vaegan_jax.evaluation.number import Number, format_value
from vaegan_jax.losses import symptoms

# In standard errors.
_SIGNIFICANT = 3.0
# Relative to the floor.
_LOW_PRECISION = 0.1
_LOW_RECALL = 0.5
_LOW_VENDI = 0.9
_HIGH_DUPLICATES = 5.0
# Fractions of the samples.
_MANY_DUPLICATES = 0.1
_MEMORISED = 0.6
# Fraction of the latent dimensions.
_FEW_ACTIVE = 0.02


class Finding(NamedTuple):
    """A detected failure, or the comparison of the stages.

    Attributes:
      name: for example "Mode collapse".
      text: a description with the metric values.
    """

    name: str
    text: str


class _Values(NamedTuple):
    """The values of a number; NaN if missing, so every comparison is false."""

    value: float = math.nan
    error: float = math.nan
    floor: float = math.nan


_Get = Callable[[str, str, str], _Values]


def find(numbers: Sequence[Number], distance: str, latent_size: int) -> list[Finding]:
    """Returns the findings of an evaluation.

    Args:
      numbers: the numbers of the evaluation.
      distance: the name of the Frechet distance.
      latent_size: the number of latent dimensions.
    """
    values = {
        (n.subject, n.against, n.metric): _Values(
            *(math.nan if x is None else x for x in (n.value, n.error, n.floor))
        )
        for n in numbers
    }

    def get(subject: str, against: str, metric: str) -> _Values:
        return values.get((subject, against, metric), _Values())

    findings = [
        _stage_comparison(get, distance),
        _posterior_collapse(get, latent_size),
        _blur(get, "vae_reconstructions", "VAE's reconstructions"),
    ]
    for subject, label in (("vae_samples", "VAE's samples"), ("gan_samples", "GAN's samples")):
        findings += [
            rule(get, subject, label) for rule in (_blur, _low_precision, _collapse, _memorisation)
        ]
    return [finding for finding in findings if finding is not None]


def _stage_comparison(get: _Get, distance: str) -> Finding | None:
    vae, gan = (get(f"{name}_samples", "held_out", distance) for name in ("vae", "gan"))
    difference = gan.value - vae.value
    if math.isnan(difference):
        return None
    if not abs(difference) > _SIGNIFICANT * math.hypot(vae.error, gan.error):
        name, change = "No significant change", "about as far from held-out images as"
    elif difference > 0:
        name, change = "The GAN is worse", "further from held-out images than"
    else:
        name, change = "The GAN is better", "nearer to held-out images than"
    floor = "" if math.isnan(gan.floor) else f", floor {format_value(gan.floor)}"
    return Finding(
        name,
        f"The GAN's samples are {change} the VAE's: {distance} is {format_value(gan.value)} "
        f"(VAE: {format_value(vae.value)}{floor}).",
    )


def _posterior_collapse(get: _Get, latent_size: int) -> Finding | None:
    active = get("vae", "", "active_units").value
    if not active <= _FEW_ACTIVE * latent_size:
        return None
    return Finding(
        "Posterior collapse",
        f"{active:.0f} of {latent_size} latent dimensions are active: lower vae.kl_weight.",
    )


def _blur(get: _Get, subject: str, label: str) -> Finding | None:
    sharpness = get(subject, "", "sharpness")
    if not sharpness.value < symptoms.MIN_SHARPNESS_IN_EVALUATION * sharpness.floor:
        return None
    ratio = sharpness.value / sharpness.floor
    return Finding("Blur", f"The {label} have {ratio:.0%} of the sharpness of real images.")


def _low_precision(get: _Get, subject: str, label: str) -> Finding | None:
    precision = get(subject, "held_out", "precision")
    if not precision.value < _LOW_PRECISION * precision.floor:
        return None
    return Finding(
        "Low precision",
        f"The precision of the {label} is {precision.value:.1%} (real images: "
        f"{precision.floor:.0%}): they are unlike the data, and their recall is not informative.",
    )


def _collapse(get: _Get, subject: str, label: str) -> Finding | None:
    precision, recall = (get(subject, "held_out", name) for name in ("precision", "recall"))
    duplicates, vendi = (get(subject, "", name) for name in ("duplicates", "vendi"))
    reasons = []
    # Recall is not informative for samples unlike the data.
    similar = precision.value >= _LOW_PRECISION * precision.floor
    if similar and recall.value < _LOW_RECALL * recall.floor:
        reasons.append(f"recall is {recall.value:.2f} (real images: {recall.floor:.2f})")
    # Blurred images have small distances too, but their Vendi score stays high.
    fewer = vendi.value < _LOW_VENDI * vendi.floor
    above_floor = duplicates.value > _HIGH_DUPLICATES * duplicates.floor
    if fewer and above_floor and duplicates.value > _MANY_DUPLICATES:
        reasons.append(
            f"{duplicates.value:.0%} are near duplicates (real images: {duplicates.floor:.0%})"
        )
    if not reasons:
        return None
    name = "Mode collapse" if len(reasons) == 2 else "Low diversity"
    return Finding(name, f"The {label} cover only part of the data: {'; '.join(reasons)}.")


def _memorisation(get: _Get, subject: str, label: str) -> Finding | None:
    nearer = get(subject, "", "nearer_to_training")
    authenticity = get(subject, "train", "authenticity")
    # Samples unlike the data may share a few nearest neighbours, so both are required.
    copies = authenticity.value < authenticity.floor
    significant = nearer.value > 0.5 + _SIGNIFICANT * nearer.error
    if not (copies and significant and nearer.value > _MEMORISED):
        return None
    return Finding(
        "Memorisation",
        f"{nearer.value:.0%} of the {label} are nearer to a training than to a held-out image "
        f"(expected: 50%); {authenticity.value:.0%} are authentic (real images: "
        f"{authenticity.floor:.0%}). Check the nearest images in the report.",
    )
