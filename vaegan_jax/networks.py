"""Encoder, decoder and discriminator, as Flax linen modules over levels of stride 2.

Images are float [B, H, W, C] in [-1, 1] with H and W multiples of 2^N, N the number of levels.
Encoder and discriminator share the structure of their trunks, and the generator is a `Decoder`, so
the VAE's parameters fit the GAN without renaming.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vaegan_jax import layers
from vaegan_jax.layers import Bias, Conv, Down, Up
from vaegan_jax.runtime import compilation

_LEAK = 0.2
_MAX_GROUPS = 8
# The posterior's deviations stay within exp(-10) and exp(10), as do their inverses.
_MAX_LOG_VARIANCE = 20.0
_MIN_COARSEST = 4  # pixels of the shorter side of the coarsest map


def widths(model: ConfigDict, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Returns the channels after each level of stride 2, from fine to coarse.

    There are as many levels as leave whole maps with at least 4 pixels on the shorter side: 64x64
    has four, and its coarsest map is 4x4. ``model.base_width`` doubles at each level up to
    ``model.max_width``.
    """
    levels, size = 0, 2
    while all(side % size == 0 and side >= _MIN_COARSEST * size for side in image_shape[:2]):
        levels, size = levels + 1, 2 * size
    return tuple(min(model.base_width * 2**level, model.max_width) for level in range(levels))


def normalise(x: jax.Array, norm: str) -> jax.Array:
    """Normalises each example separately: [B, H, W, C] -> [B, H, W, C].

    "group" is group normalisation (Wu and He 2018, arXiv 1803.08494, equations 1 and 7) without
    learned scale and bias; "none" is the identity. It has no parameters and no running statistics,
    so trunks with and without it have the same tree. The `Bias` that follows and the next kernel
    act as the learned bias and scale.
    """
    if norm == "none":
        return x
    groups = math.gcd(_MAX_GROUPS, x.shape[-1])
    group_norm = nn.GroupNorm(num_groups=groups, use_bias=False, use_scale=False, dtype=x.dtype)
    normalised: jax.Array = group_norm(x)
    return normalised


def bound(x: jax.Array, limit: float) -> jax.Array:
    """Returns ``limit * tanh(x / limit)``: within `limit` of 0, with slope 1 at 0.

    A bounded log variance cannot overflow, whatever the encoder returns.
    """
    return limit * jnp.tanh(x / limit)


class Trunk(nn.Module):
    """Strided levels: images [B, H, W, C] -> features [B, H/2^N, W/2^N, widths[-1]].

    Attributes:
      widths: channels after each of the N levels.
      norm: see `normalise`; the first level has none.
      dtype: of the computation.
    """

    widths: tuple[int, ...]
    norm: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the trunk."""
        for level, width in enumerate(self.widths):
            x = Down(width, self.dtype, name=f"down_{level}")(x)
            x = normalise(x, self.norm if level else "none")
            x = nn.leaky_relu(Bias(name=f"bias_{level}")(x), _LEAK)
        return x


class Encoder(nn.Module):
    """The posterior of a VAE: images -> (mean, log variance), both float32 [B, latent_size].

    The log variance is within (-20, 20): see `bound`.

    Attributes:
      widths: see `Trunk`.
      latent_size: the number of latent dimensions.
      norm: see `normalise`.
      dtype: of the computation, except for the last layer, which is float32.
    """

    widths: tuple[int, ...]
    latent_size: int
    norm: str = "group"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes images."""
        trunk = Trunk(self.widths, self.norm, self.dtype, name="trunk")
        x = trunk(images)
        x = nn.Dense(2 * self.latent_size, name="head")(_flatten(x).astype(jnp.float32))
        mean, log_variance = jnp.split(x, 2, axis=-1)
        return mean, bound(log_variance, _MAX_LOG_VARIANCE)


class Decoder(nn.Module):
    """Latents [B, L] -> logits, float32 [B, height, width, channels].

    The image is ``tanh(logits)``. As a Bernoulli mean on [0, 1], its logits are twice as large,
    since (tanh a + 1) / 2 = sigmoid(2 a).

    A quarter of `widths[0]` channels reach the full resolution, where a 3x3 convolution makes the
    image of them: without it, a lattice is left in smooth areas.

    Attributes:
      widths: those of a `Trunk`; the decoder starts at the last one.
      image_shape: (height, width, channels) of its outputs.
      norm: see `normalise`.
      dtype: of the computation, except for the last layer, which is float32.
    """

    widths: tuple[int, ...]
    image_shape: tuple[int, int, int]
    norm: str = "group"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        """Decodes latents."""
        height, width, channels = self.image_shape
        levels, c = len(self.widths), self.widths[-1]
        h, w = height // 2**levels, width // 2**levels
        # The bias lets this layer absorb an affine map of the latents.
        x = nn.Dense(
            h * w * c,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name="dense",
        )(latents)
        x = x.reshape(-1, h, w, c)
        fine = max(self.widths[0] // 4, channels)
        for level, features in enumerate([*reversed(self.widths[:-1]), fine]):
            x = nn.leaky_relu(Bias(name=f"bias_{level}")(normalise(x, self.norm)), _LEAK)
            x = Up(features, self.dtype, name=f"up_{level}")(x)
        x = nn.leaky_relu(Bias(name="bias_fine")(x), _LEAK)
        # In float32: bfloat16 has fewer values in [-1, 1] than the images.
        return Bias(name="bias_out")(Conv(channels, name="conv_out")(x))


class Discriminator(nn.Module):
    """Images -> logits of being real, float32 [B].

    It sows the features before the last layer as the intermediate `features`.

    Attributes:
      widths: see `Trunk`.
      norm: see `normalise`.
      dtype: of the computation, except for the last layer, which is float32.
    """

    widths: tuple[int, ...]
    norm: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Computes logits."""
        trunk = Trunk(self.widths, self.norm, self.dtype, name="trunk")
        features = trunk(images)
        self.sow("intermediates", "features", features)
        x = nn.Dense(1, name="head")(_flatten(features).astype(jnp.float32))
        return x.squeeze(-1)


def apply(module: nn.Module, params: optax.Params, x: jax.Array) -> Any:
    """Returns ``module.apply({"params": params}, x)``."""
    return module.apply({"params": params}, x)


Discriminate = Callable[[optax.Params, jax.Array], tuple[jax.Array, jax.Array]]


def make_discriminate(model: ConfigDict, image_shape: tuple[int, int, int]) -> Discriminate:
    """Returns ``discriminate(params, images [B, H, W, C]) -> (logits, features)``.

    The logits are float32 [B], the features the trunk's [B, H/2^N, W/2^N, C]. With
    ``model.spectral_norm`` every kernel is divided by its largest singular value.
    """
    discriminator = make_discriminator(model, image_shape)

    def discriminate(params: optax.Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        if model.spectral_norm:
            params = jax.tree_util.tree_map_with_path(_normalise_kernel, params)
        logits, kept = discriminator.apply({"params": params}, images, mutable=["intermediates"])
        return logits, kept["intermediates"]["features"][0]

    return discriminate


def _normalise_kernel(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    return layers.spectrally_normalized(leaf) if path[-1].key == "kernel" else leaf


@compilation.per_config
def make_encode(
    model: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns ``encode(params, images [B, H, W, C] in [-1, 1]) -> (mean, log variance)``.

    The params are an encoder's; both results are float32 [B, L].
    """
    return functools.partial(apply, make_encoder(model, image_shape))


@compilation.per_config
def make_decode(
    model: ConfigDict, image_shape: tuple[int, int, int]
) -> Callable[[optax.Params, jax.Array], jax.Array]:
    """Returns ``decode(params, latents [B, L]) -> float32 [B, H, W, C]`` in [-1, 1].

    The params are a decoder's or a generator's.
    """
    decoder = make_decoder(model, image_shape)
    return lambda params, latents: jnp.tanh(apply(decoder, params, latents))


def make_encoder(model: ConfigDict, image_shape: tuple[int, int, int]) -> Encoder:
    """Returns the encoder that ``config.model`` describes."""
    dtype = jnp.dtype(model.dtype)
    return Encoder(widths(model, image_shape), model.latent_size, model.norm, dtype)


def make_decoder(model: ConfigDict, image_shape: tuple[int, int, int]) -> Decoder:
    """Returns the decoder, or the generator, that ``config.model`` describes."""
    dtype = jnp.dtype(model.dtype)
    return Decoder(widths(model, image_shape), image_shape, model.norm, dtype)


def make_discriminator(model: ConfigDict, image_shape: tuple[int, int, int]) -> Discriminator:
    """Returns the discriminator that ``config.model`` describes."""
    dtype = jnp.dtype(model.dtype)
    return Discriminator(widths(model, image_shape), model.discriminator_norm, dtype)


def _flatten(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)
