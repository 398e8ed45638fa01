"""What a run's numbers say in words: the known troubles, named where they are seen.

Each rule is a threshold, and its sentence gives the numbers, so that a reader can disagree.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vaegan_jax.evaluation.number import Number, text
from vaegan_jax.losses import symptoms

# Standard errors.
_CERTAIN = 3.0
# Of what as many real images have.
_LOW_PRECISION = 0.1
_LOW_RECALL = 0.5
_LOW_VENDI = 0.9
_HIGH_DUPLICATES = 5.0
# Of the samples.
_MANY_DUPLICATES = 0.1
_MEMORISED = 0.6
# Of the latent dimensions.
_FEW_ACTIVE = 0.02


class Finding(NamedTuple):
    """A trouble, or how the stages compare.

    Attributes:
      name: of the trouble in the field's words, such as "Mode collapse".
      text: a sentence with the numbers that it rests on.
    """

    name: str
    text: str


class _Seen(NamedTuple):
    """A number; what is missing is not a number, with which no comparison is true."""

    value: float = math.nan
    error: float = math.nan
    floor: float = math.nan


_Get = Callable[[str, str, str], _Seen]


def find(numbers: Sequence[Number], distance: str, latent_size: int) -> list[Finding]:
    """Returns what is to be said of a run's numbers.

    Args:
      numbers: of an evaluation.
      distance: the name of its Frechet distance.
      latent_size: dimensions of the latent.
    """
    seen = {
        (n.subject, n.against, n.metric): _Seen(
            *(math.nan if x is None else x for x in (n.value, n.error, n.floor))
        )
        for n in numbers
    }

    def get(subject: str, against: str, metric: str) -> _Seen:
        return seen.get((subject, against, metric), _Seen())

    found = [_compared(get, distance), _posterior_collapse(get, latent_size)]
    for subject, label in (
        ("vae_reconstructions", "VAE's reconstructions"),
        ("vae_samples", "VAE's samples"),
        ("gan_samples", "GAN's samples"),
    ):
        found += [_blurred(get, subject, label)]
        if subject != "vae_reconstructions":
            found += [
                _unlike(get, subject, label),
                _collapsed(get, subject, label),
                _memorised(get, subject, label),
            ]
    return [finding for finding in found if finding is not None]


def _compared(get: _Get, distance: str) -> Finding | None:
    """Says which of the two samples is nearer to the held-out images."""
    vae, gan = (get(f"{name}_samples", "held_out", distance) for name in ("vae", "gan"))
    difference = gan.value - vae.value
    if math.isnan(difference):
        return None
    floor = "" if math.isnan(gan.floor) else f"; {text(gan.floor)} for as many real images"
    figures = f"{distance} to held-out images is {text(gan.value)} after {text(vae.value)}{floor}"
    if not abs(difference) > _CERTAIN * math.hypot(vae.error, gan.error):
        name, how = "No change", "as far from real images as"
    elif difference > 0:
        name, how = "No convergence", "further from real images than"
    else:
        name, how = "Progress", "nearer to real images than"
    return Finding(name, f"The GAN's samples are {how} the VAE's: {figures}.")


def _posterior_collapse(get: _Get, latent_size: int) -> Finding | None:
    active = get("vae", "", "active_units").value
    if not active <= _FEW_ACTIVE * latent_size:
        return None
    sentence = (
        f"{active:.0f} of {latent_size} latent dimensions say anything about the image: lower "
        "vae.kl_weight."
    )
    return Finding("Posterior collapse", sentence)


def _blurred(get: _Get, subject: str, label: str) -> Finding | None:
    sharpness = get(subject, "", "sharpness")
    if not sharpness.value < symptoms.MIN_SHARPNESS_IN_EVALUATION * sharpness.floor:
        return None
    share = sharpness.value / sharpness.floor
    return Finding("Blur", f"The {label} have {share:.0%} of the fine detail of real images.")


def _unlike(get: _Get, subject: str, label: str) -> Finding | None:
    precision = get(subject, "held_out", "precision")
    if not precision.value < _LOW_PRECISION * precision.floor:
        return None
    sentence = (
        f"{precision.value:.1%} of the {label} lie among real images, and {precision.floor:.0%} of "
        "other real images do: the embedding tells them apart, and recall says nothing here."
    )
    return Finding("Low precision", sentence)


def _collapsed(get: _Get, subject: str, label: str) -> Finding | None:
    precision, recall = (get(subject, "held_out", name) for name in ("precision", "recall"))
    duplicates, vendi = (get(subject, "", name) for name in ("duplicates", "vendi"))
    reasons = []
    # Images that are unlike all real ones have no recall, however much they differ.
    alike = precision.value >= _LOW_PRECISION * precision.floor
    if alike and recall.value < _LOW_RECALL * recall.floor:
        reasons.append(f"recall is {recall.value:.2f}, and {recall.floor:.2f} for real images")
    # Blurred images lie close together as well, but are as many.
    fewer = vendi.value < _LOW_VENDI * vendi.floor
    beyond_floor = duplicates.value > _HIGH_DUPLICATES * duplicates.floor
    if fewer and beyond_floor and duplicates.value > _MANY_DUPLICATES:
        reasons.append(
            f"{duplicates.value:.0%} of them nearly equal another, and {duplicates.floor:.0%} of "
            "real images"
        )
    if not reasons:
        return None
    name = "Mode collapse" if len(reasons) == 2 else "Little variety"
    return Finding(name, f"The {label} show a part of the data's variety: {'; '.join(reasons)}.")


def _memorised(get: _Get, subject: str, label: str) -> Finding | None:
    nearer = get(subject, "", "nearer_to_training")
    authentic = get(subject, "train", "authenticity")
    # Images that are unlike all real ones may all be nearest to the same few.
    close = authentic.value < authentic.floor
    certain = nearer.value > 0.5 + _CERTAIN * nearer.error
    if not (close and certain and nearer.value > _MEMORISED):
        return None
    sentence = (
        f"{nearer.value:.0%} of the {label} lie nearer to a training image than to a held-out "
        f"one, where half would, and {authentic.value:.0%} are no near copies of one, "
        f"{authentic.floor:.0%} of real images: look at the pairs."
    )
    return Finding("Memorisation", sentence)
