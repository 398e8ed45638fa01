"""The Inception network of the Frechet Inception Distance.

Szegedy et al. 2015, arXiv 1512.00567, in the variant of the weights of 2015-12-05 used by Heusel et
al. 2017, arXiv 1706.08500: average pools exclude their padding, the last block has a maximum pool,
and the classes are left out. Only numbers from these weights may be called FID. Batch
normalisations are folded into convolutions.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import networks
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import weight_files

FEATURES = 2048
SIZE = 299
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
DEFAULT_PATH = pathlib.Path("~/.cache/vaegan_jax/pt_inception-2015-12-05-6726825d.pth")

_HIGHEST = jax.lax.Precision.HIGHEST
_REDUCE: Any = {"stride": 2, "padding": "VALID"}

Layer = Callable[..., jax.Array]
"""``layer(x, name, channels, kernel=(1, 1), stride=1, padding="SAME")``, a convolution and ReLU."""


class Inception(nn.Module):
    """Images float32 [B, 299, 299, 3] in [-1, 1] -> features float32 [B, 2048]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the features of images."""
        x = _conv("", x, "Conv2d_1a_3x3", 32, (3, 3), **_REDUCE)
        x = _conv("", x, "Conv2d_2a_3x3", 32, (3, 3), padding="VALID")
        x = _max_pool(_conv("", x, "Conv2d_2b_3x3", 64, (3, 3)), **_REDUCE)
        x = _conv("", x, "Conv2d_3b_1x1", 80)
        x = _max_pool(_conv("", x, "Conv2d_4a_3x3", 192, (3, 3), padding="VALID"), **_REDUCE)
        for name, block, argument in BLOCKS:
            x = jnp.concatenate(block(functools.partial(_conv, f"{name}."), x, argument), axis=-1)
        return jnp.mean(x, axis=(1, 2))


def _conv(
    prefix: str,
    x: jax.Array,
    name: str,
    channels: int,
    kernel: tuple[int, int] = (1, 1),
    stride: int = 1,
    padding: str = "SAME",
) -> jax.Array:
    strides = (stride, stride)
    conv = nn.Conv(channels, kernel, strides, padding, precision=_HIGHEST, name=prefix + name)
    return nn.relu(conv(x))


def _max_pool(x: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    pooled: jax.Array = nn.max_pool(x, (3, 3), (stride, stride), padding)
    return pooled


def _average_pool(x: jax.Array) -> jax.Array:
    pooled: jax.Array = nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
    return pooled


def _block_a(conv: Layer, x: jax.Array, pool_channels: int) -> list[jax.Array]:
    y = conv(conv(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, (3, 3))
    return [
        conv(x, "branch1x1", 64),
        conv(conv(x, "branch5x5_1", 48), "branch5x5_2", 64, (5, 5)),
        conv(y, "branch3x3dbl_3", 96, (3, 3)),
        conv(_average_pool(x), "branch_pool", pool_channels),
    ]


def _block_b(conv: Layer, x: jax.Array, _: Any) -> list[jax.Array]:
    y = conv(conv(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, (3, 3))
    return [
        conv(x, "branch3x3", 384, (3, 3), **_REDUCE),
        conv(y, "branch3x3dbl_3", 96, (3, 3), **_REDUCE),
        _max_pool(x, **_REDUCE),
    ]


def _block_c(conv: Layer, x: jax.Array, channels: int) -> list[jax.Array]:
    y = conv(conv(x, "branch7x7_1", channels), "branch7x7_2", channels, (1, 7))
    z = conv(x, "branch7x7dbl_1", channels)
    for i, kernel in ((2, (7, 1)), (3, (1, 7)), (4, (7, 1))):
        z = conv(z, f"branch7x7dbl_{i}", channels, kernel)
    return [
        conv(x, "branch1x1", 192),
        conv(y, "branch7x7_3", 192, (7, 1)),
        conv(z, "branch7x7dbl_5", 192, (1, 7)),
        conv(_average_pool(x), "branch_pool", 192),
    ]


def _block_d(conv: Layer, x: jax.Array, _: Any) -> list[jax.Array]:
    y = conv(conv(x, "branch7x7x3_1", 192), "branch7x7x3_2", 192, (1, 7))
    y = conv(y, "branch7x7x3_3", 192, (7, 1))
    return [
        conv(conv(x, "branch3x3_1", 192), "branch3x3_2", 320, (3, 3), **_REDUCE),
        conv(y, "branch7x7x3_4", 192, (3, 3), **_REDUCE),
        _max_pool(x, **_REDUCE),
    ]


def _block_e(conv: Layer, x: jax.Array, pool: Callable[[jax.Array], jax.Array]) -> list[jax.Array]:
    y = conv(x, "branch3x3_1", 384)
    z = conv(conv(x, "branch3x3dbl_1", 448), "branch3x3dbl_2", 384, (3, 3))
    return [
        conv(x, "branch1x1", 320),
        conv(y, "branch3x3_2a", 384, (1, 3)),
        conv(y, "branch3x3_2b", 384, (3, 1)),
        conv(z, "branch3x3dbl_3a", 384, (1, 3)),
        conv(z, "branch3x3dbl_3b", 384, (3, 1)),
        conv(pool(x), "branch_pool", 192),
    ]


BLOCKS: tuple[tuple[str, Callable[..., list[jax.Array]], Any], ...] = (
    ("Mixed_5b", _block_a, 32),
    ("Mixed_5c", _block_a, 64),
    ("Mixed_5d", _block_a, 64),
    ("Mixed_6a", _block_b, None),
    ("Mixed_6b", _block_c, 128),
    ("Mixed_6c", _block_c, 160),
    ("Mixed_6d", _block_c, 160),
    ("Mixed_6e", _block_c, 192),
    ("Mixed_7a", _block_d, None),
    ("Mixed_7b", _block_e, _average_pool),
    ("Mixed_7c", _block_e, _max_pool),
)
"""The blocks after the stem: name, function of (conv, x, argument), argument."""


def features(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Returns features of images from [0, 255], scaled as by clean-fid to (x - 128) / 128.

    float32 [B, 299, 299, 3] -> [B, 2048].
    """
    result: jax.Array = networks.apply(Inception(), params, (images - 128) / 128)
    return result


def convert(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of `Inception` from PyTorch's names and layouts."""
    suffix = ".conv.weight"
    names = [key.removesuffix(suffix) for key in state if key.endswith(suffix)]
    return {name: weight_files.fold_norm(state, f"{name}.conv", f"{name}.bn") for name in names}


def load(path: pathlib.Path) -> dict[str, Any]:
    """Returns the parameters of the network.

    Raises:
      UserError: if the file is missing or has another hash.
    """
    if not path.exists():
        raise UserError(
            f"The weights of Inception are missing: download {URL} and save it as {path}, or set "
            "evaluation.weights to its path."
        )
    return convert(weight_files.read_torch(path, SHA256))
