"""Detects training failures: pure functions of a stage's last lines of metrics.

Each rule compares means over the last lines with a threshold of `symptoms`, so that the result
depends only on the logged values, and a resumed run detects the same troubles. The train steps
compute these values with the functions of `symptoms`.
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vaegan_jax.losses import symptoms

Line = Mapping[str, Any]

NOT_FINITE = "not_finite"

WINDOW = 5
"""Lines of metrics over which means are taken; nothing is detected in fewer lines."""


class Trouble(NamedTuple):
    """A detected training failure.

    Attributes:
      name: such as "mode_collapse".
      evidence: the values that the rule compared.
      text: a sentence with these values.
      remedy: what to try, in names of config fields.
    """

    name: str
    evidence: dict[str, float]
    text: str
    remedy: str

    @property
    def sentence(self) -> str:
        """Name, text and remedy in one line."""
        return f"{self.name.replace('_', ' ')}: {self.text} Try: {self.remedy}."


def detect(stage: str, lines: Sequence[Line], config: ConfigDict) -> list[Trouble]:
    """Returns the troubles of a stage after its last line of metrics.

    It needs `WINDOW` lines. Lines from the discriminator's warm-up, in which it is expected to win,
    do not count.

    Args:
      stage: "vae" or "gan".
      lines: all lines of that stage.
      config: the run's config.
    """
    if too_few_lines(stage, lines, config):
        return []
    begin = _first_line(stage, lines, config)
    now = _means(lines[-WINDOW:])
    first = _means(lines[begin : begin + WINDOW]) if len(lines) - begin > WINDOW else now
    rules = _VAE_RULES if stage == "vae" else _GAN_RULES
    return [trouble for rule in rules if (trouble := rule(now, first, config)) is not None]


def too_few_lines(stage: str, lines: Sequence[Line], config: ConfigDict) -> bool:
    """Returns whether a stage has fewer lines of metrics than `detect` needs."""
    return len(lines) - _first_line(stage, lines, config) < WINDOW


def _first_line(stage: str, lines: Sequence[Line], config: ConfigDict) -> int:
    """Returns the index of the first line that counts."""
    if stage == "vae":
        return 0
    warm = config.gan.discriminator_warmup_steps + config.training.log_every
    return bisect.bisect_left(lines, warm, key=lambda line: line["step"])


def relative_changes(lines: Sequence[Line]) -> dict[str, float] | None:
    """Returns how much the terms of the VAE's loss changed in the last part of its training.

    For "reconstruction" and "kl": ``|b - a| / max(|a|, |b|)``, where b is the mean over the last
    quarter of the lines, at least `WINDOW`, and a that over as many lines before.

    Args:
      lines: all lines of the VAE stage.

    Returns:
      Changes from 0 to 2 by name, or None if there are fewer than ``2 * WINDOW`` lines.
    """
    count = max(WINDOW, len(lines) // 4)
    if len(lines) < 2 * count:
        return None
    before, now = _means(lines[-2 * count : -count]), _means(lines[-count:])
    return {
        name: abs(now[name] - before[name]) / max(abs(now[name]), abs(before[name]), 1e-12)
        for name in ("reconstruction", "kl")
    }


def steps_by_trouble(stage: str, lines: Sequence[Line], config: ConfigDict) -> dict[str, list[int]]:
    """Returns the steps at which each trouble was detected, over all lines of a stage."""
    steps: dict[str, list[int]] = {}
    for count in range(1, len(lines) + 1):
        for trouble in detect(stage, lines[:count], config):
            steps.setdefault(trouble.name, []).append(lines[count - 1]["step"])
    return steps


def not_finite(name: str, step: int, stage: str) -> Trouble:
    """Returns the trouble of a value that was not finite at a step of a stage."""
    text = f"{name} was not finite at step {step}."
    return Trouble(NOT_FINITE, {}, text, f"lower learning rates in config.{stage}")


class _Means(dict[str, float]):
    """Means by name; NaN for values that were not logged, so that no rule applies."""

    def __missing__(self, name: str) -> float:
        return math.nan


Rule = Callable[[_Means, _Means, ConfigDict], Trouble | None]
"""(means over the last window, means over the first window, config) -> trouble."""


def _means(lines: Sequence[Line]) -> _Means:
    names = set.intersection(*(set(line) for line in lines)) - {"stage", "step"}
    return _Means({name: sum(line[name] for line in lines) / len(lines) for name in names})


def _steps(config: ConfigDict) -> str:
    return f"over {WINDOW * config.training.log_every} steps"


def _overpowering(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    auc = now["discriminator_auc"]
    pairs = WINDOW * config.training.log_every * config.gan.batch_size**2
    if not auc > symptoms.MAX_AUC or pairs < symptoms.MIN_PAIRS:
        return None
    return Trouble(
        "discriminator_overpowering",
        {"discriminator_auc": auc},
        f"the discriminator gave the real image the larger logit in {auc:.2%} of the pairs of a "
        f"real and a fake image {_steps(config)}.",
        "a higher gan.r1_weight, a lower gan.discriminator_learning_rate, gan.augmentations",
    )


def _vanishing(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    slope = now["generator_slope"]
    if not slope < symptoms.MIN_GENERATOR_SLOPE:
        return None
    return Trouble(
        "vanishing_gradient",
        {"generator_slope": slope, "generator_gradient_norm": now["generator_gradient_norm"]},
        f"the derivative of the generator's loss with respect to the logits was {slope:.2g} "
        f"{_steps(config)}, so the generator receives almost no gradient.",
        "gan.objective=non_saturating instead of minimax, a weaker discriminator",
    )


def _oscillating(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    size, mean = now["absolute_margin"], abs(now["margin"])
    if not (size > symptoms.MIN_SWING and mean < symptoms.MAX_STEADINESS * size):
        return None
    return Trouble(
        "oscillation",
        {"absolute_margin": size, "margin": now["margin"]},
        f"the margin between the logits of real and fake images had a mean size of {size:.2g}, but "
        f"a mean of {mean:.2g} {_steps(config)}: the two networks oscillate without progress.",
        "lower learning rates, gan.b1 of 0.5 or 0, a penalty such as gan.r1_weight",
    )


def _gan_diverging(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    logit = max(abs(now["real_logit"]), abs(now["fake_logit"]))
    if not logit > symptoms.MAX_LOGIT:
        return None
    return Trouble(
        "divergence",
        {"real_logit": now["real_logit"], "fake_logit": now["fake_logit"]},
        f"the discriminator's logits had a mean size of {logit:.3g} {_steps(config)}.",
        "lower learning rates, a penalty such as gan.r1_weight, model.spectral_norm=True",
    )


def _collapsing(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    if config.gan.batch_size < 2:  # no pairs
        return None
    reasons = []
    if now["diversity"] < symptoms.MIN_DIVERSITY:
        reasons.append(f"the distance in pixels is {now['diversity']:.0%} of that of real images")
    if now["feature_diversity"] < symptoms.MIN_DIVERSITY:
        reasons.append(
            f"the distance in features is {now['feature_diversity']:.0%} of that of real images"
        )
    if now["near_duplicates"] > symptoms.MAX_DUPLICATES:
        reasons.append(f"{now['near_duplicates']:.0%} of the pairs nearly coincide")
    if not reasons:
        return None
    names = ("diversity", "feature_diversity", "near_duplicates")
    return Trouble(
        "mode_collapse",
        {name: now[name] for name in names},
        f"the generator's images are too similar {_steps(config)}: {', '.join(reasons)}.",
        "a higher gan.r1_weight, larger batches, gan.objective=relativistic with both penalties, "
        "an earlier checkpoint",
    )


def _gan_blurring(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    # A generator begins as a blurred decoder, so only a lack of progress is a failure.
    if now is first or now["sharpness"] > symptoms.SHARPENING * first["sharpness"]:
        return None
    return _blurring(now, config, "the generator's images", "longer training, a wider model")


def _vae_blurring(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    remedy = "a lower vae.kl_weight, vae.reconstruction=gaussian"
    return _blurring(now, config, "the reconstructions", remedy)


def _blurring(now: _Means, config: ConfigDict, what: str, remedy: str) -> Trouble | None:
    sharpness = now["sharpness"]
    if not sharpness < symptoms.MIN_SHARPNESS_IN_TRAINING:
        return None
    text = f"{what} have {sharpness:.1%} of the fine detail of real images {_steps(config)}."
    return Trouble("blur", {"sharpness": sharpness}, text, remedy)


def _vae_diverging(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    if not now["reconstruction"] > first["reconstruction"]:
        return None
    return Trouble(
        "divergence",
        {"reconstruction": now["reconstruction"], "at_first": first["reconstruction"]},
        f"the reconstruction term was {now['reconstruction']:.4g} nats {_steps(config)}, and "
        f"{first['reconstruction']:.4g} at the beginning.",
        "a lower vae.learning_rate",
    )


def _posterior_collapse(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    kl, active = now["kl"], now["active_units"]
    if not kl < symptoms.MIN_KL:
        return None
    return Trouble(
        "posterior_collapse",
        {"kl": kl, "active_units": active, "largest_kl": now["largest_kl"]},
        f"the KL divergence was {kl:.2g} nats per image {_steps(config)}, at most "
        f"{now['largest_kl']:.2g} of them in one dimension: the decoder ignores the latent.",
        "a lower vae.kl_weight, vae.kl_schedule=linear with vae.kl_warmup_steps, vae.free_bits",
    )


def _ignored_latents(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    active, size = now["active_units"], config.model.latent_size
    if not active < symptoms.MIN_ACTIVE * size or config.vae.batch_size < 2:
        return None
    return Trouble(
        "ignored_latents",
        {"active_units": active, "kl": now["kl"]},
        f"{active:.1f} of {size} latent dimensions vary with the image {_steps(config)}.",
        "a smaller model.latent_size, or a lower vae.kl_weight",
    )


_GAN_RULES: tuple[Rule, ...] = (
    _overpowering,
    _vanishing,
    _oscillating,
    _gan_diverging,
    _collapsing,
    _gan_blurring,
)
_VAE_RULES: tuple[Rule, ...] = (
    _vae_diverging,
    _posterior_collapse,
    _ignored_latents,
    _vae_blurring,
)
