"""What the explorer knows of a run: its models by step, its data as the encoder sees them."""

import collections
import pathlib
import threading
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
"""No picture that is dropped may have more."""

_MAX_MODELS = 24
_MAX_IMAGES = 10_000
_MAX_BYTES = 256 * 2**20
_BLOCK = 512

Crop = tuple[float, float, float, float]
"""Left, top, width and height of what is cut out, as shares of the upright picture."""


class NotThere(Exception):  # noqa: N818 - an answer to a request, not a fault of the program
    """What was asked for does not exist, such as a checkpoint deleted meanwhile."""


class Encoded(NamedTuple):
    """Training images and where they lie.

    Attributes:
      total: number of training images, of which N are encoded.
      pictures: uint8 [N, H, W, C].
      means: of their posteriors, float32 [N, L].
      space: that they span.
      points: see `space.project`.
    """

    total: int
    pictures: np.ndarray
    means: np.ndarray
    space: Space
    points: np.ndarray


class Session:
    """A run, an export or the pretrained model, open to be explored; for any number of threads.

    All latents are the encoder's, float32 [L]: those of the VAE's newest checkpoint. A generator
    that takes its own latents is given the ones that match.

    Attributes:
      name: of the run.
      image_shape: (height, width, channels).
      latent_size: L.
      has_encoder: whether pictures can be encoded.
    """

    def __init__(self, source: str | pathlib.Path) -> None:
        """Opens a source; see `trained.load`. Nothing of the data is read before `prepare`.

        Raises:
          UserError: where there is nothing to explore.
        """
        self._source = source
        there = self.checkpoints()
        if not any(there.values()):
            raise UserError(f"There is nothing to explore yet: no checkpoint is saved in {source}.")
        self._lock = threading.Lock()
        self._models: collections.OrderedDict[tuple[str, int], trained.Trained]
        self._models = collections.OrderedDict()
        self._loading: dict[tuple[str, int], threading.Lock] = {}
        self._newest = {
            model: trained.load(source, model) for model, steps in there.items() if steps
        }
        for model, found in self._newest.items():
            self._models[model, found.step] = found
        # The decoder, where there is one: it is what the encoder belongs to.
        self._main = self._newest.get("vae") or self._newest["gan"]
        self.name = pathlib.Path(source).name
        self.image_shape = self._main.image_shape
        self.latent_size = self._main.latent_size
        self.has_encoder = self._main.has_encoder
        self._settings = images.settings(self._main.config.data)
        decode = networks.make_decode(self._main.config.model, self.image_shape)
        # One program for all checkpoints, of one latent: it must be quick.
        self._decode = jax.jit(lambda p, z: preprocessing.to_uint8(decode(p, z))[0])
        self._encoded: Encoded | None = None
        self._probed: Space | None = None
        self._note = "The data set is being read." if self.has_encoder else ""
        self._progress = 0.0
        if not self.has_encoder:
            self._do_without("There is no encoder, which a VAE alone has.")
        self._warm()

    def checkpoints(self) -> dict[str, list[int]]:
        """Returns the steps that can be looked at, rising, of "vae" and of "gan"."""
        return {model: trained.steps(self._source, model) for model in trained.MODELS}

    def facts(self) -> dict[str, Any]:
        """Returns what the page needs to know, as JSON can hold it."""
        encoded = self._encoded
        found = encoded.space if encoded else self._probed
        height, width, channels = self.image_shape
        return {
            "name": self.name,
            "image": {"height": height, "width": width, "channels": channels},
            "latent_size": self.latent_size,
            "checkpoints": self.checkpoints(),
            "encoder": self.has_encoder,
            "data": {
                "state": "ready" if encoded else "absent" if found else "reading",
                "count": len(encoded.means) if encoded else 0,
                "total": encoded.total if encoded else 0,
                "progress": self._progress,
                "note": self._note,
            },
            "space": None
            if found is None
            else {
                name: part.tolist() if isinstance(part, np.ndarray) else part
                for name, part in found._asdict().items()
            },
        }

    def prepare(self) -> None:
        """Reads the data set and encodes it, up to 10,000 images; for a separate thread.

        Where the data are gone or have changed, a note in `facts` says so, and the space is
        probed instead of being measured.
        """
        if not self.has_encoder:
            return
        try:
            self._encoded = self._encode_data()
            self._note = ""
        except (UserError, OSError) as error:
            self._do_without(one_line(error))
        except Exception:
            self._do_without("The data set cannot be read; the terminal says why.")
            raise

    def pair(self, latent: np.ndarray, steps: dict[str, int | None]) -> dict[str, np.ndarray]:
        """Returns what each network makes of one latent: uint8 [H, W, C] by model.

        Args:
          latent: the encoder's, float32 [L].
          steps: of which checkpoint, by model; None or absent where it is not wanted.

        Raises:
          NotThere: where there is no such checkpoint.
          UserError: where it cannot be read.
        """
        wanted = [(model, step) for model, step in steps.items() if step is not None]
        # Both are under way before the first is waited for.
        made = {model: self._picture(self._model(model, step), latent) for model, step in wanted}
        return {model: np.asarray(picture) for model, picture in made.items()}

    def random(self, seed: int) -> np.ndarray:
        """Returns a draw of what the generator was trained on, as the encoder's latent.

        Without a GAN it is of the VAE's prior.
        """
        gan = self._newest.get("gan")
        noise = gan.config.gan.noise if gan else "normal"
        drawn = randomness.picture_latents(seed, (1, self.latent_size), noise)
        latent: np.ndarray = gan.to_encoder_latents(drawn)[0] if gan else np.asarray(drawn)[0]
        return latent

    def encode(self, data: bytes, crop: Crop | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Encodes a picture file.

        Args:
          data: the file.
          crop: what to cut out; None for what the run's own preprocessing keeps.

        Returns:
          The posterior's mean, float32 [L], and what the encoder saw, uint8 [H, W, C].

        Raises:
          BadImage: where it cannot be used.
          NotThere: where there is no encoder.
        """
        if not self.has_encoder:
            raise NotThere("There is no encoder, which a VAE alone has.")
        picture = crop_picture(data, crop, self._settings)
        mean, _ = self._main.encode(_to_network(picture[None]))
        return mean[0], picture

    def nearest(
        self, latent: np.ndarray, by: str, model: str, step: int | None, count: int
    ) -> list[tuple[int, float]]:
        """Returns the nearest training images as (index, distance), the nearest first.

        Args:
          latent: the encoder's, float32 [L].
          by: "pixels", from the picture that `model` makes at `step`, the root of the mean
            squared difference in grey values of 0 to 255; or "latents", Euclidean.
          model: "vae" or "gan".
          step: of its checkpoint.
          count: at most so many.

        Raises:
          NotThere: where there are no data or no such checkpoint.
        """
        encoded = self._require_encoded()
        if by == "latents":
            distances = np.linalg.norm(encoded.means - latent, axis=1)
        else:
            picture = self.pair(latent, {model: step})[model].reshape(-1).astype(np.float32)
            flat = encoded.pictures.reshape(len(encoded.pictures), -1)
            blocks = (flat[i : i + _BLOCK] for i in range(0, len(flat), _BLOCK))
            distances = np.sqrt(
                np.concatenate([np.square(block - picture).mean(axis=1) for block in blocks])
            )
        rows = np.argsort(distances, kind="stable")[:count]
        return [(int(row), float(distances[row])) for row in rows]

    def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a training image's latent, float32 [L], and its pixels, uint8 [H, W, C].

        Raises:
          NotThere: where there is no such image.
        """
        encoded = self._require_encoded()
        if not 0 <= index < len(encoded.means):
            raise NotThere(f"There is no such image: they are 0 to {len(encoded.means) - 1}.")
        return encoded.means[index], encoded.pictures[index]

    def points(self) -> np.ndarray:
        """Returns where the data lie on the map; see `space.project`.

        Raises:
          NotThere: where there are no data.
        """
        return self._require_encoded().points

    def _require_encoded(self) -> Encoded:
        if self._encoded is None:
            raise NotThere(self._note or "The data set is being read.")
        return self._encoded

    def _model(self, model: str, step: int) -> trained.Trained:
        key = model, step
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key]
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # two that want the same one read it once
            with self._lock:
                if key in self._models:
                    return self._models[key]
            try:
                if step not in self.checkpoints()[model]:
                    raise NotThere(f"There is no checkpoint of step {step} of the {model}.")
                found = trained.load(self._source, model, step, encoder=False)
            finally:
                with self._lock:
                    self._loading.pop(key, None)
            with self._lock:
                self._models[key] = found
                while len(self._models) > _MAX_MODELS:
                    self._models.popitem(last=False)
        return found

    def _picture(self, model: trained.Trained, latent: np.ndarray) -> jax.Array:
        picture: jax.Array = self._decode(model.params, model.to_generator_latents(latent[None]))
        return picture

    def _warm(self) -> None:
        """Compiles what a request needs, so that the first is as quick as the others."""
        middle = np.zeros(self.latent_size, np.float32)
        self.pair(middle, {model: found.step for model, found in self._newest.items()})
        self.random(0)
        if self.has_encoder:
            self._main.encode(np.zeros((1, *self.image_shape), np.float32))

    def _do_without(self, why: str) -> None:
        self._note = why
        self._probed = space.probe(lambda z: self._main.decode(self._main.to_generator_latents(z)),
                                   self.latent_size)  # fmt: skip

    def _encode_data(self) -> Encoded:
        data = images.load(self._main.config.data)
        noted = self._main.facts.get("data")
        if noted and noted["digest"] != data.digest:
            raise UserError("The images have changed since the run began.")
        most = max(2, min(_MAX_IMAGES, _MAX_BYTES // int(np.prod(self.image_shape))))
        count = min(len(data.train), most)
        rows = np.arange(count) * len(data.train) // count
        pictures = np.empty((count, *self.image_shape), np.uint8)
        means = np.empty((count, self.latent_size), np.float32)
        for first in range(0, count, _BLOCK):
            block = slice(first, first + _BLOCK)
            pictures[block] = data.train[rows[block]]
            means[block], _ = self._main.encode(_to_network(pictures[block]))
            self._progress = min(1.0, (first + _BLOCK) / count)
        if not np.isfinite(means).all():
            raise UserError("The encoder gives numbers that are not finite.")
        measured = space.measure(means)
        points = space.project(means, measured)
        return Encoded(len(data.train), pictures, means, measured, points)


def crop_picture(data: bytes, crop: Crop | None, settings: preprocessing.Settings) -> np.ndarray:
    """Returns a picture file as the run's preprocessing wants it: uint8 [H, W, C].

    Args:
      data: the file.
      crop: what to cut out of it first, within 0 and 1.
      settings: of the run.

    Raises:
      BadImage: where it is no image, too large, or of pixels that cannot be used.
    """
    image = decoding.decode(data, MAX_PIXELS)
    try:
        rgb = preprocessing.to_rgb(preprocessing.upright(image), settings.background)
    except ValueError as error:
        raise BadImage(one_line(error)) from None
    image = Image.fromarray(np.asarray(rgb))  # upright now, and without a tag that says otherwise
    if crop is not None:
        left, top, width, height = crop
        box = (
            round(left * image.width),
            round(top * image.height),
            round((left + width) * image.width),
            round((top + height) * image.height),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            raise BadImage("nothing is left of it after the crop")
        image = image.crop(box)
    try:
        return preprocessing.prepare(image, settings)
    except ValueError as error:
        raise BadImage(one_line(error)) from None


def _to_network(pictures: np.ndarray) -> np.ndarray:
    return np.asarray(preprocessing.to_network(jnp.asarray(pictures)))
