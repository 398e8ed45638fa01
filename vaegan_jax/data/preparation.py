"""Prepares a source once: every image decoded, preprocessed and written as array_record.

What is prepared lies in ``DIRECTORY/prepared_images/LABEL-KEY/VERSION``, where the key follows from
the source's identity, the settings, this builder's version and Pillow's. So other images or another
size are another preparation, and the same again is found within seconds. Beside it lies
``skipped.csv``, the files that could not be used. A preparation is written into a folder that is
renamed when all is done; what an interrupted one left behind is removed by the next.
"""

import contextlib
import csv
import hashlib
import io
import json
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
    """Images as they were prepared.

    Attributes:
      examples: what TFDS reads; each has ``image``, uint8 [H, W, C], and ``name``.
      digests: uint8 [N, 32], the SHA-256 of each image's pixels.
      skipped: how many files could not be used.
      skipped_list: the CSV that names them, with reasons.
    """

    examples: Sequence[dict[str, Any]]
    digests: np.ndarray
    skipped: int
    skipped_list: pathlib.Path


class PreparedImages(tfds.core.DatasetBuilder):
    """The TFDS builder of prepared images; `prepare` is the way to it."""

    # To be raised whenever a file's pixels come out otherwise, or other files are used.
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {"2.0.0": "16-bit files of fewer bits."}  # noqa: RUF012 - TFDS reads it

    def __init__(
        self,
        source: Source,
        settings: Settings,
        workers: int,
        list_path: pathlib.Path,
        **options: Any,
    ) -> None:
        self._source, self._settings, self._workers = source, settings, workers
        self._list_path = list_path
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        height, width, channels, *_ = self._settings
        # Plain bytes: lossless, and the quickest to write and to read.
        image = tfds.features.Tensor(
            shape=(height, width, channels), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": image, "name": tfds.features.Text()}),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        del dl_manager, download_config  # there is nothing to download
        # Written in order and as they come: the writer behind TFDS's generators holds a gigabyte
        # in memory, and needs TensorFlow beyond it.
        height, width, channels, *_ = self._settings
        per_shard = max(1, _SHARD_BYTES // (height * width * channels))
        info = self._info()  # of the folder that is renamed when all is done
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
        _write_list(self._list_path, skipped)
        if not digests:
            raise UserError(
                f"None of the {len(names)} images of {self._source.label} can be used; why is "
                f"listed in {self._list_path}."
            )
        np.save(pathlib.Path(self.data_path) / _DIGESTS, np.stack(digests))
        self.info.metadata["skipped"] = len(skipped)

    def _as_dataset(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError("Use as_data_source: a tf.data.Dataset would need TensorFlow.")

    def _results(self) -> Iterator[np.ndarray | Skipped]:
        """Yields what became of each file, in order, worked out by several threads.

        Threads suffice, since Pillow decodes and resizes outside Python's lock.
        """
        names = self._source.names

        def work(position: int) -> np.ndarray | Skipped:
            try:
                image = decoding.decode(self._source.read(position))
                return preprocessing.prepare(image, self._settings)
            except decoding.Unreadable as reason:
                # Perhaps a good image: a preparation without it must not be kept.
                raise decoding.Unreadable(f"{names[position]} {reason}") from None
            except (decoding.BadImage, ValueError) as reason:
                return Skipped(names[position], str(reason))

        options = grain.ReadOptions(self._workers, prefetch_buffer_size=8 * self._workers)
        results = grain.MapDataset.range(len(names)).map(work).to_iter_dataset(options)
        bar = tqdm(results, "preparing", len(names), unit=" images", disable=None)
        with warnings.catch_warnings():
            # Pillow warns of oddities in headers; what it cannot read, it raises.
            warnings.simplefilter("ignore")
            yield from bar


def prepare(
    source: Source,
    settings: Settings,
    directory: str,
    workers: int,
    most_bad: float,
) -> Prepared:
    """Returns the images of a source as the settings want them, prepared at the first use.

    Args:
      source: the files.
      settings: what images are made into.
      directory: where prepared data is kept; TFDS's own folder if empty.
      workers: threads that decode.
      most_bad: the share of files that may be unusable.

    Raises:
      UserError: where more files are unusable, or the folder cannot be written.
      Unreadable: where a file cannot be read any more, or has changed since it was listed.
    """
    made_by = [str(PreparedImages.VERSION), PIL.__version__]
    facts = json.dumps([source.identity, settings, *made_by])
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    label = re.sub(r"[^a-z0-9]+", "_", pathlib.Path(source.label).stem.lower()).strip("_")[:40]
    name = f"{label or 'images'}-{settings.height}x{settings.width}-{key}"
    root = data_directory(directory)
    folder = root / PreparedImages.name / name
    list_path = folder / _SKIPPED

    def make_builder() -> PreparedImages:
        return PreparedImages(
            source,
            settings,
            workers,
            list_path,
            data_dir=root,
            config=tfds.core.BuilderConfig(name=name),
        )

    builder = make_builder()
    if not builder.is_prepared():
        with _alone(folder):
            builder = make_builder()
            if not builder.is_prepared():
                _prepare(builder, source, settings, folder)
                builder = make_builder()  # which reads what was written
    digests = np.load(pathlib.Path(builder.data_path) / _DIGESTS)
    skipped: int = builder.info.metadata["skipped"]
    all_files = len(digests) + skipped
    if skipped > most_bad * all_files:
        raise UserError(
            f"{skipped} of the {all_files} images of {source.label} cannot be used, as "
            f"{list_path} lists with the reasons: mend or remove them, or raise "
            f"data.max_bad_fraction, which is {most_bad}."
        )
    return Prepared(builder.as_data_source(split=_SPLIT), digests, skipped, list_path)


def _prepare(
    builder: PreparedImages, source: Source, settings: Settings, folder: pathlib.Path
) -> None:
    for left_behind in folder.glob("incomplete.*"):
        shutil.rmtree(left_behind)
    count, size = len(source.names), f"{settings.height}x{settings.width}"
    print(f"Preparing {count} images of {source.label} at {size} in {folder}", flush=True)
    began = time.perf_counter()
    tfds.disable_progress_bar()  # ours knows how much there is to do
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS says much that is of no use here
        builder.download_and_prepare()
    seconds = time.perf_counter() - began
    print(f"Prepared in {seconds:.1f} s, {count / seconds:.0f} images/s", flush=True)


def data_directory(directory: str) -> pathlib.Path:
    """Returns where data is kept: the folder named, or else TFDS's own.

    Raises:
      UserError: for a path that TFDS would take for a pattern.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    path = pathlib.Path(directory or default).expanduser()
    if set("*?\\") & set(str(path.absolute())):
        raise UserError(
            f"data.directory is {path.absolute()}, and TFDS takes *, ? and backslashes in it for "
            "patterns: name a folder without them."
        )
    return path


def digest(digests: np.ndarray) -> str:
    """Returns one hex digest of all images and their order from the digest of each."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Waits until no other process prepares the same."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"Waiting for another process that prepares {folder}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_list(path: pathlib.Path, skipped: Sequence[Skipped]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Skipped._fields)
        writer.writerows((_printable(name), reason) for name, reason in skipped)


def _printable(name: str) -> str:
    """Returns a file name that UTF-8 can write, whatever bytes it came from."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
