"""Threshold rules that detect common failures from an evaluation and compare the two stages.

A rule holds only if a value passes its threshold by more than three standard errors. Rules of
feature metrics have to hold in every embedding in which they were computed.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vaegan_jax.evaluation.number import SUBJECTS, Number, format_value
from vaegan_jax.losses import symptoms

_SIGNIFICANT = 3.0  # standard errors
# Relative to the floor.
_LOW_PRECISION = 0.1
_LOW_RECALL = 0.5
_LOW_VENDI = 0.9
_VERY_LOW_VENDI = 0.5
_HIGH_SHARPNESS = 1.25
_HIGH_LATTICE = 3.0  # share of fine detail that is a lattice, relative to real images
_FEW_ACTIVE = 0.02  # fraction of the latent dimensions

_SAMPLES = ("vae_samples", "gan_samples")


class Finding(NamedTuple):
    """A detected failure, such as "Mode collapse", or the comparison of the stages."""

    name: str
    text: str


class _Value(NamedTuple):
    """A number; NaN for what is missing, so that every comparison is false."""

    value: float = math.nan
    error: float = math.nan
    floor: float = math.nan

    @property
    def ratio(self) -> float:
        return self.value / self.floor if self.floor else math.nan

    def is_below(self, share: float) -> bool:
        """Returns whether the value is significantly below a share of the floor."""
        return self.value + _SIGNIFICANT * self.error < share * self.floor

    def is_above(self, share: float) -> bool:
        return self.floor > 0 and self.value - _SIGNIFICANT * self.error > share * self.floor


class _Numbers:
    """The numbers of an evaluation by subject, metric and embedding."""

    def __init__(self, numbers: Sequence[Number]) -> None:
        self.embeddings = [name for name in dict.fromkeys(n.embedding for n in numbers) if name]
        self._values = {
            # A Frechet distance's name has the number of images, and Inception's is FID.
            (n.subject, re.sub(r"^(fd|fid)_n\d+$", "distance", n.metric), n.embedding): _Value(
                *(math.nan if x is None else x for x in (n.value, n.error, n.floor))
            )
            for n in numbers
        }

    def get(self, subject: str, metric: str, embedding: str = "") -> _Value:
        return self._values.get((subject, metric, embedding), _Value())

    def in_all(self, subject: str, metric: str) -> list[_Value]:
        """Returns a number in every embedding."""
        return [self.get(subject, metric, name) for name in self.embeddings]


def find(numbers: Sequence[Number], latent_size: int) -> list[Finding]:
    """Returns the findings of an evaluation of networks with a number of latent dimensions."""
    values = _Numbers(numbers)
    findings = [*_distances(values), *_posterior_collapse(values, latent_size)]
    for subject in ("vae_reconstructions", *_SAMPLES):
        findings += _pixels(values, subject)
    for subject in _SAMPLES:
        findings += [*_variety(values, subject), *_memorisation(values, subject)]
    return findings


def _compare(values: _Numbers, subject: str, other: str) -> tuple[set[int], str]:
    """Compares the Frechet distances of two sets of samples.

    Returns:
      The results in the embeddings: 1 if `subject` is nearer to the test images, -1 if it is
      further, and 0 if the difference is not resolved; and the values as text.
    """
    signs, texts = set(), []
    for embedding in values.embeddings:
        a, b = (values.get(name, "distance", embedding) for name in (subject, other))
        if math.isnan(a.value - b.value):
            continue
        resolved = abs(a.value - b.value) > _SIGNIFICANT * math.hypot(a.error, b.error)
        signs.add((1 if a.value < b.value else -1) if resolved else 0)
        floor = "" if math.isnan(a.floor) else f" (real images: {format_value(a.floor)})"
        texts.append(f"{embedding} {format_value(a.value)} against {format_value(b.value)}{floor}")
    return signs, "; ".join(texts)


def _distances(values: _Numbers) -> Iterator[Finding]:
    """Compares the GAN with its own start, and its raw weights with their average."""
    # The start is the matched decoder, or the VAE without matching.
    start = "matched_samples"
    if not _compare(values, "gan_samples", start)[0]:
        start = "vae_samples"
    signs, text = _compare(values, "gan_samples", start)
    if signs == {1}:
        name, verdict = "Progress", "The GAN is nearer to the test images than its start"
    elif signs == {-1}:
        name, verdict = "The GAN is worse", "It is further from the test images than its start"
    elif {1, -1} <= signs:
        name, verdict = "The embeddings disagree", "One prefers the GAN, another its start"
    else:
        name, verdict = "Progress is not resolved", "Not every embedding resolves a difference"
    if signs:
        text = f"Frechet distance of the GAN against the {SUBJECTS[start]}: {text}"
        yield Finding(name, f"{verdict}. {text}.")
    signs, text = _compare(values, "gan_raw_samples", "gan_samples")
    if signs == {1}:
        yield Finding(
            "The EMA lags",
            "The generator's raw weights are nearer to the test images than their average: lower "
            f"gan.ema_half_life_images. Frechet distance, raw against EMA: {text}.",
        )


def _posterior_collapse(values: _Numbers, latent_size: int) -> Iterator[Finding]:
    active = values.get("vae", "active_units").value
    if active <= _FEW_ACTIVE * latent_size:
        yield Finding(
            "Posterior collapse",
            f"{active:.0f} of {latent_size} latent dimensions are active: lower vae.kl_weight.",
        )


def _pixels(values: _Numbers, subject: str) -> Iterator[Finding]:
    lattice, sharpness = (values.get(subject, name) for name in ("lattice", "sharpness"))
    text = f"{SUBJECTS[subject]}: {sharpness.ratio:.0%} of the sharpness of real images"
    if sharpness.is_below(symptoms.MIN_SHARPNESS_IN_EVALUATION):
        yield Finding("Blur", f"{text}.")
    if sharpness.is_above(_HIGH_SHARPNESS):
        yield Finding("Noise", f"{text}: noise or another artefact of single pixels.")
    # The real images' pattern is that of their edges, so it is compared at equal detail. A pattern
    # that is weak against a tenth of theirs is invisible, however blurred the images are.
    # Without a floor of the sharpness, its ratio is NaN, and the pattern of real images counts.
    detail = min(1.0, max(sharpness.ratio, 0.1))
    if lattice.is_above(_HIGH_LATTICE * detail):
        yield Finding(
            "Lattice",
            f"{SUBJECTS[subject]}: a pattern with a period of 2 or 4 pixels is "
            f"{lattice.ratio / detail:.1f} times as strong as in real images of the same "
            "sharpness: train longer.",
        )


def _variety(values: _Numbers, subject: str) -> Iterator[Finding]:
    precision, recall, vendi = (
        values.in_all(subject, metric) for metric in ("precision", "recall", "vendi")
    )
    if precision and all(x.is_below(_LOW_PRECISION) for x in precision):
        shown = ", ".join(f"{x.value:.1%} (real images: {x.floor:.0%})" for x in precision)
        yield Finding(
            "Low precision",
            f"{SUBJECTS[subject]}: precision is {shown}. They are unlike the data, so recall "
            "and coverage cannot judge their variety.",
        )
    reasons: list[list[str]] = []
    for p, r, v in zip(precision, recall, vendi, strict=True):
        # For samples that are unlike the data, recall says nothing, and the Vendi score little.
        similar = p.is_above(_LOW_PRECISION)
        reasons.append([])
        if similar and r.is_below(_LOW_RECALL):
            reasons[-1].append(f"recall {r.value:.2f} (real images: {r.floor:.2f})")
        if v.is_below(_LOW_VENDI if similar else _VERY_LOW_VENDI):
            shown = f"{format_value(v.value)} (real images: {format_value(v.floor)})"
            reasons[-1].append(f"Vendi score {shown}")
    if reasons and all(reasons):
        severe = all(len(each) == 2 for each in reasons) or all(
            v.is_below(_VERY_LOW_VENDI) for v in vendi
        )
        pairs = zip(values.embeddings, reasons, strict=True)
        shown = "; ".join(f"{embedding} {', '.join(each)}" for embedding, each in pairs)
        yield Finding(
            "Mode collapse" if severe else "Low diversity",
            f"{SUBJECTS[subject]}: they cover only part of the data: {shown}.",
        )


def _memorisation(values: _Numbers, subject: str) -> Iterator[Finding]:
    for embedding in values.embeddings:
        copying = values.get(subject, "data_copying", embedding)
        authenticity = values.get(subject, "authenticity", embedding)
        # Samples unlike the data may share a few nearest neighbours, so both are required.
        if copying.is_below(1) and authenticity.is_below(1):
            yield Finding(
                "Memorisation",
                f"{SUBJECTS[subject]}: they are nearer to the training images than unseen images "
                f"are ({embedding}: C_T is {copying.value:.1f}, expected 0 ± "
                f"{copying.error:.1f}), and {authenticity.value:.0%} are authentic (real images: "
                f"{authenticity.floor:.0%}). See the nearest images in the report.",
            )
