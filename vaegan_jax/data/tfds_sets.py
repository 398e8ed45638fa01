"""TFDS data sets by name: prepared in a separate process, read without TensorFlow.

Some of TFDS's own builders need TensorFlow to prepare a set. No training ever imports it.
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
    """Returns the images of a TFDS data set, preparing it at the first use.

    Args:
      name: for example "mnist", "lsun/bedroom", "mnist:3.0.1", or "package.module:Builder" for a
        builder of one's own; also a set that was prepared in `directory` by other code.
      split: in TFDS's notation, for example "train", "train+test" or "train[:1000]".
      feature: the name of the image feature; found by its type if empty.
      directory: where TFDS keeps its data; TFDS's own folder if empty.
      cache: of the files' hashes; see `hash_files`.

    Raises:
      UserError: for an unknown name, split or feature, and where the set cannot be prepared, was
        prepared in a form that cannot be read at random, or has files that cannot be read.
    """
    builder = _builder(name, directory)
    if not builder.is_prepared():
        _prepare_elsewhere(name, directory)
        builder = _builder(name, directory)
    images = _image_features(builder.info.features)
    feature = _choose(name, images, feature)
    try:
        # The files as they are: they are decoded as everybody else's.
        decoders = {image: tfds.decode.SkipDecoding() for image in images}
        examples = builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError as error:
        raise UserError(
            f"{name} was prepared in {builder.data_path} as {builder.info.file_format.value}, "
            "which only TensorFlow reads: move that folder away, or set data.directory to another, "
            "and run the same command again; it is then prepared as array_record."
        ) from error
    except (ValueError, KeyError) as error:
        raise UserError(
            f"data.split is {split!r}, and {name} has the splits "
            f"{', '.join(sorted(builder.info.splits))}; parts and sums are written as "
            "train[:1000] and train+test."
        ) from error
    told = (pathlib.Path(builder.data_path) / "dataset_info.json").read_text()
    # What TFDS tells of a set is its shape and size, which another preparation may share.
    files = [pathlib.Path(part.filename) for part in builder.info.splits[split].file_instructions]
    hashes = hash_files(files, cache)
    for file, result in zip(files, hashes, strict=True):
        if isinstance(result, OSError):
            raise UserError(f"{file} of {name} cannot be read: {result.strerror}.") from result
    identity = json.dumps([builder.info.full_name, split, feature, told, hashes])

    def read(position: int) -> bytes:
        data: bytes = examples[position][feature]
        return data

    return Source(
        label=name,
        names=[f"{split}/{position}" for position in range(len(examples))],
        identity=hashlib.sha256(identity.encode()).hexdigest(),
        read=read,
        skipped=[],
    )


def prepare(name: str, directory: str) -> None:
    """Downloads and prepares a data set in this process, as array_record.

    Raises:
      UserError: where that cannot be done, with what to do about it.
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
            f"{name} needs {missing} while it is prepared, and only then: run {fix}, and the "
            "same command again."
        ) from error
    except AssertionError as error:
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise _not_prepared(name, error) from error
        raise UserError(
            f"{name} must be downloaded by hand into {builder.data_dir_root}/downloads/manual: "
            f"{_short(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)} Then run the same command again."
        ) from error
    except (OSError, tfds.download.DownloadError) as error:  # OSError: all that requests raises
        raise UserError(
            f"{name} cannot be downloaded or written ({_short(error)}): without a network, start "
            "the same run on a machine that has one, stop it once training begins, and copy "
            f"{builder.data_dir_root}/{builder.name} from there."
        ) from error
    except Exception as error:  # the code of some thousand builders
        raise _not_prepared(name, error) from error


def prepare_here(name: str, directory: str) -> None:
    """Prepares a set as the whole program of `_prepare_elsewhere`; an error goes to stdout."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            prepare(name, directory)
    except UserError as error:
        print(error)
        sys.exit(1)


_PROGRAM = f"import sys; from {__name__} import prepare_here; prepare_here(*sys.argv[1:])"


def _prepare_elsewhere(name: str, directory: str) -> None:
    """Prepares a set in a process that ends afterwards, and TensorFlow with it."""
    command = [sys.executable, "-c", _PROGRAM, name, directory]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        ended = f"{name} could not be prepared: its process ended with code {result.returncode}."
        raise UserError(one_line(result.stdout) or ended)


def _builder(name: str, directory: str, **options: Any) -> tfds.core.DatasetBuilder:
    options["data_dir"] = data_directory(directory)
    own = re.fullmatch(r"([\w.]+):([A-Za-z_]\w*)", name)
    try:
        if own:
            return getattr(importlib.import_module(own[1]), own[2])(**options)
        return tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError as error:
        known = [*tfds.list_builders(with_community_datasets=False), "comic_faces", "folder"]
        near = difflib.get_close_matches(name, known) or ["folder (with data.path)", "comic_faces"]
        raise UserError(
            f"data.name is {name}, which TFDS does not know and which was not prepared in "
            f"{options['data_dir']}: did you mean {' or '.join(near)}?"
        ) from error
    except Exception as error:  # versions, variants, and whatever the module of a builder does
        raise UserError(f"data.name is {name}, and {_short(error)}") from error


def _image_features(features: Any) -> list[str]:
    return [
        name
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
    ]


def _choose(name: str, images: Sequence[str], feature: str) -> str:
    if feature in images:
        return feature
    if not images:
        raise UserError(f"{name} has no images at the top level of its features: name another set.")
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
