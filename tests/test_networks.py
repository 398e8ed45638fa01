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


def describe(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def init(module, shape):
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))


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
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    encoder, decoder, discriminator = (
        make(config.model, shape)
        for make in (networks.make_encoder, networks.make_decoder, networks.make_discriminator)
    )
    key = jax.random.key(0)
    _, variables = jax.eval_shape(discriminator.init_with_output, key, images)
    features = expected[-1] * coarsest[0] * coarsest[1]
    assert variables["params"]["head"]["kernel"].shape == (features, 1)
    z = jax.ShapeDtypeStruct((2, config.model.latent_size), jnp.float32)
    logits, variables = jax.eval_shape(decoder.init_with_output, key, z)
    assert variables["params"]["dense"]["bias"].shape == (features,)
    assert logits.shape == (2, *shape)
    (mean, _), variables = jax.eval_shape(encoder.init_with_output, key, images)
    assert variables["params"]["head"]["kernel"].shape[0] == features
    assert mean.shape == (2, config.model.latent_size)


@pytest.mark.parametrize("shape", [(16, 16, 3), (32, 48, 3), (64, 16, 1)])
def test_shapes_and_dtypes(shape):
    key = jax.random.key(0)
    images = jax.random.uniform(key, (2, *shape), minval=-1)
    z = jax.random.normal(key, (2, 7))
    (mean, log_variance), variables = networks.Encoder(WIDTHS, 7, shape).init_with_output(
        key, images
    )
    assert set(variables) == {"params"}  # no running statistics to carry over
    assert mean.shape == log_variance.shape == (2, 7)
    logits, variables = networks.Decoder(WIDTHS, 7, shape).init_with_output(key, z)
    assert set(variables) == {"params"}
    assert logits.shape == (2, *shape)
    real_logits, variables = networks.Discriminator(WIDTHS, shape).init_with_output(key, images)
    assert set(variables) == {"params"}
    assert real_logits.shape == (2,)
    assert {mean.dtype, logits.dtype, real_logits.dtype} == {jnp.dtype("float32")}


def test_encoder_and_discriminator_trunks_have_the_same_tree():
    images = (1, *SHAPE)
    encoder = init(networks.Encoder(WIDTHS, 7, SHAPE, norm="group"), images)["params"]
    discriminator = init(networks.Discriminator(WIDTHS, SHAPE, norm="none"), images)["params"]
    assert describe(encoder["trunk"]) == describe(discriminator["trunk"])
    assert set(encoder) == set(discriminator) == {"trunk", "head"}


def test_examples_are_independent():
    key = jax.random.key(0)
    images = jax.random.uniform(key, (3, *SHAPE), minval=-1)
    z = jax.random.normal(key, (3, 7))
    for module, x in (
        (networks.Encoder(WIDTHS, 7, SHAPE), images),
        (networks.Decoder(WIDTHS, 7, SHAPE), z),
        (networks.Discriminator(WIDTHS, SHAPE, norm="group"), images),
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
    module = networks.Discriminator(WIDTHS, SHAPE, dtype=jnp.bfloat16)
    images = jax.random.uniform(jax.random.key(0), (2, *SHAPE), minval=-1)
    exact, variables = networks.Discriminator(WIDTHS, SHAPE).init_with_output(
        jax.random.key(1), images
    )
    rough = module.apply(variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert rough.dtype == jnp.float32
    assert not np.array_equal(rough, exact)  # it did compute in bfloat16
    np.testing.assert_allclose(rough, exact, atol=0.05 * (1 + np.abs(exact).max()))


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (networks.Encoder(WIDTHS, 7, (20, 16, 3)), (1, 20, 16, 3), "multiples of 8"),
        (networks.Decoder(WIDTHS, 7, (16, 20, 3)), (1, 7), "multiples of 8"),
        (networks.Decoder(WIDTHS, 7, SHAPE), (1, 8), r"latents \[B, 7\]"),
        (networks.Discriminator(WIDTHS, SHAPE), (1, 48, 32, 3), "Expected images"),
        (networks.Encoder(WIDTHS, 7, SHAPE), (1, 32, 48, 1), "Expected images"),
    ],
)
def test_wrong_shapes_are_refused(module, x, message):
    with pytest.raises(ValueError, match=message):
        init(module, x)


def test_bound_is_within_its_limit_with_unit_slope():
    x = np.array([-1e30, -1e3, -50, -10, -3, -1e-3, 0, 1e-3, 3, 10, 50, 1e3, 1e30], np.float32)
    bounded = networks.bound(x, 10.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(bounded, 10 * np.tanh(exact / 10), rtol=1e-5)
    assert (np.abs(bounded) <= 10).all()
    assert (np.diff(bounded) >= 0).all()
    gradient = jax.grad(lambda x: networks.bound(x, 10.0).sum())(x)
    np.testing.assert_allclose(gradient, 1 - np.tanh(exact / 10) ** 2, rtol=1e-3, atol=1e-6)
    assert gradient[6] == 1


def test_kl_stays_finite_for_huge_encoder_outputs_in_bfloat16():
    module = networks.Encoder(WIDTHS, 7, SHAPE, dtype=jnp.bfloat16)
    images = jax.random.uniform(jax.random.key(0), (2, *SHAPE), minval=-1)
    params = module.init(jax.random.key(1), images)["params"]
    params["head"]["kernel"] *= 1e4
    mean, log_variance = module.apply({"params": params}, images)
    assert np.abs(log_variance).max() == 20
    divergence = losses.kl(jnp.zeros_like(mean), log_variance.astype(jnp.bfloat16))
    assert np.isfinite(np.float32(divergence)).all()


def test_discriminate_returns_logits_and_features(config):
    discriminate = networks.make_discriminate(config.model, (16, 32, 3))
    discriminator = networks.make_discriminator(config.model, (16, 32, 3))
    images = jax.random.uniform(jax.random.key(0), (2, 16, 32, 3), minval=-1)
    params = discriminator.init(jax.random.key(1), images)["params"]
    logits, features = discriminate(params, images)
    np.testing.assert_allclose(logits, discriminator.apply({"params": params}, images), rtol=1e-5)
    head = params["head"]
    by_hand = features.reshape(2, -1) @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(by_hand[:, 0], logits, rtol=1e-4)
