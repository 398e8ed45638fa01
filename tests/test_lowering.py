"""The train steps as programs for a GPU, a TPU and several devices, none of which is needed."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import ROOT
from vaegan_jax import gan, vae
from vaegan_jax.config import default_config

SHAPE = (16, 32, 3)


def vae_step(config):
    state = jax.eval_shape(functools.partial(vae.init, config, SHAPE))
    return vae.make_train_step(config, SHAPE), state


def gan_step(config, shape=SHAPE):
    initial = jax.eval_shape(functools.partial(gan.random_init, config, shape))
    state = jax.eval_shape(functools.partial(gan.init, config, shape), initial)
    return gan.make_train_step(config, shape), state


def lower(made, batch, platform):
    step, state = made
    images = jax.ShapeDtypeStruct((batch, *SHAPE), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.jit(step).trace(state, images, key)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("make", [vae_step, gan_step])
def test_steps_have_no_loops_and_no_callbacks(config, make, platform):
    text = lower(make(config), 4, platform)
    assert "stablehlo.convolution" in text
    assert "stablehlo.while" not in text
    assert "callback" not in text


def test_a_cpu_takes_the_kernel_gradient_in_a_loop_over_patches(config):
    """The images above are large enough for it, so the test can fail."""
    assert "stablehlo.while" in lower(vae_step(config), 4, "cpu")


COUNT = """
import collections, re
import jax, jax.numpy as jnp
from tests.test_lowering import gan_step, plain_config
from vaegan_jax.runtime import parallel

shape = 16, 16, 3  # so small that a CPU takes no kernel gradient of patches, which are gathered
step, state = gan_step(plain_config(), shape)
mesh = parallel.make_mesh()
key = jax.eval_shape(lambda: jax.random.key(0))
with jax.set_mesh(mesh):
    compiled = jax.jit(step, out_shardings=parallel.replicated(mesh)).lower(
        state, jax.ShapeDtypeStruct((16, *shape), jnp.float32), key
    ).compile()
names = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
found = re.findall(rf" ({names})(?:-start)?\\(", compiled.as_text())
print(sorted(collections.Counter(found).items()))
"""


def plain_config():
    """A config without penalties and augmentations."""
    config = default_config()
    config.model.base_width, config.model.latent_size = 4, 5
    config.gan.penalties, config.gan.augmentations = "", ""
    config.gan.generator_learning_rate = config.gan.discriminator_learning_rate = 2e-4
    config.gan.ema_half_life_images, config.gan.b2 = 10_000.0, 0.99
    return config


def test_collectives_of_a_gan_step_on_eight_devices():
    """Three reductions, of which a step takes two or three, and six gathers of statistics.

    The reductions are those of each network's gradient and scalars, and of the generator's scalars
    in the warm-up. Images, features and logits are gathered for their pairwise statistics, those
    of real and of fake images separately.
    """
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == str([("all-gather", 6), ("all-reduce", 3)])
