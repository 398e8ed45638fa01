"""SHA-256 of files, cached between runs so that unchanged files are not read again."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import time
import uuid
from collections.abc import Sequence

from tqdm import tqdm

# FAT, ISO 9660 and squashfs have no ctime; the value they report is a multiple of this.
_COARSE_NS = 10**7
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
    cached = [_look_up(path, known) for path in files]
    missing = [path for path, entry in zip(files, cached, strict=True) if entry is None]
    pool = concurrent.futures.ThreadPoolExecutor()
    try:
        results = pool.map(_hash, missing)
        bar = tqdm(results, "reading", len(missing), unit=" files", delay=1, disable=None)
        hashed = iter(list(bar))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C, do not read the remaining files first
    entries = [entry or next(hashed) for entry in cached]
    updated = {
        str(path.absolute()): entry
        for path, entry in zip(files, entries, strict=True)
        if not isinstance(entry, OSError)
    }
    if cache and updated != known:
        _write_cache(cache, updated)
    return [entry if isinstance(entry, OSError) else str(entry[-1]) for entry in entries]


def _look_up(path: pathlib.Path, known: dict[str, Entry]) -> Entry | None:
    """Returns the cached entry of a file if its version is unchanged."""
    entry = known.get(str(path.absolute()))
    with contextlib.suppress(OSError):
        if isinstance(entry, list) and entry[:-1] == version(path.stat()):
            return entry
    return None


def _hash(path: pathlib.Path) -> Entry | OSError:
    """Returns a file's entry, without the version if the version is unreliable."""
    try:
        status = path.stat()
        settled = time.time_ns() - status.st_ctime_ns > _RECENT_NS
        reliable = settled and status.st_ctime_ns % _COARSE_NS != 0
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [*version(status), digest] if reliable else [digest]
    except OSError as error:
        return error


def _read_cache(cache: pathlib.Path | None) -> dict[str, Entry]:
    try:
        entries = json.loads(cache.read_bytes()) if cache else {}
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write_cache(cache: pathlib.Path, entries: dict[str, Entry]) -> None:
    # Several processes may write at once, each to a temporary file; the last one wins.
    partial = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}.partial")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entries))
        partial.replace(cache)
    except OSError:  # a read-only folder or a full disk: the next run reads the files again
        with contextlib.suppress(OSError):
            partial.unlink()
