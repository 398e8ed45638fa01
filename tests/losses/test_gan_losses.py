"""Values and gradients against plain formulas in float64, at ordinary and extreme logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit

from vaegan_jax import registry
from vaegan_jax.losses import gan as losses

OBJECTIVES = {name: registry.load("objective", name) for name in registry.BUILT_IN["objective"]}

REAL = np.array([-3.0, -0.5, 0.0, 0.7, 4.0], np.float32)
FAKE = np.array([2.5, -1.25, 0.0, 0.3, -6.0], np.float32)

# By the name of a function: one pair's value, and its derivatives in the real and the fake logit.
# All are means over pairs.
FORMULAS = {
    "discriminator_loss": (
        lambda r, f: -log_expit(r) - log_expit(-f),
        lambda r, f: -expit(-r),
        lambda r, f: expit(f),
    ),
    "minimax_loss": (
        lambda r, f: log_expit(-f),
        lambda r, f: 0 * r,
        lambda r, f: -expit(f),
    ),
    "non_saturating_loss": (
        lambda r, f: -log_expit(f),
        lambda r, f: 0 * r,
        lambda r, f: -expit(-f),
    ),
    "hinge_discriminator_loss": (
        lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f),
        lambda r, f: -1.0 * (r < 1),
        lambda r, f: 1.0 * (f > -1),
    ),
    "linear_generator_loss": (lambda r, f: -f, lambda r, f: 0 * r, lambda r, f: 0 * f - 1),
    "least_squares_discriminator_loss": (
        lambda r, f: ((r - 1) ** 2 + f**2) / 2,
        lambda r, f: r - 1,
        lambda r, f: f,
    ),
    "least_squares_generator_loss": (
        lambda r, f: (f - 1) ** 2 / 2,
        lambda r, f: 0 * r,
        lambda r, f: f - 1,
    ),
    "wasserstein_critic_loss": (
        lambda r, f: f - r,
        lambda r, f: 0 * r - 1,
        lambda r, f: 0 * f + 1,
    ),
    "relativistic_discriminator_loss": (
        lambda r, f: -log_expit(r - f),
        lambda r, f: -expit(f - r),
        lambda r, f: expit(f - r),
    ),
    "relativistic_generator_loss": (
        lambda r, f: -log_expit(f - r),
        lambda r, f: expit(r - f),
        lambda r, f: -expit(r - f),
    ),
}
PAIRS = {
    "minimax": ("discriminator_loss", "minimax_loss"),
    "non_saturating": ("discriminator_loss", "non_saturating_loss"),
    "hinge": ("hinge_discriminator_loss", "linear_generator_loss"),
    "least_squares": ("least_squares_discriminator_loss", "least_squares_generator_loss"),
    "wasserstein": ("wasserstein_critic_loss", "linear_generator_loss"),
    "relativistic": ("relativistic_discriminator_loss", "relativistic_generator_loss"),
}


def check(name, real, fake):
    """Compares a loss and both of its gradients with the formulas."""
    value, gradients = jax.value_and_grad(getattr(losses, name), argnums=(0, 1))(real, fake)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    terms, *slopes = (f(real.astype(np.float64), fake.astype(np.float64)) for f in FORMULAS[name])
    np.testing.assert_allclose(value, terms.mean(), rtol=1e-6, atol=1e-30)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient, slope / len(real), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradients_match_the_formulas(name):
    check(name, REAL, FAKE)


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradients_at_extreme_logits(name):
    largest = 1e15 if name.startswith("least_squares") else 1e30  # no float32 holds 1e60
    for size in (50.0, 1e3, largest):
        for real, fake in [(1, 1), (1, -1), (-1, 1), (-1, -1)]:
            check(name, np.full(4, real * size, np.float32), np.full(4, fake * size, np.float32))


def test_objectives_pair_the_expected_losses():
    found = {name: tuple(f.__name__ for f in o) for name, o in OBJECTIVES.items()}
    assert found == PAIRS
