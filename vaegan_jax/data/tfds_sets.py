"""TFDS data sets by name: prepared in a separate process, read without TensorFlow."""

import difflib
import hashlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import tensorflow_datasets as tfds

from vaegan_jax.data.hashing import hash_files
from vaegan_jax.data.preparation import data_directory
from vaegan_jax.data.sources import Source
from vaegan_jax.errors import UserError, one_line


def open_set(
    name: str, split: str, feature: str, directory: str, cache: pathlib.Path | None = None
) -> Source:
    """Returns the images of a TFDS data set; prepares it on first use.

    Args:
      name: for example "mnist", "lsun/bedroom" or "mnist:3.0.1"; also a set that other code, such
        as a custom builder, prepared in `directory`.
      split: in TFDS's notation, for example "train", "train+test" or "train[:1000]".
      feature: name of the image feature; may be empty if there is only one.
      directory: of TFDS's data; TFDS's default if empty.
      cache: see `hash_files`.

    Raises:
      UserError: for an unknown name, split or feature, and if the set cannot be prepared, is stored
        in a format without random access, or has unreadable files.
    """
    builder = _builder(name, directory)
    if not builder.is_prepared():
        _prepare(name, builder.data_dir_root)
        builder = _builder(name, directory)
    kinds = builder.info.features
    images = [key for key in kinds if type(kinds[key]) is tfds.features.Image]  # no labelled ones
    feature = _choose(name, images, feature)
    try:
        # Encoded files: they are decoded like those of any other source.
        decoders = {image: tfds.decode.SkipDecoding() for image in images}
        examples = builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError as error:
        raise UserError(
            f"{name} is stored in {builder.data_path} as {builder.info.file_format.value}, which "
            "only TensorFlow reads: move that folder away or change data.directory, and run the "
            "same command again to prepare it as array_record."
        ) from error
    except (ValueError, KeyError) as error:
        raise UserError(
            f"data.split is {split!r}, but the splits of {name} are "
            f"{', '.join(sorted(builder.info.splits))}; train[:1000] and train+test are valid too."
        ) from error
    # The info alone does not identify the set: another preparation may have equal shapes and sizes.
    info = (pathlib.Path(builder.data_path) / "dataset_info.json").read_text()
    files = [pathlib.Path(part.filename) for part in builder.info.splits[split].file_instructions]
    hashes = hash_files(files, cache)
    for file, result in zip(files, hashes, strict=True):
        if isinstance(result, OSError):
            raise UserError(f"{file} of {name} cannot be read: {result.strerror}.") from result
    identity = json.dumps([builder.info.full_name, split, feature, info, hashes])

    def read(index: int) -> bytes:
        data: bytes = examples[index][feature]
        return data

    names = [f"{split}/{index}" for index in range(len(examples))]
    return Source(name, names, hashlib.sha256(identity.encode()).hexdigest(), read, skipped=[])


_PROGRAM = """
import sys
import tensorflow_datasets as tfds
name, root = sys.argv[1:]
tfds.builder(name, data_dir=root, file_format="array_record").download_and_prepare()
"""


def _prepare(name: str, root: pathlib.Path) -> None:
    """Downloads and prepares a set in a subprocess, since some builders import TensorFlow.

    Raises:
      UserError: if that fails; the process prints the reason.
    """
    if subprocess.run([sys.executable, "-c", _PROGRAM, name, str(root)]).returncode:
        raise UserError(
            f"{name} could not be prepared in {root}, for the reason above: if TensorFlow is "
            "missing, run pip install 'vaegan-jax[prepare]'; without a network, copy the prepared "
            "folder from a machine that has one; manual downloads belong in "
            f"{root}/downloads/manual."
        )


def _builder(name: str, directory: str) -> tfds.core.DatasetBuilder:
    root = data_directory(directory)
    try:
        return tfds.builder(name, data_dir=root)
    except tfds.core.DatasetNotFoundError as error:
        known = [*tfds.list_builders(with_community_datasets=False), "comic_faces", "folder"]
        close = difflib.get_close_matches(name, known) or ["folder (with data.path)", "comic_faces"]
        raise UserError(
            f"data.name is {name}, which is neither in TFDS nor prepared in "
            f"{root}: did you mean {' or '.join(close)}?"
        ) from error
    except Exception as error:  # unknown versions and configs
        raise UserError(f"data.name is {name}, and {one_line(error)[:400]}") from error


def _choose(name: str, images: Sequence[str], feature: str) -> str:
    """Returns the image feature to use."""
    if not images:
        raise UserError(f"{name} has no top-level image feature: name another set.")
    if not feature:
        feature = "image" if len(images) > 1 else images[0]
    if feature in images:
        return feature
    raise UserError(f"data.feature must name an image feature of {name}: {' or '.join(images)}.")
