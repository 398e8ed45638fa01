"""The automatic recipe: training settings that follow from the data.

A config that leaves a field of `AUTOMATIC` at its default leaves the choice to `resolve`. The
chosen values stand in the run's config.json, and a run that resumes keeps them.
"""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vaegan_jax import config as configuration

AUTOMATIC = (
    "vae.steps",
    "vae.batch_size",
    "gan.steps",
    "gan.batch_size",
    "gan.penalties",
    "gan.augmentations",
    "gan.ema_half_life_images",
)
BATCH_SIZE = 8
VAE_BATCH_SIZE = 16
IMAGES_PER_TRAINING_IMAGE = 25
MIN_IMAGES, MAX_IMAGES = 100_000, 1_000_000
VAE_SHARE = 12
"""GAN steps per VAE step."""
MIN_VAE_STEPS = 600
EMA_SHARE = 20
MIN_HALF_LIFE, MAX_HALF_LIFE = 1_000.0, 10_000.0
R1_WEIGHT, R1_EVERY = 3.0, 4
"""The weight at 64x64 pixels, and the interval in steps."""
MAX_VIEWS = 100
"""Times that the discriminator sees a training image before augmentation is used."""


def resolve(config: ConfigDict, count: int, image_shape: tuple[int, int, int]) -> ConfigDict:
    """Returns a copy of a config whose automatic fields have values.

    Explicit fields are kept, and the others follow them: with an explicit ``gan.batch_size``, the
    number of steps is chosen for that batch.

    Args:
      config: a checked config.
      count: the number of training images.
      image_shape: (height, width, channels).
    """
    pixels = image_shape[0] * image_shape[1] / 64**2
    shown = min(max(IMAGES_PER_TRAINING_IMAGE * count, MIN_IMAGES), MAX_IMAGES)
    config = copy.deepcopy(config)

    def choose(name: str, value: Any) -> Any:
        section, _, field = name.partition(".")
        if is_automatic(name, config[section][field]):
            config[section][field] = value
        return config[section][field]

    batch_size = choose("gan.batch_size", min(BATCH_SIZE, count))
    gan_steps = choose("gan.steps", shown // batch_size + config.gan.discriminator_warmup_steps)
    choose("vae.batch_size", min(VAE_BATCH_SIZE, count))
    choose("vae.steps", max(gan_steps // VAE_SHARE, MIN_VAE_STEPS))
    shown = gan_steps * batch_size
    half_life = min(max(shown / EMA_SHARE, MIN_HALF_LIFE), MAX_HALF_LIFE)
    choose("gan.ema_half_life_images", half_life)
    choose("gan.penalties", f"r1(weight={R1_WEIGHT * pixels}, every={R1_EVERY})")
    choose("gan.augmentations", "colour,translation" if shown > MAX_VIEWS * count else "")
    return config


def keep(config: ConfigDict, saved: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of a config whose automatic fields have the values of a saved config."""
    flat = configuration.flatten(config)
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(
        {name: saved[name] for name in flat if is_automatic(name, flat[name]) and name in saved}
    )
    return config


def is_automatic(name: str, value: Any) -> bool:
    """Returns whether a field is left to `resolve`."""
    return name in AUTOMATIC and bool(value == configuration.FIELDS[name].default)
