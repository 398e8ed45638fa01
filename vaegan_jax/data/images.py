"""Loads the images of a run: found, prepared once, split by content."""

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
    """Images at rest, uint8 [N, H, W, C], of which those are read that are asked for.

    Attributes:
      shape: (N, H, W, C).
    """

    def __init__(
        self, prepared: Prepared, positions: np.ndarray, image_shape: tuple[int, int, int]
    ) -> None:
        """Takes those images of a preparation that stand at `positions`."""
        self._prepared, self._positions, self._image_shape = prepared, positions, image_shape
        self.shape = (len(positions), *image_shape)

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def nbytes(self) -> int:
        """Bytes that all of them take in memory."""
        return int(np.prod(self.shape))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return self._image_shape

    def take(self, rows: np.ndarray) -> "Split":
        """Returns some of these images, none of them read yet."""
        return Split(self._prepared, self._positions[rows], self._image_shape)

    def __getitem__(self, indices: slice | np.ndarray) -> np.ndarray:
        """Reads images, uint8 [n, H, W, C]; from several threads at once if need be.

        Raises:
          UserError: where the prepared files are damaged.
        """
        positions = self._positions[indices]
        images = np.empty((len(positions), *self.shape[1:]), np.uint8)
        try:
            for image, position in zip(images, positions.tolist(), strict=True):
                image[:] = self._prepared.examples[position]["image"]
        except Exception as error:  # the reader's own kinds, which it does not name
            raise UserError(
                f"The prepared images in {self._prepared.skipped_list.parent} cannot be read "
                f"({one_line(error)}): remove that folder, and they are prepared "
                "again."
            ) from error
        return images


class Images(NamedTuple):
    """A data set.

    Attributes:
      train: what the networks learn from.
      held_out: what they never see.
      digest: of all pixels and their order; two runs with the same digest saw the same data.
      skipped: files that could not be used.
      skipped_list: the CSV that names them, with reasons.
      duplicates: images that equal an earlier one, pixel for pixel.
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
    """Returns the images that ``config.data`` names, preparing them at the first use.

    Raises:
      UserError: where they are not there, cannot be prepared, or are too few.
    """
    try:
        source, prepared = _prepare(data)
    except (OSError, RuntimeError) as error:  # the latter is how the shards' writer fails
        raise UserError(
            f"The images of {data.path or data.name} cannot be prepared "
            f"({one_line(error)}): set data.directory to a folder that can be "
            "written and has space."
        ) from error
    held_out = is_held_out(prepared.digests, data.held_out_one_in)
    if held_out.all() or not held_out.any():
        raise UserError(
            f"All {len(held_out)} images of {source.label} fall on one side of the split into "
            "training and held-out images: use more images, or change data.held_out_one_in."
        )
    height, width, channels, *_ = settings(data)
    split = functools.partial(Split, prepared, image_shape=(height, width, channels))
    unique = np.unique(prepared.digests, axis=0)
    return Images(
        train=split(np.flatnonzero(~held_out)),
        held_out=split(np.flatnonzero(held_out)),
        digest=preparation.digest(prepared.digests),
        skipped=prepared.skipped,
        skipped_list=prepared.skipped_list,
        duplicates=len(held_out) - len(unique),
    )


def _prepare(data: ConfigDict) -> tuple[sources.Source, Prepared]:
    """Opens and prepares the source, again where it changed in between."""
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
        f"The images of {source.label} cannot be prepared, since {reason}: run the same command "
        "again when nothing writes to them."
    )


def _hash_cache(data: ConfigDict) -> pathlib.Path:
    """Returns where the hashes of the source's files are kept; see `hash_files`."""
    place = str(pathlib.Path(data.path).expanduser().absolute()) if data.name == "folder" else ""
    key = hashlib.sha256(json.dumps([data.name, data.split, place]).encode()).hexdigest()[:16]
    directory = preparation.data_directory(data.directory)
    return directory / "prepared_images" / f"hashes-{key}.json"


def facts(images: Images) -> dict[str, Any]:
    """Returns what a run notes of its images: their digest, counts and shape."""
    return {
        "digest": images.digest,
        "train": len(images.train),
        "held_out": len(images.held_out),
        "duplicates": images.duplicates,
        "skipped": images.skipped,
        "shape": list(images.shape),
    }


def describe(images: Images) -> str:
    """Returns a line on what was found and what was left out."""
    height, width, channels = images.shape
    text = (
        f"{len(images.train)} images to train on and {len(images.held_out)} held out, "
        f"{height}x{width}, {'colour' if channels == 3 else 'grey'}"
    )
    if images.duplicates:
        text += f"; {images.duplicates} of them equal to another, on the same side"
    if images.skipped:
        text += f"; skipped {images.skipped}, which {images.skipped_list} lists with the reasons"
    return text


def open_source(data: ConfigDict) -> sources.Source:
    """Returns the source that ``config.data`` names.

    Raises:
      UserError: where it is not there or holds no image.
    """
    cache = _hash_cache(data)
    if data.name == "comic_faces":
        return sources.archive(COMIC_FACES, data.name, cache)
    if data.name == "folder":
        return sources.open_path(pathlib.Path(data.path).expanduser(), cache)
    return tfds_sets.open_set(data.name, data.split, data.feature, data.directory, cache)


def settings(data: ConfigDict) -> Settings:
    """Returns what ``config.data`` wants images made into."""
    size = data.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return Settings(height, width, data.channels, data.fit, data.background)


def is_held_out(digests: np.ndarray, one_in: int) -> np.ndarray:
    """Decides for each image, by its pixels alone, whether it is held out.

    So the split depends on no name and no order, an image added moves no other, and equal images
    stand on the same side.

    Args:
      digests: uint8 [N, 32], the SHA-256 of each image's pixels.
      one_in: the share held out is one in so many.

    Returns:
      bool [N].
    """
    heads = digests[:, :8].copy().view(">u8")[:, 0]
    held_out: np.ndarray = heads % one_in == 0
    return held_out
