"""Checksum manifests: the SHA-256 of every file of a folder, to tell whether it is still intact."""

import hashlib
import json
import pathlib

from vaegan_jax.runtime.files import write_atomic

NAME = "checksums.json"

Stat = tuple[int, int, int, int, int]

_intact: dict[pathlib.Path, list[Stat]] = {}
# The files of folders found intact, so that a folder is hashed again only where one has changed.


def write(folder: pathlib.Path) -> None:
    """Writes the manifest of the files in a folder into it, completely or not at all.

    Hidden files and those of file managers are left out, since they may change or go at any time.
    """
    digests = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_foreign(path.relative_to(folder))
    }
    write_atomic(folder / NAME, json.dumps(digests, indent=0))


def damage(folder: pathlib.Path) -> str:
    """Returns how a folder differs from its manifest, or an empty string where it is intact.

    Files that the manifest does not name, such as those of file managers, are ignored.

    Raises:
      OSError: where a file cannot be accessed, which says nothing about its content.
    """
    try:
        digests = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        return f"{NAME} is missing"
    except ValueError:
        return f"{NAME} is not valid JSON"
    if not isinstance(digests, dict) or not digests:
        return f"{NAME} names no files"
    try:
        stats = [_stat(folder / name) for name in (NAME, *digests)]
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    if _intact.get(folder) == stats:
        return ""
    for name, digest in digests.items():
        if _sha256(folder / name) != digest:
            return f"{name} has changed"
    _intact[folder] = stats
    return ""


def exists(folder: pathlib.Path) -> bool:
    """Returns whether a folder has a manifest.

    Raises:
      OSError: where that cannot be told, as without access to the folder.
    """
    try:
        (folder / NAME).stat()
    except FileNotFoundError:
        return False
    return True


def _is_foreign(path: pathlib.Path) -> bool:
    names = ("@eadir", "thumbs.db", "desktop.ini")
    return any(part.startswith(".") or part.lower() in names for part in path.parts)


def _stat(path: pathlib.Path) -> Stat:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
