"""The evaluation of tiny networks, with its numbers recomputed by hand."""

import functools
import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from tests.evaluation import test_distances
from vaegan_jax import gan, networks, randomness, transfer, vae
from vaegan_jax.data.images import COMIC_FACES
from vaegan_jax.evaluation import batches, embeddings, evaluate, findings, vae_metrics
from vaegan_jax.evaluation.number import evaluation_key, random_subset
from vaegan_jax.randomness import Purpose

SHAPE = (16, 32, 3)
SEED = 0


class ArraySplit:
    """Images in memory with the interface of a `Split`."""

    def __init__(self, pixels):
        self.pixels, self.shape, self.image_shape = pixels, pixels.shape, pixels.shape[1:]

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, indices):
        return self.pixels[indices]

    def take(self, rows):
        return ArraySplit(self.pixels[rows])


class Data:
    """Training, validation and test images in memory."""

    def __init__(self, train, validation, test):
        self.train, self.validation, self.test = map(ArraySplit, (train, validation, test))
        self.shape = train.shape[1:]


def gradients(count, rng):
    y, x = np.mgrid[:16, :32, :3][:2] / 32
    a, b, c = rng.uniform(-1, 1, (3, count, 1, 1, 3))
    return np.clip(128 + 90 * (a * x + b * y + c), 0, 255).astype(np.uint8)


def made_data(train, validation, test):
    rng = np.random.default_rng(0)
    return Data(*(gradients(count, rng) for count in (train, validation, test)))


@pytest.fixture(scope="module")
def data():
    return made_data(150, 85, 90)


@pytest.fixture
def config(config):
    config.evaluation.samples = 60
    config.evaluation.max_reference_images = 100
    config.evaluation.max_likelihood_images = 12
    config.evaluation.iwae_samples = 3
    config.evaluation.curve_samples = 40
    return config


@pytest.fixture
def models(config):
    size = config.model.latent_size
    params = jax.jit(functools.partial(vae.init, config, SHAPE))().params
    generator = jax.jit(functools.partial(gan.random_init, config, SHAPE))().generator
    factor = jnp.asarray(np.tril(np.random.default_rng(3).normal(size=(size, size))), jnp.float32)
    return evaluate.Models(
        params["encoder"],
        params["decoder"],
        generator,
        jax.tree.map(lambda leaf: 1.5 * leaf, generator),
        jnp.linspace(-1, 1, size),
        factor,
    )


def no_progress(label):
    return batches.no_progress


def run(config, data, models):
    made = [embeddings.make("pixels")]
    result = evaluate.evaluate(config, data, models, made, no_progress)
    return result, {(n.subject, n.against, n.metric): n for n in result.numbers}


def latents(config, noise="normal", count=60, index=0):
    """Latents recomputed from the documented key."""
    key = evaluation_key(SEED, index, Purpose.LATENT)
    return randomness.latents(key, (count, config.model.latent_size), noise)


def decoded(config, params, z):
    decoder = networks.make_decoder(config.model, SHAPE)
    images = np.tanh(np.asarray(decoder.apply({"params": params}, z), np.float64))
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)


def features(images):
    return np.asarray(embeddings.make("pixels").embed(None, jnp.asarray(images)))


def frechet(real, fake):
    return test_distances.frechet(features(real), features(fake))


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_distances_floors_and_errors_match_recomputation(config, data, models, noise):
    config.gan.noise = noise
    _, numbers = run(config, data, models)
    train = data.train[random_subset(SEED, 0, 150, 100)]
    test = data.test.pixels
    z = latents(config, noise)
    sets = {
        "vae_samples": decoded(config, models.decoder, latents(config)),
        "matched_samples": decoded(
            config, models.decoder, models.latent_mean[None] + z @ models.latent_factor.T
        ),
        "gan_raw_samples": decoded(config, models.raw_generator, z),
        "gan_samples": decoded(config, models.generator, z),
    }
    rows = random_subset(SEED, 4, 100, 60)
    for index, (subject, images) in zip((0, 1, 3, 4), sets.items(), strict=True):
        number = numbers[subject, "test", "fd_n60"]
        np.testing.assert_allclose(number.value, frechet(test, images), rtol=2e-3)
        assert (number.count, number.reference_count, number.embedding) == (60, 90, "pixels")
        # The floor: the same number of training images.
        np.testing.assert_allclose(number.floor, frechet(test, train[rows]), rtol=2e-3)
        # The error: a jackknife over ten groups of six images.
        order = jax.random.permutation(evaluation_key(SEED, index, Purpose.DEALING), 60)
        values = [
            frechet(test, np.delete(images, group, axis=0))
            for group in np.asarray(order).reshape(10, 6)
        ]
        error = np.sqrt(0.9 * np.square(values - np.mean(values)).sum())
        np.testing.assert_allclose(number.error, error, rtol=0.03)


def test_numbers_of_a_network_do_not_depend_on_the_others(config, data, models):
    result, numbers = run(config, data, evaluate.Models(*models[:2], None))
    assert {key[0] for key in numbers} == {"vae", "vae_samples", "vae_reconstructions"}
    assert result.units is not None
    scratch, numbers = run(config, data, evaluate.Models(None, None, *models[2:4]))
    assert {key[0] for key in numbers} == {"gan_raw_samples", "gan_samples"}
    assert scratch.units is None
    _, both = run(config, data, models)
    for key, number in numbers.items():
        assert both[key].value == number.value


def test_floors_require_enough_real_images(config, data, models):
    models = models._replace(encoder=None)
    config.evaluation.samples = 95  # there are 90 test images, and 100 training images are used
    _, numbers = run(config, data, models)
    assert numbers["gan_samples", "test", "fd_n95"].floor is not None
    assert numbers["gan_samples", "", "vendi"].floor is None
    assert numbers["gan_samples", "train", "authenticity"].floor is None
    config.evaluation.samples = 120
    _, numbers = run(config, data, models)
    assert numbers["gan_samples", "test", "fd_n120"].floor is None
    config.evaluation.samples = 0
    _, numbers = run(config, data, models)
    assert {n.count for n in numbers.values()} == {90}  # as many as test images


def test_pairs_are_samples_with_their_nearest_images(config, data, models):
    config.evaluation.max_reference_images = 0
    result, _ = run(config, data, models)
    shown, train, test = result.pairs
    assert shown.shape == train.shape == test.shape == (16, *SHAPE)
    for real, nearest in ((data.train, train), (data.test, test)):
        every = ((features(shown)[:, None] - features(real.pixels)[None]) ** 2).sum(axis=-1)
        pairwise = ((features(shown) - features(nearest)) ** 2).sum(axis=-1)
        np.testing.assert_allclose(pairwise, every.min(axis=1), rtol=1e-3)
    # They are different samples of the generator.
    generated = decoded(config, models.generator, latents(config)).astype(int)
    difference = np.abs(shown[:, None].astype(int) - generated[None]).max(axis=(2, 3, 4))
    assert (difference.min(axis=1) <= 1).all()
    assert len(set(difference.argmin(axis=1))) == 16


def test_matched_decoder_without_a_gan_step_is_no_progress(config, data, models):
    initial = gan.identity_init(models.decoder, config.model.latent_size)
    moments = transfer.aggregated_posterior(config, models.encoder, data.train)
    initial = transfer.match_posterior(initial, *moments)
    models = evaluate.Models(
        models.encoder,
        models.decoder,
        initial.generator,
        initial.generator,
        initial.latent_mean,
        initial.latent_factor,
    )
    result, numbers = run(config, data, models)
    values = [numbers[f"{name}_samples", "test", "fd_n60"].value for name in ("matched", "gan")]
    np.testing.assert_allclose(*values, rtol=1e-2)
    first = findings.find(result.numbers, config.model.latent_size)[0]
    assert first.name == "Progress is not resolved"


@pytest.fixture(scope="module")
def faces():
    """400 comic faces to compare with, and 100 others."""
    with zipfile.ZipFile(COMIC_FACES) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".png"))[:500]
        pixels = [np.array(Image.open(file.open(name)).convert("RGB")) for name in names]
    pixels = np.stack(pixels)
    return Data(pixels[:300], pixels[300:340], pixels[300:400]), pixels[400:]


def spoiled(images, how):
    rng = np.random.default_rng(0)
    if how == "blurred":
        images = scipy.ndimage.gaussian_filter(images.astype(float), (0, 1, 1, 0))
    elif how == "noisy":
        images = images + rng.normal(0, 20, images.shape)
    elif how == "collapsed":
        images = images[:3].repeat(40, axis=0)[:100] + rng.normal(0, 1, images.shape)
    elif how == "latticed":
        images = images + 8.0 * (np.indices((64, 64)).sum(axis=0) % 2 * 2 - 1)[..., None]
    return np.clip(np.round(images), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("real", None),
        ("blurred", "Blur"),
        ("noisy", "Noise"),
        ("collapsed", "Mode collapse"),
        ("latticed", "Lattice"),
        ("copied", "Memorisation"),
    ],
)
def test_failures_are_named(config, faces, models, monkeypatch, how, name):
    data, others = faces
    config.evaluation.max_reference_images = 0
    only = evaluate.Models(None, None, models.generator)
    samples = data.train.pixels[::3] if how == "copied" else spoiled(others, how)
    monkeypatch.setattr(evaluate, "sample", lambda *_: {"gan_samples": samples})
    result, _ = run(config, data, only)
    found = [finding.name for finding in findings.find(result.numbers, config.model.latent_size)]
    assert name in found if name else found == []


def test_vae_numbers_match_recomputation(config, data, models):
    params = {"encoder": models.encoder, "decoder": models.decoder}
    numbers, reconstructions, units = vae_metrics.evaluate_vae(
        config, params, data.train, data.test, 50, no_progress
    )
    originals = data.test[random_subset(SEED, 3, 90, 50)]
    encoder = networks.make_encoder(config.model, SHAPE)
    decoder = networks.make_decoder(config.model, SHAPE)
    mean, _ = encoder.apply({"params": models.encoder}, originals / 127.5 - 1)
    images = np.tanh(np.asarray(decoder.apply({"params": models.decoder}, mean), np.float64))
    assert np.abs(reconstructions - (images + 1) * 127.5).max() <= 0.51
    np.testing.assert_allclose(units[0], np.mean(mean, axis=0), atol=1e-5)
    np.testing.assert_allclose(units[1], np.var(mean, axis=0), rtol=1e-3)
    numbers = {number.metric: number for number in numbers}
    assert numbers["active_units"].value == (np.var(mean, axis=0) > 0.01).sum()
    errors = (reconstructions / 255.0 - originals / 255.0) ** 2
    psnr = -10 * np.log10(errors.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(numbers["psnr"].value, psnr.mean(), rtol=1e-4)
    np.testing.assert_allclose(numbers["psnr"].error, psnr.std(ddof=1) / 50**0.5, rtol=1e-3)
    assert numbers["kl_nats"].count == 12
    elbo = numbers["calibrated_elbo_bits_per_dim"]
    assert numbers["calibrated_iwae_3_bits_per_dim"].value <= elbo.value


@pytest.mark.parametrize("few", range(3))
def test_too_few_images_are_described(few):
    assert evaluate.shortage(made_data(40, 40, 40)) == ""
    counts = [40, 40, 40]
    counts[few] = 39
    text = evaluate.shortage(made_data(*counts))
    assert re.search(r"at least 40 .* evaluation\.embeddings=none", text)


def test_measure_during_training_equals_recomputed_distances(config, data, models):
    measure = evaluate.make_measure(config, data, [embeddings.make("pixels")])
    values = measure(models.generator, "normal")
    images = decoded(config, models.generator, latents(config, count=40, index=2))
    validation, train = data.validation[np.arange(80)], data.train[np.arange(40)]
    np.testing.assert_allclose(values["fd_n40_pixels"], frechet(validation, images), rtol=2e-3)
    floor = frechet(validation, train)
    np.testing.assert_allclose(values["fd_n40_pixels_floor"], floor, rtol=2e-3)
