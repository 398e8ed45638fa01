"""Avoids compiling: JAX's persistent cache, and jitted functions shared by runs of one process."""

import functools
import hashlib
import json
import os
import pathlib
import platform
import stat
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import filelock
import jax

from vaegan_jax.runtime import environment

P = ParamSpec("P")
R = TypeVar("R")

MAX_BYTES = 64 * 2**20
"""Size limit of one environment's cache; JAX evicts the least recently used programs beyond it."""


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a jitted function that compiles quickly and runs slowly, for a single call.

    On a CPU, each array of random bits adds a second of compile time at the default level.
    """
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=quick)


def per_config(make: Callable[P, R]) -> Callable[P, R]:
    """Caches ``make(config, *args)`` by the config's fields without the seed.

    Runs of a sweep that differ only by the seed then share jitted functions, so only the first one
    traces and compiles them. `make` receives a copy of the config, and its result must not depend
    on the seed; other arguments must be hashable.
    """
    results: dict[Any, R] = {}

    @functools.wraps(make)
    def cached(*args: Any, **kwargs: Any) -> R:
        config, *rest = args
        fields = config.to_dict() | dict.fromkeys(("seed", "seeds", "variants"))
        key = (json.dumps(fields, sort_keys=True), *rest, *sorted(kwargs.items()))
        if key not in results:
            results[key] = make(config.copy_and_resolve_references(), *rest, **kwargs)
        return results[key]

    return cached


def enable_cache(choice: str) -> None:
    """Makes JAX store compiled programs in a directory and load them from there.

    If the directory cannot be used, it prints a warning and leaves the cache disabled.

    Args:
      choice: a directory, "off", or "auto": one in the user's cache on a CPU under Linux, and
        none elsewhere, where loading compiled programs was not tested.
    """
    is_tested = platform.system() == "Linux" and jax.default_backend() == "cpu"
    if choice == "off" or (choice == "auto" and not is_tested):
        return
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    default = pathlib.Path(cache, "vaegan_jax", "compiled")
    root = default if choice == "auto" else pathlib.Path(choice)
    try:
        directory = root.expanduser().absolute() / _environment()
        _prepare(directory)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home directory
        sys.stderr.write(
            f"Warning: the compilation cache {root} is disabled ({error}): use "
            "--compilation_cache to name another directory, or off.\n"
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    # Every write lists the whole cache, so programs that compile quickly are not stored.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # The size limit does not cover XLA's own caches.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def _environment() -> str:
    """Returns a directory name for what a program depends on besides JAX's own cache key.

    The key covers versions, flags, devices and instruction sets. On a CPU, XLA also tunes code for
    the processor's model and splits work by the number of threads.
    """
    facts = environment.facts()
    about = json.dumps([facts["processor"], facts["threads"], facts["variables"]])
    return f"{jax.default_backend()}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"


def _prepare(directory: pathlib.Path) -> None:
    """Creates a cache directory, or checks an existing one.

    Raises:
      OSError: if it cannot be written or locked, or if another user can write to it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("other users can write to it, and programs in it are executed")
    with filelock.FileLock(directory / ".lockfile", timeout=10):  # JAX's own lock
        for program in directory.glob("*-cache"):
            # JAX writes this file last: without it the program is incomplete, and no other
            # program can be added.
            if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
                program.unlink()
