"""SHA-256 of files, cached between runs so that unchanged files are not read again."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Sequence

from tqdm import tqdm

from vaegan_jax.runtime.files import write_atomic

# A file that changed less than this ago may change again within one tick of the file system clock.
_RECENT_NS = 2 * 10**9

Entry = list[int | str]
"""A file's version, followed by its SHA-256 in hex."""


def version(status: os.stat_result) -> list[int]:
    """Returns numbers that change when a file is modified or replaced, even if mtime is reset.

    Every write sets the ctime, which no program can reset. The device is left out, since its
    number depends on the host and on the order of mounts.
    """
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def hash_files(
    files: Sequence[pathlib.Path], cache: pathlib.Path | None = None
) -> list[str | OSError]:
    """Returns the SHA-256 of each file in hex, or the error if it cannot be read.

    Args:
      files: read by several threads.
      cache: JSON file of hashes by path and version; updated for `files` if possible. Files with
        an up-to-date entry are not read.
    """
    known = _read_cache(cache)
    entries: dict[pathlib.Path, Entry | OSError]
    entries = {path: entry for path in files if (entry := _look_up(path, known)) is not None}
    missing = [path for path in files if path not in entries]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        hashed = pool.map(_hash, missing)
        bar = tqdm(hashed, "reading", len(missing), unit=" files", delay=1, disable=None)
        entries |= zip(missing, bar, strict=True)
    updated = {str(path.absolute()): x for path, x in entries.items() if isinstance(x, list)}
    if cache and updated != known:
        with contextlib.suppress(OSError):  # read-only: the next run reads the files again
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cache, json.dumps(updated))
    results = (entries[path] for path in files)
    return [str(x[-1]) if isinstance(x, list) else x for x in results]


def _look_up(path: pathlib.Path, known: dict[str, Entry]) -> Entry | None:
    """Returns the cached entry of a file if its version is unchanged."""
    entry = known.get(str(path.absolute()))
    with contextlib.suppress(OSError):
        if entry and entry[:-1] == version(path.stat()):
            return entry
    return None


def _hash(path: pathlib.Path) -> Entry | OSError:
    """Returns a file's entry, without the version if the file has just changed."""
    try:
        status = path.stat()
        is_settled = time.time_ns() - status.st_ctime_ns > _RECENT_NS
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [*version(status), digest] if is_settled else [digest]
    except OSError as error:
        return error


def _read_cache(cache: pathlib.Path | None) -> dict[str, Entry]:
    try:
        entries = json.loads(cache.read_bytes()) if cache else {}
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
