"""Checksum manifests: the SHA-256 of every file of a folder, to tell whether it is still intact."""

import hashlib
import json
import pathlib

from vaegan_jax.runtime.files import write_atomic

NAME = "checksums.json"

_digests: dict[tuple[int, ...], str] = {}
# By device, inode, size and times: a file is hashed again only if it has changed.


def write(folder: pathlib.Path) -> None:
    """Writes the manifest of the files in a folder into it, without hidden ones."""
    digests = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    write_atomic(folder / NAME, json.dumps(digests, indent=0))


def damage(folder: pathlib.Path) -> str:
    """Returns how a folder differs from its manifest, or an empty string if it is intact.

    Files that the manifest does not list, such as those of file managers, are ignored.

    Raises:
      OSError: if a file cannot be accessed, so that its content is unknown.
    """
    try:
        digests = json.loads((folder / NAME).read_bytes())
        changed = [name for name, digest in digests.items() if _sha256(folder / name) != digest]
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except (ValueError, AttributeError):
        return f"{NAME} is not a list of checksums"
    if not digests:
        return f"{NAME} lists no files"
    return f"{changed[0]} has changed" if changed else ""


def _sha256(path: pathlib.Path) -> str:
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]
