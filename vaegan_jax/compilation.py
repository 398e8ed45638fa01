"""Compiled programs kept from run to run, so that the same command starts sooner the next time.

JAX keeps them in a folder by itself, but trusts whatever lies there, writes in place, and lets a
damaged file cost a compilation at every start. So JAX is given a folder of this process alone:

    ROOT/ENVIRONMENT/NAME.SHA256             what is kept, each named with the digest of its bytes
    ROOT/ENVIRONMENT/.session-PROCESS-.../   what JAX reads and writes in one process

A session begins with a copy of all that is sound; what is not is removed. When the process ends,
what JAX has added is kept under its digest, whole or not at all. So no process ever sees what
another is writing, and a process that is killed leaves nothing but its session, which the next
one removes.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TextIO, TypeVar

import jax
import jaxlib.version
from jax.experimental.compilation_cache import compilation_cache

from vaegan_jax import environment

P = ParamSpec("P")
R = TypeVar("R")

AUTO, OFF = "auto", "off"

MOST_BYTES = 256 * 2**20
"""Kept in a folder of one environment; beyond that, what was written first goes."""

_FACTS = ("processor", "threads", "device", "devices", "xla_flags", "settings", "variables")
_ENTRY = re.compile(r"(.+-cache)\.([0-9a-f]{64})")  # JAX names its files NAME-cache
_SESSION = ".session-"
_YOUNG_SECONDS = 60
_LOCK = ".lock"


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function jitted to be called but once: quick to compile, not to run.

    On a CPU every array of random bits costs a second of the compiler's usual care.
    """
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=quick)


@contextlib.contextmanager
def cache(choice: str) -> Iterator[pathlib.Path | None]:
    """Has JAX keep what it compiles meanwhile, and read what was kept before.

    Whatever is wrong with the folder costs the cache, never the run: one warning says so.

    Args:
      choice: `AUTO` for `default_root` where that is known to be safe, `OFF`, or a folder.

    Yields:
      The folder of this environment, or None where nothing is kept.
    """
    root = default_root() if choice == AUTO else None if choice == OFF else pathlib.Path(choice)
    if root is None:
        yield None
        return
    try:
        folder = root.expanduser().absolute() / _environment()
        session, lock = _open_session(folder)
    except OSError as error:
        _warn(root, error)
        yield None
        return
    settings = {
        "jax_compilation_cache_dir": str(session),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        # XLA's own files of autotuning would lie there too, and nobody checks those.
        "jax_persistent_cache_enable_xla_caches": "none",
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _set(settings)
    try:
        yield folder
    finally:
        _set(before)
        try:
            _keep(session, folder)
            _shrink(folder, MOST_BYTES)
        except OSError as error:
            _warn(root, error)
        finally:
            shutil.rmtree(session, ignore_errors=True)
            lock.close()


def _set(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it looks at the settings but once


def default_root() -> pathlib.Path | None:
    """Returns the cache that is used where none is named; None where it was not shown to be safe.

    That is a CPU under Linux alone: elsewhere, loading what was compiled before was not tried.
    """
    if platform.system() != "Linux" or jax.default_backend() != "cpu":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base, "vaegan_jax", "compiled")


def _environment() -> str:
    """Returns a name for all that a compiled program depends on beside its source.

    JAX's key has the versions, the flags and the device. It lacks how many devices the host is
    split into and on how many threads, by which XLA divides work on a CPU, and the features of
    the processor that the code was written for.
    """
    facts = environment.facts()
    about = {name: facts[name] for name in _FACTS}
    about |= {
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "runtime": jax.devices()[0].client.platform_version,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"{jax.default_backend()}-{digest[:16]}"


def _open_session(folder: pathlib.Path) -> tuple[pathlib.Path, TextIO]:
    """Makes a folder for this process that holds what is sound, and removes what nobody needs.

    Returns:
      The folder, and an open file whose lock says that its process lives.

    Raises:
      OSError: where the folder cannot be written, or belongs to somebody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_own(folder)
    for old in folder.glob(f"{_SESSION}*"):
        if time.time() - old.stat().st_mtime < _YOUNG_SECONDS:
            continue  # it may not have its lock yet
        with contextlib.suppress(OSError), (old / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old)  # its process was killed
    session = pathlib.Path(tempfile.mkdtemp(prefix=f"{_SESSION}{os.getpid()}-", dir=folder))
    lock = (session / _LOCK).open("a")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        _copy_sound(folder, session)
    except OSError:
        shutil.rmtree(session, ignore_errors=True)
        lock.close()
        raise
    return session, lock


def _copy_sound(folder: pathlib.Path, session: pathlib.Path) -> None:
    """Copies what is as it was written under the names that JAX gives, and removes what is not."""
    for entry in folder.iterdir():
        match = _ENTRY.fullmatch(entry.name)
        if match is None:
            continue
        with contextlib.suppress(FileNotFoundError):  # another process may remove it
            data = entry.read_bytes()
            if hashlib.sha256(data).hexdigest() == match[2]:
                (session / match[1]).write_bytes(data)
            else:
                entry.unlink()


def _require_own(folder: pathlib.Path) -> None:
    """Checks that nobody else can put programs there, which this process would then run."""
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("others can write there, and what lies there is run")


def _keep(session: pathlib.Path, folder: pathlib.Path) -> None:
    """Moves what JAX has added to where it is kept."""
    kept = {match[1] for path in folder.iterdir() if (match := _ENTRY.fullmatch(path.name))}
    for path in session.glob("*-cache"):
        if path.name in kept:
            continue
        data = path.read_bytes()
        if _is_whole(data):
            path.replace(folder / f"{path.name}.{hashlib.sha256(data).hexdigest()}")


def _is_whole(data: bytes) -> bool:
    """Whether JAX wrote an entry to its end, which a full disk prevents.

    It compresses with zlib; where zstandard is installed with that, whose frames it cannot be told
    of here without it, JAX itself refuses what is cut off.
    """
    if not data:
        return False
    if data[:1] != b"\x78":
        return True
    stream = zlib.decompressobj()
    try:
        stream.decompress(data)
    except zlib.error:
        return False
    return stream.eof


def _shrink(folder: pathlib.Path, most: int) -> None:
    """Removes what was written first until no more than `most` bytes are kept."""
    files = [(path.stat(), path) for path in folder.iterdir() if _ENTRY.fullmatch(path.name)]
    total = sum(found.st_size for found, _ in files)
    for found, path in sorted(files, key=lambda pair: pair[0].st_mtime):
        if total <= most:
            return
        path.unlink(missing_ok=True)
        total -= found.st_size


def _warn(folder: pathlib.Path, error: OSError) -> None:
    sys.stderr.write(
        f"Warning: compiled programs cannot be kept in {folder} ({error.strerror or error}): the "
        "run goes on without. --compilation_cache names another folder, or off.\n"
    )
