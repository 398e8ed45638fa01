"""Whether a run fits into memory: what it needs at least, and what a compiled program needs."""

from typing import Any

import jax
import jax.numpy as jnp
import psutil
from ml_collections import ConfigDict

from vaegan_jax import gan, networks, vae
from vaegan_jax.errors import UserError

_NETWORKS = {"vae": 2, "gan": 3}  # passes over a batch that are kept; fakes and real ones are two


def least(config: ConfigDict, image_shape: tuple[int, int, int], stage: str) -> int:
    """Returns the bytes that a stage cannot do without on each device, its images apart.

    Its state, and what the layers of one step put out, which has to be there for the gradient.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      stage: "vae" or "gan".
    """
    height, width, _ = image_shape
    outputs = sum(
        (height >> level + 1) * (width >> level + 1) * (config.model.base_width << level)
        for level in range(networks.LEVELS)
    )
    kept = _NETWORKS[stage] * outputs * jnp.dtype(config.model.dtype).itemsize

    def init() -> Any:
        if stage == "vae":
            return vae.init(config, image_shape)
        return gan.init(config, image_shape, gan.random_start(config, image_shape))

    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(init)))
    return int(state + kept * config[stage].batch_size // jax.device_count())


def require(config: ConfigDict, image_shape: tuple[int, int, int], stage: str) -> None:
    """Checks, before anything is computed, that a stage may fit into memory.

    Raises:
      UserError: where it needs more than the device has.
    """
    has, needed = _limits()[0], least(config, image_shape, stage)
    if needed > has:
        raise UserError(
            f"The {stage} stage needs at least {_gb(needed)} of memory on each device, which has "
            f"{_gb(has)}: {_remedy(stage)}."
        )


def checked(call: Any, stage: str) -> Any:
    """Returns a function like the jitted `call` that asks, when it is first called, for memory.

    What the compiler says it needs for what it works with and for results, beyond its arguments,
    which are there by then, is held against what is free. It is compiled once all the same.

    Raises:
      UserError: when called, where that is not free.
    """
    fits = False

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal fits
        if not fits:
            analysis = call.lower(*args, **kwargs).compile().memory_analysis()
            if analysis is not None:
                needed = (
                    analysis.temp_size_in_bytes
                    + analysis.output_size_in_bytes
                    - analysis.alias_size_in_bytes
                )
                _require_free(needed, stage)
            fits = True
        return call(*args, **kwargs)

    return wrapped


def _require_free(needed: int, stage: str) -> None:
    free = _limits()[1]
    if needed > free:
        raise UserError(
            f"A step of the {stage} stage needs {_gb(needed)} of memory on each device beside its "
            f"state and images, and {_gb(free)} are free: {_remedy(stage)}."
        )


def _limits() -> tuple[float, float]:
    """Returns the bytes that a device has, and those of them that are free.

    Devices that are parts of one CPU share its memory evenly. A device that does not tell is taken
    to have all that is wanted.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        memory = psutil.virtual_memory()
        parts = jax.local_device_count()
        return memory.total / parts, memory.available / parts
    told = device.memory_stats() or {}
    has = told.get("bytes_limit", float("inf"))
    return has, has - told.get("bytes_in_use", 0)


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _remedy(stage: str) -> str:
    return (
        f"lower {stage}.batch_size or model.base_width, set model.dtype=bfloat16, or use more "
        "devices"
    )
