"""What several benchmarks share."""

import os
import pathlib
import runpy
import sys

import jax
from ml_collections import ConfigDict

from vaegan_jax.runtime import environment


def load_config(path: str) -> ConfigDict:
    """Returns the config of a file, which may import other configs as `configs.NAME`."""
    sys.path.insert(0, str(pathlib.Path(path).resolve().parent.parent))
    config: ConfigDict = runpy.run_path(path)["get_config"]()
    return config


def machine() -> str:
    """Returns the device, the processor, the number of cores and the version of JAX."""
    device, cpu = jax.devices()[0].device_kind, environment.facts()["cpu"]
    return f"{device}, {cpu}, {os.cpu_count()} cores, jax {jax.__version__}"
