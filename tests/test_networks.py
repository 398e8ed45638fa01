import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import networks
from vaegan_jax.losses import vae as losses

SHAPE = (32, 48, 3)
WIDTHS = (4, 8, 16)


class Normalise(nn.Module):
    """Group normalisation alone: linen layers are made inside a module."""

    @nn.compact
    def __call__(self, x):
        return networks.normalise(x, "group")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((16, 16), (8, 16)),
        ((32, 32), (8, 16, 32)),
        ((48, 48), (8, 16, 32)),  # 6x6 at the coarsest
        ((64, 64), (8, 16, 32, 40)),
        ((64, 96), (8, 16, 32, 40)),
        ((96, 64), (8, 16, 32, 40)),
        ((112, 112), (8, 16, 32, 40)),  # 7x7
        ((144, 144), (8, 16, 32, 40)),  # 9x9: 144 is no multiple of 32
        ((128, 256), (8, 16, 32, 40, 40)),
        ((256, 256), (8, 16, 32, 40, 40, 40)),
    ],
)
def test_levels_follow_from_the_image_size(config, size, expected):
    config.model.base_width, config.model.max_width = 8, 40
    shape = (*size, 3)
    assert networks.widths(config.model, shape) == expected
    coarsest = (size[0] // 2 ** len(expected), size[1] // 2 ** len(expected))
    latent_size = config.model.latent_size
    encoder, decoder, discriminator = (
        jax.eval_shape(make(config.model, shape).init_with_output, jax.random.key(0), jnp.zeros(x))
        for make, x in (
            (networks.make_encoder, (2, *shape)),
            (networks.make_decoder, (2, latent_size)),
            (networks.make_discriminator, (2, *shape)),
        )
    )
    results = *encoder[0], decoder[0], discriminator[0]
    posterior = (2, latent_size)
    assert [result.shape for result in results] == [posterior, posterior, (2, *shape), (2,)]
    assert {result.dtype for result in results} == {jnp.dtype("float32")}
    # No running statistics, and the trunks of encoder and discriminator have the same tree.
    assert all(set(variables) == {"params"} for _, variables in (encoder, decoder, discriminator))
    encoder, decoder, discriminator = (
        jax.tree.map(jnp.shape, variables["params"])
        for _, variables in (encoder, decoder, discriminator)
    )
    assert encoder["trunk"] == discriminator["trunk"]
    features = expected[-1] * coarsest[0] * coarsest[1]
    assert encoder["head"]["kernel"] == (features, 2 * latent_size)
    assert decoder["dense"]["bias"] == (features,)
    assert discriminator["head"]["kernel"] == (features, 1)


def test_examples_are_independent():
    key = jax.random.key(0)
    images = jax.random.uniform(key, (3, *SHAPE), minval=-1)
    z = jax.random.normal(key, (3, 7))
    for module, x in (
        (networks.Encoder(WIDTHS, 7), images),
        (networks.Decoder(WIDTHS, SHAPE), z),
        (networks.Discriminator(WIDTHS, norm="group"), images),
    ):
        together, variables = module.init_with_output(key, x)
        alone = module.apply(variables, x[1:2])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[1], b[0], rtol=1e-4, atol=1e-5)


def test_group_norm_matches_the_formula():
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 6, 16)).astype(np.float32)
    groups = x.astype(np.float64).reshape(2, 4, 6, 8, 2)
    mean = groups.mean((1, 2, 4), keepdims=True)
    variance = groups.var((1, 2, 4), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    ours, variables = Normalise().init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    assert not variables
    assert networks.normalise(x, "none") is x


def test_bfloat16_keeps_parameters_and_outputs_in_float32():
    module = networks.Discriminator(WIDTHS, dtype=jnp.bfloat16)
    images = jax.random.uniform(jax.random.key(0), (2, *SHAPE), minval=-1)
    exact, variables = networks.Discriminator(WIDTHS).init_with_output(jax.random.key(1), images)
    rough = module.apply(variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert rough.dtype == jnp.float32
    assert not np.array_equal(rough, exact)  # it did compute in bfloat16
    np.testing.assert_allclose(rough, exact, atol=0.05 * (1 + np.abs(exact).max()))


def test_bound_is_within_its_limit_with_unit_slope():
    x = np.array([-1e30, -1e3, -50, -10, -3, -1e-3, 0, 1e-3, 3, 10, 50, 1e3, 1e30], np.float32)
    bounded = networks.bound(x, 10.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(bounded, 10 * np.tanh(exact / 10), rtol=1e-5)
    assert (np.abs(bounded) <= 10).all()
    gradient = jax.grad(lambda x: networks.bound(x, 10.0).sum())(x)
    np.testing.assert_allclose(gradient, 1 - np.tanh(exact / 10) ** 2, rtol=1e-3, atol=1e-6)


def test_kl_stays_finite_for_huge_encoder_outputs_in_bfloat16():
    module = networks.Encoder(WIDTHS, 7, dtype=jnp.bfloat16)
    images = jax.random.uniform(jax.random.key(0), (2, *SHAPE), minval=-1)
    params = module.init(jax.random.key(1), images)["params"]
    params["head"]["kernel"] *= 1e4
    mean, log_variance = module.apply({"params": params}, images)
    assert np.abs(log_variance).max() == 20
    divergence = losses.kl(jnp.zeros_like(mean), log_variance.astype(jnp.bfloat16))
    assert np.isfinite(np.float32(divergence)).all()


def test_features_are_those_before_the_last_layer(config):
    discriminate = networks.make_discriminate(config.model, SHAPE)
    images = jax.random.uniform(jax.random.key(0), (2, *SHAPE), minval=-1)
    discriminator = networks.make_discriminator(config.model, SHAPE)
    params = discriminator.init(jax.random.key(1), images)["params"]
    logits, features = discriminate(params, images)
    by_hand = features.reshape(2, -1) @ params["head"]["kernel"] + params["head"]["bias"][None]
    np.testing.assert_allclose(by_hand[:, 0], logits, rtol=1e-4)
