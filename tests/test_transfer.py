import jax
import numpy as np
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import gan, networks, transfer, vae
from vaegan_jax.checkpoints import Checkpoints
from vaegan_jax.errors import UserError

SHAPE = (16, 32, 3)


@pytest.fixture
def saved(tmp_path, config):
    """A VAE's checkpoint, as the VAE stage leaves it, and the state in it."""
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    state = state.replace(params=jax.tree.map(lambda leaf: leaf + 0.01, state.params))
    checkpoints = Checkpoints(tmp_path, 3)
    checkpoints.save(7, state, {})
    checkpoints.finish()
    checkpoints.close()
    return tmp_path, state


def test_the_fresh_generator_makes_the_decoders_images_bit_for_bit(saved, config):
    directory, state = saved
    params = transfer.generator_params(config, SHAPE, directory, 7)
    assert_trees_equal(params, state.params["decoder"])
    warm = jax.jit(lambda params: gan.init(config, SHAPE, params))(params)
    apply = jax.jit(networks.make_decoder(config.model, SHAPE).apply)
    z = jax.random.normal(jax.random.key(0), (3, config.model.latent_size))
    images = np.asarray(apply({"params": state.params["decoder"]}, z))
    assert np.ptp(images) > 0
    np.testing.assert_array_equal(apply({"params": warm.generator}, z), images)
    np.testing.assert_array_equal(apply({"params": warm.ema}, z), images)


def test_only_the_decoder_is_read(saved, config):
    # Whatever else the checkpoint holds may be of any shape: here, another encoder's latents.
    directory, state = saved
    checkpoints = Checkpoints(directory, 3)
    odd = {
        "params": {"decoder": state.params["decoder"], "encoder": {"a": np.ones(3)}},
        "b": np.ones(2),
    }
    checkpoints.save(8, odd, {})
    checkpoints.finish()
    checkpoints.close()
    assert_trees_equal(
        transfer.generator_params(config, SHAPE, directory, 8), state.params["decoder"]
    )


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"latent_size": 6}, "dense.kernel is saved as float32[5,64] and wanted as float32[6,64]"),
        (
            {"base_width": 8},
            "up_3.kernel is saved as float32[4,4,3,4] and wanted as float32[4,4,3,8]",
        ),
    ],
)
def test_another_network_is_refused(saved, config, change, phrase):
    directory, _ = saved
    config.model.update(change)
    with pytest.raises(UserError) as caught:
        transfer.generator_params(config, SHAPE, directory, 7)
    assert phrase in str(caught.value)
    assert "params.decoder" in str(caught.value)


@pytest.mark.parametrize("missing", ["up_1", "whole"])
def test_missing_and_extra_leaves_are_refused(saved, config, missing):
    directory, state = saved
    decoder = dict(state.params["decoder"])
    if missing == "whole":
        params = {"encoder": state.params["encoder"]}
    else:
        decoder["spare"] = decoder.pop(missing)
        params = {"decoder": decoder}
    checkpoints = Checkpoints(directory, 3)
    checkpoints.save(9, {"params": params}, {})
    checkpoints.finish()
    checkpoints.close()
    with pytest.raises(UserError) as caught:
        transfer.generator_params(config, SHAPE, directory, 9)
    assert "only wanted: up_1.kernel" in str(caught.value)
    if missing != "whole":
        assert "only saved: spare.kernel" in str(caught.value)
