"""Every config field, once: its default, the values that it allows, and its meaning.

Files in configs/ override `default_config`, the command line overrides those, and `check` runs
before anything is computed. No JAX is imported here.
"""

import ast
import contextlib
import json
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict, FieldReference

from vaegan_jax import migrations, registry
from vaegan_jax.errors import UserError
from vaegan_jax.rules import (
    BELOW_ONE,
    BOOL,
    CHANNELS,
    COLOUR,
    DATA_NAME,
    EMBEDDINGS,
    FRACTION,
    MIN_SAMPLES,
    NON_EMPTY,
    NON_NEGATIVE,
    POSITIVE,
    SAMPLES,
    SEED,
    SEEDS,
    SIZE,
    TEXT,
    VARIANTS,
    Field,
    Resume,
    at_least,
    inconsistencies,
    losses,
    one_loss,
    one_of,
)

_0_AUTOMATIC = "0 is automatic, see recipe.py"

FIELDS: dict[str, Field] = {
    "seed": Field(0, SEED, "the source of every random draw of the run"),
    "seeds": Field((), SEEDS, "one run per seed, each in its own folder; replaces seed"),
    "variants": Field(
        (), VARIANTS, 'one run per variant, such as ("warm", "scratch: transfer.generator=scratch")'
    ),
    # Data.
    "data.name": Field(
        "comic_faces", DATA_NAME, "comic_faces, folder (with data.path), or a TFDS data set"
    ),
    "data.path": Field("", TEXT, "folder or zip of images, for data.name=folder", Resume.ALWAYS),
    "data.split": Field("train", NON_EMPTY, "split of a TFDS data set, in TFDS's notation"),
    "data.feature": Field("", TEXT, "image feature of a TFDS data set; inferred by type if empty"),
    "data.directory": Field(
        "", TEXT, "where prepared data is stored; TFDS's default folder if empty", Resume.ALWAYS
    ),
    "data.image_size": Field(64, SIZE, "in pixels: one number, or (height, width)"),
    "data.channels": Field(3, CHANNELS, "3 for RGB, 1 for grey"),
    "data.fit": Field(
        "crop", one_of("crop", "pad", "stretch"), "how an image of another aspect ratio is fitted"
    ),
    "data.background": Field(
        "white", COLOUR, "colour behind transparent pixels, and of the margins of fit=pad"
    ),
    "data.held_out_one_in": Field(
        8,
        at_least(2),
        "one image in this many is a test image and, of 1,500 images or more, half as many are "
        "validation images, chosen by a hash of the pixels",
    ),
    "data.max_bad_fraction": Field(
        0.1, FRACTION, "of unusable files, above which the run is refused"
    ),
    "data.flip": Field(False, BOOL, "flip training images horizontally at random"),
    "data.max_resident_mb": Field(
        2_000.0,
        NON_NEGATIVE,
        "larger data sets are streamed to the device; same bits",
        Resume.ALWAYS,
    ),
    "data.workers": Field(
        0, at_least(0), "threads for preparation and streaming; 0 for one per core", Resume.ALWAYS
    ),
    # Networks, shared by both stages.
    "model.base_width": Field(
        32, at_least(1), "channels of the first level; they double at each level"
    ),
    "model.max_width": Field(512, at_least(1), "up to which the channels double"),
    "model.latent_size": Field(128, at_least(1), "dimensions of the latent space"),
    "model.norm": Field(
        "group", one_of("group", "none"), "normalisation in encoder, decoder and generator"
    ),
    "model.discriminator_norm": Field(
        "none", one_of("group", "none"), "normalisation in the discriminator"
    ),
    "model.spectral_norm": Field(
        False, BOOL, "spectral normalisation of the discriminator's kernels"
    ),
    "model.dtype": Field(
        "float32", one_of("float32", "bfloat16"), "compute dtype; parameters are float32"
    ),
    # The VAE stage.
    "vae.steps": Field(0, at_least(0), f"train steps; {_0_AUTOMATIC}", Resume.AHEAD),
    "vae.batch_size": Field(0, at_least(0), f"images per step; {_0_AUTOMATIC}"),
    "vae.learning_rate": Field(1e-3, POSITIVE, "Adam's learning rate"),
    "vae.b1": Field(0.9, BELOW_ONE, "Adam's decay of the first moment"),
    "vae.b2": Field(0.999, BELOW_ONE, "Adam's decay of the second moment"),
    "vae.start": Field(
        "", TEXT, "a run, an export or pretrained, whose VAE's parameters training begins with"
    ),
    "vae.reconstruction": Field(
        "squared_error", one_loss("reconstruction"), "reconstruction term of the loss"
    ),
    "vae.terms": Field("", losses("vae_term"), "further terms of the loss, such as mmd(weight=10)"),
    "vae.decoder_variance": Field(
        "optimal",
        one_of("optimal", "learned"),
        "for reconstruction=gaussian: the maximum likelihood for each batch, or a parameter",
    ),
    "vae.kl_weight": Field(
        1.0, NON_NEGATIVE, "weight of the KL term; twice the decoder's variance for squared_error"
    ),
    "vae.kl_schedule": Field(
        "constant", one_of(*registry.BUILT_IN["kl_schedule"]), "KL annealing schedule"
    ),
    "vae.kl_warmup_steps": Field(0, at_least(0), "steps of kl_schedule=linear from 0 to kl_weight"),
    "vae.kl_cycles": Field(4, at_least(1), "cycles of kl_schedule=cyclical"),
    "vae.free_bits": Field(
        0.0, NON_NEGATIVE, "nats per latent dimension below which the KL is not penalised"
    ),
    # The transfer from the VAE to the GAN.
    "transfer.generator": Field(
        "vae",
        one_of("vae", "scratch"),
        "initialise from the VAE's decoder, or randomly without training a VAE",
    ),
    "transfer.vae": Field(
        "",
        TEXT,
        "a finished run, an export or pretrained, whose VAE is used; none is trained if it is set",
        Resume.ALWAYS,
    ),
    "transfer.discriminator": Field(
        "scratch",
        one_of("scratch", "encoder", "start"),
        "initialise randomly, from the VAE's encoder with a random head, or from gan.start",
    ),
    "transfer.match_posterior": Field(
        True, BOOL, "fold the aggregated posterior's mean and covariance into the first layer"
    ),
    # The GAN stage.
    "gan.steps": Field(
        0,
        at_least(0),
        f"train steps, including discriminator_warmup_steps; {_0_AUTOMATIC}",
        Resume.AHEAD,
    ),
    "gan.batch_size": Field(
        0, at_least(0), f"real images per step, and fake images per step; {_0_AUTOMATIC}"
    ),
    "gan.start": Field(
        "", TEXT, "a run, an export or pretrained, whose generator (EMA) training begins with"
    ),
    "gan.objective": Field(
        "non_saturating", one_loss("objective"), "losses of generator and discriminator"
    ),
    "gan.penalties": Field(
        "auto",
        losses("penalty", automatic=True),
        "terms of the discriminator's loss, such as r1(weight=3, every=4): computed at every 4th "
        "step and multiplied by 4",
    ),
    "gan.generator_terms": Field(
        "",
        losses("generator_term"),
        "further terms of the generator's loss, such as mode_seeking(weight=0.1)",
    ),
    "gan.augmentations": Field(
        "auto", losses("augmentation", automatic=True), "of the discriminator's inputs"
    ),
    "gan.discriminator_steps": Field(
        1, at_least(1), "the generator is updated at multiples of this"
    ),
    "gan.noise": Field(
        "normal",
        one_of("normal", "uniform", "truncated_normal"),
        "distribution of the latents, unit variance",
    ),
    "gan.generator_learning_rate": Field(1e-3, POSITIVE, "learning rate of the generator's Adam"),
    "gan.discriminator_learning_rate": Field(
        1e-3, POSITIVE, "learning rate of the discriminator's Adam"
    ),
    "gan.b1": Field(0.5, BELOW_ONE, "decay of the first moment, of both optimizers"),
    "gan.b2": Field(0.99, BELOW_ONE, "decay of the second moment, of both optimizers"),
    "gan.discriminator_warmup_steps": Field(
        50, at_least(0), "initial steps that train the discriminator only"
    ),
    "gan.ema_half_life_images": Field(
        0.0,
        NON_NEGATIVE,
        f"half-life of the generator's EMA in images, shorter at first; {_0_AUTOMATIC}",
    ),
    # The training loop of both stages.
    "training.log_every": Field(100, at_least(1), "steps between lines of metrics", Resume.AHEAD),
    "training.picture_every": Field(1_000, at_least(1), "steps between image grids", Resume.AHEAD),
    "training.checkpoint_every": Field(
        1_000, at_least(1), "steps between checkpoints", Resume.AHEAD
    ),
    "training.max_checkpoints": Field(
        3, at_least(1), "newest checkpoints kept per stage", Resume.ALWAYS
    ),
    "training.seconds_per_call": Field(
        2.0, POSITIVE, "target duration of one jitted call", Resume.ALWAYS
    ),
    # The evaluation.
    "evaluation.embeddings": Field(
        "efflite0,alexnet",
        EMBEDDINGS,
        "features in which images are compared, comma-separated; none disables the evaluation",
        Resume.ALWAYS,
    ),
    "evaluation.weights": Field(
        "", TEXT, "inception: weights file; in ~/.cache/vaegan_jax if empty", Resume.ALWAYS
    ),
    "evaluation.samples": Field(
        0,
        SAMPLES,
        "samples per model, 0 for the number of test images; at most 10,000",
        Resume.ALWAYS,
    ),
    "evaluation.max_reference_images": Field(
        50_000,
        SAMPLES,
        "training images and test images to compare with, each; 0 for all",
        Resume.ALWAYS,
    ),
    "evaluation.max_likelihood_images": Field(
        1_000, at_least(2), "test images for the likelihood bounds", Resume.ALWAYS
    ),
    "evaluation.iwae_samples": Field(64, at_least(1), "K of the IWAE bound", Resume.ALWAYS),
    "evaluation.curve_every": Field(
        1_000, at_least(0), "steps between evaluations during training; 0 for none", Resume.ALWAYS
    ),
    "evaluation.curve_samples": Field(
        500, at_least(MIN_SAMPLES), "samples per evaluation during training", Resume.ALWAYS
    ),
}

AUTOMATIC = {
    "vae.steps": 0,
    "vae.batch_size": 0,
    "gan.steps": 0,
    "gan.batch_size": 0,
    "gan.penalties": "auto",
    "gan.ema_half_life_images": 0.0,
    "gan.augmentations": "auto",
}
"""The value of a field that leaves its choice to `recipe.resolve`."""


def default_config() -> ConfigDict:
    """Returns the default config, locked: fields can be set, but not added."""
    config = ConfigDict()
    for name, field in FIELDS.items():
        section, _, last = name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        # Without a field type, ml_collections would convert what is assigned to a tuple, such as a
        # dict to its keys. `check` refuses wrong types instead.
        is_tuple = name in ("seeds", "variants", "data.image_size")
        value = FieldReference(field.default, field_type=object) if is_tuple else field.default
        (config[section] if section else config)[last] = value
    return config.lock()


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Returns ``{"gan.steps": 20000, ...}`` sorted by name, with tuples as lists.

    A dict assigned to a field stays that field's value, so that `check` refuses it.
    """

    def leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and name not in FIELDS:
                yield from leaves(value, f"{name}.")
            else:
                yield name, list(value) if isinstance(value, tuple) else value

    return dict(sorted(leaves(config.to_dict(), "")))


def to_json(config: ConfigDict) -> str:
    """Returns the flattened config as JSON, one field per line."""
    return json.dumps(flatten(config), indent=2) + "\n"


def set_field(config: ConfigDict, override: str) -> str:
    """Sets one field of a config in place.

    The value is a Python literal or plain text: ``gan.steps=900``, ``data.image_size=(32, 48)``,
    ``transfer.generator=scratch``. `config.check` checks its range.

    Returns:
      The field's name.

    Raises:
      UserError: if there is no such field, or the value has another type than the field.
    """
    field, equals, text = (part.strip() for part in override.partition("="))
    if not equals:
        raise UserError(f"{override.strip()!r} does not set a field: write FIELD=VALUE.")
    if field not in FIELDS:
        raise unknown_field(field)
    default = FIELDS[field].default
    value: Any = text
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    if isinstance(default, str) and not isinstance(value, str):
        value = text
    try:
        config.update_from_flattened_dict({field: value})
    except TypeError as error:
        raise UserError(
            f"{field} cannot be {text!r}: set a value of the same type as the default, {default!r}."
        ) from error
    return field


def unknown_field(name: str) -> UserError:
    """Returns the error for a field that does not exist, see `migrations.unknown_field`."""
    return migrations.unknown_field(name, FIELDS)


def check(config: ConfigDict) -> None:
    """Checks every field, and that the fields are consistent.

    Raises:
      UserError: for the first field that is unknown, missing or not allowed, by name.
    """
    values = flatten(config)
    for name in values:
        if name not in FIELDS:
            raise unknown_field(name)
    for name, field in FIELDS.items():
        if name not in values:
            raise UserError(
                f"The config lacks {name}: start from vaegan_jax.config.default_config()."
            )
        if not field.rule.allows(values[name]):
            raise UserError(f"{name} must be {field.rule.text}, and is {values[name]!r}.")
    defaults = {name: field.default for name, field in FIELDS.items()}
    for text in inconsistencies(config, values, defaults):
        raise UserError(text)
