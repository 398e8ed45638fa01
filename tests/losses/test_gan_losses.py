"""Values and gradients against plain formulas in float64, at ordinary and extreme logits."""

import jax
import numpy as np
import pytest
from scipy.special import expit, log_expit

from vaegan_jax.losses import gan as losses

REAL = np.array([-3.0, -0.5, 0.0, 0.7, 4.0], np.float32)
FAKE = np.array([2.5, -1.0, 0.0, 0.3, -6.0], np.float32)


def test_the_discriminator_loss_is_the_two_log_likelihoods():
    real, fake = REAL.astype(np.float64), FAKE.astype(np.float64)
    expected = -np.log(expit(real)).mean() - np.log(1 - expit(fake)).mean()
    np.testing.assert_allclose(losses.discriminator_loss(REAL, FAKE), expected, rtol=1e-6)
    gradients = jax.grad(losses.discriminator_loss, argnums=(0, 1))(REAL, FAKE)
    np.testing.assert_allclose(gradients[0], (expit(real) - 1) / 5, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], expit(fake) / 5, rtol=1e-5)


def test_an_undecided_discriminator_loses_two_log_two():
    zero = np.zeros(3, np.float32)
    np.testing.assert_allclose(losses.discriminator_loss(zero, zero), 2 * np.log(2), rtol=1e-6)


def test_minimax_is_the_logarithm_of_being_caught():
    fake = FAKE.astype(np.float64)
    np.testing.assert_allclose(losses.minimax_loss(FAKE), np.log(1 - expit(fake)).mean(), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(losses.minimax_loss)(FAKE), -expit(fake) / 5, rtol=1e-5)


def test_non_saturating_is_minus_the_logarithm_of_passing():
    fake = FAKE.astype(np.float64)
    np.testing.assert_allclose(
        losses.non_saturating_loss(FAKE), -np.log(expit(fake)).mean(), rtol=1e-6
    )
    expected = (expit(fake) - 1) / 5
    np.testing.assert_allclose(jax.grad(losses.non_saturating_loss)(FAKE), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [50.0, 1e3, 1e30])
def test_extreme_logits_give_exact_finite_values(size):
    high, low = np.full(4, size, np.float32), np.full(4, -size, np.float32)
    expected = -2 * log_expit(-np.float64(np.float32(size)))
    np.testing.assert_allclose(losses.discriminator_loss(low, high), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.discriminator_loss(high, low), 0, atol=1e-20)
    np.testing.assert_allclose(losses.non_saturating_loss(low), expected / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.minimax_loss(high), -expected / 2, rtol=1e-6)
    # Where the discriminator is sure of a fake, only one of the two generators still learns.
    np.testing.assert_allclose(jax.grad(losses.minimax_loss)(low), 0, atol=1e-20)
    np.testing.assert_allclose(jax.grad(losses.non_saturating_loss)(low), -0.25, rtol=1e-6)


def test_the_registry_holds_both_objectives():
    assert set(losses.OBJECTIVES) == {"minimax", "non_saturating"}
    assert losses.OBJECTIVES["minimax"].generator is losses.minimax_loss
    assert losses.OBJECTIVES["non_saturating"].generator is losses.non_saturating_loss
