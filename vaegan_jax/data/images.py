"""Loads the images of a run: uint8 arrays, prepared once and kept in memory."""

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image

from vaegan_jax.data import preprocessing
from vaegan_jax.data.comic_faces import comic_faces_dataset_builder
from vaegan_jax.errors import UserError

BUILDERS: dict[str, type[tfds.core.GeneratorBasedBuilder]] = {
    "comic_faces": comic_faces_dataset_builder.Builder,
}


class Images(NamedTuple):
    """A data set at rest.

    Attributes:
      train: uint8 [N, H, W, C], what the networks learn from.
      held_out: uint8 [M, H, W, C], what they never see.
    """

    train: np.ndarray
    held_out: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        _, height, width, channels = self.train.shape
        return height, width, channels


def load(data: ConfigDict) -> Images:
    """Returns the images that ``config.data`` names, preparing them at the first use.

    Preparation is TFDS's: array_record files in ``data.directory``, or in TFDS's own folder where
    that is empty, written whole or not at all.

    Raises:
      UserError: where the data cannot be prepared there.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = BUILDERS[data.name](
            data_dir=data.directory or None, file_format=tfds.core.FileFormat.ARRAY_RECORD
        )
        builder.download_and_prepare()
    except OSError as error:
        raise UserError(
            f"The data set {data.name} cannot be prepared ({error}): set data.directory to a "
            "folder that can be written and has space."
        ) from error
    height, width = image_size(data)
    splits = (builder.as_data_source(split=split) for split in ("train", "test"))
    return Images(*(_prepare_all(split, height, width) for split in splits))


def image_size(data: ConfigDict) -> tuple[int, int]:
    """Returns (height, width) from ``data.image_size``, one number or two."""
    size = data.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _prepare_all(split: Iterable[dict[str, Any]], height: int, width: int) -> np.ndarray:
    images = (Image.fromarray(example["image"]) for example in split)
    return np.stack([preprocessing.prepare(image, height, width) for image in images])
