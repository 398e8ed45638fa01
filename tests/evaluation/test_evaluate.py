"""The evaluation of tiny networks, with its numbers recomputed by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import gan, networks, randomness, vae
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import batches, distances, embeddings, evaluate, vae_metrics
from vaegan_jax.evaluation.number import evaluation_key, random_subset
from vaegan_jax.randomness import Purpose

SHAPE = (16, 32, 3)


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
    """Training and test images in memory; the latter also serve as validation images."""

    shape = SHAPE

    def __init__(self, train, test):
        y, x = np.mgrid[:16, :32, :3][:2] / 32
        rng = np.random.default_rng(0)

        def draw(count):
            a, b, c = rng.uniform(-1, 1, (3, count, 1, 1, 3))
            pixels = np.clip(128 + 90 * (a * x + b * y + c), 0, 255).astype(np.uint8)
            return ArraySplit(pixels)

        self.train, self.test = draw(train), draw(test)
        self.validation = self.test


@pytest.fixture(scope="module")
def data():
    return Data(150, 90)


@pytest.fixture
def config(config):
    config.evaluation.samples = 60
    config.evaluation.max_reference_images = 100
    config.evaluation.path_samples = 10
    config.evaluation.max_likelihood_images = 12
    config.evaluation.iwae_samples = 3
    config.evaluation.curve_samples = 40
    return config


@pytest.fixture
def models(config):
    params = jax.jit(functools.partial(vae.init, config, SHAPE))().params
    generator = jax.jit(functools.partial(gan.random_init, config, SHAPE))().generator
    return evaluate.Models(params["encoder"], params["decoder"], generator)


def run(config, data, models, embedding=None, statistics=None):
    embedding = embedding or embeddings.make("pixels")
    result = evaluate.evaluate(config, data, models, embedding, statistics, batches.no_progress)
    return result, {(n.subject, n.against, n.metric): n for n in result.numbers}


def samples(config, params, noise="normal", count=60, index=0):
    """Samples recomputed from the documented key."""
    key = evaluation_key(config.seed, index, Purpose.LATENT)
    z = randomness.latents(key, (count, config.model.latent_size), noise)
    decoder = networks.make_decoder(config.model, SHAPE)
    images = np.tanh(np.asarray(decoder.apply({"params": params}, z), np.float64))
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)


def features(images):
    return np.asarray(embeddings.make("pixels").embed(None, jnp.asarray(images)))


def frechet(real, fake):
    return distances.frechet_from_statistics(
        *(distances.statistics(features(x)) for x in (real, fake))
    )


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_distances_floors_and_errors_match_recomputation(config, data, models, noise):
    config.gan.noise = noise
    _, numbers = run(config, data, models)
    train = data.train[random_subset(evaluation_key(0, 0, Purpose.SUBSET), 150, 100)]
    held_out = data.test.pixels
    sets = {
        "vae_samples": samples(config, models.decoder),
        "gan_samples": samples(config, models.generator, noise),
    }
    for index, (subject, images) in zip((0, 2), sets.items(), strict=True):
        order = jax.random.permutation(evaluation_key(0, index, Purpose.DEALING), 60)
        for against, real, other, subset in (
            ("train", train, held_out, 5),
            ("held_out", held_out, train, 4),
        ):
            number = numbers[subject, against, "fd_pixels"]
            np.testing.assert_allclose(number.value, frechet(real, images), rtol=1e-3)
            assert (number.count, number.reference_count) == (60, len(real))
            # The floor: the same number of real images of the other split.
            rows = random_subset(evaluation_key(0, subset, Purpose.SUBSET), len(other), 60)
            np.testing.assert_allclose(number.floor, frechet(real, other[rows]), rtol=1e-3)
            # The error: a jackknife over ten groups of six images.
            values = [
                frechet(real, np.delete(images, group, axis=0))
                for group in np.asarray(order).reshape(10, 6)
            ]
            error = np.sqrt(0.9 * np.square(values - np.mean(values)).sum())
            np.testing.assert_allclose(number.error, error, rtol=0.02)


def test_vae_or_generator_alone_is_evaluated(config, data, models):
    result, numbers = run(config, data, models._replace(generator=None))
    assert {key[0] for key in numbers} == {"vae", "vae_samples", "vae_reconstructions"}
    assert result.units is not None
    scratch, numbers = run(config, data, models._replace(encoder=None, decoder=None))
    assert {key[0] for key in numbers} == {"gan_samples"}
    assert scratch.units is None
    # The generator's numbers are the same with a VAE.
    _, both = run(config, data, models)
    assert all(both[key] == number for key, number in numbers.items())


def test_floors_require_enough_real_images(config, data, models):
    config.evaluation.samples = 95
    _, numbers = run(config, data, models._replace(encoder=None))
    assert numbers["gan_samples", "train", "fd_pixels"].floor is None  # 90 are held out
    assert numbers["gan_samples", "held_out", "fd_pixels"].floor is not None
    assert numbers["gan_samples", "", "vendi"].floor is None
    config.evaluation.samples = 300
    _, numbers = run(config, data, models._replace(encoder=None))
    assert numbers["gan_samples", "held_out", "fd_pixels"].floor is None
    assert ("gan_samples", "", "vendi") not in numbers


def test_samples_default_to_number_of_held_out_images(config, data, models):
    config.evaluation.samples = 0
    _, numbers = run(config, data, models._replace(encoder=None, decoder=None))
    assert {n.count for n in numbers.values() if n.against} == {90}


def test_pairs_are_samples_with_their_nearest_images(config, data, models):
    config.evaluation.max_reference_images = 0
    result, _ = run(config, data, models)
    shown, train, held_out = result.pairs
    assert shown.shape == train.shape == held_out.shape == (16, *SHAPE)
    for real, nearest in ((data.train, train), (data.test, held_out)):
        every = ((features(shown)[:, None] - features(real.pixels)[None]) ** 2).sum(axis=-1)
        pairwise = ((features(shown) - features(nearest)) ** 2).sum(axis=-1)
        np.testing.assert_allclose(pairwise, every.min(axis=1), rtol=1e-3)
    # They are different samples of the generator.
    generated = samples(config, models.generator).astype(int)
    difference = np.abs(shown[:, None].astype(int) - generated[None]).max(axis=(2, 3, 4))
    assert (difference.min(axis=1) <= 1).all()
    assert len(set(difference.argmin(axis=1))) == 16


def test_copies_of_the_training_set_are_detected(config, data, models, monkeypatch):
    def copies(decode, params, z, progress, label):
        if label == "GAN samples":
            return data.train.pixels[: len(z)]
        return samples(config, models.decoder)[: len(z)]

    monkeypatch.setattr(evaluate.latents, "decode_images", copies)
    config.evaluation.max_reference_images = 0
    _, numbers = run(config, data, models._replace(encoder=None))
    assert numbers["gan_samples", "train", "authenticity"].value == 0
    assert numbers["gan_samples", "train", "authenticity"].floor > 0.3
    nearer = numbers["gan_samples", "", "nearer_to_training"]
    assert nearer.value > 0.5 + 2 * nearer.error


def test_statistics_file_and_classes_add_numbers(config, data, models):
    def classify(_, images):
        return 8 * (images.astype(jnp.float32) / 255).mean(axis=(1, 2))

    embedding = embeddings.make("pixels")._replace(classify=classify)
    statistics = distances.statistics(np.random.default_rng(1).normal(0.5, 0.3, (400, 192)))
    models = models._replace(encoder=None)
    _, numbers = run(config, data, models, embedding, statistics)
    images = samples(config, models.generator)
    number = numbers["gan_samples", "statistics", "fd_pixels"]
    expected = distances.frechet_from_statistics(statistics, distances.statistics(features(images)))
    np.testing.assert_allclose(number.value, expected, rtol=1e-5)
    assert number.error > 0
    assert number.floor is None
    logits = 8 * (images / 255).mean(axis=(1, 2))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())
    number = numbers["gan_samples", "", "inception_score"]
    np.testing.assert_allclose(number.value, expected, rtol=1e-4)
    assert number.error > 0


def test_vae_numbers_match_recomputation(config, data, models):
    params = {"encoder": models.encoder, "decoder": models.decoder}
    result = vae_metrics.evaluate_vae(
        config, params, data.train, data.test, 50, batches.no_progress
    )
    originals = data.test[random_subset(evaluation_key(0, 3, Purpose.SUBSET), 90, 50)]
    encoder = networks.make_encoder(config.model, SHAPE)
    decoder = networks.make_decoder(config.model, SHAPE)
    mean, _ = encoder.apply({"params": models.encoder}, originals / 127.5 - 1)
    images = np.tanh(np.asarray(decoder.apply({"params": models.decoder}, mean), np.float64))
    assert np.abs(result.reconstructions - (images + 1) * 127.5).max() <= 0.51
    np.testing.assert_allclose(result.units.mean, np.mean(mean, axis=0), atol=1e-5)
    np.testing.assert_allclose(result.units.variance, np.var(mean, axis=0), rtol=1e-3)
    numbers = {number.metric: number for number in result.numbers}
    assert numbers["active_units"].value == (np.var(mean, axis=0) > 0.01).sum()
    errors = (result.reconstructions / 255.0 - originals / 255.0) ** 2
    psnr = -10 * np.log10(errors.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(numbers["psnr"].value, psnr.mean(), rtol=1e-4)
    np.testing.assert_allclose(numbers["psnr"].error, psnr.std(ddof=1) / 50**0.5, rtol=1e-3)
    assert numbers["kl_nats"].count == 12
    elbo = numbers["elbo_bits_per_dim"]
    assert numbers["iwae_3_bits_per_dim"].value <= elbo.value
    assert numbers["calibrated_elbo_bits_per_dim"].value <= elbo.value + elbo.error
    assert abs(numbers["posterior_prior_mmd"].floor) < 0.02


def test_cross_entropy_has_calibrated_bounds_only(config, data, models):
    config.vae.reconstruction = "cross_entropy"
    _, numbers = run(config, data, models)
    assert ("vae", "", "elbo_bits_per_dim") not in numbers
    assert numbers["vae", "", "calibrated_elbo_bits_per_dim"].value is not None


def test_too_few_images_are_refused():
    evaluate.require_enough(Data(40, 40))
    for counts in ((39, 40), (40, 39)):
        with pytest.raises(UserError, match=r"at least 40 .* evaluation\.embedding=none"):
            evaluate.require_enough(Data(*counts))


def test_measure_during_training_equals_recomputed_distances(config, data, models):
    measure = evaluate.make_measure(config, data, embeddings.make("pixels"))
    values = measure(models.generator, "normal")
    images = samples(config, models.generator, count=40, index=2)
    held_out, train = data.test[np.arange(80)], data.train[np.arange(40)]
    np.testing.assert_allclose(values["fd_pixels"], frechet(held_out, images), rtol=1e-3)
    np.testing.assert_allclose(values["fd_pixels_floor"], frechet(held_out, train), rtol=1e-3)
    kernel = distances.mmd(distances.cubic_kernel, features(held_out), features(images))
    np.testing.assert_allclose(values["kd_pixels"], kernel, atol=1e-5)
