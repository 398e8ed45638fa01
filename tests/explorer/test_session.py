"""A session over a run: its pictures, its data, and what it does without them."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.explorer import made
from vaegan_jax import trained
from vaegan_jax.data import images, preprocessing
from vaegan_jax.data.decoding import BadImage
from vaegan_jax.data.preprocessing import Settings
from vaegan_jax.errors import UserError
from vaegan_jax.explorer import session as sessions
from vaegan_jax.explorer.session import NotThere, Session


@pytest.fixture(scope="module")
def path(tmp_path_factory, data_directory):
    return made.run(tmp_path_factory.mktemp("run") / "faces")


@pytest.fixture(scope="module")
def session(path):
    opened = Session(path)
    opened.prepare()
    return opened


def training_images(session):
    return images.load(trained.load(session._source, "gan").config.data).train


LATENT = np.array([0.3, -1.0, 0.5, 2.0, 0.1], np.float32)


@pytest.mark.parametrize("steps", [{"vae": 3, "gan": 5}, {"vae": 7, "gan": 2}, {"gan": 5}])
def test_pictures_are_those_of_the_loaded_models(session, path, steps):
    pictures = session.pair(LATENT, steps)
    assert pictures.keys() == steps.keys()
    for model, step in steps.items():
        loaded = trained.load(path, model, step)
        wanted = preprocessing.to_uint8(loaded.decode(loaded.to_generator_latents(LATENT[None])))[0]
        assert np.abs(pictures[model].astype(int) - np.asarray(wanted, int)).max() <= 1


def test_checkpoints_and_networks_differ(session):
    a, b = (session.pair(LATENT, {"vae": 7, "gan": step}) for step in (2, 5))
    assert (a["vae"] == b["vae"]).all()
    assert (a["gan"] != b["gan"]).any()
    assert (a["vae"] != a["gan"]).any()


def test_few_models_are_kept_however_many_are_asked_for(session, monkeypatch):
    monkeypatch.setattr(sessions, "_MAX_MODELS", 2)
    session._models.clear()
    for steps in ({"vae": 3}, {"vae": 7}, {"gan": 2}, {"gan": 5}):
        session.pair(LATENT, steps)
    assert len(session._models) == 2


def test_a_step_that_is_not_there_says_so(session):
    with pytest.raises(NotThere, match="no checkpoint of step 4 of the gan"):
        session.pair(LATENT, {"gan": 4})


def test_a_random_latent_is_a_draw_for_the_generator(session, path):
    gan = trained.load(path, "gan")
    own = gan.to_generator_latents(np.stack([session.random(seed) for seed in range(300)]))
    np.testing.assert_allclose(own.mean(axis=0), 0, atol=0.25)
    np.testing.assert_allclose(own.std(axis=0), 1, atol=0.2)
    assert (session.random(1) == session.random(1)).all()


def test_a_training_image_is_nearest_to_itself(session, path):
    for index in (0, 17, 4000):
        latent, picture = session.example(index)
        rows = session.nearest(latent, "latents", "vae", None, 3)
        assert rows[0] == (index, 0)
        assert rows == sorted(rows, key=lambda row: row[1])
        mean, _ = session.encode(_file(picture))
        np.testing.assert_allclose(mean, latent, atol=1e-5)


def test_distances_in_pixels_are_the_roots_of_mean_squares(session):
    picture = session.pair(LATENT, {"gan": 5})["gan"].astype(float)
    found = session.nearest(LATENT, "pixels", "gan", 5, 4)
    data = training_images(session)
    every = np.sqrt(((data[np.arange(len(data))] - picture) ** 2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose([d for _, d in found], np.sort(every)[:4], rtol=1e-5)
    assert [row for row, _ in found] == np.argsort(every, kind="stable")[:4].tolist()


def test_facts_say_what_there_is(session):
    facts = session.facts()
    assert facts["checkpoints"] == {"vae": [3, 7], "gan": [2, 5]}
    assert facts["data"]["state"] == "ready"
    assert facts["data"]["count"] == session.points().shape[1] == len(training_images(session))
    assert facts["space"]["measured"]
    assert np.shape(facts["space"]["directions"]) == (5, 5)


def test_facts_say_of_how_many_images_those_encoded_are(path, monkeypatch):
    monkeypatch.setattr(sessions, "_MAX_IMAGES", 30)
    opened = Session(path)
    opened.prepare()
    data = opened.facts()["data"]
    assert (data["count"], data["total"]) == (30, len(training_images(opened)))


def test_changed_images_leave_all_but_map_and_neighbours(tmp_path):
    opened = made.session(tmp_path / "run", data=False)
    facts = opened.facts()
    assert facts["data"]["state"] == "absent"
    assert "have changed" in facts["data"]["note"]
    assert not facts["space"]["measured"]
    assert opened.pair(LATENT, {"vae": 7})["vae"].shape == (16, 32, 3)
    assert opened.encode(made.png(40, 20))[0].shape == (5,)
    for ask in (opened.points, lambda: opened.example(0)):
        with pytest.raises(NotThere, match="have changed"):
            ask()


def test_a_gan_alone_is_explored_without_an_encoder(tmp_path):
    opened = made.session(tmp_path / "run", vae_steps=(), scratch=True)
    facts = opened.facts()
    assert facts["checkpoints"] == {"vae": [], "gan": [2, 5]}
    assert not facts["encoder"]
    assert facts["space"] is not None
    assert opened.pair(LATENT, {"gan": 5})["gan"].dtype == np.uint8
    with pytest.raises(NotThere, match="no encoder"):
        opened.encode(made.png(40, 20))


def test_a_vae_alone_is_explored_without_a_generator(tmp_path):
    opened = Session(made.run(tmp_path / "run", gan_steps=()))
    assert opened.checkpoints() == {"vae": [3, 7], "gan": []}
    assert opened.random(0).shape == (5,)


def test_a_run_without_checkpoints_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="nothing to explore yet"):
        Session(made.run(tmp_path / "run", vae_steps=(), gan_steps=()))


def test_a_crop_is_of_the_upright_picture():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 30:] = 255  # bright on the right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: bright at the bottom
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    settings = Settings(16, 16)
    bottom = sessions.crop_picture(file.getvalue(), (0, 0.8, 1, 0.2), settings)
    top = sessions.crop_picture(file.getvalue(), (0, 0, 1, 0.5), settings)
    assert (bottom == 255).all()
    assert (top == 0).all()


def test_without_a_crop_the_runs_own_preprocessing_decides():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
    settings = Settings(16, 32)
    np.testing.assert_array_equal(
        sessions.crop_picture(_file(np.asarray(image)), None, settings),
        preprocessing.prepare(image, settings),
    )


def test_pictures_beyond_the_bound_are_not_decoded(monkeypatch):
    monkeypatch.setattr(sessions, "MAX_PIXELS", 99)
    with pytest.raises(BadImage, match="too large: 10x10"):
        sessions.crop_picture(made.png(10, 10), None, Settings(16, 16))


def _file(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
