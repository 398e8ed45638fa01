"""Refuses a compiled program that does not fit into memory."""

from typing import Any

import jax
import psutil

from vaegan_jax.errors import UserError


def checked(call: Any, stage: str) -> Any:
    """Returns a function like the jitted `call` whose first call checks the memory it needs.

    The compiler's count of temporaries and outputs must fit into what is free; the arguments are
    allocated by then. The program is compiled only once.

    Raises:
      UserError: when called, if the memory is not free.
    """
    fits = False

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal fits
        if not fits:
            counted = call.lower(*args, **kwargs).compile().memory_analysis()
            needed = 0
            if counted is not None:
                needed = counted.temp_size_in_bytes + counted.output_size_in_bytes
                needed -= counted.alias_size_in_bytes
            free = _free()
            if needed > free:
                raise UserError(
                    f"The {stage} stage needs {needed / 1e9:.1f} GB of memory on each device in "
                    f"addition to what it has allocated, and {free / 1e9:.1f} GB are free: use "
                    f"more devices, or lower {stage}.batch_size or model.base_width or set "
                    "model.dtype=bfloat16 in another --workdir."
                )
            fits = True
        return call(*args, **kwargs)

    return wrapped


def _free() -> float:
    """Returns the free bytes of a device; infinity if the device does not report them.

    Devices that are parts of one CPU share its memory evenly.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return float(psutil.virtual_memory().available) / jax.local_device_count()
    stats = device.memory_stats() or {}
    return float(stats.get("bytes_limit", float("inf")) - stats.get("bytes_in_use", 0))
