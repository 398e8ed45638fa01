"""What a result depends on besides the config: versions, device, machine."""

import importlib.metadata
import os
import pathlib
import platform
import re
from typing import Any

import jax

_PACKAGES = ("vaegan-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def facts() -> dict[str, Any]:
    """Returns versions, device and machine, as JSON can hold them."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "device": devices[0].device_kind,
        "devices": len(devices),
    }


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
