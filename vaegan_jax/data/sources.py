"""Image sources: a folder, a zip file or a TFDS data set, each as a list of files.

A source is first listed and hashed without decoding, then read by several threads.
"""

import hashlib
import json
import os
import pathlib
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vaegan_jax.data.decoding import MAX_BYTES, SUFFIXES, UNSUPPORTED, BadImage, Unreadable
from vaegan_jax.data.hashing import hash_files, version
from vaegan_jax.errors import UserError, one_line

# Thumbnails, deleted files and snapshots of file managers and NAS systems, in lower case.
_SYSTEM_NAMES = (
    *("@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot", "@transcode"),
    *("$recycle.bin", "recycler", "recycled", "system volume information", "__macosx"),
    *("network trash folder", "temporary items", "~snapshot", "lost+found"),
)
_SYSTEM_FILE = re.compile(r"synophoto_|synofile_thumb_|.*@syno(resource|eastream)$")


class Skipped(NamedTuple):
    """A skipped file and the reason."""

    name: str
    reason: str


class Source(NamedTuple):
    """A list of images that can be read.

    Attributes:
      label: name for messages.
      names: names of the images, in order.
      identity: hex digest of the names, the contents and `skipped`.
      read: (index into `names`) -> content of the file. Raises `BadImage`, or `Unreadable` if the
        file can no longer be read or changed since it was listed.
      skipped: images that cannot be used.
    """

    label: str
    names: Sequence[str]
    identity: str
    read: Callable[[int], bytes]
    skipped: Sequence[Skipped]


def open_path(path: pathlib.Path, cache: pathlib.Path | None = None) -> Source:
    """Returns the images of a folder, including its subfolders, or of a zip file.

    For `cache` see `hash_files`.

    Raises:
      UserError: if the path does not exist, cannot be read, or holds no image.
    """
    try:
        if path.is_dir():
            return folder(path, cache)
        if path.is_file():
            return archive(path, str(path), cache)
    except OSError as error:
        raise UserError(f"data.path is {path}, which {_cannot_be_read(error)}.") from error
    raise UserError(f"data.path is {path}, which does not exist: name a folder or a zip.")


def folder(path: pathlib.Path, cache: pathlib.Path | None = None) -> Source:
    """Returns the images of a folder and its subfolders, without hidden and system files.

    Links are followed; each folder is listed only once.
    """
    skipped: list[Skipped] = []
    images = []
    for name in _walk(path, skipped):
        if not _is_image(name, skipped):
            continue
        try:
            status = (path / name).stat()
        except OSError as error:
            skipped.append(Skipped(name, _cannot_be_read(error)))
            continue
        if not stat.S_ISREG(status.st_mode):  # reading from a pipe would block
            skipped.append(Skipped(name, "not a regular file"))
        elif status.st_size > MAX_BYTES:
            skipped.append(Skipped(name, f"too large: {status.st_size} bytes"))
        else:
            images.append(name)
    images.sort()
    hashes: dict[str, str] = {}
    results = hash_files([path / name for name in images], cache)
    for name, result in zip(images, results, strict=True):
        if isinstance(result, OSError):
            skipped.append(Skipped(name, _cannot_be_read(result)))
        else:
            hashes[name] = result
    names = list(hashes)

    def read(index: int) -> bytes:
        try:
            data = (path / names[index]).read_bytes()
        except OSError as error:
            raise Unreadable(_cannot_be_read(error)) from None
        if hashlib.sha256(data).hexdigest() != hashes[names[index]]:
            raise Unreadable("changed while it was read")
        return data

    return _source(str(path), names, hashes, read, skipped)


def archive(path: pathlib.Path, label: str, cache: pathlib.Path | None = None) -> Source:
    """Returns the images of a zip file, without hidden and system files, read without unpacking.

    Raises:
      UserError: if the file is not a zip, is truncated or cannot be read.
    """
    try:
        opened = version(path.stat())
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as a zip ({error}).") from error
    skipped: list[Skipped] = []
    images = []
    for info in file.infolist():
        is_hidden = any(_is_hidden(part) for part in re.split(r"[/\\]", info.filename))
        if info.is_dir() or is_hidden or not _is_image(info.filename, skipped):
            continue
        if info.file_size > MAX_BYTES:
            skipped.append(Skipped(info.filename, f"too large: {info.file_size} bytes"))
        else:
            images.append(info)
    images.sort(key=lambda info: (info.filename, info.file_size, info.CRC))
    names = [info.filename for info in images]
    # The whole file is hashed, since the checksum of an entry has 32 bits and can be forged.
    (content,) = hash_files([path], cache)
    if isinstance(content, OSError):
        raise UserError(f"{path} {_cannot_be_read(content)}.") from content

    def read(index: int) -> bytes:
        try:
            if version(path.stat()) == opened:
                return file.read(images[index])
        except Exception as error:  # decompressors raise many types on damaged data
            if isinstance(error, OSError) and error.errno is not None:
                raise Unreadable(_cannot_be_read(error)) from None
            raise BadImage(f"damaged in the zip: {one_line(error)}") from None
        raise Unreadable("the zip has changed since it was opened")

    return _source(label, names, [names, content], read, skipped)


def _walk(root: pathlib.Path, skipped: list[Skipped]) -> Iterator[str]:
    """Yields the names of all files below a folder, relative to it, with forward slashes.

    Links to folders are followed last, so folders are listed by their paths without links.
    """

    def name(path: str) -> str:
        return pathlib.Path(path).relative_to(root).as_posix()

    def skip(error: OSError) -> None:
        skipped.append(Skipped(name(error.filename), _cannot_be_read(error)))

    entered, links = set[str](), [str(root)]
    for start in links:
        for path, folders, files in os.walk(start, onerror=skip):
            real = os.path.realpath(path)
            if real in entered:
                skipped.append(Skipped(name(path), "a link to a folder already listed"))
                folders.clear()
                continue
            entered.add(real)
            # The order decides which of two links to one folder is listed.
            folders[:] = sorted((x for x in folders if not _is_hidden(x)), reverse=True)
            links += sorted(filter(os.path.islink, (f"{path}/{folder}" for folder in folders)))
            yield from (name(f"{path}/{file}") for file in files if not _is_hidden(file))


def _source(
    label: str,
    names: Sequence[str],
    content: object,
    read: Callable[[int], bytes],
    skipped: list[Skipped],
) -> Source:
    """Returns a source whose identity is the hash of `content` and `skipped`."""
    if not names:
        reasons = "".join(f"; {name}: {reason}" for name, reason in skipped[:3])
        raise UserError(f"{label} holds no usable image ({', '.join(SUFFIXES)}){reasons}.")
    skipped = sorted(skipped)
    identity = hashlib.sha256(json.dumps([content, skipped]).encode()).hexdigest()
    return Source(label, names, identity, read, skipped)


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or belongs to the system."""
    lower = name.lower()
    hidden = name.startswith(".") and name not in (".", "..")
    return hidden or lower in _SYSTEM_NAMES or bool(_SYSTEM_FILE.match(lower))


def _cannot_be_read(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _is_image(name: str, skipped: list[Skipped]) -> bool:
    """Whether a file has the suffix of a supported image; other images are skipped."""
    suffix = pathlib.PurePath(name).suffix.lower()
    if suffix in UNSUPPORTED:
        skipped.append(Skipped(name, f"{suffix} is not supported: convert it to PNG or JPEG"))
    return suffix in SUFFIXES
