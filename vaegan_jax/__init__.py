"""Pre-train a VAE, initialise a GAN's generator from its decoder, and evaluate both.

Computations are pure functions of ``(state, batch, key, config)``; a thin shell
(`pipeline`, `training`, `workdir`, `checkpoints`) touches files, clocks and devices.
"""

__version__ = "0.1.0"
