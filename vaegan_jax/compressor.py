"""The VAE as a compressor: quantised posterior means, range coded, in a small file.

A latent is rounded to a multiple of one step and coded as an integer by a Gaussian, whose mean and
deviation for each dimension follow from the images before it, so that nothing of the kind has to
be stored. The range coder is that of the library constriction.

A file is a header (`_HEADER`: magic, version, the first bytes of the model's hash, image shape,
latent size, count, step, largest integer, CRC-32 of all the rest) and the coder's 32-bit words.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np

from vaegan_jax.errors import UserError, one_line

DEFAULT_STEP = 0.25
SUFFIX = ".vgl"

_MAGIC, _VERSION = b"VGLC", 1
_HEADER = struct.Struct("<4sB8sHHBHIfHI")
_CRC_BYTES = 4
# The weight of the prior, a standard normal, in images.
_PRIOR_IMAGES = 8
# In steps. With it no symbol costs less than the bits below, so that a few bytes cannot claim to
# hold any number of images.
_LEAST_DEVIATION = 0.2
_LEAST_BITS = 0.018  # -log2 of the mass that a normal has within 0.5 / 0.2 deviations
_SPARE_BITS = 64  # more than a range coder ends with
_LARGEST = 2**15 - 1


class Compressed(NamedTuple):
    """What a file says.

    Attributes:
      model: the first 16 hex digits of the hash of the model that can decode it.
      image_shape: (height, width, channels).
      step: to whose multiples the latents are rounded.
      integers: the latents in steps, int32 [N, L].
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
    """Returns latents [N, L] in whole steps, int32 [N, L].

    Raises:
      UserError: where the step is so small that they do not fit 16 bits, or none at all.
    """
    if not 0 < step < float("inf"):
        raise UserError(f"--step-size must be a number above 0, and is {step}.")
    integers = np.round(means.astype(np.float64) / np.float64(np.float32(step)))
    if not np.isfinite(integers).all() or np.abs(integers).max(initial=0) > _LARGEST:
        raise UserError(
            f"A --step-size of {step} is too small for these latents: use a larger one."
        )
    return integers.astype(np.int32)


def pack(
    integers: np.ndarray, step: float, sha256: str, image_shape: tuple[int, int, int]
) -> bytes:
    """Returns the file of quantised latents.

    Args:
      integers: from `quantise`, int32 [N, L].
      step: of theirs.
      sha256: of the model, hex.
      image_shape: (height, width, channels).
    """
    import constriction

    step = float(np.float32(step))
    count, size = integers.shape
    largest = max(1, int(np.abs(integers).max(initial=0)))
    family = constriction.stream.model.QuantizedGaussian(-largest, largest)
    encoder = constriction.stream.queue.RangeEncoder()
    guess = _Guess(size, step)
    for row in np.ascontiguousarray(integers, np.int32):
        encoder.encode(row, family, *guess.model())
        guess.see(row)
    payload: bytes = encoder.get_compressed().astype("<u4").tobytes()
    model = bytes.fromhex(sha256)[:8]
    fields = (_MAGIC, _VERSION, model, *image_shape, size, count, step, largest)
    head = _HEADER.pack(*fields, 0)[:-_CRC_BYTES]
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def unpack(data: bytes) -> Compressed:
    """Returns what a file says.

    Raises:
      UserError: where it is none, cut off, changed, or of another version.
    """
    import constriction

    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise UserError("It is no file that `vaegan encode` wrote, or it is cut off.")
    _, version, model, height, width, channels, size, count, step, largest, crc = _HEADER.unpack(
        data[: _HEADER.size]
    )
    if version != _VERSION:
        raise UserError(f"It is of version {version}, and version {_VERSION} is read here.")
    head, payload = data[: _HEADER.size - _CRC_BYTES], data[_HEADER.size :]
    if zlib.crc32(head + payload) != crc or len(payload) % 4:
        raise UserError("It is damaged or cut off: its checksum does not fit.")
    bits = 8 * len(payload) + _SPARE_BITS
    if (
        not (0 < step < float("inf"))
        or not largest
        or not size
        or count * size * _LEAST_BITS > bits
    ):
        raise UserError("It is damaged: its header cannot be true.")
    family = constriction.stream.model.QuantizedGaussian(-largest, largest)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype("u4"))
    guess = _Guess(size, step)
    integers = np.zeros((count, size), np.int32)
    try:
        for row in integers:
            row[:] = decoder.decode(family, *guess.model())
            guess.see(row)
    except (AssertionError, ValueError) as error:
        raise UserError(
            f"It is damaged: its content cannot be decoded ({one_line(error)})."
        ) from error
    return Compressed(model.hex(), (height, width, channels), step, integers)


class _Guess:
    """What both sides expect of the next image from those before it: exact sums of integers."""

    def __init__(self, size: int, step: float) -> None:
        self._count = 0
        self._sums = np.zeros(size, np.int64)
        self._squares = np.zeros(size, np.int64)
        self._prior = _PRIOR_IMAGES / np.float64(step) ** 2

    def model(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and deviation in steps, float64 [L]: additions, quotients, one root."""
        weight = self._count + _PRIOR_IMAGES
        mean = self._sums / weight
        variance = (self._squares + self._prior) / weight - mean * mean
        return mean, np.sqrt(np.maximum(variance, _LEAST_DEVIATION**2))

    def see(self, row: np.ndarray) -> None:
        """Takes in an image."""
        self._count += 1
        self._sums += row
        self._squares += row.astype(np.int64) ** 2
