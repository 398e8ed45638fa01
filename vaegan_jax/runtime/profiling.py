"""Profiling: traces of some steps, and the peak memory."""

import pathlib
import resource
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

_CALLS = (2, 3)  # the first one compiles


def traced(call: Callable[P, R], folder: pathlib.Path) -> Callable[P, R]:
    """Returns a function like `call` that writes traces of its second and third call.

    They are in ``folder/plugins/profile/TIME``: ``*.xplane.pb`` for TensorBoard's profile plugin,
    ``perfetto_trace.json.gz`` for Perfetto.
    """
    count = 0

    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal count
        count += 1
        if count not in _CALLS:
            return call(*args, **kwargs)
        with jax.profiler.trace(str(folder), create_perfetto_trace=True):
            result = call(*args, **kwargs)
            jax.block_until_ready(result)
            return result

    return wrapped


def peak_memory() -> dict[str, float]:
    """Returns the peak memory so far, in units of 10^6 bytes.

    `host` is this process's resident set; `device` is JAX's allocation on the first device, which a
    CPU does not report.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        peak["device"] = statistics["peak_bytes_in_use"] / 1e6
    return peak
