"""Strided layers that stay fast under every derivative.

The trilinear form ``<g, down(x, k)>`` of an image x, a kernel k and a half-size image g has three
partial derivatives: ``down(x, k)``, ``up(g, k)`` and ``correlate(x, g)``. Each is a function
here whose backward pass calls the other two, so the family is closed under reverse-mode
differentiation of any order. Nothing in it is an lhs-dilated convolution, whose filter gradient
is what makes `nn.ConvTranspose` slow. Forward-mode derivatives are not defined.

They are convolutions, except on a CPU, where the forms of `layers_cpu` are faster.

Shapes: x float [B, H, W, C] with H and W even; k float [4, 4, C, O];
g float [B, H/2, W/2, O]. All three functions keep the dtype of their arguments.
"""

import functools
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
    if layers_cpu.use_tiles(x, k.shape[2], x.shape[1] // 2, x.shape[2] // 2):
        return _select(layers_cpu.down_by_tiles, _down_by_convolution, x, k)
    if k.shape[2] <= layers_cpu.MAX_PATCH_CHANNELS:
        return _select(layers_cpu.down_by_patches, _down_by_convolution, x, k)
    return _down_by_convolution(x, k)


def _down_by_convolution(x: jax.Array, k: jax.Array) -> jax.Array:
    return _convolve(x, k, stride=2)


@jax.custom_vjp
def up(g: jax.Array, k: jax.Array) -> jax.Array:
    """The transpose of `down` in its image: [B, h, w, O] -> [B, 2h, 2w, C]."""
    if layers_cpu.use_tiles(g, k.shape[2], g.shape[1], g.shape[2]):
        return _select(layers_cpu.up_by_tiles, _up_by_convolution, g, k)
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
    if layers_cpu.use_tiles(x, x.shape[3], h, w):
        return _select(layers_cpu.correlate_by_tiles, _correlate_by_convolution, x, g)
    if h * w > layers_cpu.MAX_WINDOW:
        return _select(layers_cpu.correlate_by_patches, _correlate_by_convolution, x, g)
    return _correlate_by_convolution(x, g)


def _correlate_by_convolution(x: jax.Array, g: jax.Array, stride: int = 2) -> jax.Array:
    """The kernel gradient of a convolution of this stride and padding 1."""
    # GPUs and TPUs sum products of bfloat16 in float32. To ask for a float32 result, which is
    # rounded to bfloat16 anyway, makes XLA convert the arrays before the convolution on a GPU.
    # Explicit transposes and plain dimension numbers: the same convolution with permuted numbers,
    # as autodiff writes it, loses two orders of magnitude inside `lax.scan` on CPU.
    k = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), dilation=stride)
    return k.transpose(1, 2, 0, 3)


_Form = Callable[[jax.Array, jax.Array], jax.Array]
_Pair = tuple[jax.Array, jax.Array]


def _select(cpu: _Form, elsewhere: _Form, a: jax.Array, b: jax.Array) -> jax.Array:
    result: jax.Array = lax.platform_dependent(a, b, cpu=cpu, default=elsewhere)
    return result


@jax.custom_vjp
def conv(x: jax.Array, k: jax.Array) -> jax.Array:
    """A 3x3 convolution of stride 1 and padding 1: [B, H, W, C], [3, 3, C, O] -> [B, H, W, O].

    Its backward pass is `conv` and `correlate_conv`, so they are closed like the family above.
    """
    return _convolve(x, k)


@jax.custom_vjp
def correlate_conv(x: jax.Array, g: jax.Array) -> jax.Array:
    """The derivative of ``<g, conv(x, k)>`` in k: [B, H, W, C], [B, H, W, O] -> [3, 3, C, O]."""
    on_cpu = functools.partial(_correlate_by_convolution, stride=1)
    return _select(on_cpu, _correlate_conv_by_autodiff, x, g)


def _correlate_conv_by_autodiff(x: jax.Array, g: jax.Array) -> jax.Array:
    zero = jnp.zeros((3, 3, x.shape[3], g.shape[3]), x.dtype)
    _, pull_back = jax.vjp(lambda k: _convolve(x, k), zero)
    k: jax.Array = pull_back(g)[0]
    return k


def _turned(k: jax.Array) -> jax.Array:
    """Returns the kernel of the transpose of `conv` in its image."""
    return k[::-1, ::-1].transpose(0, 1, 3, 2)


def _set_backward(function: jax.custom_vjp[jax.Array], backward: Callable[..., _Pair]) -> None:
    """Defines the backward pass of f(a, b): ``backward(a, b, cotangent)`` -> those of a and b."""
    function.defvjp(
        lambda a, b: (function(a, b), (a, b)), lambda saved, given: backward(*saved, given)
    )


_set_backward(down, lambda x, k, g: (up(g, k), correlate(x, g)))
_set_backward(up, lambda g, k, x: (down(x, k), correlate(x, g)))
_set_backward(correlate, lambda x, g, k: (up(g, k), down(x, k)))
_set_backward(conv, lambda x, k, g: (conv(g, _turned(k)), correlate_conv(x, g)))
_set_backward(correlate_conv, lambda x, g, k: (conv(g, _turned(k)), conv(x, k)))


def low_pass(k: jax.Array) -> jax.Array:
    """Returns a 3x3 kernel convolved with a 2x2 box: [3, 3, C, O] -> [4, 4, C, O].

    ``up(g, low_pass(k))`` is nearest-neighbour upsampling followed by a 3x3 convolution, and
    ``down(x, low_pass(k) / 4)`` is a 3x3 convolution followed by the mean over 2x2 pixels (Karras
    et al. 2017, arXiv 1710.10196, appendix A, fuse both alike). Such layers leave no checkerboard.
    """
    shifts = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    return jnp.sum(jnp.stack([jnp.pad(k, shift) for shift in shifts]), axis=0)


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
    """`down` with a low-passed 3x3 kernel: [B, H, W, C] -> [B, H/2, W/2, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        kernel = self.param("kernel", conv_init, (3, 3, x.shape[-1], self.features), jnp.float32)
        return down(x.astype(self.dtype), (low_pass(kernel) / 4).astype(self.dtype))


class Up(_Layer):
    """`up` with a low-passed 3x3 kernel: [B, h, w, C] -> [B, 2h, 2w, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        kernel = self.param("kernel", up_init, (3, 3, self.features, x.shape[-1]), jnp.float32)
        return up(x.astype(self.dtype), low_pass(kernel).astype(self.dtype))


class Conv(_Layer):
    """`conv`: [B, H, W, C] -> [B, H, W, features]."""

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
