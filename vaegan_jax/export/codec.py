"""The VAE as a codec: quantised posterior means, Huffman coded, in a small file.

Latents are rounded to multiples of a step size. The integers take one byte each if all fit, else
two. zlib codes them, one dimension after another, with Huffman codes and run lengths only, which
inactive dimensions have; latents have no other repetitions.

A file consists of a header (`_HEADER`: magic, version, the first bytes of the model's hash, image
shape, latent size, count, step, bytes per integer, CRC-32 of everything else) and a raw deflate
stream.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np

from vaegan_jax.errors import UserError

DEFAULT_STEP = 0.25
SUFFIX = ".vgl"

_MAGIC, _VERSION = b"VGLC", 2
_HEADER = struct.Struct("<4sB8sHHBHIfBI")
_CRC_BYTES = 4
_MAX_INTEGER = 2**15 - 1
_RAW_DEFLATE = -15  # without zlib's header and checksum; a window of 2^15 bytes


class Compressed(NamedTuple):
    """Content of a file.

    Attributes:
      model: the first 16 hex digits of the hash of the model that encoded it.
      image_shape: (height, width, channels).
      step: step size of the quantisation.
      integers: quantised latents, int32 [N, L].
    """

    model: str
    image_shape: tuple[int, int, int]
    step: float
    integers: np.ndarray

    @property
    def latents(self) -> np.ndarray:
        """The encoder's latents, float32 [N, L]."""
        return (self.integers * np.float32(self.step)).astype(np.float32)


def quantise(means: np.ndarray, step: float) -> np.ndarray:
    """Returns latents [N, L] in units of the step size, rounded, int32 [N, L].

    Raises:
      UserError: if the step size is invalid, or so small that a result does not fit 16 bits.
    """
    if not 0 < step < float("inf"):
        raise UserError(f"--step-size must be positive and finite, and is {step}.")
    integers = np.round(means.astype(np.float64) / np.float64(np.float32(step)))
    if not np.isfinite(integers).all() or np.abs(integers).max(initial=0) > _MAX_INTEGER:
        raise UserError(
            f"A --step-size of {step} is too small for these latents: use a larger one."
        )
    return integers.astype(np.int32)


def pack(
    integers: np.ndarray, step: float, sha256: str, image_shape: tuple[int, int, int]
) -> bytes:
    """Returns the content of a file of quantised latents.

    Args:
      integers: from `quantise`, int32 [N, L].
      step: step size.
      sha256: of the model, hex.
      image_shape: (height, width, channels).
    """
    step = float(np.float32(step))
    count, size = integers.shape
    itemsize = 1 if np.abs(integers).max(initial=0) <= np.iinfo(np.int8).max else 2
    values = np.ascontiguousarray(integers.T, f"<i{itemsize}")
    planes = values.view(np.uint8).reshape(-1, itemsize).T  # low bytes before high bytes
    deflate = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE, 9, zlib.Z_RLE)
    payload = deflate.compress(planes.tobytes()) + deflate.flush()
    model = bytes.fromhex(sha256)[:8]
    fields = (_MAGIC, _VERSION, model, *image_shape, size, count, step, itemsize)
    head = _HEADER.pack(*fields, 0)[:-_CRC_BYTES]
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def unpack(data: bytes) -> Compressed:
    """Reads a file.

    Raises:
      UserError: if the data is not such a file, or is damaged, or has another version.
    """
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise UserError("It is not a file of `vaegan encode`, or it is truncated.")
    _, version, model, height, width, channels, size, count, step, itemsize, crc = _HEADER.unpack(
        data[: _HEADER.size]
    )
    if version != _VERSION:
        raise UserError(f"It has version {version}, not {_VERSION}: encode the images again.")
    head, payload = data[: _HEADER.size - _CRC_BYTES], data[_HEADER.size :]
    if zlib.crc32(head + payload) != crc:
        raise UserError("It is damaged or truncated: the checksum does not match.")
    if not 0 < step < float("inf") or not size or itemsize not in (1, 2):
        raise UserError("It is damaged: its header is invalid.")
    inflate = zlib.decompressobj(_RAW_DEFLATE)
    try:
        content = inflate.decompress(payload, count * size * itemsize + 1)
    except zlib.error as error:
        raise UserError(f"It is damaged: the payload cannot be decoded ({error}).") from error
    if len(content) != count * size * itemsize or not inflate.eof or inflate.unused_data:
        raise UserError("It is damaged: the payload does not match the header.")
    planes = np.frombuffer(content, np.uint8).reshape(itemsize, -1)
    values = np.ascontiguousarray(planes.T).view(f"<i{itemsize}").reshape(size, count)
    integers = np.ascontiguousarray(values.T, np.int32)
    return Compressed(model.hex(), (height, width, channels), step, integers)
