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
    values = _Means(now | {"first_reconstruction": first["reconstruction"]})
    over = f"over {WINDOW * config.training.log_every} steps"
    return [
        Trouble(
            rule.name,
            {name: values[name] for name in rule.evidence},
            f"{rule.text.format_map(values)} {over}.",
            rule.remedy,
        )
        for rule in _RULES
        if rule.stage == stage and rule.applies(now, first, config)
    ]


def too_few_lines(stage: str, lines: Sequence[Line], config: ConfigDict) -> bool:
    """Returns whether a stage has fewer lines of metrics than `detect` needs."""
    return len(lines) - _first_line(stage, lines, config) < WINDOW


def _first_line(stage: str, lines: Sequence[Line], config: ConfigDict) -> int:
    """Returns the index of the first line that counts."""
    if stage == "vae":
        return 0
    warm = config.gan.discriminator_warmup_steps + config.training.log_every
    return bisect.bisect_left(lines, warm, key=lambda line: line["step"])


def not_finite(name: str, step: int, stage: str) -> Trouble:
    """Returns the trouble of a value that was not finite at a step of a stage."""
    text = f"{name} was not finite at step {step}."
    return Trouble(NOT_FINITE, {}, text, f"lower learning rates in config.{stage}")


class _Means(dict[str, float]):
    """Means by name; NaN for values that were not logged, so that no rule applies."""

    def __missing__(self, name: str) -> float:
        return math.nan


def _means(lines: Sequence[Line]) -> _Means:
    names = set.intersection(*(set(line) for line in lines)) - {"stage", "step"}
    return _Means({name: sum(line[name] for line in lines) / len(lines) for name in names})


class _Rule(NamedTuple):
    """When a failure is detected, and what is said of it.

    Attributes:
      stage: "vae" or "gan".
      name: of the failure.
      applies: (means over the last window, means over the first window, config) -> bool.
      evidence: names of the means that are recorded.
      text: format string of the means.
      remedy: what to try.
    """

    stage: str
    name: str
    applies: Callable[[_Means, _Means, ConfigDict], bool]
    evidence: tuple[str, ...]
    text: str
    remedy: str


def _overpowers(now: _Means, first: _Means, config: ConfigDict) -> bool:
    pairs = WINDOW * config.training.log_every * config.gan.batch_size**2
    return now["discriminator_auc"] > symptoms.MAX_AUC and pairs >= symptoms.MIN_PAIRS


def _oscillates(now: _Means, first: _Means, config: ConfigDict) -> bool:
    size, mean = now["absolute_margin"], abs(now["margin"])
    return size > symptoms.MIN_SWING and mean < symptoms.MAX_STEADINESS * size


def _collapses(now: _Means, first: _Means, config: ConfigDict) -> bool:
    return config.gan.batch_size > 1 and (
        now["diversity"] < symptoms.MIN_DIVERSITY
        or now["feature_diversity"] < symptoms.MIN_DIVERSITY
        or now["near_duplicates"] > symptoms.MAX_DUPLICATES
    )


def _is_blurred(now: _Means, first: _Means, config: ConfigDict) -> bool:
    return now["sharpness"] < symptoms.MIN_SHARPNESS_IN_TRAINING


def _stays_blurred(now: _Means, first: _Means, config: ConfigDict) -> bool:
    # A generator begins as a blurred decoder, so only a lack of progress is a failure.
    sharpens = now is first or now["sharpness"] > symptoms.SHARPENING * first["sharpness"]
    return _is_blurred(now, first, config) and not sharpens


def _ignores_latents(now: _Means, first: _Means, config: ConfigDict) -> bool:
    fewest: float = symptoms.MIN_ACTIVE * config.model.latent_size
    return config.vae.batch_size > 1 and now["active_units"] < fewest


_RULES = (
    _Rule(
        "gan",
        "discriminator_overpowering",
        _overpowers,
        ("discriminator_auc",),
        "the discriminator gave the real image the larger logit in {discriminator_auc:.2%} of the "
        "pairs of a real and a fake image",
        "a higher r1 in gan.penalties, a lower gan.discriminator_learning_rate, gan.augmentations",
    ),
    _Rule(
        "gan",
        "vanishing_gradient",
        lambda now, *_: now["generator_slope"] < symptoms.MIN_GENERATOR_SLOPE,
        ("generator_slope", "generator_gradient_norm"),
        "the generator receives almost no gradient: the derivative of its loss with respect to the "
        "logits was {generator_slope:.2g}",
        "gan.objective=non_saturating instead of minimax, a weaker discriminator",
    ),
    _Rule(
        "gan",
        "oscillation",
        _oscillates,
        ("absolute_margin", "margin"),
        "the two networks oscillate without progress: the margin between the logits of real and "
        "fake images had a mean size of {absolute_margin:.2g}, but a mean of {margin:.2g}",
        "lower learning rates, gan.b1 of 0.5 or 0, a penalty such as gan.penalties=r1",
    ),
    _Rule(
        "gan",
        "divergence",
        lambda now, *_: max(abs(now["real_logit"]), abs(now["fake_logit"])) > symptoms.MAX_LOGIT,
        ("real_logit", "fake_logit"),
        "the discriminator's mean logits were {real_logit:.3g} and {fake_logit:.3g}",
        "lower learning rates, a penalty such as gan.penalties=r1, model.spectral_norm=True",
    ),
    _Rule(
        "gan",
        "mode_collapse",
        _collapses,
        ("diversity", "feature_diversity", "near_duplicates"),
        "the generator's images are too similar: their distance is {diversity:.0%} of that of real "
        "images in pixels and {feature_diversity:.0%} in features, and {near_duplicates:.0%} of "
        "their pairs nearly coincide",
        "a higher r1 in gan.penalties, larger batches, gan.objective=relativistic with r1 and r2, "
        "an earlier checkpoint",
    ),
    _Rule(
        "gan",
        "blur",
        _stays_blurred,
        ("sharpness",),
        "the generator's images have {sharpness:.1%} of the fine detail of real images",
        "longer training, a wider model",
    ),
    _Rule(
        "vae",
        "divergence",
        lambda now, first, _: now["reconstruction"] > first["reconstruction"],
        ("reconstruction", "first_reconstruction"),
        "the reconstruction term, {first_reconstruction:.4g} nats at the beginning, was "
        "{reconstruction:.4g}",
        "a lower vae.learning_rate",
    ),
    _Rule(
        "vae",
        "posterior_collapse",
        lambda now, *_: now["kl"] < symptoms.MIN_KL,
        ("kl", "active_units", "largest_kl"),
        "the decoder ignores the latent: the KL divergence was {kl:.2g} nats per image, at most "
        "{largest_kl:.2g} of them in one dimension,",
        "a lower vae.kl_weight, vae.kl_schedule=linear with vae.kl_warmup_steps, vae.free_bits",
    ),
    _Rule(
        "vae",
        "ignored_latents",
        _ignores_latents,
        ("active_units", "kl"),
        "only {active_units:.1f} latent dimensions vary with the image",
        "a smaller model.latent_size, or a lower vae.kl_weight",
    ),
    _Rule(
        "vae",
        "blur",
        _is_blurred,
        ("sharpness",),
        "the reconstructions have {sharpness:.1%} of the fine detail of real images",
        "a lower vae.kl_weight, vae.reconstruction=gaussian",
    ),
)
