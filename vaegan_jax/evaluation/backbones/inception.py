"""The Inception network of the Frechet Inception Distance.

Szegedy et al. 2015, arXiv 1512.00567, in the variant of the weights of 2015-12-05 used by Heusel et
al. 2017, arXiv 1706.08500: average pools exclude their padding, the last block has a maximum pool,
and the classes are left out. Only numbers from these weights may be called FID. Batch
normalisations are folded into convolutions.
"""

import functools
import pathlib
import shutil
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import torch_file

FEATURES = 2048
SIZE = 299
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
DEFAULT_PATH = pathlib.Path("~/.cache/vaegan_jax/pt_inception-2015-12-05-6726825d.pth")

_EPSILON = 1e-3
_HIGHEST = jax.lax.Precision.HIGHEST
_REDUCE: Any = {"stride": 2, "padding": "VALID"}

Layer = Callable[..., jax.Array]
"""``layer(x, name, channels, kernel=(1, 1), stride=1, padding="SAME")``, a convolution and ReLU."""


class Inception(nn.Module):
    """Images float32 [B, 299, 299, 3] from `scale` -> features float32 [B, 2048]."""

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


def scale(images: jax.Array) -> jax.Array:
    """Scales images from [0, 255] as clean-fid does: (x - 128) / 128."""
    return (images - 128) / 128


def convert(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of `Inception` from PyTorch's names and layouts."""
    params = {}
    for key in state:
        if key.endswith(".conv.weight"):
            name = key.removesuffix(".conv.weight")
            gain = state[f"{name}.bn.weight"]
            gain = gain / np.sqrt(state[f"{name}.bn.running_var"] + _EPSILON)
            kernel = state[key] * gain[:, None, None, None]  # [out, in, height, width]
            bias = state[f"{name}.bn.bias"] - state[f"{name}.bn.running_mean"] * gain
            params[name] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    return params


def load(path: pathlib.Path) -> dict[str, Any]:
    """Returns the parameters of the network, after downloading the weights to `path` if necessary.

    Raises:
      UserError: if the file cannot be downloaded or has another hash.
    """
    if not path.exists():
        _download(path)
    return convert(torch_file.read(path, SHA256))


def _download(path: pathlib.Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(URL, timeout=30) as response, partial.open("wb") as file:
            shutil.copyfileobj(response, file)
        torch_file.read_verified(partial, SHA256)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"The weights of Inception cannot be downloaded ({error}): download {URL} on another "
            f"machine and copy it to {path}."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
