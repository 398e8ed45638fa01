"""Prepares a source once: decodes and preprocesses all images and writes array_record files.

Prepared images are a TFDS data set in ``DIRECTORY/prepared_images/LABEL-KEY/VERSION``. The key is a
hash of the source's identity, the settings, `VERSION` and Pillow's version. ``skipped.csv`` lists
the files that could not be used. The images are written to a temporary folder that is renamed at
the end; that of a killed preparation is removed by the next one.
"""

import csv
import hashlib
import math
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import filelock
import grain
import numpy as np
import PIL
import tensorflow_datasets as tfds
from tqdm import tqdm

from vaegan_jax.data import decoding, preprocessing
from vaegan_jax.data.preprocessing import Settings
from vaegan_jax.data.sources import Source, hex_digest
from vaegan_jax.errors import UserError, one_line

VERSION = "4.0.0"
"""Increases with every change that affects pixels or the selection of files."""

FOLDER = "prepared_images"
_DIGESTS = "digests.npy"
_SPLIT = "images"
_BATCH = 256
_SHARD_BYTES = 256 * 2**20


class Prepared(NamedTuple):
    """Prepared images.

    Attributes:
      examples: dicts with ``image``, uint8 [H, W, C], read by TFDS.
      digests: uint8 [N, 32], the SHA-256 of each image's pixels.
      skipped: number of unusable files.
      skipped_list: CSV file of their names and the reasons.
    """

    examples: Sequence[dict[str, Any]]
    digests: np.ndarray
    skipped: int
    skipped_list: pathlib.Path


def prepare(
    source: Source, settings: Settings, directory: str, workers: int, max_bad_fraction: float
) -> Prepared:
    """Returns the preprocessed images of a source; prepares them on first use.

    Args:
      source: the files.
      settings: of the preprocessing.
      directory: folder of prepared data; TFDS's default if empty.
      workers: number of decoding threads.
      max_bad_fraction: of unusable files.

    Raises:
      UserError: if more files are unusable, or a file cannot be read.
      OSError: if the folder cannot be written; the shard writer raises RuntimeError.
    """
    key = hex_digest([source.identity, settings, VERSION, PIL.__version__])[:16]
    label = re.sub(r"[^a-z0-9]+", "_", pathlib.Path(source.label).stem.lower()).strip("_")[:40]
    count, size = len(source.names), f"{settings.height}x{settings.width}"
    folder = data_directory(directory) / FOLDER / f"{label or 'images'}-{size}-{key}"
    final, skipped_list = folder / VERSION, folder / "skipped.csv"
    if not final.exists():
        print(f"Preparing {count} images of {source.label} at {size} in {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):  # another process may be preparing them
            if not final.exists():
                _write(source, settings, workers, final, skipped_list)
    builder = tfds.builder_from_directory(final)
    skipped: int = builder.info.metadata["skipped"]
    if skipped > max_bad_fraction * count:
        raise UserError(
            f"{skipped} of the {count} images of {source.label} cannot be used, for the reasons in "
            f"{skipped_list}: repair or remove them, or raise data.max_bad_fraction "
            f"({max_bad_fraction})."
        )
    examples = builder.as_data_source(split=_SPLIT)
    return Prepared(examples, np.load(final / _DIGESTS), skipped, skipped_list)


def _write(
    source: Source, settings: Settings, workers: int, final: pathlib.Path, listed: pathlib.Path
) -> None:
    """Writes the prepared images to `final`, and the list of skipped files."""
    partial = final.with_name(f"incomplete.{VERSION}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # Raw bytes: lossless, and the fastest to write and to read.
    raw = tfds.features.Encoding.BYTES
    image = tfds.features.Tensor(shape=settings.image_shape, dtype=np.uint8, encoding=raw)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            FOLDER, tfds.core.Version(VERSION), str(partial), __name__, final.parent.name
        ),
        features=tfds.features.FeaturesDict({"image": image}),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(),
    )
    per_shard = max(1, _SHARD_BYTES // math.prod(settings.image_shape))
    array_record = tfds.core.FileFormat.ARRAY_RECORD
    try:
        writer = tfds.core.SequentialWriter(info, per_shard, file_format=array_record)
        writer.initialize_splits([_SPLIT])
        skipped, digests = [], []
        batch: list[dict[str, Any]] = []
        for name, result in zip(source.names, _results(source, settings, workers), strict=True):
            if isinstance(result, str):
                skipped.append((name, result))
                continue
            digests.append(np.frombuffer(hashlib.sha256(result.tobytes()).digest(), np.uint8))
            batch.append({"image": result})
            if len(batch) == _BATCH:
                writer.add_examples({_SPLIT: batch})
                batch = []
        writer.add_examples({_SPLIT: batch})
        info.metadata["skipped"] = len(skipped)
        writer.close_all()
        np.save(partial / _DIGESTS, np.asarray(digests, np.uint8).reshape(-1, 32))
        with listed.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerows([("name", "reason"), *skipped])
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _results(source: Source, settings: Settings, workers: int) -> Iterator[np.ndarray | str]:
    """Yields the preprocessed image of each file, in order, or the reason why it is skipped.

    Threads suffice, since Pillow releases the GIL while decoding and resizing.
    """

    def work(position: int) -> np.ndarray | str:
        try:
            return preprocessing.prepare(decoding.decode(source.read(position)), settings)
        except OSError as error:  # not skipped: the image may be valid
            raise UserError(
                f"{source.names[position]} of {source.label} cannot be read ({one_line(error)}): "
                "make it readable or remove it, and run the same command again."
            ) from error
        except (decoding.BadImage, ValueError) as reason:
            return str(reason)

    options = grain.ReadOptions(workers, prefetch_buffer_size=8 * workers)
    results = grain.MapDataset.range(len(source.names)).map(work).to_iter_dataset(options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of unusual headers
        yield from tqdm(results, "preparing", len(source.names), unit=" images", disable=None)


def data_directory(directory: str) -> pathlib.Path:
    """Returns ``data.directory``, or TFDS's default folder if it is empty."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(directory or default).expanduser()
