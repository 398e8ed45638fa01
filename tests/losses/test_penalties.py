import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import networks
from vaegan_jax.losses import penalties

KEY = jax.random.key(0)


def draw(shape=(3, 4, 2, 3), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_r1_of_a_linear_discriminator_is_the_square_of_its_weights():
    x, w = draw(), draw((4, 2, 3), 1)

    def penalty(w):
        return penalties.r1(lambda x: jnp.einsum("bhwc,hwc->b", x, w), x, x, KEY)

    np.testing.assert_allclose(penalty(w), np.full(3, (w.astype(np.float64) ** 2).sum()), rtol=1e-5)
    gradient = jax.grad(lambda w: penalty(w).mean())(w)
    np.testing.assert_allclose(gradient, 2 * w, rtol=1e-5)


def test_r1_of_a_quadratic_discriminator_depends_on_the_real_image_alone():
    real, fake = draw(), draw(seed=1)
    value = penalties.r1(lambda x: 1.5 * jnp.sum(x**2, (1, 2, 3)), real, fake, KEY)
    expected = 9 * (real.astype(np.float64) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_r1_of_the_real_discriminator_agrees_with_finite_differences():
    with jax.enable_x64(True):
        shape = (16, 32, 3)
        module = networks.Discriminator(4, shape, dtype=jnp.float64)
        real = jnp.asarray(draw((2, *shape)), jnp.float64)
        params = module.init(KEY, real)["params"]
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        direction = jax.tree.map(
            lambda leaf: jnp.asarray(draw(leaf.shape, leaf.size), jnp.float64), params
        )

        def logits(params, x):
            # As `Discriminator`, whose last act is a cast to float32, too coarse for differences.
            features = networks.Trunk(4, dtype=jnp.float64).apply({"params": params["trunk"]}, x)
            head = params["head"]
            return (features.reshape(len(x), -1) @ head["kernel"] + head["bias"].reshape(1, 1))[
                :, 0
            ]

        np.testing.assert_allclose(
            module.apply({"params": params}, real), logits(params, real), rtol=1e-5
        )

        def penalty(params):
            return penalties.r1(lambda x: logits(params, x), real, real, KEY).sum()

        # The image's gradient, numerically, along one direction.
        gradient = jax.grad(lambda x: logits(params, x).sum())(real)
        step = 1e-6 * jnp.asarray(draw(real.shape, 5), jnp.float64)
        change = logits(params, real + step).sum() - logits(params, real - step).sum()
        np.testing.assert_allclose(change, 2 * jnp.vdot(gradient, step), rtol=1e-6)
        np.testing.assert_allclose(penalty(params), jnp.sum(gradient**2), rtol=1e-10)

        # The penalty's gradient in the parameters: a second derivative through every layer.
        slope = sum(
            jnp.vdot(a, b)
            for a, b in zip(
                jax.tree.leaves(jax.grad(penalty)(params)), jax.tree.leaves(direction), strict=True
            )
        )

        def along(t):
            return penalty(jax.tree.map(lambda p, d: p + t * d, params, direction))

        np.testing.assert_allclose(slope, (along(1e-6) - along(-1e-6)) / 2e-6, rtol=1e-5)
