import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import made_runs
from vaegan_jax import gan, networks, trained, transfer, workdir
from vaegan_jax.checkpoints import Checkpoints
from vaegan_jax.errors import UserError
from vaegan_jax.export import weights

SHAPE = made_runs.SHAPE


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    states = made_runs.write(path, made_runs.tiny())
    return path, *states


def latents(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def plainly(params, z):
    """The images that the network makes, without anything of what is tested here."""
    decoder = networks.make_decoder(made_runs.tiny().model, SHAPE)
    return np.asarray(jnp.tanh(decoder.apply({"params": params}, jnp.asarray(z))))


def test_decode_is_the_decoder_of_the_newest_checkpoint(run):
    path, vae_state, _ = run
    model = trained.load(path, "vae")
    assert (model.step, model.latent_size, model.image_shape) == (7, 5, SHAPE)
    wanted = plainly(made_runs.at(vae_state, 7).params["decoder"], latents(3))
    np.testing.assert_allclose(model.decode(latents(3)), wanted, atol=1e-5)


def test_decode_is_the_running_average_of_the_generator(run):
    path, _, gan_state = run
    model = trained.load(str(path))
    assert (model.model, model.step) == ("gan", 5)
    images = model.decode(latents(3))
    assert images.dtype == np.float32
    np.testing.assert_allclose(
        images, plainly(made_runs.at(gan_state, 5).ema, latents(3)), atol=1e-5
    )
    others = plainly(gan_state.generator, latents(3))
    assert np.abs(images - others).max() > 1e-2


def test_a_step_can_be_named(run):
    path, _, gan_state = run
    assert trained.steps(path, "gan") == [2, 5]
    model = trained.load(path, "gan", step=2)
    wanted = plainly(made_runs.at(gan_state, 2).ema, latents(2))
    np.testing.assert_allclose(model.decode(latents(2)), wanted, atol=1e-5)


def test_encode_is_the_encoder_of_the_last_vae_for_both_models(run):
    path, vae_state, _ = run
    pictures = np.tanh(np.random.default_rng(1).normal(size=(11, *SHAPE))).astype(np.float32)
    encoder = networks.make_encoder(made_runs.tiny().model, SHAPE)
    wanted = encoder.apply({"params": vae_state.params["encoder"]}, pictures)
    for name in ("vae", "gan"):
        found = trained.load(path, name).encode(pictures)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_maps_between_the_latents_are_those_of_the_gans_state(run):
    path, _, gan_state = run
    model, z = trained.load(path), latents(4).astype(np.float64)
    wanted = np.asarray(gan_state.latent_mean) + z @ np.asarray(gan_state.latent_factor).T
    np.testing.assert_allclose(model.to_encoder_latents(z), wanted, atol=1e-5)
    np.testing.assert_allclose(model.to_generator_latents(wanted), z, atol=1e-4)
    vae_model = trained.load(path, "vae")
    np.testing.assert_array_equal(vae_model.to_generator_latents(z), z.astype(np.float32))


def test_a_fresh_generator_shows_an_encoded_picture_as_the_decoder_does(tmp_path):
    config = made_runs.tiny()
    vae_state, _ = made_runs.states(config)
    start = gan.identity_init(vae_state.params["decoder"], 5)
    start = transfer.match_posterior(start, np.ones(5), 2 * np.eye(5))
    made_runs.write(tmp_path, config, vae_steps=(7,), gan_steps=())
    saved = Checkpoints(tmp_path / "checkpoints" / "gan", keep=1)
    saved.save(1, gan.init(config, SHAPE, start), {})
    saved.finish()
    saved.close()
    model = trained.load(tmp_path)
    z = latents(2)
    shown = model.decode(model.to_generator_latents(z))
    wanted = plainly(vae_state.params["decoder"], z)
    np.testing.assert_allclose(shown, wanted, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17])
def test_an_image_does_not_depend_on_how_many_others_there_are(run, count):
    model = trained.load(run[0])
    many = model.decode(latents(20))
    images = model.decode(latents(20)[:count])
    assert images.shape == (count, *SHAPE)
    np.testing.assert_array_equal(images, many[:count])


def test_nothing_is_written_and_no_lock_is_taken(run):
    path = run[0]

    def listed():
        return {file: file.stat().st_mtime_ns for file in path.rglob("*")}

    before = listed()
    trained.load(path).decode(latents(1))
    assert listed() == before


def test_a_config_of_an_older_version_gets_defaults(run, tmp_path):
    path = tmp_path / "old"
    shutil.copytree(run[0], path)
    flat = json.loads((path / "config.json").read_text())
    del flat["gan.penalty"], flat["model.spectral_norm"]
    (path / "config.json").write_text(json.dumps(flat | {"gan.gone": 3}))
    config = trained.load(path).config
    assert config.model.spectral_norm is False
    assert config.data.image_size == (16, 32)


def test_a_damaged_newest_checkpoint_is_passed_over_and_left_alone(run, tmp_path):
    path = tmp_path / "damaged"
    shutil.copytree(run[0], path)
    (path / "checkpoints/gan/5/checksums.json").write_text("{}")
    assert trained.load(path).step == 2
    assert (path / "checkpoints/gan/5").is_dir()
    with pytest.raises(UserError, match="cannot be read"):
        trained.load(path, step=5)


def test_what_is_not_there_is_said(run, tmp_path):
    path = run[0]
    with pytest.raises(UserError, match="no run in"):
        trained.load(tmp_path)
    with pytest.raises(UserError, match="no run in"):
        trained.steps(tmp_path / "nowhere", "gan")
    with pytest.raises(UserError, match=r"no checkpoint of step 4 of its gan: there are 2, 5"):
        trained.load(path, step=4)
    with pytest.raises(UserError, match="one of vae, gan"):
        trained.load(path, "flow")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        trained.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model.base_width": "wide"}')
    with pytest.raises(UserError, match="damaged"):
        trained.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        trained.load(tmp_path)


def test_a_run_without_a_gan_says_which_vae_there_is(tmp_path):
    made_runs.write(tmp_path, made_runs.tiny(), gan_steps=())
    with pytest.raises(UserError, match=r"no sound checkpoint of its gan.*vae there are 3, 7"):
        trained.load(tmp_path)
    assert trained.load(tmp_path, "vae").step == 7


def test_a_gan_from_scratch_has_no_encoder(tmp_path):
    made_runs.write(tmp_path, made_runs.tiny(), vae_steps=(), scratch=True)
    model = trained.load(tmp_path)
    assert not model.has_encoder
    with pytest.raises(UserError, match="no encoder"):
        model.encode(np.zeros((1, *SHAPE), np.float32))
    np.testing.assert_array_equal(model.to_generator_latents(latents(2)), latents(2))


def test_what_does_not_fit_the_network_is_refused(run):
    model = trained.load(run[0])
    for bad in (np.zeros((2, 4)), np.zeros(5)):
        with pytest.raises(UserError, match=r"Latents of \[B, 5\]"):
            model.decode(bad)
    with pytest.raises(UserError, match="not finite"):
        model.decode(np.full((1, 5), np.nan))
    with pytest.raises(UserError, match="16x32x3 are wanted, and these are of 16x16x3"):
        model.encode(np.zeros((1, 16, 16, 3)))


def test_the_hash_is_of_what_decodes(run):
    path = run[0]
    one = trained.load(path, "vae").facts["sha256"]
    assert one == trained.load(path, "vae", encoder=False).facts["sha256"]
    assert one != trained.load(path, "vae", step=3).facts["sha256"]
    assert one != trained.load(path, "gan").facts["sha256"]


def test_an_export_loads_to_the_same_bits(run, tmp_path):
    model = trained.load(run[0])
    card = {
        "config": json.loads((run[0] / "config.json").read_text()),
        "steps": {"gan": 5, "vae": 7},
        "dtype": "float32",
    }
    file = tmp_path / "model.safetensors"
    file.write_bytes(weights.pack(model.parts, card))
    again = trained.load(file)
    np.testing.assert_array_equal(again.decode(latents(3)), model.decode(latents(3)))
    np.testing.assert_array_equal(
        again.to_generator_latents(latents(3)), model.to_generator_latents(latents(3))
    )
    assert again.facts["sha256"] == model.facts["sha256"]
    assert trained.steps(file, "gan") == [5]
    with pytest.raises(UserError, match=r"no gan of step 3: it holds the gan of step 5"):
        trained.load(file, step=3)
    with pytest.raises(UserError, match=r"decoder in .* does not fit"):
        trained.load(file, "vae")


def test_the_parts_of_a_learned_likelihood_are_read_where_there_are_some(run, tmp_path):
    folder = workdir.Workdir(run[0])
    found = trained.read_parts(
        made_runs.tiny(), SHAPE, folder, {"vae": 7, "gan": None}, trained.PARTS
    )
    assert found["likelihood"] is None
    assert found["generator"] is None
    assert jax.tree.leaves(found["decoder"])
