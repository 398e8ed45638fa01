"""Loads the data set of a run: opens the source, prepares it once, splits it by content."""

import hashlib
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from vaegan_jax.data import preparation, sources, tfds_sets
from vaegan_jax.data.preparation import Prepared
from vaegan_jax.data.preprocessing import Settings
from vaegan_jax.errors import UserError, one_line

COMIC_FACES = pathlib.Path(__file__).with_name("comic_faces") / "comic_faces_64.zip"
MIN_IMAGES_FOR_TEST = 1_500
"""Number of images below which the test images also serve as validation images."""


class Split:
    """Images on disk, uint8 [N, H, W, C], read by index.

    Attributes:
      shape: (N, H, W, C).
      image_shape: (height, width, channels).
      nbytes: size of all images in memory, in bytes.
    """

    def __init__(
        self, prepared: Prepared, positions: np.ndarray, image_shape: tuple[int, int, int]
    ) -> None:
        """Selects the images at `positions` of a prepared source."""
        self._prepared, self._positions, self.image_shape = prepared, positions, image_shape
        self.shape = (len(positions), *image_shape)
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._positions)

    def take(self, rows: np.ndarray) -> "Split":
        """Returns a subset, without reading it."""
        return Split(self._prepared, self._positions[rows], self.image_shape)

    def __getitem__(self, indices: slice | np.ndarray) -> np.ndarray:
        """Reads images, uint8 [n, H, W, C]; thread-safe.

        Raises:
          UserError: if the prepared files are damaged.
        """
        positions = self._positions[indices]
        images = np.empty((len(positions), *self.image_shape), np.uint8)
        try:
            for image, position in zip(images, positions.tolist(), strict=True):
                image[:] = self._prepared.examples[position]["image"]
        except Exception as error:  # the reader does not document what it raises
            raise UserError(
                f"The prepared images in {self._prepared.skipped_list.parent} cannot be read "
                f"({one_line(error)}): remove that folder to have them prepared again."
            ) from error
        return images


class Images(NamedTuple):
    """A data set.

    Attributes:
      train: training images.
      validation: images for curves, pictures and choices during training; the same object as `test`
        if there are fewer than `MIN_IMAGES_FOR_TEST` images in all.
      test: images for the final numbers only.
      digest: SHA-256 of all pixels and their order, in hex.
      skipped: number of unusable files.
      skipped_list: CSV file of their names and the reasons.
      duplicates: number of images with the same pixels as an earlier one.
    """

    train: Split
    validation: Split
    test: Split
    digest: str
    skipped: int
    skipped_list: pathlib.Path
    duplicates: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return self.train.image_shape

    @property
    def is_test_unseen(self) -> bool:
        """Whether the test images serve no purpose before the final numbers."""
        return self.validation is not self.test


def load(data: ConfigDict) -> Images:
    """Returns the images of ``config.data``; prepares them on first use.

    Raises:
      UserError: if the images are missing, cannot be prepared, or are too few.
    """
    workers = data.workers or os.cpu_count() or 1
    try:
        source = open_source(data)
        prepared = preparation.prepare(
            source, settings(data), data.directory, workers, data.max_bad_fraction
        )
    except (OSError, RuntimeError) as error:  # the shard writer raises RuntimeError
        raise UserError(
            f"The images of {data.path or data.name} cannot be prepared ({one_line(error)}): set "
            "data.directory to a writable folder with enough free space."
        ) from error
    parts = split(prepared.digests, data.held_out_one_in)
    count = len(prepared.digests)
    if not all(map(len, parts)):
        raise UserError(
            f"The training, validation or test split of the {count} images of {source.label} is "
            "empty: use more images, or change data.held_out_one_in."
        )
    train, validation, test = (Split(prepared, x, settings(data).image_shape) for x in parts)
    return Images(
        train=train,
        validation=test if count < MIN_IMAGES_FOR_TEST else validation,
        test=test,
        digest=hashlib.sha256(prepared.digests.tobytes()).hexdigest(),
        skipped=prepared.skipped,
        skipped_list=prepared.skipped_list,
        duplicates=count - len(np.unique(prepared.digests, axis=0)),
    )


def facts(images: Images) -> dict[str, Any]:
    """Returns what a run records of its images: digest, counts and shape."""
    return {
        "digest": images.digest,
        "train": len(images.train),
        "validation": len(images.validation),
        "test": len(images.test),
        "is_test_unseen": images.is_test_unseen,
        "duplicates": images.duplicates,
        "skipped": images.skipped,
        "shape": list(images.shape),
    }


def describe(images: Images) -> str:
    """Returns a one-line summary for the user."""
    height, width, channels = images.shape
    texts = [
        f"{len(images.train)} training, {len(images.validation)} validation and "
        f"{len(images.test)} test images, {height}x{width}, {'colour' if channels == 3 else 'grey'}"
    ]
    if not images.is_test_unseen:
        texts.append("the test images also serve as validation images, so they are not unseen")
    if images.duplicates:
        texts.append(f"{images.duplicates} duplicates, each in the same split as its original")
    if images.skipped:
        texts.append(f"{images.skipped} files skipped, see {images.skipped_list}")
    return "; ".join(texts)


def open_source(data: ConfigDict) -> sources.Source:
    """Returns the source of ``config.data``.

    Raises:
      UserError: if it does not exist or holds no image.
    """
    if data.name == "comic_faces":
        return sources.open_path(COMIC_FACES)
    if data.name == "folder":
        return sources.open_path(pathlib.Path(data.path).expanduser())
    return tfds_sets.open_set(data.name, data.split, data.feature, data.directory)


def settings(data: ConfigDict) -> Settings:
    """Returns the preprocessing settings of ``config.data``."""
    size = data.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return Settings(height, width, data.channels, data.fit, data.background)


def split(digests: np.ndarray, one_in: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits images by a hash of their pixels, whatever their names and order.

    Let h be the first 8 bytes of an image's digest (big-endian), and k `one_in`. If h mod k is 0,
    the image is a test image, with probability 1/k. Otherwise, if there are at least
    `MIN_IMAGES_FOR_TEST` images, it is a validation image if floor(h / k) mod 2(k - 1) is 0, with
    probability (1 - 1/k) / (2(k - 1)) = 1/(2k), half that of a test image; quotient and remainder
    of a uniform h are independent. With fewer images, validation and test images are the same.

    Args:
      digests: uint8 [N, 32], the SHA-256 of each image's pixels.
      one_in: k, at least 2.

    Returns:
      The ascending positions of the training, validation and test images, int64.
    """
    heads = digests[:, :8].copy().view(">u8")[:, 0].astype(np.uint64)
    quotient, remainder = np.divmod(heads, np.uint64(one_in))
    is_test = remainder == 0
    is_validation = is_test
    if len(digests) >= MIN_IMAGES_FOR_TEST:
        is_validation = ~is_test & (quotient % np.uint64(2 * (one_in - 1)) == 0)
    parts = ~is_test & ~is_validation, is_validation, is_test
    train, validation, test = map(np.flatnonzero, parts)
    return train, validation, test
