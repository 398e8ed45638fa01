"""What results depend on besides the config: versions, settings, device, machine."""

import enum
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

import flax
import jax

_PACKAGES = (
    "vaegan-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy",
    "pillow", "grain", "array-record", "tensorflow-datasets",
)  # fmt: skip


_PINNED = {
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_custom_prng": False,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "raise",
}
"""Options of JAX that change the meaning of the program, and the values that it is written for."""

_VARIABLE = re.compile(
    r"(JAX|FLAX|XLA|TF_(XLA|CU|GPU|ENABLE|DISABLE|USE|FORCE)|TPU|LIBTPU|PJRT|NVIDIA|CUDA|CUBLAS|CUDNN|NCCL|HIP|HSA|ROCM|ROCBLAS|MIOPEN"
    r"|OMP|KMP|MKL|OPENBLAS|GOTO|BLIS|DNNL|ONEDNN|NPY)_?.+|NPROC|GLIBC_TUNABLES"
)
"""Environment variables that JAX, XLA, NumPy or a library below them reads."""

_NO_EFFECT = re.compile(
    r"cache|log|traceback|dump|debug|timeout|guard|address|coordinator|distributed|profil|pprint"
    r"|visible_devices|jax_platform|key|token|secret|password|credential",
    re.IGNORECASE,
)
"""Options and variables that cannot affect results, and those that may hold a secret."""


def pin() -> None:
    """Sets the options of JAX and Flax that change the meaning of the program.

    Every entry point calls it, so that no environment variable can change the random numbers, the
    precision of types or the rules of promotion. `facts` records all other options.
    """
    for name, value in _PINNED.items():
        if hasattr(jax.config, name):  # another version of JAX may lack an option
            jax.config.update(name, value)
    if hasattr(flax.config, "flax_fix_rng_separator"):
        flax.config.update("flax_fix_rng_separator", False)


def facts() -> dict[str, Any]:
    """Returns versions, settings, device and machine, as values that JSON can represent.

    `settings` holds the options of JAX, `variables` the environment variables of JAX, XLA and the
    libraries below them. On a CPU, results also depend on the number of threads.
    """
    devices = jax.devices()
    processor = _processor()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": processor.get("name") or platform.processor() or platform.machine(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": _threads(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "settings": _settings(),
        "variables": _variables(),
        "git": _git(),
    }


DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""Makes XLA avoid nondeterministic operations, and choose algorithms without timing them."""


def make_deterministic() -> None:
    """Makes XLA deterministic on a GPU, as it is on a CPU.

    Call it before JAX is first used. Flags that are already set are kept.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if flags and not flags.lstrip().startswith("-"):
        return  # the name of a file of flags
    if DETERMINISTIC.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def _threads() -> int | None:
    """Returns the number of cores that this process may use, which is XLA's number of threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _git() -> dict[str, Any] | None:
    """Returns the commit that this package runs from, and whether there are local changes.

    None if the package is not in a repository, or git is not installed.
    """
    folder = pathlib.Path(__file__).resolve().parent

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not ask("ls-files", "--", "environment.py"):
            return None  # another project's repository
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _settings() -> dict[str, Any]:
    """Returns the options of JAX that may affect results, including those at their defaults."""
    return {
        name: _plain(value)
        for name, value in sorted(jax.config.values.items())
        if not _NO_EFFECT.search(name)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _variables() -> dict[str, str]:
    """Returns the environment variables that may affect results and are not recorded elsewhere."""
    elsewhere = {
        "XLA_FLAGS",
        "FLAX_FIX_RNG_SEPARATOR",
        *(name.upper() for name in jax.config.values),
    }
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if _VARIABLE.fullmatch(name) and not _NO_EFFECT.search(name) and name not in elsewhere
    }


_PROCESSOR = {
    "model name": "name",
    "vendor_id": "vendor",
    "cpu family": "family",
    "model": "model",
    "stepping": "stepping",
    "CPU implementer": "implementer",
    "CPU architecture": "architecture",
    "CPU variant": "variant",
    "CPU part": "part",
    "CPU revision": "revision",
}
"""Fields of /proc/cpuinfo that identify a processor, of x86 and of Arm, and their names here."""


def _processor() -> dict[str, Any]:
    """Returns fields that identify the first processor; on Linux with `flags`, a dict of True.

    The name is not enough: models with other instructions may share it.
    """
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"machine": platform.machine()}
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "machine": platform.machine(),
        **{name: fields[old] for old, name in _PROCESSOR.items() if old in fields},
        "flags": dict.fromkeys(sorted(flags), True),
    }
