"""What results depend on besides the config: versions, settings, device, machine."""

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
    r"(FLAX|XLA|TF|TPU|LIBTPU|PJRT|NVIDIA|CUDA|CUBLAS|CUDNN|NCCL|HIP|HSA|ROCM|ROCBLAS|MIOPEN|OMP"
    r"|KMP|MKL|OPENBLAS|GOTO|BLIS|DNNL|ONEDNN|NPY)_.+|NPROC|GLIBC_TUNABLES"
)
"""Environment variables that XLA, NumPy or a library below them reads; JAX's are settings."""

_NO_EFFECT = re.compile(
    r"cache|log|traceback|dump|debug|timeout|guard|address|coordinator|distributed|profil|pprint"
    r"|visible_devices|jax_platform|fix_rng|key|token|secret|password|credential",
    re.IGNORECASE,
)
"""Options and variables that cannot affect results, and those that may hold a secret."""

_PROCESSOR = (
    "vendor_id", "cpu family", "model", "model name", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
)  # fmt: skip
"""Fields of /proc/cpuinfo that identify a processor, of x86 and of Arm."""


def pin() -> None:
    """Sets the options of JAX and Flax that change the meaning of the program.

    Every entry point calls it, so that no environment variable can change the random numbers, the
    precision of types or the rules of promotion. `facts` records all other options.
    """
    for name, value in _PINNED.items():
        if hasattr(jax.config, name):  # another version of JAX may lack an option
            jax.config.update(name, value)
    flax.config.update("flax_fix_rng_separator", False)


def facts() -> dict[str, Any]:
    """Returns versions, settings, device and machine, as values that JSON can represent.

    `settings` holds the options of JAX, `variables` the environment variables of XLA and the
    libraries below it. On a CPU, results also depend on the number of threads.
    """
    devices = jax.devices()
    processor = _processor()
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": processor.get("model name") or platform.processor() or platform.machine(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": len(affinity) or os.cpu_count(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "settings": {
            name: value if isinstance(value, bool | int | float | str | None) else str(value)
            for name, value in sorted(jax.config.values.items())
            if not _NO_EFFECT.search(name)
        },
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if _VARIABLE.fullmatch(name) and not _NO_EFFECT.search(name)
        },
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


def _git() -> dict[str, Any] | None:
    """Returns the commit that this package runs from, and whether files are modified; or None."""

    def ask(*words: str) -> str:
        folder = pathlib.Path(__file__).resolve().parent
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "environment.py")  # fails in another repository
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> dict[str, Any]:
    """Returns fields of /proc/cpuinfo that identify the first processor, if there are any.

    `flags` is a dict of True: processors of one name may have other instructions.
    """
    try:
        first = pathlib.Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    parts = [line.partition(":") for line in first.splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in parts}
    flags = fields.get("flags", fields.get("Features", ""))
    known = {name: fields[name] for name in _PROCESSOR if name in fields}
    return known | {"flags": dict.fromkeys(sorted(flags.split()), True)}
