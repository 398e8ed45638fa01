"""The Inception network that the Frechet Inception Distance is defined by.

Szegedy et al. 2015, arXiv 1512.00567, in the form of the weights of 2015-12-05 with which Heusel et
al. 2017, arXiv 1706.08500, took their distances: average pools that do not count their padding, a
maximum pool in the last block, and 1,008 classes. Only numbers made with these weights may be
called FID. Batch normalisations are folded into the convolutions before them.
"""

import pathlib
import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import resizing
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


class Conv(NamedTuple):
    """A convolution with ReLU: its name among the weights, channels, kernel and stride."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """A pool of 3x3: "average", "maximum", or "reduce", a maximum of stride 2."""

    kind: str


class Fork(NamedTuple):
    """Branches from one input, side by side."""

    branches: Sequence[Sequence[Any]]


def _a(pool_channels: int) -> Fork:
    return Fork(
        [
            [Conv("branch1x1", 64)],
            [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))],
            [
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, (3, 3)),
                Conv("branch3x3dbl_3", 96, (3, 3)),
            ],
            [Pool("average"), Conv("branch_pool", pool_channels)],
        ]
    )


def _b() -> Fork:
    return Fork(
        [
            [Conv("branch3x3", 384, (3, 3), 2, "VALID")],
            [
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, (3, 3)),
                Conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
            ],
            [Pool("reduce")],
        ]
    )


def _c(channels: int) -> Fork:
    return Fork(
        [
            [Conv("branch1x1", 192)],
            [
                Conv("branch7x7_1", channels),
                Conv("branch7x7_2", channels, (1, 7)),
                Conv("branch7x7_3", 192, (7, 1)),
            ],
            [
                Conv("branch7x7dbl_1", channels),
                Conv("branch7x7dbl_2", channels, (7, 1)),
                Conv("branch7x7dbl_3", channels, (1, 7)),
                Conv("branch7x7dbl_4", channels, (7, 1)),
                Conv("branch7x7dbl_5", 192, (1, 7)),
            ],
            [Pool("average"), Conv("branch_pool", 192)],
        ]
    )


def _d() -> Fork:
    return Fork(
        [
            [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, "VALID")],
            [
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
            ],
            [Pool("reduce")],
        ]
    )


def _e(pool: str) -> Fork:
    return Fork(
        [
            [Conv("branch1x1", 320)],
            [
                Conv("branch3x3_1", 384),
                Fork(
                    [
                        [Conv("branch3x3_2a", 384, (1, 3))],
                        [Conv("branch3x3_2b", 384, (3, 1))],
                    ]
                ),
            ],
            [
                Conv("branch3x3dbl_1", 448),
                Conv("branch3x3dbl_2", 384, (3, 3)),
                Fork(
                    [
                        [Conv("branch3x3dbl_3a", 384, (1, 3))],
                        [Conv("branch3x3dbl_3b", 384, (3, 1))],
                    ]
                ),
            ],
            [Pool(pool), Conv("branch_pool", 192)],
        ]
    )


STEM: Sequence[Conv | Pool] = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Pool("reduce"),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    Pool("reduce"),
)

BLOCKS: Mapping[str, Fork] = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": _b(),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": _d(),
    "Mixed_7b": _e("average"),
    "Mixed_7c": _e("maximum"),
}


class Inception(nn.Module):
    """Images float32 [B, 299, 299, 3], about [-1, 1] -> (features [B, 2048], logits [B, 1008])."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embeds images."""
        for part in STEM:
            x = _apply(part, x, "")
        for name, block in BLOCKS.items():
            x = _apply(block, x, f"{name}.")
        features = jnp.mean(x, axis=(1, 2))
        return features, nn.Dense(1008, precision=_HIGHEST, name="fc")(features)


def _apply(part: Conv | Pool | Fork, x: jax.Array, prefix: str) -> jax.Array:
    if isinstance(part, Fork):
        results = []
        for branch in part.branches:
            y = x
            for inner in branch:
                y = _apply(inner, y, prefix)
            results.append(y)
        return jnp.concatenate(results, axis=-1)
    if isinstance(part, Pool):
        if part.kind == "average":
            averaged: jax.Array = nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
            return averaged
        stride, padding = (2, "VALID") if part.kind == "reduce" else (1, "SAME")
        highest: jax.Array = nn.max_pool(x, (3, 3), (stride, stride), padding)
        return highest
    conv = nn.Conv(
        part.channels,
        part.kernel,
        (part.stride, part.stride),
        part.padding,
        precision=_HIGHEST,
        name=prefix + part.name,
    )
    return nn.relu(conv(x))


def convert(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of `Inception` from PyTorch's names and layouts.

    Args:
      state: every array of the file by name; kernels are [out, in, height, width].

    Raises:
      ValueError: for an array that is missing or has no place here.
    """
    left = dict(state)
    names = [part.name for part in STEM if isinstance(part, Conv)]
    names += [f"{block}.{name}" for block, fork in BLOCKS.items() for name in _names(fork)]
    params: dict[str, Any] = {}
    try:
        for name in names:
            gain = left.pop(f"{name}.bn.weight")
            gain = gain / np.sqrt(left.pop(f"{name}.bn.running_var") + _EPSILON)
            kernel = left.pop(f"{name}.conv.weight") * gain[:, None, None, None]
            bias = left.pop(f"{name}.bn.bias") - left.pop(f"{name}.bn.running_mean") * gain
            params[name] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
            left.pop(f"{name}.bn.num_batches_tracked", None)  # older files have none
        params["fc"] = {"kernel": left.pop("fc.weight").T, "bias": left.pop("fc.bias")}
    except KeyError as error:
        raise ValueError(f"The weights lack {error}.") from error
    if left:
        raise ValueError(f"Arrays without a place in Inception: {', '.join(sorted(left))}.")
    return params


def _names(fork: Fork) -> list[str]:
    names = []
    for branch in fork.branches:
        for part in branch:
            if isinstance(part, Fork):
                names += _names(part)
            elif isinstance(part, Conv):
                names.append(part.name)
    return names


def load(path: pathlib.Path) -> dict[str, Any]:
    """Returns the network's parameters; where the file is not there, it is downloaded.

    Args:
      path: the file of weights, or where it is to be.

    Raises:
      UserError: where it cannot be downloaded, or is another file.
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
        torch_file.require(partial, SHA256)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"The weights of Inception cannot be downloaded ({error}): fetch {URL} elsewhere and "
            f"put it at {path}."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def resize_clean(images: jax.Array) -> jax.Array:
    """Resizes as clean-fid does (Pillow's bicubic on floats, clipped) and scales (x - 128) / 128.

    Parmar et al. 2022, arXiv 2104.11222, section 4.

    Args:
      images: uint8 [B, H, W, C].

    Returns:
      float32 [B, 299, 299, 3].
    """
    return (resizing.cubic(images, SIZE) - 128) / 128


def resize_halfpixel(images: jax.Array) -> jax.Array:
    """Resizes as pytorch-fid does (bilinear, half-pixel centres, no antialiasing): [-1, 1]."""
    return resizing.linear(images, SIZE) * (2 / 255) - 1


def resize_tf1(images: jax.Array) -> jax.Array:
    """Resizes as TensorFlow 1 and torch-fidelity do (`resizing.tf1_linear`): (x - 128) / 128."""
    return (resizing.tf1_linear(images, SIZE) - 128) / 128


RESIZES = {"clean": resize_clean, "halfpixel": resize_halfpixel, "tf1": resize_tf1}
