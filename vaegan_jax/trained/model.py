"""A trained model: a pure function of latents and images, see `trained.load`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import networks, randomness, transfer
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.batches import map_batches

DECODING_PARTS = {"vae": ("decoder",), "gan": ("generator", "latent_mean", "latent_factor")}
"""Names of the parts of a model other than the encoder; its hash is computed from them."""

_BATCH = 8  # fits the cache of a CPU; a single size, so that nothing is compiled twice
_RANGE_MARGIN = 1e-3  # for rounding; the next grey level is 8e-3 away


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained decoder or generator, with the encoder if available.

    The *encoder's latents* are those of the VAE. A VAE decodes these; a GAN decodes the
    *generator's latents*, which differ from them if the generator was matched to the aggregated
    posterior (``transfer.match_posterior``).

    Attributes:
      model: "vae" or "gan".
      step: the checkpoint step.
      config: the run's config, with defaults for missing fields.
      image_shape: (height, width, channels).
      latent_size: L, for both kinds of latents.
      facts: JSON-compatible metadata: `source`; `sha256` of the `DECODING_PARTS`; `dtype` of the
        stored parameters; `steps` by stage; and `data`, `latent`, `environment`, `evaluation` and
        `card` (of an export), None if they are not recorded.
      parts: float32 parameters on the device by name in `trained.parts_table`.
    """

    model: str
    step: int
    config: ConfigDict = dataclasses.field(repr=False)
    image_shape: tuple[int, int, int]
    latent_size: int
    facts: dict[str, Any] = dataclasses.field(repr=False)
    parts: dict[str, Any] = dataclasses.field(repr=False)

    @property
    def has_encoder(self) -> bool:
        """Whether `encode` can be called."""
        return "encoder" in self.parts

    @property
    def params(self) -> Any:
        """Parameters of the `networks.Decoder`: the decoder's, or the EMA of the generator's."""
        return self.parts[DECODING_PARTS[self.model][0]]

    def decode(self, latents: jax.typing.ArrayLike) -> Any:
        """Decodes latents: the encoder's for a VAE, the generator's for a GAN (with EMA weights).

        Args:
          latents: float32 [B, L]; each image depends only on its latent.

        Returns:
          float32 [B, H, W, C] in [-1, 1]: a NumPy array, or a tracer for traced latents.

        Raises:
          UserError: if the latents have another shape or are not finite, which is not checked for
            tracers.
        """
        decode = networks.make_decode(self.config.model, self.image_shape)
        return _map(decode, self.params, self._checked(latents))

    def encode(self, pictures: jax.typing.ArrayLike) -> tuple[Any, Any]:
        """Returns the posterior of images, over the encoder's latents.

        Args:
          pictures: floating-point [B, H, W, C] in [-1, 1].

        Returns:
          Mean and log variance, float32 [B, L] each: NumPy arrays, or tracers for traced images.

        Raises:
          UserError: if there is no encoder, or the images have another shape, dtype or range;
            values of tracers are not checked.
        """
        if not self.has_encoder:
            raise UserError(f"{self.facts['source']} has no encoder: use one with a VAE.")
        images = _to_array(pictures)
        if images.shape[1:] != self.image_shape:
            raise UserError(f"Expected images {self.image_shape}, got {images.shape[1:]}.")
        is_in_range = _is_traced(images) or np.all(np.abs(images) <= 1 + _RANGE_MARGIN)
        if not jnp.issubdtype(images.dtype, jnp.floating) or not is_in_range:
            raise UserError(
                "Expected floating-point images in [-1, 1]: convert uint8 images with "
                "vaegan_jax.data.preprocessing.to_network."
            )
        encode = networks.make_encode(self.config.model, self.image_shape)
        mean, log_variance = _map(encode, self.parts["encoder"], images)
        return mean, log_variance

    @property
    def noise(self) -> str:
        """The distribution of the latents that `decode` takes: ``gan.noise``; normal for a VAE."""
        noise: str = self.config.gan.noise if self.model == "gan" else "normal"
        return noise

    def sample(self, key: jax.Array, count: int = 1) -> Any:
        """Decodes random latents of the distribution `noise`; the key is consumed."""
        return self.decode(randomness.latents(key, (count, self.latent_size), self.noise))

    def to_generator_latents(self, latents: jax.typing.ArrayLike) -> Any:
        """Converts the encoder's latents to those that `decode` takes, float32 [B, L].

        ``L^-1 (z - m)`` with the GAN's latent mean m and factor L; the identity for a VAE.
        """
        return self._convert(transfer.to_generator_latents, latents)

    def to_encoder_latents(self, latents: jax.typing.ArrayLike) -> Any:
        """Inverts `to_generator_latents`: ``m + L z``, float32 [B, L]; the identity for a VAE."""
        return self._convert(transfer.to_encoder_latents, latents)

    def _convert(self, convert: Callable[..., Any], latents: jax.typing.ArrayLike) -> Any:
        array = self._checked(latents)
        if self.model == "vae":
            return array
        converted = convert(self.parts["latent_mean"], self.parts["latent_factor"], array)
        return converted if _is_traced(array) else np.array(converted)

    def _checked(self, latents: jax.typing.ArrayLike) -> Any:
        array = _to_array(latents).astype(np.float32)
        if array.shape[1:] != (self.latent_size,):
            raise UserError(f"Expected latents [B, {self.latent_size}], got {[*array.shape]}.")
        if not _is_traced(array) and not np.isfinite(array).all():
            raise UserError("The latents are not finite.")
        return array


def _is_traced(array: Any) -> bool:
    return isinstance(array, jax.core.Tracer)


def _to_array(array: jax.typing.ArrayLike) -> Any:
    return array if _is_traced(array) else np.asarray(array)


def _map(function: Callable[[Any, Any], Any], params: Any, rows: Any) -> Any:
    """Applies ``function(params, rows)`` in batches of constant size; traced rows are one batch."""
    jitted = jax.jit(function)
    rows = rows.astype(np.float32)
    if _is_traced(rows):
        return jitted(params, rows)
    batch = rows if len(rows) else np.zeros((1, *rows.shape[1:]), np.float32)
    with jax.ensure_compile_time_eval():  # constants of a traced function
        result = map_batches(len(batch), lambda i: jitted(params, jnp.asarray(batch[i])), _BATCH)
    return jax.tree.map(lambda array: array[: len(rows)], result)
