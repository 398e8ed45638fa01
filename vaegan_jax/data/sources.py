"""Where images come from: a folder, a zip, or a TFDS data set, each as a list of files to read.

A source is listed first, without opening any image, and read afterwards, image by image and from
several threads.
"""

import hashlib
import json
import os
import pathlib
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from vaegan_jax.data.decoding import MOST_BYTES, NOT_READ, SUFFIXES, BadImage
from vaegan_jax.errors import UserError, one_line


class Skipped(NamedTuple):
    """A file that is not used, and why."""

    name: str
    reason: str


class Source(NamedTuple):
    """Images that can be read.

    Attributes:
      label: what messages call it.
      names: of the images, in the order in which they are used.
      identity: hex digest of whatever tells that the images have changed.
      read: (position in `names`) -> the bytes of that file; raises `BadImage`.
      skipped: what is meant as an image and was found unusable while listing.
    """

    label: str
    names: Sequence[str]
    identity: str
    read: Callable[[int], bytes]
    skipped: Sequence[Skipped]


def open_path(path: pathlib.Path) -> Source:
    """Returns the images of a folder, its subfolders included, or of a zip.

    Raises:
      UserError: where there is neither, or no image in it.
    """
    if path.is_dir():
        return folder(path)
    if path.is_file():
        return archive(path, str(path))
    raise UserError(f"data.path is {path}, where there is nothing: name a folder or a zip.")


def folder(path: pathlib.Path) -> Source:
    """Returns the images of a folder and its subfolders; hidden ones are left out.

    Links are followed, but no folder is entered twice.
    """
    found: list[tuple[str, int, int]] = []
    skipped: list[Skipped] = []
    other: Counter[str] = Counter()
    for name in _walk(path, skipped):
        suffix = pathlib.PurePath(name).suffix.lower()
        if suffix in NOT_READ:
            skipped.append(Skipped(name, _format_not_read(suffix)))
        elif suffix not in SUFFIXES:
            other[suffix] += 1
        else:
            try:
                status = (path / name).stat()
            except OSError as error:
                skipped.append(Skipped(name, _cannot_be_read(error)))
                continue
            if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait for ever
                skipped.append(Skipped(name, "not a regular file"))
            elif status.st_size > MOST_BYTES:
                skipped.append(Skipped(name, _too_large(status.st_size)))
            else:
                found.append((name, status.st_size, status.st_mtime_ns))
    found.sort()
    names = [name for name, _, _ in found]

    def read(position: int) -> bytes:
        try:
            return (path / names[position]).read_bytes()
        except OSError as error:
            raise BadImage(_cannot_be_read(error)) from None

    _require_images(str(path), names, skipped, other)
    return Source(str(path), names, _digest(found, skipped), read, sorted(skipped))


def archive(path: pathlib.Path, label: str) -> Source:
    """Returns the images of a zip, which are read from where they lie; hidden ones are left out.

    Raises:
      UserError: where the file is no zip, is cut off or cannot be read.
    """
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as a zip ({error}).") from error
    found: list[tuple[str, int, int, zipfile.ZipInfo]] = []
    skipped: list[Skipped] = []
    other: Counter[str] = Counter()
    for info in file.infolist():
        parts = re.split(r"[/\\]", info.filename)
        suffix = pathlib.PurePath(info.filename).suffix.lower()
        if info.is_dir() or any(_hidden(part) for part in parts):
            continue
        if suffix not in (*SUFFIXES, *NOT_READ):
            other[suffix] += 1
        elif ".." in parts or not parts[0] or parts[0].endswith(":"):
            skipped.append(Skipped(info.filename, "a name that leads out of the zip"))
        elif suffix in NOT_READ:
            skipped.append(Skipped(info.filename, _format_not_read(suffix)))
        elif info.flag_bits & 1:
            skipped.append(Skipped(info.filename, "encrypted"))
        elif info.file_size > MOST_BYTES:
            skipped.append(Skipped(info.filename, _too_large(info.file_size)))
        else:
            found.append((info.filename, info.file_size, info.CRC, info))
    found.sort(key=lambda entry: entry[:3])

    def read(position: int) -> bytes:
        try:
            return file.read(found[position][3])
        # Damaged data raises whatever the decompressor happens to raise.
        except Exception as error:
            raise BadImage(f"damaged in the zip: {one_line(error)}") from None

    names = [name for name, _, _, _ in found]
    _require_images(label, names, skipped, other)
    identity = _digest([entry[:3] for entry in found], skipped)
    return Source(label, names, identity, read, sorted(skipped))


def _walk(root: pathlib.Path, skipped: list[Skipped]) -> Iterable[str]:
    """Yields the names of all files below a folder, relative to it, with forward slashes.

    Folders behind links come last, so that where one can be reached on two ways, the way without
    a link is the one that counts.
    """
    entered: set[tuple[int, int]] = set()
    waiting, links = [root], list[pathlib.Path]()
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        relative = here.relative_to(root)
        try:
            status = here.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in entered:
                skipped.append(Skipped(relative.as_posix(), "a link to a folder that is read"))
                continue
            entered.add(identity)
            with os.scandir(here) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(relative.as_posix(), _cannot_be_read(error)))
            continue
        for entry in entries:
            if _hidden(entry.name):
                continue
            path = here / entry.name
            if not path.is_dir():
                yield (relative / entry.name).as_posix()
            else:
                (links if entry.is_symlink() else waiting).append(path)


def _require_images(
    label: str, names: Sequence[str], skipped: Sequence[Skipped], other: Counter[str]
) -> None:
    if names:
        return
    seen = [f"{count} {suffix or 'without a suffix'}" for suffix, count in other.most_common(5)]
    seen += [f"{name} ({reason})" for name, reason in skipped[:3]]
    raise UserError(
        f"{label} holds no image ({', '.join(SUFFIXES)}) that can be used; found: "
        f"{'; '.join(seen) or 'nothing'}."
    )


def _hidden(name: str) -> bool:
    """Whether a name is hidden, or macOS's own."""
    return name == "__MACOSX" or (name.startswith(".") and name not in (".", ".."))


def _digest(entries: Sequence[tuple[str, int, int]], skipped: Sequence[Skipped]) -> str:
    return hashlib.sha256(json.dumps([entries, sorted(skipped)]).encode()).hexdigest()


def _cannot_be_read(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


def _too_large(size: int) -> str:
    return f"too large: {size} bytes"


def _format_not_read(suffix: str) -> str:
    return f"{suffix} is a format that is not read: convert it to PNG or JPEG"
