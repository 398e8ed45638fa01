"""Every config field, once: its default, the values that it allows, and its meaning."""

from typing import Any, NamedTuple

from vaegan_jax import registry
from vaegan_jax.config.rules import (
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
    NORM,
    POSITIVE,
    SAMPLES,
    SEED,
    SEEDS,
    SIZE,
    TEXT,
    VARIANTS,
    Rule,
    at_least,
    losses,
    one_loss,
    one_of,
)


class Field(NamedTuple):
    """One field of the config."""

    default: Any
    rule: Rule
    meaning: str


_0_AUTOMATIC = "0 is automatic, see recipe.py"

FIELDS: dict[str, Field] = {
    "seed": Field(0, SEED, "the source of every random draw of the run"),
    "seeds": Field((), SEEDS, "one run per seed, each in its own folder; replaces seed"),
    "variants": Field(
        (), VARIANTS, 'one run per variant, such as ("warm", "scratch: transfer.generator=scratch")'
    ),
    # Data.
    "data.name": Field("comic_faces", DATA_NAME, "comic_faces, folder, or a TFDS data set"),
    "data.path": Field("", TEXT, "folder or zip of images, for data.name=folder"),
    "data.split": Field("train", NON_EMPTY, "split of a TFDS data set, in TFDS's notation"),
    "data.feature": Field("", TEXT, "image feature of a TFDS data set; inferred by type if empty"),
    "data.directory": Field("", TEXT, "folder of prepared data; TFDS's default if empty"),
    "data.image_size": Field(64, SIZE, "in pixels: one number, or (height, width)"),
    "data.channels": Field(3, CHANNELS, "3 for RGB, 1 for grey"),
    "data.fit": Field(
        "crop", one_of("crop", "pad", "stretch"), "how an image of another aspect ratio is fitted"
    ),
    "data.background": Field(
        "white", COLOUR, "of transparent pixels, and of the margins of fit=pad"
    ),
    "data.held_out_one_in": Field(
        8,
        at_least(2),
        "one image in this many is a test image and, of 1,500 images or more, half as many are "
        "validation images",
    ),
    "data.max_bad_fraction": Field(
        0.1, FRACTION, "of unusable files, above which a run is refused"
    ),
    "data.flip": Field(False, BOOL, "flip training images horizontally at random"),
    "data.max_resident_mb": Field(2_000.0, NON_NEGATIVE, "larger data is streamed; same bits"),
    "data.workers": Field(0, at_least(0), "threads that read images; 0 for one per core"),
    # Networks, shared by both stages.
    "model.base_width": Field(
        32, at_least(1), "channels of the first level; they double at each level"
    ),
    "model.max_width": Field(512, at_least(1), "up to which the channels double"),
    "model.latent_size": Field(128, at_least(1), "dimensions of the latent space"),
    "model.norm": Field("group", NORM, "normalisation in encoder, decoder and generator"),
    "model.discriminator_norm": Field("none", NORM, "normalisation in the discriminator"),
    "model.spectral_norm": Field(False, BOOL, "spectral normalisation of the discriminator"),
    "model.dtype": Field("float32", one_of("float32", "bfloat16"), "compute dtype of the networks"),
    # The VAE stage.
    "vae.steps": Field(0, at_least(0), f"train steps; {_0_AUTOMATIC}"),
    "vae.batch_size": Field(0, at_least(0), f"images per step; {_0_AUTOMATIC}"),
    "vae.learning_rate": Field(1e-3, POSITIVE, "Adam's learning rate"),
    "vae.b1": Field(0.9, BELOW_ONE, "Adam's decay of the first moment"),
    "vae.b2": Field(0.999, BELOW_ONE, "Adam's decay of the second moment"),
    "vae.start": Field("", TEXT, "run, export or pretrained whose VAE training begins with"),
    "vae.reconstruction": Field("squared_error", one_loss("reconstruction"), "reconstruction term"),
    "vae.terms": Field("", losses("vae_term"), "further terms of the loss, such as mmd(weight=10)"),
    "vae.decoder_variance": Field(
        "optimal",
        one_of("optimal", "learned"),
        "for reconstruction=gaussian: the maximum likelihood for each batch, or a parameter",
    ),
    "vae.kl_weight": Field(
        1.0, NON_NEGATIVE, "weight of the KL term; twice the decoder's variance for squared_error"
    ),
    "vae.kl_schedule": Field("constant", one_of(*registry.BUILT_IN["kl_schedule"]), "KL annealing"),
    "vae.kl_warmup_steps": Field(0, at_least(0), "steps of kl_schedule=linear from 0 to kl_weight"),
    "vae.kl_cycles": Field(4, at_least(1), "cycles of kl_schedule=cyclical"),
    "vae.free_bits": Field(0.0, NON_NEGATIVE, "nats per latent dimension without KL penalty"),
    # The transfer from the VAE to the GAN.
    "transfer.generator": Field(
        "vae", one_of("vae", "scratch"), "initialise from the VAE's decoder, or randomly (no VAE)"
    ),
    "transfer.vae": Field(
        "", TEXT, "a finished run, an export or pretrained, whose VAE is used; none is trained then"
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
    "gan.steps": Field(0, at_least(0), f"train steps, including the warm-up; {_0_AUTOMATIC}"),
    "gan.batch_size": Field(0, at_least(0), f"real images per step, and fake ones; {_0_AUTOMATIC}"),
    "gan.start": Field("", TEXT, "run, export or pretrained whose generator training begins with"),
    "gan.objective": Field("non_saturating", one_loss("objective"), "losses of both networks"),
    "gan.penalties": Field(
        "auto",
        losses("penalty", automatic=True),
        "terms of the discriminator's loss, such as r1(weight=3, every=4): computed at every 4th "
        "step and multiplied by 4",
    ),
    "gan.generator_terms": Field(
        "",
        losses("generator_term"),
        "terms of the generator's loss, such as mode_seeking(weight=0.1)",
    ),
    "gan.augmentations": Field(
        "auto", losses("augmentation", automatic=True), "of the discriminator's inputs"
    ),
    "gan.discriminator_steps": Field(1, at_least(1), "the generator is updated at its multiples"),
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
        0.0, NON_NEGATIVE, f"of the generator's EMA in images, shorter at first; {_0_AUTOMATIC}"
    ),
    # The training loop of both stages.
    "training.log_every": Field(100, at_least(1), "steps between lines of metrics"),
    "training.picture_every": Field(1_000, at_least(1), "steps between image grids"),
    "training.checkpoint_every": Field(1_000, at_least(1), "steps between checkpoints"),
    "training.max_checkpoints": Field(3, at_least(1), "newest checkpoints kept per stage"),
    "training.seconds_per_call": Field(2.0, POSITIVE, "target duration of one jitted call"),
    # The evaluation.
    "evaluation.embeddings": Field(
        "efflite0,alexnet", EMBEDDINGS, "features to compare images in, or none; comma-separated"
    ),
    "evaluation.weights": Field("", TEXT, "file for inception; in ~/.cache/vaegan_jax if empty"),
    "evaluation.samples": Field(
        0, SAMPLES, "samples per model, 0 for the number of test images; at most 10,000"
    ),
    "evaluation.max_reference_images": Field(
        50_000, SAMPLES, "training images and test images to compare with, each; 0 for all"
    ),
    "evaluation.max_likelihood_images": Field(1_000, at_least(2), "test images for likelihoods"),
    "evaluation.iwae_samples": Field(64, at_least(1), "K of the IWAE bound"),
    "evaluation.curve_every": Field(1_000, at_least(0), "steps between evaluations; 0 for none"),
    "evaluation.curve_samples": Field(500, at_least(MIN_SAMPLES), "samples per such evaluation"),
}
