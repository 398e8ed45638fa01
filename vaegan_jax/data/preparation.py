"""Prepares a source once: decodes and preprocesses all images and writes array_record files.

Prepared images are stored in ``DIRECTORY/prepared_images/LABEL-KEY/VERSION``. The key is a hash of
the source's identity, the settings, the builder's version and Pillow's version. ``skipped.csv``
lists the files that could not be used. The images are written to a temporary folder that is renamed
at the end; that of an interrupted preparation is removed by the next one.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import pathlib
import re
import shutil
import time
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
from vaegan_jax.data.sources import Skipped, Source
from vaegan_jax.errors import UserError

_DIGESTS = "digests.npy"
_SKIPPED = "skipped.csv"
_SPLIT = "images"
_FORMAT = tfds.core.FileFormat.ARRAY_RECORD
_BATCH = 256
_SHARD_BYTES = 256 * 2**20


class Prepared(NamedTuple):
    """Prepared images.

    Attributes:
      examples: dicts with ``image``, uint8 [H, W, C], and ``name``, read by TFDS.
      digests: uint8 [N, 32], the SHA-256 of each image's pixels.
      skipped: number of unusable files.
      skipped_list: CSV file of their names and the reasons.
    """

    examples: Sequence[dict[str, Any]]
    digests: np.ndarray
    skipped: int
    skipped_list: pathlib.Path


class PreparedImages(tfds.core.DatasetBuilder):
    """TFDS builder of prepared images, used by `prepare`."""

    # Increase with every change that affects pixels or the selection of files.
    VERSION = tfds.core.Version("3.0.0")
    RELEASE_NOTES = {"3.0.0": "Suffixes alone decide which files are images."}  # noqa: RUF012 - TFDS reads it

    def __init__(self, source: Source, settings: Settings, workers: int, **options: Any) -> None:
        self._source, self._settings, self._workers = source, settings, workers
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        shape, raw = self._settings.image_shape, tfds.features.Encoding.BYTES
        # Raw bytes: lossless, and the fastest to write and to read.
        image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=raw)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": image, "name": tfds.features.Text()}),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        del dl_manager, download_config
        # TFDS's generator-based writer would use 1 GB of memory and require TensorFlow.
        per_shard = max(1, _SHARD_BYTES // math.prod(self._settings.image_shape))
        info = self._info()  # of the temporary folder
        writer = tfds.core.SequentialWriter(info, per_shard, file_format=_FORMAT)
        writer.initialize_splits([_SPLIT])
        names, skipped, digests = self._source.names, list(self._source.skipped), []
        batch: list[dict[str, Any]] = []
        for name, result in zip(names, self._results(), strict=True):
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            digests.append(np.frombuffer(hashlib.sha256(result.tobytes()).digest(), np.uint8))
            batch.append({"image": result, "name": _printable(name)})
            if len(batch) == _BATCH:
                writer.add_examples({_SPLIT: batch})
                batch = []
        writer.add_examples({_SPLIT: batch})
        writer.close_all()
        self.info.set_splits(info.splits)
        self.info.set_file_format(_FORMAT)
        folder = pathlib.Path(self.data_path)
        np.save(folder / _DIGESTS, np.asarray(digests, np.uint8).reshape(-1, 32))
        with (folder.parent / _SKIPPED).open("w", newline="", encoding="utf-8") as file:
            rows = [(_printable(name), reason) for name, reason in skipped]
            csv.writer(file).writerows([Skipped._fields, *rows])
        self.info.metadata["skipped"] = len(skipped)

    def _as_dataset(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError("Use as_data_source: a tf.data.Dataset would need TensorFlow.")

    def _results(self) -> Iterator[np.ndarray | Skipped]:
        """Yields the preprocessed image of each file, in order, or a `Skipped`.

        Threads suffice, since Pillow releases the GIL while decoding and resizing.
        """
        names = self._source.names

        def work(position: int) -> np.ndarray | Skipped:
            try:
                image = decoding.decode(self._source.read(position))
                return preprocessing.prepare(image, self._settings)
            except decoding.Unreadable as reason:
                # The image may be valid: do not save a preparation without it.
                raise decoding.Unreadable(f"{names[position]} {reason}") from None
            except (decoding.BadImage, ValueError) as reason:
                return Skipped(names[position], str(reason))

        options = grain.ReadOptions(self._workers, prefetch_buffer_size=8 * self._workers)
        results = grain.MapDataset.range(len(names)).map(work).to_iter_dataset(options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of unusual headers
            yield from tqdm(results, "preparing", len(names), unit=" images", disable=None)


def prepare(
    source: Source, settings: Settings, directory: str, workers: int, max_bad_fraction: float
) -> Prepared:
    """Returns the preprocessed images of a source; prepares them on first use.

    Args:
      source: the files.
      settings: preprocessing settings.
      directory: folder of prepared data; TFDS's default if empty.
      workers: number of decoding threads.
      max_bad_fraction: maximum fraction of unusable files.

    Raises:
      UserError: if more files are unusable, or the folder cannot be written.
      Unreadable: if a file can no longer be read, or changed since it was listed.
    """
    versions = [str(PreparedImages.VERSION), PIL.__version__]
    facts = json.dumps([source.identity, settings, *versions])
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    label = re.sub(r"[^a-z0-9]+", "_", pathlib.Path(source.label).stem.lower()).strip("_")[:40]
    size = f"{settings.height}x{settings.width}"
    name = f"{label or 'images'}-{size}-{key}"
    root = data_directory(directory)
    folder = root / PreparedImages.name / name

    def make_builder() -> PreparedImages:
        config = tfds.core.BuilderConfig(name=name)
        return PreparedImages(source, settings, workers, data_dir=root, config=config)

    builder = make_builder()
    if not builder.is_prepared():
        count = len(source.names)
        print(f"Preparing {count} images of {source.label} at {size} in {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):  # another process may be preparing them
            if not make_builder().is_prepared():
                _prepare(make_builder(), count, folder)
        builder = make_builder()  # reads the files just written
    digests = np.load(pathlib.Path(builder.data_path) / _DIGESTS)
    skipped: int = builder.info.metadata["skipped"]
    total, list_path = len(digests) + skipped, folder / _SKIPPED
    if skipped > max_bad_fraction * total:
        raise UserError(
            f"{skipped} of the {total} images of {source.label} cannot be used, for the reasons in "
            f"{list_path}: repair or remove them, or raise data.max_bad_fraction "
            f"({max_bad_fraction})."
        )
    return Prepared(builder.as_data_source(split=_SPLIT), digests, skipped, list_path)


def _prepare(builder: PreparedImages, count: int, folder: pathlib.Path) -> None:
    for incomplete in folder.glob("incomplete.*"):
        shutil.rmtree(incomplete)
    began = time.perf_counter()
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS's messages
        builder.download_and_prepare()
    seconds = time.perf_counter() - began
    print(f"Prepared in {seconds:.1f} s, {count / seconds:.0f} images/s", flush=True)


def data_directory(directory: str) -> pathlib.Path:
    """Returns ``data.directory``, or TFDS's default folder if it is empty."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(directory or default).expanduser()


def _printable(name: str) -> str:
    """Returns a file name with undecodable bytes escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
