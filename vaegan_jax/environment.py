"""What a result depends on besides the config: versions, device, machine."""

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

import jax

_PACKAGES = (
    "vaegan-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy",
    "pillow", "grain", "array-record", "tensorflow-datasets",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """Returns versions, device, machine and flags, as JSON can hold them.

    On a CPU the number of threads counts too: two give other bits than one.
    """
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": _threads(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git": _git(),
    }


DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""Makes XLA leave out what gives other bits from run to run, and choose algorithms without timing
them (its autotuning does)."""


def make_deterministic() -> None:
    """Asks XLA for the same bits from run to run on a GPU; a CPU gives them anyway.

    It must be called before JAX is first used. Flags that are set already stay.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def _threads() -> int | None:
    """Returns on how many cores this process may run, which is how many threads XLA takes."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _git() -> dict[str, Any] | None:
    """Returns the commit that this package runs from, and whether it was changed since.

    None where the package lies in no repository, or git is not there.
    """
    folder = pathlib.Path(__file__).resolve().parent

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not ask("ls-files", "--", "environment.py"):
            return None  # a repository, but not ours
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """Returns the processor's name, where Linux tells it."""
    try:
        found = re.search(r"model name\s*: (.+)", pathlib.Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
