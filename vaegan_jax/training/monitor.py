"""Detects training failures: pure functions of a stage's last lines of metrics.

Each rule compares means over the last lines with a threshold of `symptoms`, so that the result
depends only on the logged values, and a resumed run detects the same troubles. The train steps
compute these values with the functions of `symptoms`.
"""

import bisect
import collections
import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vaegan_jax.losses import symptoms

Line = Mapping[str, Any]

NOT_FINITE = "not_finite"

WINDOW = 5
"""Lines of metrics over which means are taken; nothing is detected in fewer lines."""


class Trouble(NamedTuple):
    """A detected training failure, such as "mode_collapse".

    `text` is a sentence with the values in `evidence`; `remedy` names config fields to change.
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

    `lines` are all lines of that stage, "vae" or "gan". Lines from the discriminator's warm-up, in
    which it is expected to win, do not count.
    """
    begin = 0
    if stage == "gan":
        warm = config.gan.discriminator_warmup_steps + config.training.log_every
        begin = bisect.bisect_left(lines, warm, key=lambda line: line["step"])
    if len(lines) - begin < WINDOW:
        return []
    means = collections.defaultdict(lambda: math.nan, _means(lines[-WINDOW:]))
    if len(lines) - begin > WINDOW:
        first = _means(lines[begin : begin + WINDOW])
        means |= {f"first_{name}": value for name, value in first.items()}
    over = f"over {WINDOW * config.training.log_every} steps"
    return [
        Trouble(
            rule.name,
            {name: means[name] for _, name, _, _ in string.Formatter().parse(rule.text) if name},
            f"{rule.text.format_map(means)} {over}.",
            rule.remedy,
        )
        for rule in _RULES
        if rule.stage == stage and rule.applies(means, config)
    ]


def not_finite(name: str, step: int, stage: str) -> Trouble:
    """Returns the trouble of a value that was not finite at a step of a stage."""
    text = f"{name} was not finite at step {step}."
    return Trouble(NOT_FINITE, {}, text, f"lower learning rates in config.{stage}")


def _means(lines: Sequence[Line]) -> dict[str, float]:
    names = set.intersection(*(set(line) for line in lines)) - {"stage", "step"}
    return {name: sum(line[name] for line in lines) / len(lines) for name in names}


class _Rule(NamedTuple):
    """A failure, detected if ``applies(means, config)``; `text` is a format string of the means.

    The means are those over the last window and, after ``first_``, over the first one before it;
    they are NaN where there are none.
    """

    stage: str
    name: str
    applies: Callable[[Mapping[str, float], ConfigDict], bool]
    text: str
    remedy: str


_RULES = (
    _Rule(
        "gan",
        "discriminator_overpowering",
        lambda means, config: (
            means["discriminator_auc"] > symptoms.MAX_AUC
            and WINDOW * config.training.log_every * config.gan.batch_size**2 >= symptoms.MIN_PAIRS
        ),
        "the discriminator gave the real image the larger logit in {discriminator_auc:.2%} of the "
        "pairs of a real and a fake image",
        "a higher r1 in gan.penalties, a lower gan.discriminator_learning_rate, gan.augmentations",
    ),
    _Rule(
        "gan",
        "vanishing_gradient",
        lambda means, _: means["generator_slope"] < symptoms.MIN_GENERATOR_SLOPE,
        "the generator receives almost no gradient: the derivative of its loss with respect to the "
        "logits was {generator_slope:.2g}",
        "gan.objective=non_saturating instead of minimax, a weaker discriminator",
    ),
    _Rule(
        "gan",
        "oscillation",
        lambda means, _: (
            means["absolute_margin"] > symptoms.MIN_SWING
            and abs(means["margin"]) < symptoms.MAX_STEADINESS * means["absolute_margin"]
        ),
        "the two networks oscillate without progress: the margin between the logits of real and "
        "fake images had a mean size of {absolute_margin:.2g}, but a mean of {margin:.2g}",
        "lower learning rates, gan.b1 of 0.5 or 0, a penalty such as gan.penalties=r1",
    ),
    _Rule(
        "gan",
        "divergence",
        lambda means, _: (
            max(abs(means["real_logit"]), abs(means["fake_logit"])) > symptoms.MAX_LOGIT
        ),
        "the discriminator's mean logits were {real_logit:.3g} and {fake_logit:.3g}",
        "lower learning rates, a penalty such as gan.penalties=r1, model.spectral_norm=True",
    ),
    _Rule(
        "gan",
        "mode_collapse",
        lambda means, config: (
            config.gan.batch_size > 1
            and (
                means["diversity"] < symptoms.MIN_DIVERSITY
                or means["feature_diversity"] < symptoms.MIN_DIVERSITY
                or means["near_duplicates"] > symptoms.MAX_DUPLICATES
            )
        ),
        "the generator's images are too similar: their distance is {diversity:.0%} of that of real "
        "images in pixels and {feature_diversity:.0%} in features, and {near_duplicates:.0%} of "
        "their pairs nearly coincide",
        "a higher r1 in gan.penalties, larger batches, gan.objective=relativistic with r1 and r2, "
        "an earlier checkpoint",
    ),
    _Rule(
        "gan",
        "blur",
        # A generator begins as a blurred decoder, so only a lack of progress is a failure.
        lambda means, _: (
            means["sharpness"] < symptoms.MIN_SHARPNESS_IN_TRAINING
            and means["sharpness"] <= symptoms.SHARPENING * means["first_sharpness"]
        ),
        "the generator's images have {sharpness:.1%} of the fine detail of real images",
        "longer training, a wider model",
    ),
    _Rule(
        "vae",
        "divergence",
        lambda means, _: means["reconstruction"] > means["first_reconstruction"],
        "the reconstruction term, {first_reconstruction:.4g} nats at the beginning, was "
        "{reconstruction:.4g}",
        "a lower vae.learning_rate",
    ),
    _Rule(
        "vae",
        "posterior_collapse",
        lambda means, _: means["kl"] < symptoms.MIN_KL,
        "the decoder ignores the latent: the KL divergence was {kl:.2g} nats per image, at most "
        "{largest_kl:.2g} of them in one dimension,",
        "a lower vae.kl_weight, vae.kl_schedule=linear with vae.kl_warmup_steps, vae.free_bits",
    ),
    _Rule(
        "vae",
        "ignored_latents",
        lambda means, config: (
            config.vae.batch_size > 1
            and means["active_units"] < symptoms.MIN_ACTIVE * config.model.latent_size
        ),
        "only {active_units:.1f} latent dimensions vary with the image",
        "a smaller model.latent_size, or a lower vae.kl_weight",
    ),
    _Rule(
        "vae",
        "blur",
        lambda means, _: means["sharpness"] < symptoms.MIN_SHARPNESS_IN_TRAINING,
        "the reconstructions have {sharpness:.1%} of the fine detail of real images",
        "a lower vae.kl_weight, vae.reconstruction=gaussian",
    ),
)
