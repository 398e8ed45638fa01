import jax
import jax.numpy as jnp
import pytest

from vaegan_jax import memory
from vaegan_jax.errors import UserError


def test_a_vae_needs_its_parameters_three_times_and_its_layers_outputs(config):
    config.data.image_size, config.model.base_width, config.model.latent_size = 16, 2, 3
    config.vae.batch_size = 5
    # Trunk and decoder, level by level: 4x4 kernels, biases of what norms and outputs have.
    trunk = 16 * (3 * 2 + 2 * 4 + 4 * 8 + 8 * 16) + (2 + 4 + 8 + 16) + (16 * 6 + 6)
    decoder = (3 * 16 + 16) + 16 * (16 * 8 + 8 * 4 + 4 * 2 + 2 * 3) + (16 + 8 + 4 + 2 + 3)
    state = 4 * 3 * (trunk + decoder) + 3 * 4  # Adam's two means, and three counters
    outputs = 8 * 8 * 2 + 4 * 4 * 4 + 2 * 2 * 8 + 1 * 1 * 16
    kept = 2 * outputs * 5 * 4
    assert memory.least(config, (16, 16, 3), "vae") == state + kept


def test_the_layers_of_a_gan_are_kept_three_times_and_shrink_with_the_dtype(config):
    shape = (16, 32, 3)
    ten, twenty = (_least(config, shape, batch) for batch in (10, 20))
    outputs = 4 * (8 * 16 + 2 * 4 * 8 + 4 * 2 * 4 + 8 * 1 * 2)
    assert twenty - ten == 3 * outputs * 10 * 4
    config.model.dtype = "bfloat16"
    assert _least(config, shape, 20) - _least(config, shape, 10) == 3 * outputs * 10 * 2


def _least(config, shape, batch):
    config.gan.batch_size = batch
    return memory.least(config, shape, "gan")


def test_what_cannot_fit_is_refused_before_anything_is_computed(config):
    memory.require(config, (16, 32, 3), "gan")
    config.gan.batch_size = 10**12
    with pytest.raises(UserError, match=r"gan stage needs at least .* GB .*lower gan\.batch_size"):
        memory.require(config, (16, 32, 3), "gan")


def test_a_program_is_refused_for_what_it_works_with():
    @jax.jit
    def call(x):
        # Sorted: a compiler may fuse the rest into a kernel whose workspace it does not count.
        return jnp.linalg.norm(jnp.sort(jnp.outer(x, x), axis=0))

    small = memory.checked(call, "vae")
    assert small(jnp.ones(4)) == call(jnp.ones(4))
    large = jax.ShapeDtypeStruct((2**21,), jnp.float32)  # whose square takes 17 TB
    with pytest.raises(UserError, match=r"step of the vae stage needs [\d.]+ GB"):
        memory.checked(call, "vae")(large)


def test_what_is_checked_compiles_once(config):
    traced = []

    @jax.jit
    def call(x):
        traced.append(x)
        return x + 1

    wrapped = memory.checked(call, "vae")
    assert [int(wrapped(jnp.int32(3))) for _ in range(3)] == [4, 4, 4]
    assert len(traced) == 1
