"""Seconds a train step: this package, stock Flax layers and PyTorch, side by side in one run.

    python benchmarks/step_time.py --base_width 32 64

The three take turns, so that a drift of the machine's speed touches all alike, and the medians
are compared. Stock Flax is this package with `nn.Conv` and `nn.ConvTranspose` in place of its own
strided layers, one jitted step a call, which is its best form on CPU (`--stock_in_loop` takes the
steps in a jitted loop, as training does and as ours are timed). PyTorch (2.x, installed by hand:
no dependency) is the same networks, losses and optimizer in channels_last, and is left out where
it is absent.
"""

import argparse
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import config as configuration
from vaegan_jax import gan, networks, randomness, training, vae
from vaegan_jax.data import preprocessing

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


def jax_steps(
    stage: str, base_width: int, batch: int, down: Any, up: Any, in_loop: bool = True
) -> Callable[[int], None]:
    """Returns a function that takes so many steps, in one jitted call or in one each."""
    networks.Down, networks.Up = down, up
    config = configuration.default_config()
    config.model.base_width = base_width
    config.vae.batch_size = config.gan.batch_size = batch
    if stage == "vae":
        state = jax.jit(functools.partial(vae.init, config, SHAPE))()
        step, number = vae.make_train_step(config, SHAPE), randomness.Stage.VAE
    else:
        start = jax.jit(functools.partial(gan.random_start, config, SHAPE))()
        state = jax.jit(functools.partial(gan.init, config, SHAPE))(start)
        # Past the warm-up, so that the generator is updated too.
        state = state.replace(step=state.step + config.gan.discriminator_warmup_steps)
        step, number = gan.make_train_step(config, SHAPE), randomness.Stage.GAN
    most = 16 if in_loop else 1
    loop = training.make_call(
        training.Stage(number, 0, batch, state, lambda: state, step, lambda _: {}, ()), 0, most
    )
    alone = jax.jit(step, donate_argnums=0)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (512, *SHAPE)), jnp.uint8)
    indices = jnp.arange(most * batch, dtype=jnp.int32).reshape(most, batch) % len(images)
    chosen = preprocessing.to_network(images[indices[0]])

    def run(steps: int) -> None:
        nonlocal state
        if in_loop:
            state, _ = jax.block_until_ready(
                loop(state, images, indices, indices, jnp.int32(steps))
            )
        else:
            for _ in range(steps):
                key = randomness.step_key(0, number, 0, 0)
                state, _ = jax.block_until_ready(alone(state, chosen, key))

    run(1)
    return run


def torch_steps(stage: str, base_width: int, batch: int) -> Callable[[int], None]:
    """Returns the same for PyTorch, warmed up."""
    layout = torch.channels_last
    config = configuration.default_config()
    latent_size = config.model.latent_size

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

    x = (torch.rand(batch, 3, 64, 64) * 2 - 1).to(memory_format=layout)
    softplus = torch.nn.functional.softplus
    decoder = Decoder().to(memory_format=layout)
    if stage == "vae":
        encoder = trunk(2 * latent_size, norm=True)
        parameters = [*encoder.parameters(), *decoder.parameters()]
        adam = torch.optim.Adam(parameters, 1e-3)

        def step() -> None:
            mean, log_variance = encoder(x).chunk(2, 1)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            error = ((x - torch.tanh(decoder(z))) ** 2).sum((1, 2, 3)).mean()
            kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
            adam.zero_grad(set_to_none=True)
            (error + kl).backward()
            adam.step()

    else:
        discriminator = trunk(1, norm=False)
        adam_d = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
        adam_g = torch.optim.Adam(decoder.parameters(), 2e-4, (0.5, 0.999))

        def step() -> None:
            fake = torch.tanh(decoder(torch.randn(batch, latent_size)))
            real_logits, fake_logits = discriminator(torch.cat([x, fake.detach()])).chunk(2)
            real = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
            loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
            loss = loss + config.gan.r1_weight / 2 * (slope**2).sum((1, 2, 3)).mean()
            adam_d.zero_grad(set_to_none=True)
            loss.backward()
            adam_d.step()
            discriminator.requires_grad_(False)
            adam_g.zero_grad(set_to_none=True)
            softplus(-discriminator(fake)).mean().backward()
            adam_g.step()
            discriminator.requires_grad_(True)

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    run(3)
    return run


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base_width", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without_stock", action="store_true")
    parser.add_argument("--stock_in_loop", action="store_true")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    arguments = parser.parse_args()
    versions = f"jax {jax.__version__}" + (f", torch {torch.__version__}" if torch else "")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {versions}")
    print("| stage | base width | ours, s | stock Flax, s | ratio | PyTorch, s | ratio |")
    print("|---|---|---|---|---|---|---|")
    ours = networks.Down, networks.Up
    for base_width in arguments.base_width:
        for stage in arguments.stages:
            size = (stage, base_width, arguments.batch)
            runs: dict[str, tuple[Callable[[int], None], int]] = {
                "ours": (jax_steps(*size, *ours), 5)
            }
            if not arguments.without_stock:
                runs["stock"] = (jax_steps(*size, StockDown, StockUp, arguments.stock_in_loop), 1)
            if torch:
                runs["torch"] = (torch_steps(*size), 5)
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(arguments.rounds):
                for name, (run, steps) in runs.items():
                    began = time.perf_counter()
                    run(steps)
                    seconds[name].append((time.perf_counter() - began) / steps)
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            cells = [stage, str(base_width), f"{medians['ours']:.3f}"]
            for other in ("stock", "torch"):
                if other in medians:
                    cells += [f"{medians[other]:.3f}", f"{medians[other] / medians['ours']:.2f}"]
                else:
                    cells += ["", ""]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
