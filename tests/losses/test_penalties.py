import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import networks, registry
from vaegan_jax.losses.terms import GANBatch


def with_batch(penalty):
    """The penalty as a function of the fields that it uses."""

    def function(discriminate, real, fake, key):
        names = [field.name for field in dataclasses.fields(GANBatch)]
        used = {"real": real, "fake": fake, "discriminate": discriminate, "key": key}
        return penalty(GANBatch(**dict.fromkeys(names) | used))

    return function


PENALTIES = {
    name: with_batch(registry.load("penalty", name)) for name in registry.BUILT_IN["penalty"]
}

KEY = jax.random.key(0)
WIDTHS = (4, 8)


def draw(shape=(3, 4, 2, 3), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(w):
    return lambda x: jnp.einsum("bhwc,hwc->b", x, w)


def test_gradient_penalty_is_differentiable_at_zero_gradient():
    real, fake, w = draw(), draw(seed=1), draw((4, 2, 3), 2)
    half = w.copy()
    half[:2] = 0
    for weights, norm in ((0 * w, 0), (half, np.sqrt((half.astype(np.float64) ** 2).sum()))):
        value, gradient = jax.value_and_grad(
            lambda w: PENALTIES["gradient_penalty"](linear(w), real, fake, KEY).mean()
        )(weights)
        np.testing.assert_allclose(value, (norm - 1) ** 2, rtol=1e-5)
        expected = 2 * (norm - 1) * weights / (norm or 1)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_gradient_penalty_propagates_non_finite_values():
    x = draw()
    value = PENALTIES["gradient_penalty"](lambda x: jnp.nan * x.sum((1, 2, 3)), x, x, KEY)
    assert np.isnan(value).all()


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_matches_finite_differences(name):
    with jax.enable_x64(True):
        shape = (16, 32, 3)
        trunk = networks.Trunk(WIDTHS, dtype=jnp.float64)
        real, fake = (jnp.asarray(draw((2, *shape), seed), jnp.float64) for seed in range(2))
        params = jax.tree.map(np.float64, trunk.init(KEY, real)["params"])
        direction = jax.tree.map(lambda leaf: np.float64(draw(leaf.shape, leaf.size)), params)

        def logits(params, x):
            return jnp.sum(jnp.sin(trunk.apply({"params": params}, x)), axis=(1, 2, 3))

        def penalty(params):
            return PENALTIES[name](lambda x: logits(params, x), real, fake, KEY).sum()

        # The image's gradient, numerically, along one direction.
        t = jax.random.uniform(KEY, (2, 1, 1, 1), jnp.float64)
        images = {"r1": real, "r2": fake, "gradient_penalty": t * real + (1 - t) * fake}[name]
        gradient = jax.grad(lambda x: logits(params, x).sum())(images)
        step = 1e-6 * jnp.asarray(draw(real.shape, 5), jnp.float64)
        change = logits(params, images + step).sum() - logits(params, images - step).sum()
        np.testing.assert_allclose(change, 2 * jnp.vdot(gradient, step), rtol=1e-6)
        squares = jnp.sum(gradient**2, (1, 2, 3))
        expected = (jnp.sqrt(squares) - 1) ** 2 if name == "gradient_penalty" else squares / 2
        np.testing.assert_allclose(penalty(params), expected.sum(), rtol=1e-10)

        # The penalty's gradient in the parameters: a second derivative through every layer.
        products = jax.tree.map(jnp.vdot, jax.grad(penalty)(params), direction)
        slope = sum(jax.tree.leaves(products))

        def along(t):
            return penalty(jax.tree.map(lambda p, d: p + t * d, params, direction))

        np.testing.assert_allclose(slope, (along(1e-6) - along(-1e-6)) / 2e-6, rtol=1e-5)
