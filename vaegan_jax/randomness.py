"""Every key that the project uses, derived from ``(seed, stage, step, purpose)``.

There is no stored generator: the noise and the batch of any step follow from the seed and the step,
so resuming is exact and runs can be compared step by step. Changing a number below changes every
run.
"""

import enum
import functools

import jax
import jax.numpy as jnp
import numpy as np


class Stage(enum.IntEnum):
    """The parts of a run that draw random numbers."""

    VAE = 0
    GAN = 1
    PICTURES = 2
    EVALUATION = 3
    LAYERS = 4


class Purpose(enum.IntEnum):
    """The uses of random numbers within a step."""

    ENCODER = 0
    DECODER = 1
    DISCRIMINATOR = 2
    ORDER = 3
    POSTERIOR = 4
    LATENT = 5
    PENALTY = 6
    FLIP = 7
    SUBSET = 8
    DEALING = 9
    DEQUANTISATION = 10
    AUGMENTATION = 12
    MEMORISATION = 15
    ACTIVE_UNITS = 16
    POWER_ITERATION = 18
    TERM = 19


def step_key(seed: jax.typing.ArrayLike, stage: Stage, step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the key of one step, a scalar; `draw_key` derives the keys of its draws.

    The seed is from 0 to 2^32 - 1, uint32 if it is an array; `step` is an int32 scalar, the step's
    number from 0 (or the epoch's, for the data order).
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), int(stage))
    return jax.random.fold_in(key, step)


def draw_key(key: jax.Array, purpose: Purpose) -> jax.Array:
    """Returns the key of one draw from the key of its step."""
    return jax.random.fold_in(key, int(purpose))


def order(seed: int, stage: Stage, epoch: int, size: int) -> np.ndarray:
    """Returns the data order of an epoch: a permutation, int32 [size]."""
    key = draw_key(step_key(seed, stage, epoch), Purpose.ORDER)
    return np.asarray(jax.device_get(_permutation(key, size)))


@functools.partial(jax.jit, static_argnums=1)
def _permutation(key: jax.Array, size: int) -> jax.Array:
    return jax.random.permutation(key, jnp.arange(size, dtype=jnp.int32))


def latents(key: jax.Array, shape: tuple[int, ...], distribution: str = "normal") -> jax.Array:
    """Draws float32 latents of zero mean and unit variance, the scale that decoders are trained on.

    The distribution is "normal"; "uniform" on [-sqrt 3, sqrt 3]; or "truncated_normal", a normal
    one truncated at two standard deviations. The key is consumed.
    """
    if distribution == "uniform":
        return jax.random.uniform(key, shape, jnp.float32, -(3.0**0.5), 3.0**0.5)
    if distribution == "truncated_normal":
        drawn: jax.Array = jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32)
        return drawn / 0.8796256610342398  # its standard deviation
    return jax.random.normal(key, shape, jnp.float32)


def picture_latents(seed: int, shape: tuple[int, ...], distribution: str = "normal") -> jax.Array:
    """Draws the latents of a run's pictures, float32 of the given shape.

    The first latents do not depend on their number: the pictures of a run, `vaegan sample` and the
    explorer share them.
    """
    key = draw_key(step_key(seed, Stage.PICTURES, 0), Purpose.LATENT)
    return latents(key, shape, distribution)
