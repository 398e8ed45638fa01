"""The lock of a run's folder."""

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from vaegan_jax.errors import UserError

_LOCK = ".lock"
_OWNER = ".lock-owner"  # its content is for the error message only


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds a folder's lock, which the kernel releases when the process ends in any way.

    Raises:
      UserError: if another process holds it.
      OSError: if the folder cannot be written.
    """
    lock, owner = filelock.FileLock(path / _LOCK), path / _OWNER
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        name = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise UserError(
            f"The workdir {path} is in use by {name}: wait for it, or name another --workdir."
        ) from error
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
