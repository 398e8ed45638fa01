"""Sessions over runs with and without encoder and generator."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests import made_runs
from tests.data.test_decoding import png as broken_png
from tests.explorer.conftest import png
from vaegan_jax import randomness, trained
from vaegan_jax.data import preprocessing
from vaegan_jax.errors import UserError
from vaegan_jax.explorer import session as module
from vaegan_jax.explorer.session import Session

LATENT = [0.3, -1.0, 0.5, 2.0, 0.1]


def pixels(url):
    """Decodes a data URL."""
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def request(value):
    return json.dumps(value).encode()


def expected(run_path, latent):
    """Returns the newest models' pictures at a latent of the generator, by the formula."""
    gan, vae = trained.load(run_path, "gan"), trained.load(run_path, "vae")
    z = np.asarray([latent], np.float32)
    mapped = np.asarray(gan.parts["latent_mean"]) + z @ np.asarray(gan.parts["latent_factor"]).T
    return {
        name: np.asarray(preprocessing.to_uint8(images))[0].astype(int)
        for name, images in (("gan", gan.decode(z)), ("vae", vae.decode(mapped)))
    }


def test_decode_shows_both_networks_at_matching_latents(session, run_path):
    pictures = session.decode(request(LATENT))
    for name, picture in expected(run_path, LATENT).items():
        assert np.abs(pixels(pictures[name]) - picture).max() <= 1
    assert pictures.keys() == {"vae", "gan"}


def test_samples_are_those_of_the_sample_command(session, run_path):
    samples = session.samples(b"7")
    latents = np.asarray(randomness.picture_latents(7, (module.SAMPLES, 5), "normal"))
    np.testing.assert_array_equal(np.float32([each["latent"] for each in samples]), latents)
    shown = pixels(samples[3]["picture"])
    assert np.abs(shown - expected(run_path, latents[3])["gan"]).max() <= 1


def test_directions_change_the_first_layer_most():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(12, 40)) * rng.uniform(0.1, 3, size=(12, 1))
    result = module.directions(kernel)
    left, singular, _ = np.linalg.svd(kernel, full_matrices=False)
    np.testing.assert_allclose(np.abs((result * left.T[:8]).sum(axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(result @ kernel, axis=1), singular[:8], rtol=1e-9)


def test_encode_applies_the_runs_preprocessing(session, run_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    result = session.encode(file.getvalue())
    seen = preprocessing.prepare(image, preprocessing.Settings(16, 32))
    np.testing.assert_array_equal(pixels(result["picture"]), seen)
    gan = trained.load(run_path, "gan")
    mean, _ = gan.encode(np.float32(seen[None] / 127.5 - 1))
    latent = np.linalg.solve(gan.parts["latent_factor"], mean[0] - gan.parts["latent_mean"])
    np.testing.assert_allclose(result["latent"], latent, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"vae_steps": (), "scratch": True}, {"gan": 5}), ({"gan_steps": ()}, {"vae": 7})],
)
def test_run_with_one_model(tmp_path, options, steps):
    made_runs.write(tmp_path, made_runs.tiny(), **options)
    opened = Session(tmp_path)
    assert opened.facts()["steps"] == steps
    assert opened.decode(request(LATENT)).keys() == steps.keys()
    assert np.shape(opened.facts()["directions"]) == (5, 5)
    assert opened.facts()["encoder"] == ("vae" in steps)
    if "vae" not in steps:
        with pytest.raises(UserError, match="no encoder"):
            opened.encode(png(40, 20))


def test_run_without_checkpoint_is_refused(tmp_path):
    made_runs.write(tmp_path, made_runs.tiny(), vae_steps=(), gan_steps=())
    with pytest.raises(UserError, match="no checkpoint"):
        Session(tmp_path)


@pytest.mark.parametrize(
    ("action", "body"),
    [("decode", body)
     for body in (b"", b"[" * 100_000, b"\xff\xfe\x00{", b"{}", b"null", b"[1, 2, 3, 4]",
                  b'["a"]', b"[[1], [2, 3]]", b"[1e999, 0, 0, 0, 0]", request([10**400] * 5))]
    + [("samples", body) for body in (b"", b"-1", b"4294967296", b"1.5", b"true", b'"1"', b"[1]")]
    + [("encode", body)
       for body in (b"", b"GET / HTTP/1.1", png(50, 50)[:60], png(1, 500),
                    broken_png((7_000, 7_000, 8, 2, 0, 0, 0), b""))],
)  # fmt: skip
def test_invalid_request_is_refused(session, action, body):
    with pytest.raises(UserError):
        getattr(session, action)(body)
