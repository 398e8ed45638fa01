"""Sessions over runs, with and without data, encoder and generator."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.explorer import sessions
from vaegan_jax import trained
from vaegan_jax.data import images, preprocessing
from vaegan_jax.data.decoding import BadImage
from vaegan_jax.data.preprocessing import Settings
from vaegan_jax.errors import UserError
from vaegan_jax.explorer import session as module
from vaegan_jax.explorer.session import NotFound, Session


def training_images(run_path):
    """Returns the encoded training images, and the number of all."""
    train = images.load(trained.load(run_path, "gan").config.data).train
    return train[np.arange(sessions.COUNT) * len(train) // sessions.COUNT], len(train)


LATENT = np.array([0.3, -1.0, 0.5, 2.0, 0.1], np.float32)


@pytest.mark.parametrize("steps", [{"vae": 3, "gan": 5}, {"vae": 7, "gan": 2}, {"gan": 5}])
def test_pair_decodes_with_the_loaded_models(session, run_path, steps):
    pictures = session.pair(LATENT, steps)
    assert pictures.keys() == steps.keys()
    for model, step in steps.items():
        loaded = trained.load(run_path, model, step)
        expected = preprocessing.to_uint8(loaded.decode(loaded.to_generator_latents(LATENT[None])))[
            0
        ]
        assert np.abs(pictures[model].astype(int) - np.asarray(expected, int)).max() <= 1


def test_missing_step_is_not_found(session):
    with pytest.raises(NotFound, match="step 4 of the gan"):
        session.pair(LATENT, {"gan": 4})


def test_random_latents_follow_the_generators_prior(session, run_path):
    gan = trained.load(run_path, "gan")
    generator_latents = gan.to_generator_latents(
        np.stack([session.random(seed) for seed in range(300)])
    )
    np.testing.assert_allclose(generator_latents.mean(axis=0), 0, atol=0.25)
    np.testing.assert_allclose(generator_latents.std(axis=0), 1, atol=0.2)
    assert (session.random(1) == session.random(1)).all()


def test_training_image_is_nearest_to_itself(session, run_path):
    for index in (0, 17, 400):
        latent, picture = session.example(index)
        rows = session.nearest(latent, "latents", "vae", None, 3)
        assert rows[0] == (index, 0)
        assert rows == sorted(rows, key=lambda row: row[1])
        mean, _ = session.encode(_file(picture))
        np.testing.assert_allclose(mean, latent, atol=1e-5)


def test_pixel_distances_are_rms_differences(session, run_path):
    picture = session.pair(LATENT, {"gan": 5})["gan"].astype(float)
    rows = session.nearest(LATENT, "pixels", "gan", 5, 4)
    data, _ = training_images(run_path)
    every = np.sqrt(((data - picture) ** 2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose([distance for _, distance in rows], np.sort(every)[:4], rtol=1e-5)
    assert [row for row, _ in rows] == np.argsort(every, kind="stable")[:4].tolist()


def test_facts_describe_the_run(session, run_path):
    facts = session.facts()
    assert facts["checkpoints"] == {"vae": [3, 7], "gan": [2, 5]}
    assert facts["data"]["state"] == "ready"
    assert facts["data"]["total"] == training_images(run_path)[1]
    assert facts["data"]["count"] == session.points().shape[1] == sessions.COUNT
    assert facts["space"]["measured"]
    assert np.shape(facts["space"]["directions"]) == (5, 5)


def test_changed_images_disable_map_and_nearest(tmp_path):
    opened = sessions.make_session(tmp_path / "run", data=False)
    facts = opened.facts()
    assert facts["data"]["state"] == "absent"
    assert not facts["space"]["measured"]
    assert opened.pair(LATENT, {"vae": 7})["vae"].shape == (16, 32, 3)
    assert opened.encode(sessions.png(40, 20))[0].shape == (5,)
    for request in (opened.points, lambda: opened.example(0)):
        with pytest.raises(NotFound):
            request()


def test_gan_without_vae(tmp_path):
    opened = sessions.make_session(tmp_path / "run", vae_steps=(), scratch=True)
    facts = opened.facts()
    assert facts["checkpoints"] == {"vae": [], "gan": [2, 5]}
    assert not facts["encoder"]
    assert facts["space"] is not None
    assert opened.pair(LATENT, {"gan": 5})["gan"].dtype == np.uint8
    with pytest.raises(NotFound):
        opened.encode(sessions.png(40, 20))


def test_vae_without_gan(tmp_path):
    opened = Session(sessions.make_run(tmp_path / "run", gan_steps=()))
    assert opened.checkpoints() == {"vae": [3, 7], "gan": []}
    assert opened.random(0).shape == (5,)


def test_run_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        Session(sessions.make_run(tmp_path / "run", vae_steps=(), gan_steps=()))


def test_crop_is_applied_after_exif_orientation():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 30:] = 255  # bright on the right
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise: bright at the bottom
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    settings = Settings(16, 16)
    bottom = module.crop_picture(file.getvalue(), (0, 0.8, 1, 0.2), settings)
    top = module.crop_picture(file.getvalue(), (0, 0, 1, 0.5), settings)
    assert (bottom == 255).all()
    assert (top == 0).all()


def test_without_crop_the_runs_preprocessing_is_applied():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
    settings = Settings(16, 32)
    np.testing.assert_array_equal(
        module.crop_picture(_file(np.asarray(image)), None, settings),
        preprocessing.prepare(image, settings),
    )


def test_too_large_image_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 99)
    with pytest.raises(BadImage, match="10x10"):
        module.crop_picture(sessions.png(10, 10), None, Settings(16, 16))


def _file(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
