"""A whole evaluation of tiny networks, its numbers taken again by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import gan, networks, randomness, vae
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import (
    batches,
    comparison,
    curve,
    distances,
    embeddings,
    evaluate,
    judge_vae,
    vae_quality,
)
from vaegan_jax.evaluation.number import choose, draw_key
from vaegan_jax.randomness import Purpose

SHAPE = (16, 32, 3)


class Pictures:
    """Images in memory, read as a `Split` is."""

    def __init__(self, pixels):
        self.pixels, self.shape, self.image_shape = pixels, pixels.shape, pixels.shape[1:]

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, indices):
        return self.pixels[indices]

    def take(self, rows):
        return Pictures(self.pixels[rows])


class Data:
    """Images in memory, of two sides."""

    shape = SHAPE

    def __init__(self, train, held_out):
        y, x = np.mgrid[:16, :32, :3][:2] / 32
        rng = np.random.default_rng(0)

        def draw(count):
            a, b, c = rng.uniform(-1, 1, (3, count, 1, 1, 3))
            return Pictures(np.clip(128 + 90 * (a * x + b * y + c), 0, 255).astype(np.uint8))

        self.train, self.held_out = draw(train), draw(held_out)


@pytest.fixture(scope="module")
def data():
    return Data(150, 90)


@pytest.fixture
def evaluated(config):
    config.evaluation.samples = 60
    config.evaluation.max_reference_images = 100
    config.evaluation.path_samples = 10
    config.evaluation.max_likelihood_images = 12
    config.evaluation.iwae_samples = 3
    config.evaluation.curve_samples = 40
    return config


@pytest.fixture
def models(evaluated):
    params = jax.jit(functools.partial(vae.init, evaluated, SHAPE))().params
    generator = jax.jit(functools.partial(gan.random_init, evaluated, SHAPE))().generator
    return evaluate.Models(params["encoder"], params["decoder"], generator)


def run(config, data, models, embedding=None, statistics=None):
    embedding = embedding or embeddings.make("pixels")
    found = evaluate.evaluate(config, data, models, embedding, statistics, batches.unwatched)
    return found, {(n.subject, n.against, n.metric): n for n in found.numbers}


def drawn(config, params, noise="normal", count=60, index=0):
    """Samples by hand, from the documented key."""
    z = randomness.latents(
        draw_key(config.seed, index, Purpose.LATENT), (count, config.model.latent_size), noise
    )
    decoder = networks.make_decoder(config.model, SHAPE)
    images = np.tanh(np.asarray(decoder.apply({"params": params}, z), np.float64))
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)


def features_of(images):
    embedding = embeddings.make("pixels")
    return np.asarray(embedding.embed(None, jnp.asarray(images)))


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_the_distances_are_those_of_the_images_that_the_networks_make(
    evaluated, data, models, noise
):
    evaluated.gan.noise = noise
    _, found = run(evaluated, data, models)
    rows = choose(draw_key(0, 0, Purpose.SUBSET), 150, 100)
    real = {"train": data.train[rows], "held_out": data.held_out.pixels}
    sets = {
        "vae_samples": drawn(evaluated, models.decoder),
        "gan_samples": drawn(evaluated, models.generator, noise),
    }
    for subject, images in sets.items():
        for against, reals in real.items():
            number = found[subject, against, "fd_pixels"]
            expected = distances.frechet_from_statistics(
                *(distances.statistics(features_of(x)) for x in (reals, images))
            )
            np.testing.assert_allclose(number.value, expected, rtol=1e-3)
            assert (number.count, number.reference_count) == (60, len(reals))


def test_the_floor_is_what_as_many_real_images_of_the_other_side_give(evaluated, data, models):
    _, found = run(evaluated, data, models)
    train = data.train[choose(draw_key(0, 0, Purpose.SUBSET), 150, 100)]
    for against, reference, other, index in (
        ("train", train, data.held_out.pixels, 5),
        ("held_out", data.held_out.pixels, train, 4),
    ):
        fresh = other[choose(draw_key(0, index, Purpose.SUBSET), len(other), 60)]
        expected = distances.frechet_from_statistics(
            *(distances.statistics(features_of(x)) for x in (reference, fresh))
        )
        floors = {
            found[subject, against, "fd_pixels"].floor
            for subject in ("vae_samples", "vae_reconstructions", "gan_samples")
        }
        assert len(floors) == 1
        np.testing.assert_allclose(floors.pop(), expected, rtol=1e-3)


def test_the_errors_are_those_of_other_samples_of_the_same_model(evaluated, data, models):
    # The spread of the distance over seeds, which change nothing but the draws, is the error.
    evaluated.evaluation.max_reference_images = 0
    reference = comparison.reference(features_of(data.held_out.pixels))
    _, found = run(evaluated, data, models)
    number = found["gan_samples", "held_out", "fd_pixels"]
    values = []
    for seed in range(1, 25):
        evaluated.seed = seed
        images = drawn(evaluated, models.generator)
        values.append(float(comparison.compare(reference, features_of(images))["frechet"]))
    np.testing.assert_allclose(number.error, np.std(values), rtol=0.8)


def test_without_a_generator_or_without_a_vae_the_rest_is_judged(evaluated, data, models):
    found, numbers = run(evaluated, data, models._replace(generator=None))
    assert {key[0] for key in numbers} == {"vae", "vae_samples", "vae_reconstructions"}
    assert found.units is not None
    scratch, numbers = run(evaluated, data, models._replace(encoder=None, decoder=None))
    assert {key[0] for key in numbers} == {"gan_samples"}
    assert scratch.units is None
    # And the generator's numbers do not depend on the company.
    _, both = run(evaluated, data, models)
    assert all(both[key] == number for key, number in numbers.items())


def test_more_samples_than_real_images_have_no_floor(evaluated, data, models):
    evaluated.evaluation.samples = 95
    _, found = run(evaluated, data, models._replace(encoder=None))
    assert found["gan_samples", "train", "fd_pixels"].floor is None  # 90 are held out
    assert found["gan_samples", "held_out", "fd_pixels"].floor is not None  # 100 are compared with
    assert found["gan_samples", "", "vendi"].floor is None
    evaluated.evaluation.samples = 300
    _, found = run(evaluated, data, models._replace(encoder=None))
    assert found["gan_samples", "held_out", "fd_pixels"].floor is None
    assert ("gan_samples", "", "vendi") not in found


def test_as_many_as_are_held_out_are_judged_if_no_number_is_named(evaluated, data, models):
    evaluated.evaluation.samples = 0
    _, found = run(evaluated, data, models)
    assert {n.count for n in found.values() if n.against} == {90}


def test_the_pairs_are_the_nearest_images(evaluated, data, models):
    evaluated.evaluation.max_reference_images = 0
    found, _ = run(evaluated, data, models)
    samples, train, held_out = found.pairs
    assert samples.shape == train.shape == held_out.shape == (16, *SHAPE)
    for reals, nearest in ((data.train, train), (data.held_out, held_out)):
        all_pairs = ((features_of(samples)[:, None] - features_of(reals.pixels)[None]) ** 2).sum(
            axis=-1
        )
        shown = ((features_of(samples) - features_of(nearest)) ** 2).sum(axis=-1)
        np.testing.assert_allclose(shown, all_pairs.min(axis=1), rtol=1e-3)
    # They are samples of the generator, no two the same one.
    made = drawn(evaluated, models.generator).astype(int)
    apart = np.abs(samples[:, None].astype(int) - made[None]).max(axis=(2, 3, 4))
    assert (apart.min(axis=1) <= 1).all()
    assert len(set(apart.argmin(axis=1))) == 16


def test_a_generator_that_copies_the_training_set_is_caught(evaluated, data, models, monkeypatch):
    def copied(decode, params, z, watch, label):
        count = len(z)
        if label == "GAN samples":
            return data.train.pixels[:count]
        return drawn(evaluated, models.decoder)[:count]

    monkeypatch.setattr(evaluate.generation, "samples", copied)
    evaluated.evaluation.max_reference_images = 0
    _, found = run(evaluated, data, models._replace(encoder=None))
    assert found["gan_samples", "train", "authenticity"].value == 0
    assert found["gan_samples", "train", "authenticity"].floor > 0.3
    nearer = found["gan_samples", "", "nearer_to_training"]
    assert nearer.value > 0.5 + 2 * nearer.error


def test_statistics_of_other_images_give_one_more_distance(evaluated, data, models):
    other = np.random.default_rng(1).normal(0.5, 0.3, (400, 192))
    statistics = distances.statistics(other)
    _, found = run(evaluated, data, models._replace(encoder=None), statistics=statistics)
    number = found["gan_samples", "statistics", "fd_pixels"]
    mine = distances.statistics(features_of(drawn(evaluated, models.generator)))
    expected = distances.frechet_from_statistics(statistics, mine)
    np.testing.assert_allclose(number.value, expected, rtol=1e-5)
    assert number.error > 0
    assert number.floor is None


def test_an_inception_score_is_given_where_there_are_classes(evaluated, data, models):
    def classify(_, images):
        return 8 * (images.astype(jnp.float32) / 255).mean(axis=(1, 2))

    embedding = embeddings.make("pixels")._replace(classify=classify)
    _, found = run(evaluated, data, models._replace(encoder=None), embedding)
    logits = 8 * (drawn(evaluated, models.generator) / 255).mean(axis=(1, 2))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())
    number = found["gan_samples", "", "inception_score"]
    np.testing.assert_allclose(number.value, expected, rtol=1e-4)
    assert number.error > 0


def test_the_vae_is_judged_on_held_out_images(evaluated, data, models):
    params = {"encoder": models.encoder, "decoder": models.decoder}
    judged = judge_vae.judge(evaluated, params, data.train, data.held_out, 50, batches.unwatched)
    originals = data.held_out[choose(draw_key(0, 3, Purpose.SUBSET), 90, 50)]
    encoder = networks.make_encoder(evaluated.model, SHAPE)
    decoder = networks.make_decoder(evaluated.model, SHAPE)
    mean, log_variance = encoder.apply({"params": models.encoder}, originals / 127.5 - 1)
    images = np.tanh(np.asarray(decoder.apply({"params": models.decoder}, mean), np.float64))
    assert np.abs(judged.reconstructions - (images + 1) * 127.5).max() <= 0.51
    np.testing.assert_allclose(judged.units.mean, np.mean(mean, axis=0), atol=1e-5)
    np.testing.assert_allclose(judged.units.variance, np.var(mean, axis=0), rtol=1e-3)
    found = {number.metric: number for number in judged.numbers}
    assert found["active_units"].value == (np.var(mean, axis=0) > 0.01).sum()
    psnr = -10 * np.log10(
        (((judged.reconstructions / 255.0) - originals / 255.0) ** 2).mean(axis=(1, 2, 3))
    )
    np.testing.assert_allclose(found["psnr"].value, psnr.mean(), rtol=1e-4)
    np.testing.assert_allclose(found["psnr"].error, psnr.std(ddof=1) / 50**0.5, rtol=1e-3)
    assert found["kl_nats"].count == 12
    # The more draws, the tighter; and no variance does better than the calibrated one, which was
    # chosen on training images, by more than chance.
    assert found["iwae_3_bits_per_dim"].value <= found["elbo_bits_per_dim"].value
    calibrated = found["calibrated_elbo_bits_per_dim"].value
    assert calibrated <= found["elbo_bits_per_dim"].value + found["elbo_bits_per_dim"].error
    assert abs(found["posterior_prior_mmd"].floor) < 0.02
    assert np.exp(np.asarray(log_variance)).min() > 0


def test_a_likelihood_of_grey_values_is_not_claimed_for_cross_entropy(evaluated, data, models):
    evaluated.vae.reconstruction = "cross_entropy"
    _, found = run(evaluated, data, models)
    assert ("vae", "", "elbo_bits_per_dim") not in found
    assert found["vae", "", "calibrated_elbo_bits_per_dim"].value is not None
    assert vae_quality.own_variance(evaluated, {}) is None


def test_too_few_images_are_refused_with_what_to_do():
    evaluate.require_enough(Data(40, 40))
    for counts in ((39, 40), (40, 39)):
        with pytest.raises(UserError, match=r"needs at least 40 .* evaluation\.embedding=none"):
            evaluate.require_enough(Data(*counts))


def test_the_curve_is_a_distance_to_held_out_images_with_its_floor(evaluated, data, models):
    measure = curve.make_curve(evaluated, data, embeddings.make("pixels"))
    found = measure(models.generator, "normal")
    images = drawn(evaluated, models.generator, count=40, index=2)
    held_out, fresh = data.held_out[np.arange(80)], data.train[np.arange(40)]
    for name, fakes in (("fd_pixels", images), ("fd_pixels_floor", fresh)):
        expected = distances.frechet_from_statistics(
            *(distances.statistics(features_of(x)) for x in (held_out, fakes))
        )
        np.testing.assert_allclose(found[name], expected, rtol=1e-3)
    kernel = distances.mmd(distances.cubic_kernel, features_of(held_out), features_of(images))
    np.testing.assert_allclose(found["kd_pixels"], kernel, atol=1e-5)
    assert measure(models.generator, "normal") == found
    assert measure(models.decoder, "normal") != found
