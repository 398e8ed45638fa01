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

from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.backbones import pretrained

SIZE = 299
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
DEFAULT_PATH = pathlib.Path("~/.cache/vaegan_jax/pt_inception-2015-12-05-6726825d.pth")

_REDUCE: Any = {"stride": 2, "padding": "VALID"}

Layer = Callable[..., jax.Array]
"""``layer(x, name, stride=1, padding="SAME")``, a convolution and ReLU."""


def features(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Returns features of images from [0, 255], scaled as by clean-fid to (x - 128) / 128.

    float32 [B, 299, 299, 3] -> [B, 2048].
    """

    def layer(
        prefix: str, x: jax.Array, name: str, stride: int = 1, padding: str = "SAME"
    ) -> jax.Array:
        return nn.relu(pretrained.convolve(params[prefix + name], x, stride, padding))

    conv = functools.partial(layer, "")
    x = conv((images - 128) / 128, "Conv2d_1a_3x3", **_REDUCE)
    x = conv(conv(x, "Conv2d_2a_3x3", padding="VALID"), "Conv2d_2b_3x3")
    x = conv(_max_pool(x, **_REDUCE), "Conv2d_3b_1x1")
    x = _max_pool(conv(x, "Conv2d_4a_3x3", padding="VALID"), **_REDUCE)
    for name, block in BLOCKS.items():
        x = jnp.concatenate(block(functools.partial(layer, f"{name}."), x), axis=-1)
    return jnp.mean(x, axis=(1, 2))


def _max_pool(x: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    pooled: jax.Array = nn.max_pool(x, (3, 3), (stride, stride), padding)
    return pooled


def _average_pool(x: jax.Array) -> jax.Array:
    pooled: jax.Array = nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
    return pooled


def _block_a(conv: Layer, x: jax.Array) -> list[jax.Array]:
    y = conv(conv(x, "branch3x3dbl_1"), "branch3x3dbl_2")
    return [
        conv(x, "branch1x1"),
        conv(conv(x, "branch5x5_1"), "branch5x5_2"),
        conv(y, "branch3x3dbl_3"),
        conv(_average_pool(x), "branch_pool"),
    ]


def _block_b(conv: Layer, x: jax.Array) -> list[jax.Array]:
    y = conv(conv(x, "branch3x3dbl_1"), "branch3x3dbl_2")
    return [
        conv(x, "branch3x3", **_REDUCE),
        conv(y, "branch3x3dbl_3", **_REDUCE),
        _max_pool(x, **_REDUCE),
    ]


def _block_c(conv: Layer, x: jax.Array) -> list[jax.Array]:
    y = conv(conv(conv(x, "branch7x7_1"), "branch7x7_2"), "branch7x7_3")
    z = x
    for i in range(1, 6):
        z = conv(z, f"branch7x7dbl_{i}")
    return [conv(x, "branch1x1"), y, z, conv(_average_pool(x), "branch_pool")]


def _block_d(conv: Layer, x: jax.Array) -> list[jax.Array]:
    y = conv(conv(conv(x, "branch7x7x3_1"), "branch7x7x3_2"), "branch7x7x3_3")
    return [
        conv(conv(x, "branch3x3_1"), "branch3x3_2", **_REDUCE),
        conv(y, "branch7x7x3_4", **_REDUCE),
        _max_pool(x, **_REDUCE),
    ]


def _block_e(
    conv: Layer, x: jax.Array, pool: Callable[[jax.Array], jax.Array] = _average_pool
) -> list[jax.Array]:
    y = conv(x, "branch3x3_1")
    z = conv(conv(x, "branch3x3dbl_1"), "branch3x3dbl_2")
    return [
        conv(x, "branch1x1"),
        conv(y, "branch3x3_2a"),
        conv(y, "branch3x3_2b"),
        conv(z, "branch3x3dbl_3a"),
        conv(z, "branch3x3dbl_3b"),
        conv(pool(x), "branch_pool"),
    ]


BLOCKS: dict[str, Callable[[Layer, jax.Array], list[jax.Array]]] = {
    "Mixed_5b": _block_a,
    "Mixed_5c": _block_a,
    "Mixed_5d": _block_a,
    "Mixed_6a": _block_b,
    "Mixed_6b": _block_c,
    "Mixed_6c": _block_c,
    "Mixed_6d": _block_c,
    "Mixed_6e": _block_c,
    "Mixed_7a": _block_d,
    "Mixed_7b": _block_e,
    "Mixed_7c": functools.partial(_block_e, pool=_max_pool),
}
"""The blocks after the stem: functions of (conv, x)."""


def convert(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of the network by the names in PyTorch's state."""
    suffix = ".conv.weight"
    names = [key.removesuffix(suffix) for key in state if key.endswith(suffix)]
    return {name: pretrained.fold_norm(state, f"{name}.conv", f"{name}.bn") for name in names}


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
    return convert(pretrained.read_torch(path, SHA256))
