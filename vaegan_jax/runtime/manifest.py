"""Checksum manifests: the SHA-256 of every file of a folder, to tell whether it is still intact."""

import hashlib
import json
import pathlib

from vaegan_jax.runtime.files import write_atomic

NAME = "checksums.json"
DAMAGED = "damaged"

Stat = tuple[int, int, int, int, int]

_intact: dict[pathlib.Path, list[Stat]] = {}
# The files of intact folders: a folder is hashed again only if one of them has changed.


def write(folder: pathlib.Path) -> None:
    """Writes the manifest of the files in a folder into it, atomically.

    Hidden files and those of file managers are left out, since they may change at any time.
    """
    digests = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_foreign(path.relative_to(folder))
    }
    stats = [_stat(folder / name) for name in digests]
    write_atomic(folder / NAME, json.dumps(digests, indent=0))
    _intact[folder] = [_stat(folder / NAME), *stats]


def damage(folder: pathlib.Path) -> str:
    """Returns how a folder differs from its manifest, or an empty string if it is intact.

    Files that the manifest does not list, such as those of file managers, are ignored.

    Raises:
      OSError: if a file cannot be accessed, so that its content is unknown.
    """
    try:
        digests = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        return f"{NAME} is missing"
    except ValueError:
        return f"{NAME} is not valid JSON"
    if not isinstance(digests, dict) or not digests:
        return f"{NAME} lists no files"
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
      OSError: if the folder cannot be accessed.
    """
    try:
        (folder / NAME).stat()
    except FileNotFoundError:
        return False
    return True


def folders(directory: pathlib.Path) -> set[int]:
    """Returns the numbers that are names of subfolders; none if the folder does not exist."""
    if not directory.is_dir():
        return set()
    return {int(path.name) for path in directory.iterdir() if path.name.isdecimal()}


def complete(directory: pathlib.Path) -> list[int]:
    """Returns the numbered subfolders that have a manifest, in ascending order."""
    return sorted(number for number in folders(directory) if exists(directory / str(number)))


def newest_intact(directory: pathlib.Path) -> tuple[int | None, dict[int, str]]:
    """Returns the highest numbered subfolder that is intact, and the damage of each higher one."""
    damaged: dict[int, str] = {}
    for number in reversed(complete(directory)):
        why = damage(directory / str(number))
        if not why:
            return number, damaged
        damaged[number] = why
    if not set(complete(directory)).issuperset(damaged):
        return newest_intact(directory)  # another process has deleted some of those listed
    return None, damaged


def move_aside(directory: pathlib.Path, number: int) -> pathlib.Path:
    """Moves a numbered subfolder to a new name in the folder `DAMAGED`, and returns its path."""
    (directory / DAMAGED).mkdir(exist_ok=True)
    aside, count = directory / DAMAGED / str(number), 0
    while aside.exists():
        count += 1
        aside = aside.with_name(f"{number}.{count}")
    (directory / str(number)).rename(aside)
    return aside


def _is_foreign(path: pathlib.Path) -> bool:
    names = ("@eadir", "thumbs.db", "desktop.ini")
    return any(part.startswith(".") or part.lower() in names for part in path.parts)


def _stat(path: pathlib.Path) -> Stat:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
