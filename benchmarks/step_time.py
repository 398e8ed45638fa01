"""Seconds per train step of this package, of stock Flax layers and of PyTorch.

    python benchmarks/step_time.py --base_width 32 64 128 --batch 64

The implementations alternate, so that a drift of the machine's speed affects all of them, and
medians are compared. Stock Flax is this package with `nn.Conv` and `nn.ConvTranspose` instead of
its layers; on a CPU it runs one jitted step per call, its fastest form there, or with
`--stock_in_loop` a jitted loop like this package. PyTorch (2.x, not a dependency: install it by
hand) has the same networks (both with free 4x4 kernels, which cost the same), losses, penalties
and optimizer in channels_last, with several settings; if it is not installed, its rows are missing.
`--steps` should be a multiple of `--penalty_every`.

The second table compares a step with the peaks of the machine: the floating-point operations of its
convolutions and dense layers (as plain sums of products), the compiler's estimate of the bytes, and
the fractions of the speed of a large matrix product and of the copy of a large array, both measured
in the same run.

On a GPU, this package is timed in float32 (with TF32, like PyTorch) and in bfloat16, and PyTorch
eager and compiled, with TF32 and with bf16 autocast, and with CUDA graphs where supported.
"""

import argparse
import contextlib
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# Leave GPU memory for PyTorch; must be set before JAX is imported.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import config as configuration
from vaegan_jax import gan, networks, randomness, vae
from vaegan_jax.data import preprocessing
from vaegan_jax.runtime import environment, parallel
from vaegan_jax.training import loop

try:
    import torch
except ImportError:
    torch = None

SHAPE = (64, 64, 3)
LEVELS = 4  # of networks.widths at this size, without a maximum width
R1_WEIGHT = 0.5
STAGES = ("vae", "gan")


class StockDown(nn.Module):
    """`Down` with Flax's convolution."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        return nn.Conv(
            self.features, (4, 4), (2, 2), ((1, 1), (1, 1)), use_bias=False, dtype=self.dtype
        )(x)


class StockUp(nn.Module):
    """`Up` with Flax's transposed convolution."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        return nn.ConvTranspose(self.features, (4, 4), (2, 2), use_bias=False, dtype=self.dtype)(x)


class StockConv(nn.Module):
    """`Conv` with Flax's convolution."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        return nn.Conv(self.features, (3, 3), use_bias=False, dtype=self.dtype)(x)


class Layers(NamedTuple):
    """The layers of the networks."""

    down: Any
    up: Any
    conv: Any


OURS = Layers(networks.Down, networks.Up, networks.Conv)
STOCK = Layers(StockDown, StockUp, StockConv)


class Implementation(NamedTuple):
    """Train steps to be timed.

    Attributes:
      run: runs a number of steps and blocks until they are done.
      bytes: read and written by a step, by the compiler's estimate; None if unknown.
    """

    run: Callable[[int], None]
    bytes: float | None = None


def on_gpu() -> bool:
    """Whether JAX computes on a GPU."""
    return jax.default_backend() == "gpu"


def jax_steps(
    stage: str,
    base_width: int,
    batch: int,
    layers: Layers,
    in_loop: bool = True,
    dtype: str = "float32",
    penalty_every: int = 1,
) -> Implementation:
    """Returns steps of this package with the given layers, in a jitted loop or one per call."""
    networks.Down, networks.Up, networks.Conv = layers
    config = configuration.default_config()
    config.model.base_width, config.model.max_width = base_width, 8 * base_width
    config.gan.penalties = f"r1(weight={R1_WEIGHT}, every={penalty_every})"
    config.gan.augmentations = ""
    config.gan.ema_half_life_images = 10_000.0
    config.model.dtype = dtype
    config.vae.batch_size = config.gan.batch_size = batch
    if stage == "vae":
        state = jax.jit(functools.partial(vae.init, config, SHAPE))()
        step, number = vae.make_train_step(config, SHAPE), randomness.Stage.VAE
    else:
        generator = jax.jit(functools.partial(gan.random_init, config, SHAPE))()
        state = jax.jit(functools.partial(gan.init, config, SHAPE))(generator)
        # After the warm-up, so that the generator is updated too.
        state = state.replace(step=state.step + config.gan.discriminator_warmup_steps)
        step, number = gan.make_train_step(config, SHAPE), randomness.Stage.GAN
    max_steps = 16 if in_loop else 1
    call = loop.make_call(
        loop.Stage(number, 0, batch, state, lambda: state, step, lambda _: {}, ()), max_steps
    )
    # With the sharding of training, so that later calls need no compilation.
    state = parallel.put_state(state, parallel.replicated(parallel.make_mesh()))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (512, *SHAPE)), jnp.uint8)
    indices = jnp.arange(max_steps * batch, dtype=jnp.int32).reshape(max_steps, batch) % len(images)
    real = preprocessing.to_network(images[indices[0]])
    key = randomness.step_key(0, number, 0)
    single_step = jax.jit(step, donate_argnums=0).lower(state, real, key).compile()

    def run(steps: int) -> None:
        nonlocal state
        if in_loop:
            for first in range(0, steps, max_steps):
                count = jnp.int32(min(max_steps, steps - first))
                block = loop.Block(images, indices, indices, count, jnp.uint32(0))
                state, *_ = call(state, block)
        else:
            for _ in range(steps):
                state, _ = single_step(state, real, key)
        jax.block_until_ready(state)

    run(1)
    analysis = single_step.cost_analysis() or {}
    return Implementation(run, analysis.get("bytes accessed"))


def torch_settings() -> dict[str, dict[str, Any]]:
    """Returns the settings of PyTorch by name, as arguments of `torch_steps`."""
    if not on_gpu():
        return {"eager": {}, "compiled": {"mode": "default"}}
    modes = (None, "default", "reduce-overhead", "max-autotune")
    return {
        f"{mode or 'eager'}, {'bf16' if bf16 else 'TF32'}": {"mode": mode, "bf16": bf16}
        for bf16 in (False, True)
        for mode in modes
    }


def torch_steps(
    stage: str,
    base_width: int,
    batch: int,
    mode: str | None = None,
    bf16: bool = False,
    penalty_every: int = 1,
) -> Implementation:
    """Returns steps of PyTorch, after a warm-up.

    Args:
      stage: "vae" or "gan".
      base_width: of the networks.
      batch: images per step.
      mode: of `torch.compile`; None for eager. "reduce-overhead" and "max-autotune" use CUDA
        graphs. The pass of the penalty is always eager, since compiled modules do not support
        second derivatives.
      bf16: run the networks under autocast.
      penalty_every: steps between penalties.
    """
    layout, device = torch.channels_last, "cuda" if on_gpu() else "cpu"
    if on_gpu():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    config = configuration.default_config()
    latent_size = config.model.latent_size
    fused = {"fused": True}

    def autocast() -> Any:
        if not bf16:
            return contextlib.nullcontext()
        return torch.autocast(device, torch.bfloat16)

    def compiled(function: Any) -> Any:
        return function if mode is None else torch.compile(function, mode=mode)

    def mark_step() -> None:
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()

    def trunk(outputs: int, norm: bool) -> torch.nn.Module:
        layers: list[torch.nn.Module] = []
        channels = 3
        for level in range(LEVELS):
            features = base_width * 2**level
            layers.append(torch.nn.Conv2d(channels, features, 4, 2, 1))
            if norm and level:
                layers.append(torch.nn.GroupNorm(8, features, affine=False))
            layers.append(torch.nn.LeakyReLU(0.2))
            channels = features
        layers += [torch.nn.Flatten(), torch.nn.Linear(channels * 16, outputs)]
        return torch.nn.Sequential(*layers).to(memory_format=layout)

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            channels = 8 * base_width
            self.dense = torch.nn.Linear(latent_size, channels * 16)
            layers: list[torch.nn.Module] = []
            for level in range(LEVELS):
                features = channels // (4 if level == LEVELS - 1 else 2)
                layers += [torch.nn.GroupNorm(8, channels, affine=False), torch.nn.LeakyReLU(0.2)]
                layers.append(torch.nn.ConvTranspose2d(channels, features, 4, 2, 1))
                channels = features
            layers += [torch.nn.LeakyReLU(0.2), torch.nn.Conv2d(channels, 3, 3, 1, 1)]
            self.layers = torch.nn.Sequential(*layers)

        def forward(self, z: Any) -> Any:
            x = self.dense(z).reshape(len(z), -1, 4, 4).to(memory_format=layout)
            return self.layers(x)

    x = (torch.rand(batch, 3, 64, 64) * 2 - 1).to(device, memory_format=layout)
    softplus = torch.nn.functional.softplus
    decoder = Decoder().to(device, memory_format=layout)
    taken = 0
    if stage == "vae":
        encoder = trunk(2 * latent_size, norm=True).to(device, memory_format=layout)
        parameters = [*encoder.parameters(), *decoder.parameters()]
        adam = torch.optim.Adam(parameters, 1e-3, **fused)

        def negative_elbo() -> Any:
            with autocast():
                moments = encoder(x).float()
            mean, log_variance = moments.chunk(2, 1)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            with autocast():
                logits = decoder(z).float()
            error = ((x - torch.tanh(logits)) ** 2).sum((1, 2, 3)).mean()
            kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
            return error + kl

        loss = compiled(negative_elbo)

        def step() -> None:
            mark_step()
            loss().backward()
            adam.step()
            adam.zero_grad(set_to_none=True)

    else:
        discriminator = trunk(1, norm=False).to(device, memory_format=layout)
        adam_d = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999), **fused)
        adam_g = torch.optim.Adam(decoder.parameters(), 2e-4, (0.5, 0.999), **fused)

        def generate_images() -> Any:
            with autocast():
                logits = decoder(torch.randn(batch, latent_size, device=device))
            return torch.tanh(logits.float())

        def discriminate(images: Any) -> Any:
            with autocast():
                return discriminator(images).float()

        def compute_discriminator_loss(fake: Any) -> Any:
            real_logits, fake_logits = discriminate(torch.cat([x, fake])).chunk(2)
            return softplus(-real_logits).mean() + softplus(fake_logits).mean()

        def compute_generator_loss(fake: Any) -> Any:
            return softplus(-discriminate(fake)).mean()

        generate, discriminator_loss, generator_loss = map(
            compiled, (generate_images, compute_discriminator_loss, compute_generator_loss)
        )

        def step() -> None:
            nonlocal taken
            mark_step()
            fake = generate()
            discriminator_loss(fake.detach()).backward()
            if taken % penalty_every == 0:
                real = x.detach().requires_grad_(True)
                (gradient,) = torch.autograd.grad(discriminate(real).sum(), real, create_graph=True)
                penalty = (gradient**2).sum((1, 2, 3)).mean()
                (penalty_every * R1_WEIGHT / 2 * penalty).backward()
            taken += 1
            adam_d.step()
            adam_d.zero_grad(set_to_none=True)
            discriminator.requires_grad_(False)
            generator_loss(fake).backward()
            discriminator.requires_grad_(True)
            adam_g.step()
            adam_g.zero_grad(set_to_none=True)

    def run(steps: int) -> None:
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    run(penalty_every + 1 if stage == "gan" else 3)
    return Implementation(run)


def count_flops(stage: str, base_width: int, batch: int, penalty_every: int) -> float:
    """Returns the floating-point operations of the layers in a step, two per multiply-add.

    The forward pass, input gradient and kernel gradient of a layer have the same count. A VAE step
    has all three for both networks, except the gradient of the images. A GAN step has all three of
    the generator; those of the discriminator on 2 B images, except the gradient of the images; a
    forward pass and input gradient on the B fake images for the generator's loss; and for each
    penalty, the input gradient on the B real images and its two derivatives. (The forward pass of
    the penalty is shared. No derivative flows back through it: leaky ReLUs are piecewise linear.)
    """
    latent_size = configuration.default_config().model.latent_size
    sides = [SHAPE[0] // 2 ** (level + 1) for level in range(LEVELS)]
    widths = [3, *(base_width * 2**level for level in range(LEVELS))]
    first, *others = (
        2 * batch * side**2 * 16 * widths[level] * widths[level + 1]
        for level, side in enumerate(sides)
    )
    trunk = first + sum(others)
    fine = base_width // 4
    last = 2 * batch * (sides[0] ** 2 * 16 * fine * base_width + SHAPE[0] ** 2 * 9 * 3 * fine)
    dense = 2 * batch * sides[-1] ** 2 * widths[-1]
    generator = 3 * (sum(others) + last + dense * latent_size) - dense * latent_size
    if stage == "vae":
        encoder = 3 * (trunk + dense * 2 * latent_size) - first
        return float(encoder + generator + dense * latent_size)
    discriminator = trunk + dense
    penalty = 3 * discriminator / penalty_every
    return float(generator + 2 * (3 * discriminator - first) + 2 * discriminator + penalty)


def measure_peaks() -> tuple[float, float]:
    """Returns the speed of a large matrix product, FLOP/s, and of a large copy, bytes/s."""
    side = 8192 if on_gpu() else 2048
    matrix, array = jnp.ones((side, side)), jnp.ones((2**26,))
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1, donate_argnums=0)

    def seconds(run: Callable[[], Any]) -> float:
        times = []
        for _ in range(8):
            began = time.perf_counter()
            jax.block_until_ready(run())
            times.append(time.perf_counter() - began)
        return min(times)

    def run_copy() -> jax.Array:
        nonlocal array
        array = copy(array)
        return array

    return 2 * side**3 / seconds(lambda: product(matrix)), 2 * array.nbytes / seconds(run_copy)


def main() -> None:
    """Runs the measurements and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base_width", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="per round; 1 for stock Flax on CPU")
    parser.add_argument("--without_stock", action="store_true", help="without stock Flax")
    parser.add_argument("--stock_in_loop", action="store_true", help="stock Flax in a jitted loop")
    parser.add_argument(
        "--without_compile", action="store_true", help="PyTorch without torch.compile"
    )
    parser.add_argument("--torch_modes", nargs="*", help="such as eager; no value: no PyTorch")
    parser.add_argument("--penalty_every", type=int, default=1, help="interval of R1")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    args = parser.parse_args()
    versions = f"jax {jax.__version__}" + (f", torch {torch.__version__}" if torch else "")
    device = jax.devices()[0].device_kind
    print(f"{device}, {environment.facts()['cpu']}, {os.cpu_count()} cores, {versions}")
    peak_flops, peak_bandwidth = measure_peaks()
    print(f"matrix product {peak_flops / 1e9:.0f} GFLOP/s, copy {peak_bandwidth / 1e9:.1f} GB/s\n")
    print("| stage | base width | batch | implementation | s per step | relative |")
    print("|---|---|---|---|---|---|")
    limits = []
    for base_width in args.base_width:
        for batch in args.batch:
            for stage in args.stages:
                size = (stage, base_width, batch)
                runs = implementations(size, args)
                medians = median_times(runs, args)
                best = min(
                    seconds for name, seconds in medians.items() if name.startswith("vaegan_jax")
                )
                for name, seconds in medians.items():
                    cells = [*map(str, size), name, f"{seconds:.4f}", f"{seconds / best:.2f}"]
                    print("| " + " | ".join(cells) + " |", flush=True)
                for name in (name for name in runs if name.startswith("vaegan_jax")):
                    limits.append((*size, name, medians[name], runs[name].bytes))
    print("\n| stage | base width | batch | implementation | GFLOP | of peak | GB | of peak |")
    print("|---|---|---|---|---|---|---|---|")
    for stage, base_width, batch, name, seconds, nbytes in limits:
        flops = count_flops(stage, base_width, batch, args.penalty_every)
        cells = [stage, str(base_width), str(batch), name, f"{flops / 1e9:.1f}"]
        cells += [f"{flops / seconds / peak_flops:.2f}"]
        if nbytes:
            cells += [f"{nbytes / 1e9:.2f}", f"{nbytes / seconds / peak_bandwidth:.2f}"]
        else:
            cells += ["", ""]
        print("| " + " | ".join(cells) + " |")


def implementations(
    size: tuple[str, int, int], args: argparse.Namespace
) -> dict[str, Implementation]:
    """Returns the implementations of a stage, base width and batch; prints those that fail."""
    make_steps = functools.partial(jax_steps, penalty_every=args.penalty_every)
    makers: dict[str, Callable[[], Implementation]] = {
        "vaegan_jax, float32": functools.partial(make_steps, *size, OURS)
    }
    if on_gpu():
        makers["vaegan_jax, bfloat16"] = functools.partial(
            make_steps, *size, OURS, dtype="bfloat16"
        )
    if not args.without_stock:
        in_loop = args.stock_in_loop or on_gpu()
        makers["stock Flax"] = functools.partial(make_steps, *size, STOCK, in_loop)
    if torch:
        for name, setting in torch_settings().items():
            mode = name.partition(",")[0]
            is_wanted = args.torch_modes is None or mode in args.torch_modes
            if is_wanted and not (args.without_compile and setting.get("mode")):
                makers[f"PyTorch, {name}"] = functools.partial(
                    torch_steps, *size, **setting, penalty_every=args.penalty_every
                )
    result = {}
    for name, make in makers.items():
        try:
            result[name] = make()
        except Exception as error:  # a setting that this machine does not support
            if not name.startswith("PyTorch"):
                raise
            print(f"{name} failed: {str(error).partition(chr(10))[0]}", file=sys.stderr)
    return result


def median_times(runs: dict[str, Implementation], args: argparse.Namespace) -> dict[str, float]:
    """Returns the median seconds per step of each implementation; they alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, implementation in runs.items():
            slow = name == "stock Flax" and not on_gpu()
            steps = 1 if slow else args.steps
            began = time.perf_counter()
            implementation.run(steps)
            seconds[name].append((time.perf_counter() - began) / steps)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
