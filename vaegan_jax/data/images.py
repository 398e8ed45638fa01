"""Loads the data set of a run: opens the source, prepares it once, splits it by content."""

import functools
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from vaegan_jax.data import decoding, preparation, sources, tfds_sets
from vaegan_jax.data.feed import thread_count
from vaegan_jax.data.preparation import Prepared
from vaegan_jax.data.preprocessing import Settings
from vaegan_jax.errors import UserError, one_line

COMIC_FACES = pathlib.Path(__file__).with_name("comic_faces") / "comic_faces_64.zip"
_ATTEMPTS = 3


class Split:
    """Images on disk, uint8 [N, H, W, C], read by index.

    Attributes:
      shape: (N, H, W, C).
      image_shape: (height, width, channels).
    """

    def __init__(
        self, prepared: Prepared, positions: np.ndarray, image_shape: tuple[int, int, int]
    ) -> None:
        """Selects the images at `positions` of a prepared source."""
        self._prepared, self._positions, self.image_shape = prepared, positions, image_shape
        self.shape = (len(positions), *image_shape)

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def nbytes(self) -> int:
        """Size of all images in memory, in bytes."""
        return int(np.prod(self.shape))

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
      held_out: images for evaluation only.
      digest: SHA-256 of all pixels and their order, in hex.
      skipped: number of unusable files.
      skipped_list: CSV file of their names and the reasons.
      duplicates: number of images with the same pixels as an earlier one.
    """

    train: Split
    held_out: Split
    digest: str
    skipped: int
    skipped_list: pathlib.Path
    duplicates: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return self.train.image_shape


def load(data: ConfigDict) -> Images:
    """Returns the images of ``config.data``; prepares them on first use.

    Raises:
      UserError: if the images are missing, cannot be prepared, or are too few.
    """
    try:
        source, prepared = _prepare(data)
    except (OSError, RuntimeError) as error:  # the shard writer raises RuntimeError
        raise UserError(
            f"The images of {data.path or data.name} cannot be prepared ({one_line(error)}): set "
            "data.directory to a writable folder with enough free space."
        ) from error
    held_out = is_held_out(prepared.digests, data.held_out_one_in)
    if held_out.all() or not held_out.any():
        raise UserError(
            f"The training split or the held-out split of the {len(held_out)} images of "
            f"{source.label} is empty: use more images, or change data.held_out_one_in."
        )
    split = functools.partial(Split, prepared, image_shape=settings(data).image_shape)
    return Images(
        train=split(np.flatnonzero(~held_out)),
        held_out=split(np.flatnonzero(held_out)),
        digest=preparation.digest(prepared.digests),
        skipped=prepared.skipped,
        skipped_list=prepared.skipped_list,
        duplicates=len(held_out) - len(np.unique(prepared.digests, axis=0)),
    )


def _prepare(data: ConfigDict) -> tuple[sources.Source, Prepared]:
    """Opens and prepares the source; retries if it changes meanwhile."""
    workers = thread_count(data.workers)
    for _ in range(_ATTEMPTS):
        source = open_source(data)
        try:
            return source, preparation.prepare(
                source, settings(data), data.directory, workers, data.max_bad_fraction
            )
        except decoding.Unreadable as error:
            reason = error
            _hash_cache(data).unlink(missing_ok=True)
    raise UserError(
        f"The images of {source.label} cannot be prepared ({reason}): run the same command again "
        "when no other program writes to them."
    )


def _hash_cache(data: ConfigDict) -> pathlib.Path:
    """Returns the file that caches the hashes of the source's files; see `hash_files`."""
    path = str(pathlib.Path(data.path).expanduser().absolute()) if data.name == "folder" else ""
    key = hashlib.sha256(json.dumps([data.name, data.split, path]).encode()).hexdigest()[:16]
    directory = preparation.data_directory(data.directory)
    return directory / "prepared_images" / f"hashes-{key}.json"


def facts(images: Images) -> dict[str, Any]:
    """Returns what a run records of its images: digest, counts and shape."""
    return {
        "digest": images.digest,
        "train": len(images.train),
        "held_out": len(images.held_out),
        "duplicates": images.duplicates,
        "skipped": images.skipped,
        "shape": list(images.shape),
    }


def describe(images: Images) -> str:
    """Returns a one-line summary for the user."""
    height, width, channels = images.shape
    text = (
        f"{len(images.train)} training images and {len(images.held_out)} held-out images, "
        f"{height}x{width}, {'colour' if channels == 3 else 'grey'}"
    )
    if images.duplicates:
        text += f"; {images.duplicates} duplicates, each in the same split as its original"
    if images.skipped:
        text += f"; {images.skipped} files skipped, see {images.skipped_list}"
    return text


def open_source(data: ConfigDict) -> sources.Source:
    """Returns the source of ``config.data``.

    Raises:
      UserError: if it does not exist or holds no image.
    """
    cache = _hash_cache(data)
    if data.name == "comic_faces":
        return sources.archive(COMIC_FACES, data.name, cache)
    if data.name == "folder":
        return sources.open_path(pathlib.Path(data.path).expanduser(), cache)
    return tfds_sets.open_set(data.name, data.split, data.feature, data.directory, cache)


def settings(data: ConfigDict) -> Settings:
    """Returns the preprocessing settings of ``config.data``."""
    size = data.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return Settings(height, width, data.channels, data.fit, data.background)


def is_held_out(digests: np.ndarray, one_in: int) -> np.ndarray:
    """Returns which images are held out, by their pixels alone.

    So the split does not depend on names or order, adding an image does not move another one, and
    duplicates are in the same split.

    Args:
      digests: uint8 [N, 32], the SHA-256 of each image's pixels.
      one_in: on average one image in `one_in` is held out.

    Returns:
      bool [N].
    """
    heads = digests[:, :8].copy().view(">u8")[:, 0]
    held_out: np.ndarray = heads % one_in == 0
    return held_out
