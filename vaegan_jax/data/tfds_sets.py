"""TFDS data sets by name: prepared in a separate process, read without TensorFlow."""

import difflib
import pathlib
import subprocess
import sys

import tensorflow_datasets as tfds

from vaegan_jax.data.preparation import data_directory
from vaegan_jax.data.sources import Source, file_version, hex_digest
from vaegan_jax.errors import UserError, one_line


def open_set(name: str, split: str, feature: str, directory: str) -> Source:
    """Returns the images of a TFDS data set; prepares it on first use.

    Args:
      name: for example "mnist", "lsun/bedroom" or "mnist:3.0.1"; also a set that other code, such
        as a custom builder, prepared in `directory`.
      split: in TFDS's notation, for example "train", "train+test" or "train[:1000]".
      feature: name of the image feature; may be empty if there is only one.
      directory: of TFDS's data; TFDS's default if empty.

    Raises:
      UserError: for an unknown name, split or feature, and if the set cannot be prepared or is
        stored in a format without random access.
    """
    builder = _builder(name, directory)
    if not builder.is_prepared():
        _prepare(name, builder.data_dir_root)
        builder = _builder(name, directory)
    kinds = builder.info.features
    images = [key for key in kinds if type(kinds[key]) is tfds.features.Image]  # no labelled ones
    feature = feature or (images[0] if len(images) == 1 else "image")
    if feature not in images:
        raise UserError(
            f"data.feature must name an image feature of {name}: {' or '.join(images) or 'none'}."
        )
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
    files = [pathlib.Path(part.filename) for part in builder.info.splits[split].file_instructions]
    content = [file_version(file) for file in files]
    identity = hex_digest([builder.info.full_name, split, feature, content])

    def read(index: int) -> bytes:
        data: bytes = examples[index][feature]
        return data

    names = [f"{split}/{index}" for index in range(len(examples))]
    return Source(name, names, identity, read)


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
        close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False))
        raise UserError(
            f"data.name is {name}, which is neither in TFDS nor prepared in {root}: did you mean "
            f"{' or '.join([*close, 'comic_faces', 'folder (with data.path)'])}?"
        ) from error
    except Exception as error:  # unknown versions and configs
        raise UserError(f"data.name is {name}, and {one_line(error)[:400]}") from error
