"""The Inception network of the Frechet Inception Distance.

Szegedy et al. 2015, arXiv 1512.00567, in the variant of the weights of 2015-12-05 used by Heusel et
al. 2017, arXiv 1706.08500: average pools exclude their padding, the last block has a maximum pool,
and the classes are left out. Only numbers from these weights may be called FID. Batch
normalisations are folded into convolutions.
"""

import pathlib
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
_DEFAULT_PATH = "~/.cache/vaegan_jax/pt_inception-2015-12-05-6726825d.pth"

# The branches of each kind of block: convolutions and 3x3 pools in order. "/2" is a stride of 2
# without padding; all others have a stride of 1 and keep the size.
_A = ("1x1", "5x5_1 5x5_2", "3x3dbl_1 3x3dbl_2 3x3dbl_3", "average _pool")
_B = ("3x3/2", "3x3dbl_1 3x3dbl_2 3x3dbl_3/2", "max/2")
_C = ("1x1", "7x7_1 7x7_2 7x7_3", "7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5", "average _pool")
_D = ("3x3_1 3x3_2/2", "7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4/2", "max/2")
_E = (
    *("1x1", "3x3_1 3x3_2a", "3x3_1 3x3_2b"),
    *("3x3dbl_1 3x3dbl_2 3x3dbl_3a", "3x3dbl_1 3x3dbl_2 3x3dbl_3b", "average _pool"),
)
_BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _A),
    "Mixed_6a": _B,
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _C),
    "Mixed_7a": _D,
    "Mixed_7b": _E,
    "Mixed_7c": (*_E[:-1], "max _pool"),
}
# Before the blocks; "/1" has no padding either.
_STEM = "1a_3x3/2 2a_3x3/1 2b_3x3 max/2 3b_1x1 4a_3x3/1 max/2"


def features(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Returns features of images from [0, 255], scaled as by clean-fid to (x - 128) / 128.

    float32 [B, 299, 299, 3] -> [B, 2048].
    """
    x = _branch(params, "Conv2d_", _STEM, (images - 128) / 128)
    for name, branches in _BLOCKS.items():
        parts = [_branch(params, f"{name}.branch", branch, x) for branch in branches]
        x = jnp.concatenate(parts, axis=-1)
    return jnp.mean(x, axis=(1, 2))


def _branch(params: dict[str, Any], prefix: str, branch: str, x: jax.Array) -> jax.Array:
    for layer in branch.split():
        name, _, given = layer.partition("/")
        stride, padding = (int(given), "VALID") if given else (1, "SAME")
        if name == "max":
            x = nn.max_pool(x, (3, 3), (stride, stride), padding)
        elif name == "average":
            x = nn.avg_pool(x, (3, 3), (stride, stride), padding, count_include_pad=False)
        else:
            x = nn.relu(pretrained.convolve(params[prefix + name], x, stride, padding))
    return x


def convert(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of the network by the names in PyTorch's state."""
    suffix = ".conv.weight"
    names = [key.removesuffix(suffix) for key in state if key.endswith(suffix)]
    return {name: pretrained.fold_norm(state, f"{name}.conv", f"{name}.bn") for name in names}


def load(weights: str) -> dict[str, Any]:
    """Returns the parameters of the network from the path of its weights, "" for the default.

    Raises:
      UserError: if the file is missing or has another hash.
    """
    path = pathlib.Path(weights or _DEFAULT_PATH).expanduser()
    if not path.exists():
        raise UserError(
            f"The weights of Inception are missing: download {URL} and save it as {path}, or set "
            "evaluation.weights to its path."
        )
    return convert(pretrained.read_torch(path, SHA256))
