"""Image sources: a folder, a zip file or a TFDS data set, each as a list of files.

A source is listed without reading the images, which several threads do later.
"""

import hashlib
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vaegan_jax.data.decoding import BadImage
from vaegan_jax.errors import UserError, one_line

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"),
    *(".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
)
_UNSUPPORTED = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd")  # listed as skipped

# Hidden files, and the thumbnails, bins and snapshots of file managers and NAS systems.
_HIDDEN = re.compile(
    r"\..*|__macosx|@eadir|@tmp|#snapshot|[#@$]recycle(\.bin)?|system volume information"
    r"|lost\+found",
    re.IGNORECASE,
)


class Source(NamedTuple):
    """A list of images that can be read.

    Attributes:
      label: name for messages.
      names: names of the images, in order.
      identity: hex digest that changes with the names and contents.
      read: (index into `names`) -> content of the file; thread-safe. Raises OSError if the file
        cannot be read, and `BadImage` if it is damaged.
    """

    label: str
    names: Sequence[str]
    identity: str
    read: Callable[[int], bytes]


def open_path(path: pathlib.Path) -> Source:
    """Returns the images of a folder, including its subfolders, or of a zip file.

    Raises:
      UserError: if the path does not exist, cannot be read, or holds no image.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            return _archive(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(
            f"data.path is {path}, which cannot be read ({one_line(error)}): name a folder or a "
            "zip whose files can be read."
        ) from error
    raise UserError(f"data.path is {path}, which does not exist: name a folder or a zip.")


def file_version(path: pathlib.Path) -> tuple[int, int]:
    """Returns a file's size and modification time, of which one changes when it is edited."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def hex_digest(facts: object) -> str:
    """Returns the SHA-256 of facts that JSON can represent."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _folder(root: pathlib.Path) -> Source:
    names = sorted(_walk(root))
    content = [(name, file_version(root / name)) for name in names]
    return _source(root, names, content, lambda index: (root / names[index]).read_bytes())


def _walk(root: pathlib.Path) -> Iterator[str]:
    """Yields the names of images below a folder, relative to it; raises OSError on failure."""

    def fail(error: OSError) -> None:
        raise error

    entered = set[str]()
    for path, folders, files in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(path)
        if real in entered:  # by another link
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not _HIDDEN.fullmatch(name))
        relative = pathlib.PurePath(path).relative_to(root)
        for file in files:
            name = (relative / file).as_posix()
            if _is_image(name) and (root / name).is_file():  # neither a broken link nor a pipe
                yield name


def _archive(path: pathlib.Path) -> Source:
    """Returns the images of a zip file, which are read without unpacking it."""
    file = zipfile.ZipFile(path)
    infos = {info.filename: info for info in file.infolist() if _is_image(info.filename)}
    names = sorted(infos)
    content = [(name, infos[name].file_size, infos[name].CRC) for name in names]

    def read(index: int) -> bytes:
        try:
            return file.read(names[index])
        except OSError:
            raise
        except Exception as error:  # decompressors raise many types on damaged data
            raise BadImage(f"damaged in the zip: {one_line(error)}") from None

    return _source(path, names, content, read)


def _source(
    path: pathlib.Path, names: list[str], content: object, read: Callable[[int], bytes]
) -> Source:
    if not names:
        raise UserError(
            f"data.path is {path}, which holds no usable image ({', '.join(_SUFFIXES)})."
        )
    return Source(str(path), names, hex_digest(content), read)


def _is_image(name: str) -> bool:
    """Whether a file has the suffix of an image, and neither it nor a parent is hidden."""
    path = pathlib.PurePosixPath(name)
    has_suffix = path.suffix.lower() in _SUFFIXES + _UNSUPPORTED and not name.endswith("/")
    return has_suffix and not any(map(_HIDDEN.fullmatch, path.parts))
