"""TFDS data sets by name: prepared in a separate process, read without TensorFlow.

Some of TFDS's builders need TensorFlow to prepare a set. Training never imports it.
"""

import contextlib
import difflib
import hashlib
import importlib
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from vaegan_jax.data.hashing import hash_files
from vaegan_jax.data.preparation import data_directory
from vaegan_jax.data.sources import Source
from vaegan_jax.errors import UserError, one_line

_MAX_MESSAGE = 400


def open_set(
    name: str, split: str, feature: str, directory: str, cache: pathlib.Path | None = None
) -> Source:
    """Returns the images of a TFDS data set; prepares it on first use.

    Args:
      name: for example "mnist", "lsun/bedroom", "mnist:3.0.1", or "package.module:Builder" for a
        custom builder; also a set that other code prepared in `directory`.
      split: in TFDS's notation, for example "train", "train+test" or "train[:1000]".
      feature: name of the image feature; may be empty if there is only one.
      directory: of TFDS's data; TFDS's default if empty.
      cache: file that caches hashes; see `hash_files`.

    Raises:
      UserError: for an unknown name, split or feature, and if the set cannot be prepared, is stored
        in a format without random access, or has unreadable files.
    """
    builder = _builder(name, directory)
    if not builder.is_prepared():
        _prepare_in_subprocess(name, directory)
        builder = _builder(name, directory)
    images = [
        feature_name
        for feature_name, kind in builder.info.features.items()
        if isinstance(kind, tfds.features.Image)
        and not isinstance(kind, tfds.features.LabeledImage)
    ]
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


def prepare(name: str, directory: str) -> None:
    """Downloads and prepares a data set in this process, as array_record.

    Raises:
      UserError: if that fails, with the remedy.
    """
    builder = _builder(name, directory, file_format=tfds.core.FileFormat.ARRAY_RECORD)
    try:
        builder.download_and_prepare()
    except ImportError as error:
        missing = "tensorflow" if "tensorflow" in str(error).lower() else error.name
        fix = (
            "pip install 'vaegan-jax[prepare]' (in a checkout: pip install -e '.[prepare]')"
            if missing == "tensorflow"
            else f"pip install {missing}"
        )
        raise UserError(
            f"Preparing {name} needs {missing}: run {fix}, then the same command again."
        ) from error
    except AssertionError as error:
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise _not_prepared(name, error) from error
        raise UserError(
            f"{name} must be downloaded manually into {builder.data_dir_root}/downloads/manual: "
            f"{_short(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)} Then run the same command again."
        ) from error
    except (OSError, tfds.download.DownloadError) as error:  # requests raises OSErrors
        raise UserError(
            f"{name} cannot be downloaded or written ({_short(error)}): without a network, start "
            "the same run on a machine that has one, stop it when training begins, and copy "
            f"{builder.data_dir_root}/{builder.name} from there."
        ) from error
    except Exception as error:  # TFDS's builders raise many types
        raise _not_prepared(name, error) from error


def prepare_here(name: str, directory: str) -> None:
    """Main function of the subprocess that prepares a set; prints an error to stdout."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            prepare(name, directory)
    except UserError as error:
        print(error)
        sys.exit(1)


_PROGRAM = f"import sys; from {__name__} import prepare_here; prepare_here(*sys.argv[1:])"


def _prepare_in_subprocess(name: str, directory: str) -> None:
    """Prepares a data set in a subprocess, so TensorFlow is not imported in this process."""
    command = [sys.executable, "-c", _PROGRAM, name, directory]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        reason = f"{name} could not be prepared: the process exited with code {result.returncode}."
        raise UserError(one_line(result.stdout) or reason)


def _builder(name: str, directory: str, **options: Any) -> tfds.core.DatasetBuilder:
    options["data_dir"] = data_directory(directory)
    custom = re.fullmatch(r"([\w.]+):([A-Za-z_]\w*)", name)
    try:
        if custom:
            return getattr(importlib.import_module(custom[1]), custom[2])(**options)
        return tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError as error:
        known = [*tfds.list_builders(with_community_datasets=False), "comic_faces", "folder"]
        close = difflib.get_close_matches(name, known) or ["folder (with data.path)", "comic_faces"]
        raise UserError(
            f"data.name is {name}, which is neither in TFDS nor prepared in "
            f"{options['data_dir']}: did you mean {' or '.join(close)}?"
        ) from error
    except Exception as error:  # unknown versions and configs, and errors of a custom builder
        raise UserError(f"data.name is {name}, and {_short(error)}") from error


def _choose(name: str, images: Sequence[str], feature: str) -> str:
    """Returns the image feature to use."""
    if feature in images:
        return feature
    if not images:
        raise UserError(f"{name} has no top-level image feature: name another set.")
    if not feature and (len(images) == 1 or "image" in images):
        return "image" if "image" in images else images[0]
    raise UserError(
        f"data.feature is {feature!r}: set it to one of the image features of {name}, "
        f"{' or '.join(images)}."
    )


def _not_prepared(name: str, error: Exception) -> UserError:
    return UserError(f"{name} could not be prepared ({type(error).__name__}: {_short(error)}).")


def _short(message: object) -> str:
    text = one_line(message)
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."
