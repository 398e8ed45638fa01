import jax
import jax.numpy as jnp
import pytest

from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import stages
from vaegan_jax.runtime import memory


def test_fitting_program_is_compiled_once():
    traced = []

    @jax.jit
    def call(x):
        traced.append(x)
        return x + 1

    wrapped = memory.checked(call, "vae")
    assert [int(wrapped(jnp.int32(x))) for x in range(3)] == [1, 2, 3]
    assert len(traced) == 1


def test_program_with_large_temporaries_is_refused():
    # Sorted: a compiler may fuse the rest into a kernel whose workspace it does not count.
    call = jax.jit(lambda x: jnp.linalg.norm(jnp.sort(jnp.outer(x, x), axis=0)))
    large = jax.ShapeDtypeStruct((2**21,), jnp.float32)  # whose square takes 17 TB
    with pytest.raises(UserError, match=r"vae\.batch_size or model\.base_width"):
        memory.checked(call, "vae")(large)


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_stage_is_refused_before_allocation(config, stage, monkeypatch):
    data = images.load(config.data)
    config.transfer.generator = "scratch"
    make_stage = {"vae": stages.make_vae_stage, "gan": stages.make_gan_stage}[stage]
    monkeypatch.setattr(memory, "_free", lambda: 2000)
    with pytest.raises(UserError, match=rf"{stage}\.batch_size or model\.base_width"):
        make_stage(config, data, None).init()
