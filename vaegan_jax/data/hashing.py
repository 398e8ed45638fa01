"""The SHA-256 of files, kept between runs so that only files that may have changed are read."""

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

# FAT, ISO 9660 and squashfs keep no time of change; what they report is a multiple of this.
_COARSE_NS = 10**7
# A file that changed less than this ago may change again within one tick of its clock.
_RECENT_NS = 2 * 10**9

Entry = list[int | str]
"""A file's version, then its SHA-256 in hex."""


def version(status: os.stat_result) -> list[int]:
    """Returns numbers that differ after a file was changed or replaced, whatever its times say.

    Every write sets the time of change (ctime), and no program can set it back. The device is left
    out, since its number depends on the host and on the order of mounts.
    """
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def hash_files(
    files: Sequence[pathlib.Path], cache: pathlib.Path | None = None
) -> list[str | OSError]:
    """Returns the SHA-256 of each file in hex, or the error where it cannot be read.

    Args:
      files: those that have to be read are read by several threads.
      cache: a JSON file of hashes. A file whose path and version are in it is not read. It is
        rewritten for `files` where that is possible; without it, all files are read.
    """
    known = _read_cache(cache)
    found = [_look_up(path, known) for path in files]
    missing = [path for path, entry in zip(files, found, strict=True) if entry is None]
    pool = concurrent.futures.ThreadPoolExecutor()
    try:
        results = pool.map(_hash, missing)
        bar = tqdm(results, "reading", len(missing), unit=" files", delay=1, disable=None)
        made = iter(list(bar))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C, do not read the rest first
    entries = [entry or next(made) for entry in found]
    kept = {
        str(path.absolute()): entry
        for path, entry in zip(files, entries, strict=True)
        if not isinstance(entry, OSError)
    }
    if cache and kept != known:
        _write_cache(cache, kept)
    return [entry if isinstance(entry, OSError) else str(entry[-1]) for entry in entries]


def _look_up(path: pathlib.Path, known: dict[str, Entry]) -> Entry | None:
    """Returns the cache's entry of a file that has not changed since."""
    entry = known.get(str(path.absolute()))
    try:
        unchanged = isinstance(entry, list) and entry[:-1] == version(path.stat())
    except OSError:
        return None
    return entry if unchanged else None


def _hash(path: pathlib.Path) -> Entry | OSError:
    """Returns a file's entry; without its version where that may not change with the file."""
    try:
        status = path.stat()
        settled = time.time_ns() - status.st_ctime_ns > _RECENT_NS
        lasting = settled and status.st_ctime_ns % _COARSE_NS != 0
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [*version(status), digest] if lasting else [digest]
    except OSError as error:
        return error


def _read_cache(cache: pathlib.Path | None) -> dict[str, Entry]:
    try:
        found = json.loads(cache.read_bytes()) if cache else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_cache(cache: pathlib.Path, entries: dict[str, Entry]) -> None:
    # Several processes may write at once, each its own file; the last one stays.
    partial = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}.partial")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entries))
        partial.replace(cache)
    except OSError:  # a read-only folder, no space: the next run reads the files again
        with contextlib.suppress(OSError):
            partial.unlink()
