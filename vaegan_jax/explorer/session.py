"""State of the explorer: the models of a run by step, and its encoded training images."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vaegan_jax import networks, randomness, trained
from vaegan_jax.data import decoding, images, preprocessing
from vaegan_jax.data.decoding import BadImage
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.explorer import space
from vaegan_jax.explorer.space import Space

MAX_PIXELS = 40_000_000
"""Maximum number of pixels of an uploaded image."""

_MAX_MODELS = 24
_MAX_IMAGES = 10_000
_MAX_BYTES = 256 * 2**20
_BLOCK = 512

Crop = tuple[float, float, float, float]
"""Left, top, width and height of a crop, as fractions of the upright image."""


class NotFound(Exception):  # noqa: N818 - a response to a request, not an error of the program
    """A checkpoint or image that does not exist."""


class Encoded(NamedTuple):
    """Encoded training images.

    Attributes:
      total: total number of training images; N of them are encoded.
      pictures: uint8 [N, H, W, C].
      means: posterior means, float32 [N, L].
      space: measured from the means.
      points: see `space.project`.
    """

    total: int
    pictures: np.ndarray
    means: np.ndarray
    space: Space
    points: np.ndarray


class Session:
    """An opened run, export or the bundled model; thread-safe.

    All latents are the encoder's, float32 [L], of the newest checkpoint of the VAE. They are
    converted for a generator with other latents.

    Attributes:
      name: of the run.
      image_shape: (height, width, channels).
      latent_size: L.
      has_encoder: whether images can be encoded.
    """

    def __init__(self, source: str | pathlib.Path) -> None:
        """Opens a source, see `trained.load`; the data set is read by `prepare`.

        Raises:
          UserError: if there is no checkpoint.
        """
        self._source = source
        available = self.checkpoints()
        if not any(available.values()):
            raise UserError(f"There is nothing to explore: {source} has no checkpoint yet.")
        self._newest = {
            model: trained.load(source, model) for model, steps in available.items() if steps
        }
        self._load = functools.lru_cache(_MAX_MODELS)(self._load_step)
        # The VAE if there is one, since the encoder belongs to it.
        self._main = self._newest.get("vae") or self._newest["gan"]
        self.name = pathlib.Path(source).name
        self.image_shape = self._main.image_shape
        self.latent_size = self._main.latent_size
        self.has_encoder = self._main.has_encoder
        self._settings = images.settings(self._main.config.data)
        decode = networks.make_decode(self._main.config.model, self.image_shape)
        # One program for all checkpoints, for a single latent: latency matters.
        self._decode = jax.jit(lambda params, z: preprocessing.to_uint8(decode(params, z))[0])
        self._encoded: Encoded | None = None
        self._unmeasured: Space | None = None
        self._note = "The data set is being read."
        self._progress = 0.0
        if not self.has_encoder:
            self._set_absent("There is no VAE, and so no encoder.")
        self._warm_up()

    def checkpoints(self) -> dict[str, list[int]]:
        """Returns the available steps of "vae" and "gan", ascending."""
        return {model: trained.steps(self._source, model) for model in trained.MODELS}

    def facts(self) -> dict[str, Any]:
        """Returns what the page needs, JSON-compatible."""
        encoded = self._encoded
        current = encoded.space if encoded else self._unmeasured
        height, width, channels = self.image_shape
        return {
            "name": self.name,
            "image": {"height": height, "width": width, "channels": channels},
            "latent_size": self.latent_size,
            "checkpoints": self.checkpoints(),
            "encoder": self.has_encoder,
            "data": {
                "state": "ready" if encoded else "absent" if current else "reading",
                "count": len(encoded.means) if encoded else 0,
                "total": encoded.total if encoded else 0,
                "progress": self._progress,
                "note": "" if encoded else self._note,
            },
            "space": None
            if current is None
            else {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in current._asdict().items()
            },
        }

    def prepare(self) -> None:
        """Reads the data set and encodes up to 10,000 images; meant for a thread.

        If the data is missing or has changed, `facts` gets a note, and the space is not measured.
        """
        if not self.has_encoder:
            return
        try:
            self._encoded = self._encode_data()
        except (UserError, OSError) as error:
            self._set_absent(one_line(error))
        except Exception:
            self._set_absent("The data set cannot be read: see the terminal.")
            raise

    def pair(self, latent: np.ndarray, steps: dict[str, int | None]) -> dict[str, np.ndarray]:
        """Decodes one latent with each network: uint8 [H, W, C] by model.

        Args:
          latent: the encoder's, float32 [L].
          steps: of the checkpoints, by model; models with None are left out.

        Raises:
          NotFound: if there is no such checkpoint.
          UserError: if it cannot be read.
        """
        # Both computations are started before the first result is awaited.
        pictures = {
            model: self._picture(self._model(model, step), latent)
            for model, step in steps.items()
            if step is not None
        }
        return {model: np.asarray(picture) for model, picture in pictures.items()}

    def random(self, seed: int) -> np.ndarray:
        """Samples the generator's training distribution, or the VAE's prior if there is no GAN.

        Returns:
          The encoder's latent, float32 [L].
        """
        gan = self._newest.get("gan")
        noise = gan.config.gan.noise if gan else "normal"
        sample = randomness.picture_latents(seed, (1, self.latent_size), noise)
        latent: np.ndarray = (gan.to_encoder_latents(sample) if gan else np.asarray(sample))[0]
        return latent

    def encode(self, data: bytes, crop: Crop | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Encodes an image file.

        Args:
          data: content of the file.
          crop: None for the run's preprocessing.

        Returns:
          The posterior mean, float32 [L], and the encoder's input, uint8 [H, W, C].

        Raises:
          BadImage: if the file cannot be used.
          NotFound: if there is no encoder.
        """
        if not self.has_encoder:
            raise NotFound("There is no VAE, and so no encoder.")
        picture = crop_picture(data, crop, self._settings)
        return self._encode(picture[None])[0], picture

    def nearest(
        self, latent: np.ndarray, by: str, model: str, step: int | None, count: int
    ) -> list[tuple[int, float]]:
        """Returns the nearest training images as (index, distance), in ascending order.

        Args:
          latent: the encoder's, float32 [L].
          by: "pixels" for the RMS difference to the picture of `model` at `step`, in grey values of
            0 to 255; "latents" for the Euclidean distance to the posterior means.
          model: "vae" or "gan".
          step: of its checkpoint.
          count: maximum number.

        Raises:
          NotFound: if there is no data or no such checkpoint.
        """
        encoded = self._require_encoded()
        if by == "latents":
            distances = np.linalg.norm(encoded.means - latent, axis=1)
        else:
            picture = self.pair(latent, {model: step})[model].reshape(-1).astype(np.float32)
            flat = encoded.pictures.reshape(len(encoded.pictures), -1)
            blocks = (flat[i : i + _BLOCK] for i in range(0, len(flat), _BLOCK))
            squares = [np.square(block - picture).mean(axis=1) for block in blocks]
            distances = np.sqrt(np.concatenate(squares))
        rows = np.argsort(distances, kind="stable")[:count]
        return [(int(row), float(distances[row])) for row in rows]

    def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a training image's latent, float32 [L], and its pixels, uint8 [H, W, C].

        Raises:
          NotFound: if there is no such image.
        """
        encoded = self._require_encoded()
        if not 0 <= index < len(encoded.means):
            raise NotFound(f"There is no image {index}: they are 0 to {len(encoded.means) - 1}.")
        return encoded.means[index], encoded.pictures[index]

    def points(self) -> np.ndarray:
        """Returns the positions of the data on the map; see `space.project`.

        Raises:
          NotFound: if there is no data.
        """
        return self._require_encoded().points

    def _require_encoded(self) -> Encoded:
        if self._encoded is None:
            raise NotFound(self._note)
        return self._encoded

    def _model(self, model: str, step: int) -> trained.Trained:
        newest = self._newest.get(model)
        return newest if newest and newest.step == step else self._load(model, step)

    def _load_step(self, model: str, step: int) -> trained.Trained:
        if step not in self.checkpoints()[model]:
            raise NotFound(f"There is no checkpoint of step {step} of the {model}.")
        return trained.load(self._source, model, step, encoder=False)

    def _picture(self, model: trained.Trained, latent: np.ndarray) -> jax.Array:
        picture: jax.Array = self._decode(model.params, model.to_generator_latents(latent[None]))
        return picture

    def _encode(self, pictures: np.ndarray) -> np.ndarray:
        """Returns the posterior means of uint8 [N, H, W, C]: float32 [N, L]."""
        return np.asarray(self._main.encode(preprocessing.to_network(jnp.asarray(pictures)))[0])

    def _warm_up(self) -> None:
        """Compiles the programs, so that the first request is as fast as the others."""
        zeros = np.zeros(self.latent_size, np.float32)
        self.pair(zeros, {model: newest.step for model, newest in self._newest.items()})
        self.random(0)
        if self.has_encoder:
            self._encode(np.zeros((1, *self.image_shape), np.uint8))

    def _set_absent(self, note: str) -> None:
        self._note, self._unmeasured = note, space.unmeasured(self.latent_size)

    def _encode_data(self) -> Encoded:
        data = images.load(self._main.config.data)
        recorded = self._main.facts.get("data")
        if recorded and recorded["digest"] != data.digest:
            raise UserError("The images have changed since the run began.")
        max_count = max(2, min(_MAX_IMAGES, _MAX_BYTES // int(np.prod(self.image_shape))))
        count = min(len(data.train), max_count)
        rows = np.arange(count) * len(data.train) // count
        pictures = np.empty((count, *self.image_shape), np.uint8)
        means = np.empty((count, self.latent_size), np.float32)
        for first in range(0, count, _BLOCK):
            block = slice(first, first + _BLOCK)
            pictures[block] = data.train[rows[block]]
            means[block] = self._encode(pictures[block])
            self._progress = min(1.0, (first + _BLOCK) / count)
        if not np.isfinite(means).all():
            raise UserError("The encoder's outputs are not finite.")
        measured = space.measure(means)
        points = space.project(means, measured)
        return Encoded(len(data.train), pictures, means, measured, points)


def crop_picture(data: bytes, crop: Crop | None, settings: preprocessing.Settings) -> np.ndarray:
    """Crops and preprocesses an image file: uint8 [H, W, C].

    Args:
      data: content of the file.
      crop: applied first; None for none.
      settings: of the run's preprocessing.

    Raises:
      BadImage: if the file is not an image, is too large or cannot be used.
    """
    image = decoding.decode(data, MAX_PIXELS)
    try:
        rgb = preprocessing.to_rgb(preprocessing.upright(image), settings.background)
        image = Image.fromarray(np.asarray(rgb))  # without the orientation tag
        if crop is not None:
            left, top, width, height = crop
            box = (
                round(left * image.width),
                round(top * image.height),
                round((left + width) * image.width),
                round((top + height) * image.height),
            )
            if box[0] >= box[2] or box[1] >= box[3]:
                raise BadImage("the crop is empty")
            image = image.crop(box)
        return preprocessing.prepare(image, settings)
    except ValueError as error:
        raise BadImage(one_line(error)) from None
