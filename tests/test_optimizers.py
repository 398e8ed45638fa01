import jax.numpy as jnp

from vaegan_jax import networks, optimizers


def test_earlier_levels_move_less():
    levels = networks.decoder_levels()
    updates = {name: {"kernel": jnp.ones(2)} for name in levels}
    transform = optimizers.by_level(levels, 0.5)
    moved, _ = transform.update(updates, transform.init(updates))
    factors = {name: float(part["kernel"][0]) for name, part in moved.items()}
    assert factors == {
        "dense": 1 / 16, "bias_0": 1 / 16, "up_0": 1 / 8, "bias_1": 1 / 8, "up_1": 1 / 4,
        "bias_2": 1 / 4, "up_2": 1 / 2, "bias_3": 1 / 2, "up_3": 1, "bias_out": 1,
    }  # fmt: skip
