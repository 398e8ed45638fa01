"""Seconds a train step: this package, stock Flax layers and PyTorch, side by side in one run.

    python benchmarks/step_time.py --base_width 32 64 128 --batch 64

The contenders take turns, so that a drift of the machine's speed touches all alike, and the medians
are compared. Stock Flax is this package with `nn.Conv` and `nn.ConvTranspose` in place of its own
strided layers; on a CPU one jitted step a call, which is its best form there (`--stock_in_loop`
takes the steps in a jitted loop, as training does and as ours are timed). PyTorch (2.x, installed
by hand: no dependency) is the same networks, losses, penalties and optimizer in channels_last, in
each of its settings, of which the quickest counts; it is left out where it is absent. A GAN's
steps are so many that each has its share of the rare penalty.

The second table holds the step against the machine: the floating-point operations of its
convolutions and dense layers (as sums of products, however they are computed), the bytes that the
compiler counts, and the share that is reached of a large matrix product's speed and of a large
array's copying, both measured in the same run.

On a GPU ours are timed in float32 (with TF32, as PyTorch is) and in bfloat16, and PyTorch eager and
compiled, in TF32 and under bf16 autocast, with CUDA graphs where they can be had.
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

# PyTorch needs its part of a GPU's memory; it must be said before JAX is imported.
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
STAGES = ("vae", "gan")


class StockDown(nn.Module):
    """`Down` as Flax has it."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        return nn.Conv(
            self.features, (4, 4), (2, 2), ((1, 1), (1, 1)), use_bias=False, dtype=self.dtype
        )(x)


class StockUp(nn.Module):
    """`Up` as Flax has it."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer."""
        return nn.ConvTranspose(self.features, (4, 4), (2, 2), use_bias=False, dtype=self.dtype)(x)


class Contender(NamedTuple):
    """What is timed.

    Attributes:
      run: takes so many steps and waits for them.
      bytes: that a step reads and writes, by the compiler's count; None where it is not known.
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
    down: Any,
    up: Any,
    in_loop: bool = True,
    dtype: str = "float32",
    penalty_every: int = 1,
) -> Contender:
    """Returns this package's steps with such layers, in one jitted call or in one each."""
    networks.Down, networks.Up = down, up
    config = configuration.default_config()
    config.gan.penalty_every = penalty_every
    config.model.base_width = base_width
    config.model.dtype = dtype
    config.vae.batch_size = config.gan.batch_size = batch
    if stage == "vae":
        state = jax.jit(functools.partial(vae.init, config, SHAPE))()
        step, number = vae.make_train_step(config, SHAPE), randomness.Stage.VAE
    else:
        start = jax.jit(functools.partial(gan.random_init, config, SHAPE))()
        state = jax.jit(functools.partial(gan.init, config, SHAPE))(start)
        # Past the warm-up, so that the generator is updated too.
        state = state.replace(step=state.step + config.gan.discriminator_warmup_steps)
        step, number = gan.make_train_step(config, SHAPE), randomness.Stage.GAN
    most = 16 if in_loop else 1
    call = loop.make_call(
        loop.Stage(number, 0, batch, state, lambda: state, step, lambda _: {}, ()), most
    )
    # Where a training has it, so that the first call is compiled for those that follow.
    state = parallel.put_state(state, parallel.replicated(parallel.make_mesh()))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (512, *SHAPE)), jnp.uint8)
    indices = jnp.arange(most * batch, dtype=jnp.int32).reshape(most, batch) % len(images)
    chosen = preprocessing.to_network(images[indices[0]])
    key = randomness.step_key(0, number, 0)
    alone = jax.jit(step, donate_argnums=0).lower(state, chosen, key).compile()

    def run(steps: int) -> None:
        nonlocal state
        if in_loop:
            for began in range(0, steps, most):
                count = jnp.int32(min(most, steps - began))
                block = loop.Block(images, indices, indices, count, jnp.uint32(0))
                state, _ = call(state, block)
        else:
            for _ in range(steps):
                state, _ = alone(state, chosen, key)
        jax.block_until_ready(state)

    run(1)
    analysis = alone.cost_analysis() or {}
    return Contender(run, analysis.get("bytes accessed"))


def torch_settings() -> dict[str, dict[str, Any]]:
    """Returns the settings of PyTorch that are tried, by name: arguments of `torch_steps`."""
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
) -> Contender:
    """Returns the same for PyTorch, warmed up.

    Args:
      stage: "vae" or "gan".
      base_width: of the networks.
      batch: images a step.
      mode: of `torch.compile`; None for eager. CUDA graphs come with "reduce-overhead" and
        "max-autotune". A penalty needs a derivative of a derivative, which a compiled module does
        not have: that one pass in `penalty_every` steps is eager.
      bf16: whether the networks run under autocast.
      penalty_every: steps from one penalty to the next.
    """
    layout, device = torch.channels_last, "cuda" if on_gpu() else "cpu"
    if on_gpu():  # on a CPU float32 stays what it is
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    config = configuration.default_config()
    latent_size, every = config.model.latent_size, penalty_every
    fused = {"fused": True}

    def autocast() -> Any:
        if not bf16:
            return contextlib.nullcontext()
        return torch.autocast(device, torch.bfloat16)

    def compiled(function: Any) -> Any:
        return function if mode is None else torch.compile(function, mode=mode)

    def begin() -> None:
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()

    def trunk(outputs: int, norm: bool) -> torch.nn.Module:
        layers: list[torch.nn.Module] = []
        channels = 3
        for level in range(networks.LEVELS):
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
            for level in range(networks.LEVELS):
                features = 3 if level == networks.LEVELS - 1 else channels // 2
                layers += [torch.nn.GroupNorm(8, channels, affine=False), torch.nn.LeakyReLU(0.2)]
                layers.append(torch.nn.ConvTranspose2d(channels, features, 4, 2, 1))
                channels = features
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

        def negative_bound() -> Any:
            with autocast():
                moments = encoder(x).float()
            mean, log_variance = moments.chunk(2, 1)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            with autocast():
                logits = decoder(z).float()
            error = ((x - torch.tanh(logits)) ** 2).sum((1, 2, 3)).mean()
            kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
            return error + kl

        bound = compiled(negative_bound)

        def step() -> None:
            begin()
            bound().backward()
            adam.step()
            adam.zero_grad(set_to_none=True)

    else:
        discriminator = trunk(1, norm=False).to(device, memory_format=layout)
        adam_d = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999), **fused)
        adam_g = torch.optim.Adam(decoder.parameters(), 2e-4, (0.5, 0.999), **fused)

        def make() -> Any:
            with autocast():
                logits = decoder(torch.randn(batch, latent_size, device=device))
            return torch.tanh(logits.float())

        def judge(images: Any) -> Any:
            with autocast():
                return discriminator(images).float()

        def adversarial(fake: Any) -> Any:
            real_logits, fake_logits = judge(torch.cat([x, fake])).chunk(2)
            return softplus(-real_logits).mean() + softplus(fake_logits).mean()

        def deceit(fake: Any) -> Any:
            return softplus(-judge(fake)).mean()

        generate, adversarial_loss, generator_loss = map(compiled, (make, adversarial, deceit))

        def step() -> None:
            nonlocal taken
            begin()
            fake = generate()
            adversarial_loss(fake.detach()).backward()
            if taken % every == 0:
                real = x.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
                penalty = (slope**2).sum((1, 2, 3)).mean()
                (every * config.gan.r1_weight / 2 * penalty).backward()
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

    run(every + 1 if stage == "gan" else 3)
    return Contender(run)


def products(stage: str, base_width: int, batch: int, penalty_every: int) -> float:
    """Returns the floating-point operations of a step's layers, two for each product in its sums.

    A layer's forward pass, its image's gradient and its kernel's take as many each. A VAE's step
    has all three for both networks, but for the gradient of the images. A GAN's has the generator's
    three; the discriminator's on 2 B images, but for their gradient; on the B fakes again, forward
    and the images' gradient; and with every penalty, on the B real ones, the images' gradient and
    the two derivatives of that, beside a forward pass that need not be taken again. (Leaky units
    are linear by pieces, so nothing comes back to it.)
    """
    latent_size = configuration.default_config().model.latent_size
    sides = [SHAPE[0] // 2 ** (level + 1) for level in range(networks.LEVELS)]
    widths = [3, *(base_width * 2**level for level in range(networks.LEVELS))]
    convolutions = [
        2 * batch * side**2 * 16 * widths[level] * widths[level + 1]
        for level, side in enumerate(sides)
    ]
    first, trunk = convolutions[0], sum(convolutions)
    dense = 2 * batch * sides[-1] ** 2 * widths[-1]
    generator = 3 * (trunk + dense * latent_size) - dense * latent_size
    if stage == "vae":
        encoder = 3 * (trunk + dense * 2 * latent_size) - first
        return float(encoder + generator + dense * latent_size)
    judge = trunk + dense
    penalty = 3 * judge / penalty_every
    return float(generator + 2 * (3 * judge - first) + 2 * judge + penalty)


def ceilings() -> tuple[float, float]:
    """Returns what is measured here of matrix products, FLOP/s, and of copying, bytes/s."""
    side = 8192 if on_gpu() else 2048
    a, big = jnp.ones((side, side)), jnp.ones((2**26,))
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1, donate_argnums=0)

    def seconds(run: Callable[[], Any]) -> float:
        times = []
        for _ in range(8):
            began = time.perf_counter()
            jax.block_until_ready(run())
            times.append(time.perf_counter() - began)
        return min(times)

    def again() -> jax.Array:
        nonlocal big
        big = copy(big)
        return big

    return 2 * side**3 / seconds(lambda: product(a)), 2 * big.nbytes / seconds(again)


def main() -> None:
    """Measures and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base_width", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of a round, but for stock Flax")
    parser.add_argument("--without_stock", action="store_true")
    parser.add_argument("--stock_in_loop", action="store_true")
    parser.add_argument("--without_compile", action="store_true", help="PyTorch eager alone")
    parser.add_argument("--penalty_every", type=int, default=1, help="as in config.gan")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    arguments = parser.parse_args()
    versions = f"jax {jax.__version__}" + (f", torch {torch.__version__}" if torch else "")
    device = jax.devices()[0].device_kind
    print(f"{device}, {environment.facts()['cpu']}, {os.cpu_count()} cores, {versions}")
    flops, bandwidth = ceilings()
    print(f"matrix product {flops / 1e9:.0f} GFLOP/s, copy {bandwidth / 1e9:.1f} GB/s\n")
    print("| stage | base width | batch | contender | s a step | over ours |")
    print("|---|---|---|---|---|---|")
    limits = []
    layers = networks.Down, networks.Up
    for base_width in arguments.base_width:
        for batch in arguments.batch:
            for stage in arguments.stages:
                size = (stage, base_width, batch)
                runs = contenders(size, layers, arguments)
                medians = timed(runs, arguments)
                best = min(seconds for name, seconds in medians.items() if name.startswith("ours"))
                for name, seconds in medians.items():
                    cells = [*map(str, size), name, f"{seconds:.4f}", f"{seconds / best:.2f}"]
                    print("| " + " | ".join(cells) + " |", flush=True)
                for name in (name for name in runs if name.startswith("ours")):
                    limits.append((*size, name, medians[name], runs[name].bytes))
    print("\n| stage | base width | batch | contender | GFLOP | share | GB | share |")
    print("|---|---|---|---|---|---|---|---|")
    for stage, base_width, batch, name, seconds, moved in limits:
        done = products(stage, base_width, batch, arguments.penalty_every)
        cells = [stage, str(base_width), str(batch), name, f"{done / 1e9:.1f}"]
        cells += [f"{done / seconds / flops:.2f}"]
        if moved:
            cells += [f"{moved / 1e9:.2f}", f"{moved / seconds / bandwidth:.2f}"]
        else:
            cells += ["", ""]
        print("| " + " | ".join(cells) + " |")


def contenders(
    size: tuple[str, int, int], layers: tuple[Any, Any], arguments: argparse.Namespace
) -> dict[str, Contender]:
    """Returns what is compared at a stage, base width and batch; what fails is named and left."""
    ours = functools.partial(jax_steps, penalty_every=arguments.penalty_every)
    makers: dict[str, Callable[[], Contender]] = {
        "ours, float32": functools.partial(ours, *size, *layers)
    }
    if on_gpu():
        makers["ours, bfloat16"] = functools.partial(ours, *size, *layers, dtype="bfloat16")
    if not arguments.without_stock:
        in_loop = arguments.stock_in_loop or on_gpu()
        makers["stock Flax"] = functools.partial(ours, *size, StockDown, StockUp, in_loop)
    if torch:
        for name, setting in torch_settings().items():
            if not (arguments.without_compile and setting.get("mode")):
                makers[f"PyTorch, {name}"] = functools.partial(
                    torch_steps, *size, **setting, penalty_every=arguments.penalty_every
                )
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except Exception as error:  # of a setting that this machine cannot have
            if not name.startswith("PyTorch"):
                raise
            print(f"{name} failed: {str(error).partition(chr(10))[0]}", file=sys.stderr)
    return made


def timed(runs: dict[str, Contender], arguments: argparse.Namespace) -> dict[str, float]:
    """Returns the median seconds a step of each, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, contender in runs.items():
            slow = name == "stock Flax" and not on_gpu()
            steps = 1 if slow else arguments.steps
            began = time.perf_counter()
            contender.run(steps)
            seconds[name].append((time.perf_counter() - began) / steps)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
