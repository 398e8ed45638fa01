"""Strided layers that stay fast under every derivative.

The trilinear form ``<g, down(x, k)>`` of an image x, a kernel k and a half-size image g has three
partial derivatives: ``down(x, k)``, ``up(g, k)`` and ``correlate(x, g)``. Each is a function
here whose backward pass calls the other two, so the family is closed under reverse-mode
differentiation of any order. Nothing in it is an lhs-dilated convolution, whose filter gradient
is what makes `nn.ConvTranspose` slow. Forward-mode derivatives are not defined.

`smooth_down`, `smooth_up` and `smooth_correlate` are the same with a 3x3 kernel, which `low_pass`
makes 4x4. The strided layers of the networks use these.

All are convolutions, except on a CPU, where the forms of `layers_cpu` are faster.

Shapes: x float [B, H, W, C] with H and W even; k float [4, 4, C, O] or [3, 3, C, O];
g float [B, H/2, W/2, O]. All functions keep the dtype of their arguments.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vaegan_jax import layers_cpu
from vaegan_jax.randomness import Purpose, Stage, draw_key, step_key


@jax.custom_vjp
def down(x: jax.Array, k: jax.Array) -> jax.Array:
    """A 4x4 convolution of stride 2 and padding 1: [B, H, W, C] -> [B, H/2, W/2, O]."""
    if k.shape[2] <= layers_cpu.MAX_PATCH_CHANNELS:
        return _select(layers_cpu.down_by_patches, _down_by_convolution, x, k)
    return _down_by_convolution(x, k)


def _down_by_convolution(x: jax.Array, k: jax.Array) -> jax.Array:
    return _convolve(x, k, stride=2)


@jax.custom_vjp
def up(g: jax.Array, k: jax.Array) -> jax.Array:
    """The transpose of `down` in its image: [B, h, w, O] -> [B, 2h, 2w, C]."""
    if k.shape[2] <= layers_cpu.MAX_PATCH_CHANNELS:
        return _select(layers_cpu.up_by_patches, _up_by_convolution, g, k)
    return _up_by_convolution(g, k)


def _up_by_convolution(g: jax.Array, k: jax.Array) -> jax.Array:
    # Each output block of 2x2 pixels depends on 2x2 inputs: a 2x2 convolution with 4C outputs,
    # depth to space, and a crop of the outermost pixels.
    _, _, c, o = k.shape
    # k[2 s + p] reaches the pixel of phase p from the input s blocks before it, hence the flips.
    k = k.reshape(2, 2, 2, 2, c, o)[::-1, :, ::-1]
    k = k.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, o, 4 * c)
    return layers_cpu.join_blocks(_convolve(g, k))


def _convolve(x: jax.Array, k: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """A convolution of padding 1; `dilation` is the kernel's."""
    return lax.conv_general_dilated(
        x,
        k,
        (stride, stride),
        ((1, 1), (1, 1)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def correlate(x: jax.Array, g: jax.Array) -> jax.Array:
    """The derivative of ``<g, down(x, k)>`` in k: [B, H, W, C], [B, h, w, O] -> [4, 4, C, O]."""
    _, h, w, _ = g.shape
    if h * w > layers_cpu.MAX_WINDOW:
        return _select(layers_cpu.correlate_by_patches, _correlate_by_convolution, x, g)
    return _correlate_by_convolution(x, g)


def _correlate_by_convolution(x: jax.Array, g: jax.Array) -> jax.Array:
    # GPUs and TPUs sum products of bfloat16 in float32. To ask for a float32 result, which is
    # rounded to bfloat16 anyway, makes XLA convert the arrays before the convolution on a GPU.
    # Explicit transposes and plain dimension numbers: the same convolution with permuted numbers,
    # as autodiff writes it, loses two orders of magnitude inside `lax.scan` on CPU.
    k = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), dilation=2)
    return k.transpose(1, 2, 0, 3)


_Form = Callable[[jax.Array, jax.Array], jax.Array]


def _select(cpu: _Form, elsewhere: _Form, a: jax.Array, b: jax.Array) -> jax.Array:
    result: jax.Array = lax.platform_dependent(a, b, cpu=cpu, default=elsewhere)
    return result


def low_pass(k: jax.Array) -> jax.Array:
    """Returns a 3x3 kernel convolved with a 2x2 box: [3, 3, C, O] -> [4, 4, C, O].

    By such a kernel, `up` is nearest-neighbour upsampling followed by a 3x3 convolution, and `down`
    a 3x3 convolution followed by the sum over 2x2 pixels (Karras et al. 2017, arXiv 1710.10196,
    appendix A, fuse both alike). Such layers leave no checkerboard.
    """
    return jnp.sum(jnp.stack(_shifts(k)), axis=0)


def _shifts(k: jax.Array) -> list[jax.Array]:
    """Returns a 3x3 kernel at its four positions in a 4x4 one, [4, 4, C, O] each."""
    shifts = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    return [jnp.pad(k, shift) for shift in shifts]


@jax.custom_vjp
def smooth_down(x: jax.Array, k: jax.Array) -> jax.Array:
    """A 3x3 convolution and the sum over 2x2 pixels: [B, H, W, C] -> [B, H/2, W/2, O]."""

    def by_low_pass(x: jax.Array, k: jax.Array) -> jax.Array:
        return down(x, low_pass(k))

    if layers_cpu.use_tiles(x, k.shape[2], x.shape[1] // 2, x.shape[2] // 2):
        return _select(layers_cpu.down_by_tiles, by_low_pass, x, k)
    return by_low_pass(x, k)


@jax.custom_vjp
def smooth_up(g: jax.Array, k: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling and a 3x3 convolution: [B, h, w, O] -> [B, 2h, 2w, C]."""

    def by_low_pass(g: jax.Array, k: jax.Array) -> jax.Array:
        return up(g, low_pass(k))

    if layers_cpu.use_tiles(g, k.shape[2], g.shape[1], g.shape[2]):
        return _select(layers_cpu.up_by_tiles, by_low_pass, g, k)
    return by_low_pass(g, k)


@jax.custom_vjp
def smooth_correlate(x: jax.Array, g: jax.Array) -> jax.Array:
    """The derivative of ``<g, smooth_down(x, k)>`` in k: [3, 3, C, O]."""

    def by_low_pass(x: jax.Array, g: jax.Array) -> jax.Array:
        k = correlate(x, g)
        return k[:3, :3] + k[:3, 1:] + k[1:, :3] + k[1:, 1:]

    if layers_cpu.use_tiles(x, x.shape[3], g.shape[1], g.shape[2]):
        return _select(layers_cpu.correlate_by_tiles, by_low_pass, x, g)
    return by_low_pass(x, g)


def _close(down: Any, up: Any, correlate: Any) -> None:
    """Makes the derivatives of a trilinear form one another's backward passes."""

    def set_backward(function: Any, backward: Callable[..., tuple[jax.Array, jax.Array]]) -> None:
        function.defvjp(
            lambda a, b: (function(a, b), (a, b)), lambda saved, given: backward(*saved, given)
        )

    set_backward(down, lambda x, k, g: (up(g, k), correlate(x, g)))
    set_backward(up, lambda g, k, x: (down(x, k), correlate(x, g)))
    set_backward(correlate, lambda x, g, k: (up(g, k), down(x, k)))


_close(down, up, correlate)
_close(smooth_down, smooth_up, smooth_correlate)


def conv(x: jax.Array, k: jax.Array) -> jax.Array:
    """A 3x3 convolution of padding 1: [B, H, W, C], [3, 3, C, O] -> [B, H, W, O], H and W even.

    It is `down` with one channel for each output of a block of 2x2 pixels.
    """
    kernels = jnp.stack(_shifts(k), axis=3)
    return layers_cpu.depth_to_space(down(x, kernels.reshape(4, 4, k.shape[2], -1)))


# He initialisation of the 3x3 convolutions, for leaky ReLUs of slope 0.2.
_GAIN = 2 / (1 + 0.2**2)
conv_init = nn.initializers.variance_scaling(_GAIN, "fan_in", "normal")
up_init = nn.initializers.variance_scaling(_GAIN, "fan_in", "normal", in_axis=-1, out_axis=-2)


_POWER_ITERATIONS = 16


def spectrally_normalized(kernel: jax.Array) -> jax.Array:
    """Divides a kernel [..., C, O], as a matrix of O columns, by its largest singular value.

    Miyato et al. 2018, arXiv 1802.05957, section 2.1 and appendix A. The paper keeps a vector from
    step to step; here the power iteration restarts from the same vector at each use, so there is no
    state. After 16 iterations the value is about 1 % too small for a random matrix. No gradient
    passes through the vectors.
    """
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)

    def iterate(_: int, v: jax.Array) -> jax.Array:
        return _unit(_unit(v @ fixed.T) @ fixed)

    # A fixed random vector: a kernel orthogonal to it is unlikely.
    key = draw_key(step_key(0, Stage.LAYERS, 0), Purpose.POWER_ITERATION)
    first = jax.random.normal(key, (matrix.shape[1],))
    v = jax.lax.fori_loop(0, _POWER_ITERATIONS, iterate, _unit(first))
    u = _unit(v @ fixed.T)
    largest: jax.Array = u @ matrix @ v
    return kernel / largest.astype(kernel.dtype)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class _Layer(nn.Module):
    """A layer with a 3x3 kernel as its parameter.

    Attributes:
      features: the number of output channels.
      dtype: of the computation; the kernel is stored in float32.
    """

    features: int
    dtype: Any = jnp.float32


class Down(_Layer):
    """A 3x3 convolution and the mean over 2x2 pixels: [B, H, W, C] -> [B, H/2, W/2, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        kernel = self.param("kernel", conv_init, (3, 3, x.shape[-1], self.features), jnp.float32)
        return smooth_down(x.astype(self.dtype), (kernel / 4).astype(self.dtype))


class Up(_Layer):
    """Nearest-neighbour upsampling and a 3x3 convolution: [B, h, w, C] -> [B, 2h, 2w, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        kernel = self.param("kernel", up_init, (3, 3, self.features, x.shape[-1]), jnp.float32)
        return smooth_up(x.astype(self.dtype), kernel.astype(self.dtype))


class Conv(_Layer):
    """A 3x3 convolution: [B, H, W, C] -> [B, H, W, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        kernel = self.param("kernel", conv_init, (3, 3, x.shape[-1], self.features), jnp.float32)
        return conv(x.astype(self.dtype), kernel.astype(self.dtype))


class Bias(nn.Module):
    """Adds a learned bias to each channel: [..., C] -> [..., C]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],), jnp.float32)
        return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
