"""Trouble that names itself: pure functions of a stage's last lines of metrics.

Each trouble is a threshold on means over the last lines, so that what is raised depends on nothing
but what is logged, and a resumed run raises the same. The numbers behind it come from the train
steps: see `symptoms`.
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

Line = Mapping[str, Any]

NOT_FINITE = "not_finite"

# Rules of thumb, see docs/troubles.md.
WINDOW = 5  # lines of metrics that a mean is taken over; nothing is raised before there are as many
MAX_ACCURACY = 0.98  # of the discriminator
MIN_GENERATOR_SLOPE = 0.02  # of the generator's loss by a logit
MIN_SWING = 1.0  # an oscillation has a margin of the logits of at least this mean size,
MAX_STEADINESS = 0.3  # and a mean margin of at most this fraction of that size
MAX_LOGIT = 100.0  # size of a mean logit
MIN_DIVERSITY = 0.3  # in units of that of real images
MAX_DUPLICATES = 0.5  # fraction of a batch that nearly equals another of its images
MIN_KL = 1.0  # nats per image
MIN_ACTIVE = 0.05  # fraction of the latent dimensions
MIN_SHARPNESS = 0.25  # in units of that of real images


class Trouble(NamedTuple):
    """A trouble that is there now.

    Attributes:
      name: of it, such as "mode_collapse".
      evidence: the numbers that it rests on.
      text: a sentence with these numbers.
      remedy: what to try, in names of config fields.
    """

    name: str
    evidence: dict[str, float]
    text: str
    remedy: str

    @property
    def sentence(self) -> str:
        """All of it for a person to read."""
        return f"{self.name.replace('_', ' ')}: {self.text} To try: {self.remedy}."


def look(stage: str, lines: Sequence[Line], config: ConfigDict) -> list[Trouble]:
    """Returns the troubles that a stage is in after its last line of metrics.

    None before there are `WINDOW` lines. Lines from the discriminator's warm-up, in which it wins
    as it should, do not count.

    Args:
      stage: "vae" or "gan".
      lines: of that stage, from its beginning.
      config: the run's config.
    """
    begin = _begin(stage, lines, config)
    if len(lines) - begin < WINDOW:
        return []
    now, first = _means(lines[-WINDOW:]), _means(lines[begin : begin + WINDOW])
    rules = _VAE_RULES if stage == "vae" else _GAN_RULES
    found = [rule(now, first, config) for rule in rules]
    return [trouble for trouble in found if trouble is not None]


def too_few(stage: str, lines: Sequence[Line], config: ConfigDict) -> bool:
    """Whether a stage has fewer lines of metrics than `look` needs to find anything."""
    return len(lines) - _begin(stage, lines, config) < WINDOW


def _begin(stage: str, lines: Sequence[Line], config: ConfigDict) -> int:
    """Returns the position of the first line that counts."""
    if stage == "vae":
        return 0
    warm = config.gan.discriminator_warmup_steps + config.training.log_every
    return bisect.bisect_left(lines, warm, key=lambda line: line["step"])


def held(stage: str, lines: Sequence[Line], config: ConfigDict) -> dict[str, list[int]]:
    """Returns the steps at which each trouble was there, of all lines of a stage."""
    steps: dict[str, list[int]] = {}
    for count in range(1, len(lines) + 1):
        for trouble in look(stage, lines[:count], config):
            steps.setdefault(trouble.name, []).append(lines[count - 1]["step"])
    return steps


def not_finite(what: str, step: int, stage: str) -> Trouble:
    """Returns the trouble of a number that is not finite, seen at a step of a stage."""
    return Trouble(
        NOT_FINITE,
        {},
        f"{what} was not finite at step {step}.",
        f"lower learning rates in config.{stage}",
    )


class _Means(dict[str, float]):
    """Means by name; what was not logged is not a number, with which no comparison is true."""

    def __missing__(self, name: str) -> float:
        return math.nan


Rule = Callable[[_Means, _Means, ConfigDict], Trouble | None]


def _means(lines: Sequence[Line]) -> _Means:
    names = set.intersection(*(set(line) for line in lines)) - {"stage", "step"}
    return _Means({name: sum(line[name] for line in lines) / len(lines) for name in names})


def _steps(config: ConfigDict) -> str:
    return f"over {WINDOW * config.training.log_every} steps"


def _overpowering(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    accuracy = now["discriminator_accuracy"]
    if not accuracy > MAX_ACCURACY:
        return None
    return Trouble(
        "discriminator_overpowering",
        {"discriminator_accuracy": accuracy},
        f"the discriminator was right about {accuracy:.1%} of the images {_steps(config)}.",
        "a higher gan.r1_weight, a lower gan.discriminator_learning_rate, gan.augmentations",
    )


def _vanishing(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    slope = now["generator_slope"]
    if not slope < MIN_GENERATOR_SLOPE:
        return None
    return Trouble(
        "vanishing_gradient",
        {"generator_slope": slope, "generator_gradient_norm": now["generator_gradient_norm"]},
        f"the generator's loss has a slope of {slope:.2g} in the discriminator's logits "
        f"{_steps(config)}, so that hardly anything of it reaches the generator.",
        "gan.objective=non_saturating instead of minimax, a weaker discriminator",
    )


def _oscillating(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    size, mean = now["absolute_margin"], abs(now["margin"])
    if not (size > MIN_SWING and mean < MAX_STEADINESS * size):
        return None
    return Trouble(
        "oscillation",
        {"absolute_margin": size, "margin": now["margin"]},
        f"the logits of real and fake images are {size:.2g} apart, but {mean:.2g} on average "
        f"{_steps(config)}: the two networks take turns, and neither gets on.",
        "lower learning rates, gan.b1 of 0.5 or 0, a penalty such as gan.r1_weight",
    )


def _gan_diverging(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    logit = max(abs(now["real_logit"]), abs(now["fake_logit"]))
    if not logit > MAX_LOGIT:
        return None
    return Trouble(
        "divergence",
        {"real_logit": now["real_logit"], "fake_logit": now["fake_logit"]},
        f"the discriminator's logits are {logit:.3g} in size {_steps(config)}.",
        "lower learning rates, a penalty such as gan.r1_weight, model.spectral_norm=True",
    )


def _collapsing(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    reasons = []
    if now["diversity"] < MIN_DIVERSITY:
        reasons.append(f"they lie {now['diversity']:.0%} as far apart as real images in pixels")
    if now["feature_diversity"] < MIN_DIVERSITY:
        reasons.append(
            f"{now['feature_diversity']:.0%} as far apart in the discriminator's features"
        )
    if now["near_duplicates"] > MAX_DUPLICATES:
        reasons.append(f"{now['near_duplicates']:.0%} of them nearly equal another of their batch")
    if not reasons:
        return None
    names = ("diversity", "feature_diversity", "near_duplicates")
    return Trouble(
        "mode_collapse",
        {name: now[name] for name in names},
        f"the generator's images are too much alike {_steps(config)}: {', '.join(reasons)}.",
        "a higher gan.r1_weight, larger batches, gan.objective=relativistic with both penalties, "
        "an earlier checkpoint",
    )


def _gan_blurring(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    return _blurring(now, config, "the generator's images", "longer training, a wider model")


def _vae_blurring(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    remedy = "a lower vae.kl_weight, vae.reconstruction=gaussian"
    return _blurring(now, config, "the reconstructions", remedy)


def _blurring(now: _Means, config: ConfigDict, what: str, remedy: str) -> Trouble | None:
    sharpness = now["sharpness"]
    if not sharpness < MIN_SHARPNESS:
        return None
    text = f"{what} have {sharpness:.1%} of the fine detail of real images {_steps(config)}."
    return Trouble("blur", {"sharpness": sharpness}, text, remedy)


def _vae_diverging(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    if not now["reconstruction"] > first["reconstruction"]:
        return None
    return Trouble(
        "divergence",
        {"reconstruction": now["reconstruction"], "at_first": first["reconstruction"]},
        f"the reconstruction term is {now['reconstruction']:.4g} nats {_steps(config)}, and was "
        f"{first['reconstruction']:.4g} at first.",
        "a lower vae.learning_rate",
    )


def _posterior_collapse(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    kl, active = now["kl"], now["active_units"]
    if not kl < MIN_KL:
        return None
    return Trouble(
        "posterior_collapse",
        {"kl": kl, "active_units": active, "largest_kl": now["largest_kl"]},
        f"the latent says {kl:.2g} nats about an image {_steps(config)}, and "
        f"{now['largest_kl']:.2g} of them in one dimension: the decoder does without it.",
        "a lower vae.kl_weight, vae.kl_schedule=linear with vae.kl_warmup_steps, vae.free_bits",
    )


def _ignored_latents(now: _Means, first: _Means, config: ConfigDict) -> Trouble | None:
    active, size = now["active_units"], config.model.latent_size
    if not active < MIN_ACTIVE * size:
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
