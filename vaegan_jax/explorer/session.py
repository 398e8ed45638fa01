"""What the explorer shows: the models of a run, as functions of requests."""

import base64
import io
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from vaegan_jax import randomness, trained
from vaegan_jax.data import decoding, images, preprocessing
from vaegan_jax.errors import UserError, one_line

SAMPLES = 16
DIRECTIONS = 8
MAX_PIXELS = 40_000_000  # of an uploaded image


class Session:
    """The newest decoder and generator of a run, an export or the bundled model (`trained.load`).

    Latents are those of the generator if there is one, and of the decoder otherwise: lists of L
    numbers. Pictures are PNG files as data URLs. Requests and responses are JSON.

    Raises:
      UserError: if there is no checkpoint, or a request is invalid.
    """

    def __init__(self, source: str | pathlib.Path) -> None:
        self.models = {
            model: trained.load(source, model)
            for model in trained.MODELS
            if trained.steps(source, model)
        }
        if not self.models:
            raise UserError(f"There is nothing to explore: {source} has no checkpoint yet.")
        self.main = self.models.get("gan") or self.models["vae"]
        self.name = pathlib.Path(source).name

    def facts(self, _: bytes = b"") -> dict[str, Any]:
        """Returns what the page needs before the first request."""
        return {
            "name": self.name,
            "steps": {name: model.step for name, model in self.models.items()},
            "encoder": self.main.has_encoder,
            "directions": directions(self.main.params["dense"]["kernel"]).tolist(),
        }

    def samples(self, body: bytes) -> list[dict[str, Any]]:
        """Draws `SAMPLES` latents by a seed; those of `vaegan sample --seed`."""
        seed = _parse(body)
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise UserError("The seed must be an integer from 0 to 4294967295.")
        shape = (SAMPLES, self.main.latent_size)
        latents = np.asarray(randomness.picture_latents(seed, shape, self.main.noise))
        urls = _to_urls(self.main.decode(latents))
        return [{"latent": z.tolist(), "picture": x} for z, x in zip(latents, urls, strict=True)]

    def decode(self, body: bytes) -> dict[str, str]:
        """Returns the picture of each model, by name, at one latent."""
        try:
            latents = np.asarray([_parse(body)], np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError("A latent must be a list of numbers.") from error
        inputs = {"vae": self.main.to_encoder_latents(latents), "gan": latents}
        return {
            name: _to_urls(model.decode(inputs[name]))[0] for name, model in self.models.items()
        }

    def encode(self, body: bytes) -> dict[str, Any]:
        """Encodes an image file: the latent, and the picture that the encoder received."""
        try:
            image = decoding.decode(body, MAX_PIXELS)
            pixels = preprocessing.prepare(image, images.settings(self.main.config.data))
        except (decoding.BadImage, ValueError) as error:
            raise UserError(f"The image cannot be used ({one_line(error)}).") from error
        picture = preprocessing.to_network(jnp.asarray(pixels[None]))
        mean, _ = self.main.encode(picture)
        latent = self.main.to_generator_latents(mean)[0]
        return {"latent": latent.tolist(), "picture": _to_urls(picture)[0]}


def directions(kernel: np.ndarray) -> np.ndarray:
    """Returns the directions in which the first layer's output changes most, by the change.

    Shen and Zhou 2021, arXiv 2007.06600, equation 6: the eigenvectors of the Gram matrix of the
    layer's kernel, float32 [L, features], with the largest eigenvalues, as orthonormal rows,
    float64 [min(L, DIRECTIONS), L].
    """
    kernel = np.asarray(kernel, np.float64)
    _, vectors = np.linalg.eigh(kernel @ kernel.T)  # in ascending order
    return vectors.T[::-1][:DIRECTIONS]


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError("The request is not valid JSON.") from error


def _to_urls(pictures: Any) -> list[str]:
    """Returns pictures, float32 [B, H, W, C] in [-1, 1], as data URLs."""
    urls = []
    for pixels in np.asarray(preprocessing.to_uint8(jnp.asarray(pictures))):
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
        urls.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
    return urls
