import itertools

import jax
import numpy as np
import pytest
import scipy.stats

from vaegan_jax.randomness import Purpose, Stage, draw_key, latents, order, step_key


def test_stage_and_purpose_numbers_are_fixed():
    # Changing one silently changes every run ever made.
    stages = {"VAE": 0, "GAN": 1, "PICTURES": 2, "EVALUATION": 3, "LAYERS": 4}
    purposes = {
        "ENCODER": 0, "DECODER": 1, "DISCRIMINATOR": 2, "ORDER": 3, "POSTERIOR": 4, "LATENT": 5,
        "PENALTY": 6, "FLIP": 7, "SUBSET": 8, "DEALING": 9, "DEQUANTISATION": 10,
        "AUGMENTATION": 12, "MEMORISATION": 15, "ACTIVE_UNITS": 16, "POWER_ITERATION": 18,
        "TERM": 19,
    }  # fmt: skip
    for enumeration, numbers in ((Stage, stages), (Purpose, purposes)):
        assert {member.name: member.value for member in enumeration} == numbers


def test_key_is_the_documented_fold_in_chain():
    expected = jax.random.key(11, impl="threefry2x32")
    for number in (1, 500, 5):  # stage, step, purpose
        expected = jax.random.fold_in(expected, number)
    key = draw_key(step_key(11, Stage.GAN, 500), Purpose.LATENT)
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))


def test_all_keys_are_distinct():
    keys = {
        tuple(jax.random.key_data(draw_key(step_key(seed, stage, step), purpose)).tolist())
        for seed, stage, step, purpose in itertools.product((0, 1), Stage, (0, 1, 2), Purpose)
    }
    assert len(keys) == 2 * len(Stage) * 3 * len(Purpose)


def test_order_is_a_permutation_of_seed_stage_and_epoch():
    first = order(0, Stage.VAE, 0, 101)
    assert first.dtype == np.int32
    np.testing.assert_array_equal(np.sort(first), np.arange(101))
    np.testing.assert_array_equal(first, order(0, Stage.VAE, 0, 101))
    for changed in ((1, Stage.VAE, 0), (0, Stage.GAN, 0), (0, Stage.VAE, 1)):
        assert not np.array_equal(first, order(*changed, 101))


@pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated_normal"])
def test_latents_have_zero_mean_and_unit_variance(distribution):
    z = np.asarray(latents(jax.random.key(0), (200_000,), distribution), np.float64)
    # Four standard errors; the variance of the square is at most 2 for each distribution.
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    largest = {
        "normal": np.inf,
        "uniform": np.sqrt(3),
        "truncated_normal": 2 / scipy.stats.truncnorm(-2, 2).std(),
    }[distribution]
    assert min(0.99 * largest, 3) < np.abs(z).max() <= largest + 1e-6
