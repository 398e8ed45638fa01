"""Threshold rules that detect common failures from an evaluation and compare the two stages.

A rule holds only if a value passes its threshold by more than three standard errors. Rules of
feature metrics have to hold in every embedding in which they were computed.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from vaegan_jax.evaluation.number import SUBJECTS, Number, format_value
from vaegan_jax.losses import symptoms

# In standard errors.
_SIGNIFICANT = 3.0
# Relative to the floor.
_LOW_PRECISION = 0.1
_LOW_RECALL = 0.5
_LOW_VENDI = 0.9
_VERY_LOW_VENDI = 0.5
_HIGH_SHARPNESS = 1.25
# Of the share of fine detail that is a lattice, relative to real images.
_HIGH_LATTICE = 3.0
# Fraction of the latent dimensions.
_FEW_ACTIVE = 0.02

_SAMPLES = ("vae_samples", "gan_samples")


class Finding(NamedTuple):
    """A detected failure, or the comparison of the stages.

    Attributes:
      name: for example "Mode collapse".
      text: a description with the metric values.
    """

    name: str
    text: str


class _Value(NamedTuple):
    """A number; NaN for what is missing, so that every comparison is false."""

    value: float = math.nan
    error: float = math.nan
    floor: float = math.nan

    def is_below(self, limit: float) -> bool:
        return self.value + _SIGNIFICANT * self.error < limit

    def is_above(self, limit: float) -> bool:
        return self.value - _SIGNIFICANT * self.error > limit


class _Numbers:
    """The numbers of an evaluation by subject, embedding and metric."""

    def __init__(self, numbers: Sequence[Number]) -> None:
        self.embeddings = [name for name in dict.fromkeys(n.embedding for n in numbers) if name]
        self._values = {
            # Without the number of images in the name of a Frechet distance.
            (n.subject, n.embedding, re.sub(r"_n\d+$", "", n.metric)): _Value(
                *(math.nan if x is None else x for x in (n.value, n.error, n.floor))
            )
            for n in numbers
        }

    def get(self, subject: str, metric: str, embedding: str = "") -> _Value:
        return self._values.get((subject, embedding, metric), _Value())

    def distance(self, subject: str, embedding: str) -> _Value:
        name = "fid" if (subject, embedding, "fid") in self._values else "fd"
        return self.get(subject, name, embedding)


def find(numbers: Sequence[Number], latent_size: int) -> list[Finding]:
    """Returns the findings of an evaluation.

    Args:
      numbers: the numbers of the evaluation.
      latent_size: the number of latent dimensions.
    """
    values = _Numbers(numbers)
    findings = [_progress(values), _average(values), _posterior_collapse(values, latent_size)]
    for subject in ("vae_reconstructions", *_SAMPLES):
        findings += [rule(values, subject) for rule in (_blur, _noise, _lattice)]
    for subject in _SAMPLES:
        findings += [rule(values, subject) for rule in (_low_precision, _collapse, _memorisation)]
    return [finding for finding in findings if finding is not None]


def _compare(values: _Numbers, subject: str, other: str) -> tuple[list[int], str]:
    """Compares the Frechet distances of two sets of samples in every embedding.

    Returns:
      For each embedding 1 if `subject` is nearer to the test images, -1 if it is further, and 0 if
      the difference is not resolved; and the values as text.
    """
    signs, texts = [], []
    for embedding in values.embeddings:
        a, b = (values.distance(name, embedding) for name in (subject, other))
        if math.isnan(a.value - b.value):
            continue
        resolved = abs(a.value - b.value) > _SIGNIFICANT * math.hypot(a.error, b.error)
        signs.append((1 if a.value < b.value else -1) if resolved else 0)
        floor = "" if math.isnan(a.floor) else f" (real images: {format_value(a.floor)})"
        shown = f"{format_value(a.value)} against {format_value(b.value)}{floor}"
        texts.append(f"{embedding} {shown}")
    return signs, "; ".join(texts)


def _progress(values: _Numbers) -> Finding | None:
    """Compares the GAN with its own start: the matched decoder, or the VAE without matching."""
    start = "matched_samples"
    if not _compare(values, "gan_samples", start)[0]:
        start = "vae_samples"
    signs, text = _compare(values, "gan_samples", start)
    if not signs:
        return None
    if set(signs) == {1}:
        name, verdict = "Progress", "The GAN is nearer to the test images than its start"
    elif set(signs) == {-1}:
        name, verdict = "The GAN is worse", "It is further from the test images than its start"
    elif {1, -1} <= set(signs):
        name, verdict = "The embeddings disagree", "One prefers the GAN, another its start"
    else:
        name, verdict = "Progress is not resolved", "Not every embedding resolves a difference"
    label = SUBJECTS[start]
    return Finding(name, f"{verdict}. Frechet distance of the GAN against the {label}: {text}.")


def _average(values: _Numbers) -> Finding | None:
    signs, text = _compare(values, "gan_raw_samples", "gan_samples")
    if not signs or set(signs) != {1}:
        return None
    return Finding(
        "The EMA lags",
        "The generator's raw weights are nearer to the test images than their average: lower "
        f"gan.ema_half_life_images. Frechet distance, raw against EMA: {text}.",
    )


def _posterior_collapse(values: _Numbers, latent_size: int) -> Finding | None:
    active = values.get("vae", "active_units").value
    if not active <= _FEW_ACTIVE * latent_size:
        return None
    return Finding(
        "Posterior collapse",
        f"{active:.0f} of {latent_size} latent dimensions are active: lower vae.kl_weight.",
    )


def _blur(values: _Numbers, subject: str) -> Finding | None:
    sharpness = values.get(subject, "sharpness")
    if not sharpness.is_below(symptoms.MIN_SHARPNESS_IN_EVALUATION * sharpness.floor):
        return None
    ratio = sharpness.value / sharpness.floor
    return Finding("Blur", f"{SUBJECTS[subject]}: {ratio:.0%} of the sharpness of real images.")


def _noise(values: _Numbers, subject: str) -> Finding | None:
    sharpness = values.get(subject, "sharpness")
    if not sharpness.is_above(_HIGH_SHARPNESS * sharpness.floor):
        return None
    ratio = sharpness.value / sharpness.floor
    return Finding(
        "Noise",
        f"{SUBJECTS[subject]}: {ratio:.0%} of the sharpness of real images, which is noise or "
        "another artefact of single pixels.",
    )


def _lattice(values: _Numbers, subject: str) -> Finding | None:
    lattice, sharpness = (values.get(subject, name) for name in ("lattice", "sharpness"))
    # The real images' pattern is that of their edges, so it is compared at equal detail. A pattern
    # that is weak against a tenth of theirs is invisible, however blurred the images are.
    # Without a floor of the sharpness, its ratio is NaN, and the pattern of real images counts.
    usual = lattice.floor * min(1.0, max(sharpness.value / sharpness.floor, 0.1))
    if not lattice.is_above(_HIGH_LATTICE * usual):
        return None
    return Finding(
        "Lattice",
        f"{SUBJECTS[subject]}: a pattern with a period of 2 or 4 pixels is "
        f"{lattice.value / usual:.1f} times as strong as in real images of the same sharpness: "
        "train longer.",
    )


def _low_precision(values: _Numbers, subject: str) -> Finding | None:
    found = [values.get(subject, "precision", name) for name in values.embeddings]
    if not found or not all(x.is_below(_LOW_PRECISION * x.floor) for x in found):
        return None
    shown = ", ".join(f"{x.value:.1%} (real images: {x.floor:.0%})" for x in found)
    return Finding(
        "Low precision",
        f"{SUBJECTS[subject]}: precision is {shown}. They are unlike the data, so recall "
        "and coverage cannot judge their variety.",
    )


def _collapse(values: _Numbers, subject: str) -> Finding | None:
    reasons = {name: _missing_variety(values, subject, name) for name in values.embeddings}
    if not reasons or not all(reasons.values()):
        return None
    vendi = [values.get(subject, "vendi", name) for name in values.embeddings]
    severe = all(x.is_below(_VERY_LOW_VENDI * x.floor) for x in vendi)
    severe |= all(len(each) == 2 for each in reasons.values())
    shown = "; ".join(f"{embedding} {', '.join(each)}" for embedding, each in reasons.items())
    return Finding(
        "Mode collapse" if severe else "Low diversity",
        f"{SUBJECTS[subject]}: they cover only part of the data: {shown}.",
    )


def _missing_variety(values: _Numbers, subject: str, embedding: str) -> list[str]:
    precision, recall, vendi = (
        values.get(subject, name, embedding) for name in ("precision", "recall", "vendi")
    )
    # For samples that are unlike the data, recall says nothing, and the Vendi score little.
    similar = precision.is_above(_LOW_PRECISION * precision.floor)
    reasons = []
    if similar and recall.is_below(_LOW_RECALL * recall.floor):
        reasons.append(f"recall {recall.value:.2f} (real images: {recall.floor:.2f})")
    if vendi.is_below((_LOW_VENDI if similar else _VERY_LOW_VENDI) * vendi.floor):
        shown = f"{format_value(vendi.value)} (real images: {format_value(vendi.floor)})"
        reasons.append(f"Vendi score {shown}")
    return reasons


def _memorisation(values: _Numbers, subject: str) -> Finding | None:
    for embedding in values.embeddings:
        copying = values.get(subject, "data_copying", embedding)
        authenticity = values.get(subject, "authenticity", embedding)
        # Samples unlike the data may share a few nearest neighbours, so both are required.
        if copying.is_below(0) and authenticity.is_below(authenticity.floor):
            return Finding(
                "Memorisation",
                f"{SUBJECTS[subject]}: they are nearer to the training images than unseen images "
                f"are ({embedding}: C_T is {copying.value:.1f}, expected 0 ± "
                f"{copying.error:.1f}), and {authenticity.value:.0%} are authentic (real images: "
                f"{authenticity.floor:.0%}). See the nearest images in the report.",
            )
    return None
