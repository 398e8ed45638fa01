import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import gan, networks, transfer, vae
from vaegan_jax.checkpoints import Checkpoints
from vaegan_jax.errors import UserError

SHAPE = (16, 32, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (70, *SHAPE)).astype(np.uint8)


@pytest.fixture
def saved(tmp_path, config):
    """A VAE's checkpoint, as the VAE stage leaves it, and the state in it; nothing is matched."""
    config.transfer.match_posterior = False
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    state = state.replace(params=jax.tree.map(lambda leaf: leaf + 0.01, state.params))
    save(tmp_path, 7, state)
    return tmp_path, state


def save(directory, step, state):
    Checkpoints(directory, 3).save(step, state, {})


def first_state(config, start):
    return jax.jit(lambda start: gan.init(config, SHAPE, start))(start)


def scratch(config):
    return first_state(config, jax.jit(lambda: gan.random_init(config, SHAPE))())


def decode(config, params, z):
    return networks.make_decoder(config.model, SHAPE).apply({"params": params}, z)


def latents(config, count=3):
    return jax.random.normal(jax.random.key(0), (count, config.model.latent_size))


def test_initial_generator_is_bit_identical_to_decoder(saved, config):
    directory, state = saved
    start = transfer.make_init(config, IMAGES, directory, 7)
    assert_trees_equal(start.generator, state.params["decoder"])
    warm = first_state(config, start)
    apply = jax.jit(networks.make_decoder(config.model, SHAPE).apply)
    z = latents(config)
    images = np.asarray(apply({"params": state.params["decoder"]}, z))
    assert np.ptp(images) > 0
    np.testing.assert_array_equal(apply({"params": warm.generator}, z), images)
    np.testing.assert_array_equal(apply({"params": warm.ema}, z), images)
    for convert in (transfer.to_encoder_latents, transfer.to_generator_latents):
        np.testing.assert_array_equal(convert(warm.latent_mean, warm.latent_factor, z), z)


def test_transfer_changes_only_the_generator(saved, config):
    directory, _ = saved
    warm = first_state(config, transfer.make_init(config, IMAGES, directory, 7))
    alone = scratch(config)
    assert_trees_equal(
        warm.replace(generator=None, ema=None), alone.replace(generator=None, ema=None)
    )
    assert not np.array_equal(warm.generator["up_0"]["kernel"], alone.generator["up_0"]["kernel"])


def test_discriminator_takes_the_encoder_trunk_and_a_random_head(saved, config):
    directory, state = saved
    config.model.discriminator_norm = config.model.norm
    alone = scratch(config)
    config.transfer.discriminator = "encoder"
    warm = first_state(config, transfer.make_init(config, IMAGES, directory, 7))
    assert_trees_equal(warm.discriminator["trunk"], state.params["encoder"]["trunk"])
    assert_trees_equal(warm.discriminator["head"], alone.discriminator["head"])
    assert_trees_equal(warm.generator, state.params["decoder"])


def test_matched_generator_is_the_decoder_at_mapped_latents(saved, config):
    directory, state = saved
    config.transfer.match_posterior = True
    warm = first_state(config, transfer.make_init(config, IMAGES, directory, 7))

    # The aggregated posterior's moments, by NumPy in float64 over all images at once.
    images = jnp.asarray(IMAGES / 127.5 - 1, jnp.float32)
    encoder = networks.make_encoder(config.model, SHAPE)
    means, log_variances = encoder.apply({"params": state.params["encoder"]}, images)
    means = np.asarray(means, np.float64)
    covariance = np.cov(means, rowvar=False, bias=True)
    covariance += np.diag(np.exp(np.asarray(log_variances, np.float64)).mean(axis=0))
    np.testing.assert_allclose(warm.latent_mean, means.mean(axis=0), rtol=1e-3, atol=1e-5)
    factor = np.asarray(warm.latent_factor, np.float64)
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-3, atol=1e-4)
    assert (factor == np.tril(factor)).all()

    z = latents(config, 50)
    there = np.asarray(warm.latent_mean)[None] + np.asarray(z) @ factor.T
    expected = decode(config, state.params["decoder"], jnp.asarray(there, jnp.float32))
    np.testing.assert_allclose(decode(config, warm.generator, z), expected, rtol=1e-3, atol=1e-4)
    moved = decode(config, state.params["decoder"], z)
    assert np.abs(np.asarray(moved) - np.asarray(expected)).max() > 0.05
    # Nothing but the first layer is touched.
    for name, part in state.params["decoder"].items():
        if name != "dense":
            assert_trees_equal(warm.generator[name], part)
    assert_trees_equal(warm.ema, warm.generator)


def test_latent_maps_are_inverse():
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(5, 5))).astype(np.float32) + 2 * np.eye(5, dtype=np.float32)
    mean, z = rng.normal(size=(5,)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    there = transfer.to_encoder_latents(mean, factor, z)
    np.testing.assert_allclose(there, mean + z @ factor.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        transfer.to_generator_latents(mean, factor, there), z, rtol=1e-3, atol=1e-4
    )


def test_only_the_decoder_is_read(saved, config):
    # Whatever else the checkpoint holds may be of any shape: here, another encoder's latents.
    directory, state = saved
    odd = {"decoder": state.params["decoder"], "encoder": {"a": jnp.ones(3)}}
    save(directory, 8, {"params": odd, "b": jnp.ones(2)})
    start = transfer.make_init(config, IMAGES, directory, 8)
    assert_trees_equal(start.generator, state.params["decoder"])


def test_another_architecture_is_refused(saved, config):
    directory, _ = saved
    config.model.latent_size = 6
    with pytest.raises(UserError) as caught:
        transfer.make_init(config, IMAGES, directory, 7)
    assert "params.decoder" in str(caught.value)
    assert "kernel is saved as float32[5,256] and expected as float32[6,256]" in str(caught.value)


def test_missing_and_extra_leaves_are_refused(saved, config):
    directory, state = saved
    decoder = dict(state.params["decoder"])
    decoder["spare"] = decoder.pop("up_1")
    save(directory, 9, {"params": {"decoder": decoder}})
    with pytest.raises(UserError) as caught:
        transfer.make_init(config, IMAGES, directory, 9)
    assert "up_1.kernel is saved as nothing" in str(caught.value)
    assert "spare.kernel is saved as" in str(caught.value)
