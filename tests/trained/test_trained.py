import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from tests import made_runs
from vaegan_jax import config as configuration
from vaegan_jax import gan, networks, randomness, trained, transfer
from vaegan_jax.checkpoints import Checkpoints
from vaegan_jax.errors import UserError
from vaegan_jax.trained import weights

SHAPE = made_runs.SHAPE


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    states = made_runs.write(path, made_runs.tiny())
    return path, *states


def latents(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def decode(params, z):
    """Images of the network, independently of the tested code."""
    decoder = networks.make_decoder(made_runs.tiny().model, SHAPE)
    return np.asarray(jnp.tanh(decoder.apply({"params": params}, jnp.asarray(z))))


@pytest.mark.parametrize(
    ("model", "step", "loaded_step"), [("vae", None, 7), ("gan", None, 5), ("gan", 2, 2)]
)
def test_decode_uses_the_decoder_or_the_ema_of_the_checkpoint(run, model, step, loaded_step):
    path, vae_state, gan_state = run
    loaded = trained.load(str(path), model, step)
    assert (loaded.model, loaded.step) == (model, loaded_step)
    assert (loaded.latent_size, loaded.image_shape) == (5, SHAPE)
    saved = made_runs.at(vae_state if model == "vae" else gan_state, loaded_step)
    params = saved.params["decoder"] if model == "vae" else saved.ema
    images = loaded.decode(latents(3))
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, decode(params, latents(3)), atol=1e-5)
    assert trained.steps(path, model) == {"vae": [3, 7], "gan": [2, 5]}[model]


def test_encode_uses_the_encoder_of_the_last_vae_for_both_models(run):
    path, vae_state, _ = run
    pictures = np.tanh(np.random.default_rng(1).normal(size=(11, *SHAPE))).astype(np.float32)
    encoder = networks.make_encoder(made_runs.tiny().model, SHAPE)
    expected = encoder.apply({"params": vae_state.params["encoder"]}, pictures)
    for name in ("vae", "gan"):
        result = trained.load(path, name).encode(pictures)
        for a, b in zip(result, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_latents_are_converted_by_the_gans_affine_map(run):
    path, _, gan_state = run
    model, z = trained.load(path), latents(4).astype(np.float64)
    expected = np.asarray(gan_state.latent_mean) + z @ np.asarray(gan_state.latent_factor).T
    np.testing.assert_allclose(model.to_encoder_latents(z), expected, atol=1e-5)
    np.testing.assert_allclose(model.to_generator_latents(expected), z, atol=1e-4)
    vae_model = trained.load(path, "vae")
    np.testing.assert_array_equal(vae_model.to_generator_latents(z), z.astype(np.float32))
    np.testing.assert_array_equal(vae_model.to_encoder_latents(z), z.astype(np.float32))


def test_matched_generator_decodes_encoder_latents_as_the_decoder_does(tmp_path):
    config = made_runs.tiny()
    vae_state, _ = made_runs.states(config)
    start = gan.identity_init(vae_state.params["decoder"], 5)
    start = transfer.match_posterior(start, np.ones(5), 2 * np.eye(5))
    made_runs.write(tmp_path, config, vae_steps=(7,), gan_steps=())
    saved = Checkpoints(tmp_path / "checkpoints" / "gan", keep=1)
    saved.save(1, gan.init(config, SHAPE, start), {})
    model, z = trained.load(tmp_path), latents(2)
    images = model.decode(model.to_generator_latents(z))
    np.testing.assert_allclose(images, decode(vae_state.params["decoder"], z), atol=1e-4)


def test_image_does_not_depend_on_the_batch(run):
    model, z = trained.load(run[0]), latents(20)
    expected = model.decode(z)
    for count in (0, 1, 8, 17):
        np.testing.assert_array_equal(model.decode(z[:count]), expected[:count])


def test_config_of_another_version_gets_defaults(tmp_path):
    flat = configuration.flatten(made_runs.tiny())
    del flat["gan.noise"], flat["model.spectral_norm"]
    config = trained.config_from(flat | {"gan.gone": 3, "gan.b1": 0.25}, "there")
    assert (config.gan.noise, config.model.spectral_norm, config.gan.b1) == ("normal", False, 0.25)
    assert config.data.image_size == (16, 32)


def test_loading_prints_no_warnings_of_orbax(run, caplog, monkeypatch):
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", True)
    with caplog.at_level("WARNING", "absl"):
        trained.load(run[0])
    assert not caplog.records


def test_missing_run_step_or_model_is_refused(run, tmp_path):
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"config\.json"):
            trained.load(missing)
    with pytest.raises(UserError, match=r"step 4.*gan \[2, 5\]"):
        trained.load(run[0], step=4)
    with pytest.raises(UserError, match="vae, gan"):
        trained.steps(run[0], "flow")


@pytest.mark.parametrize(
    "text", ["[]", '{"model.base_width": "wide"}', '{"data.image_size": [3]}', "{"]
)
def test_damaged_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        trained.load(tmp_path)


def test_gan_from_scratch_has_no_encoder(tmp_path):
    made_runs.write(tmp_path, made_runs.tiny(), vae_steps=(), scratch=True)
    model = trained.load(tmp_path)
    assert not model.has_encoder
    with pytest.raises(UserError, match="no encoder"):
        model.encode(np.zeros((1, *SHAPE), np.float32))
    np.testing.assert_array_equal(model.to_generator_latents(latents(2)), latents(2))


def test_invalid_latents_and_images_are_refused(run):
    model = trained.load(run[0])
    for bad in (np.zeros((2, 4)), np.zeros(5), np.full((1, 5), np.nan)):
        with pytest.raises(UserError, match="latents"):
            model.decode(bad)
    with pytest.raises(UserError, match=r"\(16, 32, 3\).*\(16, 16, 3\)"):
        model.encode(np.zeros((1, 16, 16, 3)))
    pictures = np.full((2, *SHAPE), -1.0)
    model.encode(pictures)
    for other in (pictures.astype(np.int8), 255 * pictures, pictures * np.nan):
        with pytest.raises(UserError, match=r"\[-1, 1\]"):
            model.encode(other)


def test_model_is_a_pure_function(run):
    model, z = trained.load(run[0]), latents(3)
    expected = decode(model.params, z)
    for function in (jax.jit(model.decode), lambda z: jax.vmap(model.decode)(z[:, None])[:, 0]):
        np.testing.assert_allclose(function(z), expected, atol=1e-5)
    pure = networks.make_decode(model.config.model, model.image_shape)
    np.testing.assert_allclose(jax.jit(pure)(model.params, z), expected, atol=1e-5)
    np.testing.assert_array_equal(jax.jit(lambda: model.decode(z))(), model.decode(z))
    network = networks.make_decoder(made_runs.tiny().model, SHAPE)
    gradient = jax.grad(lambda z: jnp.tanh(network.apply({"params": model.params}, z)).sum())(z)
    np.testing.assert_allclose(
        jax.grad(lambda z: model.decode(z).sum())(z), gradient, rtol=1e-3, atol=1e-3
    )
    for traced, mean in zip(jax.jit(model.encode)(expected), model.encode(expected), strict=True):
        np.testing.assert_allclose(traced, mean, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(lambda z: model.to_generator_latents(model.to_encoder_latents(z)))(z), z, atol=1e-4
    )
    with pytest.raises(UserError, match="latents"):
        jax.jit(model.decode)(z[:, :4])


def test_sample_decodes_the_latents_of_its_key(run):
    model, key = trained.load(run[0]), jax.random.key(3)
    z = randomness.latents(key, (4, 5), "normal")
    np.testing.assert_array_equal(model.sample(key, 4), model.decode(z))
    np.testing.assert_allclose(jax.jit(model.sample)(key), model.decode(z)[:1], atol=1e-5)
    model.config.gan.noise = "uniform"
    z = randomness.latents(key, (4, 5), "uniform")
    np.testing.assert_array_equal(model.sample(key, 4), model.decode(z))


def test_used_model_can_be_pickled(run):
    model = trained.load(run[0])
    images = model.decode(latents(2))
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.decode(latents(2)), images)


def test_export_without_the_step_or_a_part_is_refused(run, tmp_path):
    model, file = trained.load(run[0]), tmp_path / "model.safetensors"
    card = {"config": configuration.flatten(model.config), "steps": {"gan": 5, "vae": 7}}
    file.write_bytes(weights.pack(model.parts, card))
    assert trained.load(file).facts["sha256"] == model.facts["sha256"]
    assert trained.steps(file, "gan") == [5]
    with pytest.raises(UserError, match=r"step 3.*gan \[5\]"):
        trained.load(file, step=3)
    with pytest.raises(UserError, match="decoder in"):
        trained.load(file, "vae")
