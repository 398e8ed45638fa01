"""Where images come from: a folder, a zip, or a TFDS data set, each as a list of files to read.

A source is listed and hashed first, without decoding any image, and read afterwards, image by image
and from several threads.
"""

import functools
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

from vaegan_jax.data import decoding
from vaegan_jax.data.decoding import MAX_BYTES, SUFFIXES, BadImage, Kind, Unreadable
from vaegan_jax.data.hashing import hash_files, version
from vaegan_jax.errors import UserError, one_line

# What file managers, recycle bins and NAS systems put among pictures: thumbnails, deleted files and
# earlier versions. In lower case; names with a dot in front are hidden and need no entry.
_SYSTEM_NAMES = (
    *("@eadir", "#recycle", "#snapshot", "@tmp"),  # Synology
    *("@recycle", "@recently-snapshot", "@transcode"),  # QNAP
    *("$recycle.bin", "recycler", "recycled", "system volume information"),  # Windows
    *("__macosx", "network trash folder", "temporary items"),  # macOS
    *("~snapshot", "lost+found"),  # NetApp, ext4
)
_SYSTEM_FILE = re.compile(r"synophoto_|synofile_thumb_|.*@syno(resource|eastream)$")


class Skipped(NamedTuple):
    """A file that is not used, and why."""

    name: str
    reason: str


class Source(NamedTuple):
    """Images that can be read.

    Attributes:
      label: what messages call it.
      names: of the images, in the order in which they are used.
      identity: hex digest of names and contents, and of what was skipped.
      read: (position in `names`) -> the bytes of that file. It raises `BadImage`, and `Unreadable`
        where a file cannot be read any more or is no longer the one that was listed.
      skipped: what is meant as an image and was found unusable while listing.
    """

    label: str
    names: Sequence[str]
    identity: str
    read: Callable[[int], bytes]
    skipped: Sequence[Skipped]


def open_path(path: pathlib.Path, cache: pathlib.Path | None = None) -> Source:
    """Returns the images of a folder, its subfolders included, or of a zip.

    Args:
      path: of the folder or the zip.
      cache: of the files' hashes; see `hash_files`.

    Raises:
      UserError: where there is neither, it cannot be read, or it holds no image.
    """
    try:
        if path.is_dir():
            return folder(path, cache)
        if path.is_file():
            return archive(path, str(path), cache)
    except OSError as error:
        raise UserError(f"data.path is {path}, which {_cannot_be_read(error)}.") from error
    raise UserError(f"data.path is {path}, where there is nothing: name a folder or a zip.")


def folder(path: pathlib.Path, cache: pathlib.Path | None = None) -> Source:
    """Returns the images of a folder and its subfolders, without hidden and system files.

    Links are followed, but no folder is entered twice.
    """
    found: list[str] = []
    skipped: list[Skipped] = []
    other: Counter[str] = Counter()
    for name in _walk(path, skipped):
        file = path / name
        suffix = file.suffix.lower()
        try:
            kind = decoding.kind(name, functools.partial(_head, file))
            if kind is Kind.OTHER:
                other[suffix] += 1
                continue
            status = file.stat()
        except OSError as error:
            skipped.append(Skipped(name, _cannot_be_read(error)))
            continue
        if kind is Kind.NOT_READ:
            skipped.append(Skipped(name, _format_not_read(suffix)))
        elif not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait for ever
            skipped.append(Skipped(name, "not a regular file"))
        elif status.st_size > MAX_BYTES:
            skipped.append(Skipped(name, _too_large(status.st_size)))
        else:
            found.append(name)
    found.sort()
    hashes: dict[str, str] = {}
    for name, result in zip(found, hash_files([path / name for name in found], cache), strict=True):
        if isinstance(result, OSError):
            skipped.append(Skipped(name, _cannot_be_read(result)))
        else:
            hashes[name] = result
    names = list(hashes)

    def read(position: int) -> bytes:
        name = names[position]
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            raise Unreadable(_cannot_be_read(error)) from None
        if hashlib.sha256(data).hexdigest() != hashes[name]:
            raise Unreadable("changed while it was read")
        return data

    _require_images(str(path), names, skipped, other)
    return Source(str(path), names, _digest(hashes, skipped), read, sorted(skipped))


def archive(path: pathlib.Path, label: str, cache: pathlib.Path | None = None) -> Source:
    """Returns the images of a zip, without hidden and system files; they are read in place.

    Raises:
      UserError: where the file is no zip, is cut off or cannot be read.
    """
    try:
        opened = version(path.stat())
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as a zip ({error}).") from error
    found: list[tuple[str, int, int, zipfile.ZipInfo]] = []
    skipped: list[Skipped] = []
    other: Counter[str] = Counter()
    for info in file.infolist():
        parts = re.split(r"[/\\]", info.filename)
        suffix = pathlib.PurePath(info.filename).suffix.lower()
        if info.is_dir() or any(_left_out(part) for part in parts):
            continue
        kind = decoding.kind(info.filename, functools.partial(_zip_head, file, info))
        if kind is Kind.OTHER:
            other[suffix] += 1
        elif ".." in parts or not parts[0] or parts[0].endswith(":"):
            skipped.append(Skipped(info.filename, "a name that leads out of the zip"))
        elif kind is Kind.NOT_READ:
            skipped.append(Skipped(info.filename, _format_not_read(suffix)))
        elif info.flag_bits & 1:
            skipped.append(Skipped(info.filename, "encrypted"))
        elif info.file_size > MAX_BYTES:
            skipped.append(Skipped(info.filename, _too_large(info.file_size)))
        else:
            found.append((info.filename, info.file_size, info.CRC, info))
    found.sort(key=lambda entry: entry[:3])
    names = [name for name, *_ in found]
    _require_images(label, names, skipped, other)
    # Of the whole file: an entry's checksum is 32 bits long and can be forged.
    (content,) = hash_files([path], cache)
    if isinstance(content, OSError):
        raise UserError(f"{path} {_cannot_be_read(content)}.") from content

    def read(position: int) -> bytes:
        try:
            if version(path.stat()) != opened:
                raise Unreadable("the zip has changed since it was opened")
            return _zip_read(file, found[position][3])
        except OSError as error:
            raise Unreadable(_cannot_be_read(error)) from None

    return Source(label, names, _digest([names, content], skipped), read, sorted(skipped))


def _head(path: pathlib.Path) -> bytes:
    """Returns a file's first bytes; none of what is not a regular file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(decoding.HEAD_BYTES)


def _zip_head(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Returns an entry's first bytes; none where it is encrypted or damaged."""
    try:
        return _zip_read(file, info, decoding.HEAD_BYTES)
    except BadImage:
        return b""


def _zip_read(file: zipfile.ZipFile, info: zipfile.ZipInfo, count: int = -1) -> bytes:
    """Returns `count` bytes of an entry, or all.

    Raises:
      BadImage: where the entry is damaged.
      OSError: where the zip cannot be read.
    """
    try:
        with file.open(info) as entry:
            return entry.read(count)
    except Exception as error:  # on damaged data, whatever the decompressor happens to raise
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadImage(f"damaged in the zip: {one_line(error)}") from None


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
            if _left_out(entry.name):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that cannot be followed
                is_folder = False
            if not is_folder:
                yield (relative / entry.name).as_posix()
            else:
                (links if entry.is_symlink() else waiting).append(here / entry.name)


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


def _left_out(name: str) -> bool:
    """Whether a file or folder is hidden, or not the user's own."""
    lower = name.lower()
    hidden = name.startswith(".") and name not in (".", "..")
    return hidden or lower in _SYSTEM_NAMES or bool(_SYSTEM_FILE.match(lower))


def _digest(content: object, skipped: Sequence[Skipped]) -> str:
    return hashlib.sha256(json.dumps([content, sorted(skipped)]).encode()).hexdigest()


def _cannot_be_read(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _too_large(size: int) -> str:
    return f"too large: {size} bytes"


def _format_not_read(suffix: str) -> str:
    return f"{suffix or 'this'} is a format that is not read: convert it to PNG or JPEG"
