"""Pre-train a VAE, start a GAN's generator from its decoder, and evaluate both.

Everything that computes is a pure function of ``(state, batch, key, config)``; only a thin shell
(`pipeline`, `training`, `workdir`, `checkpoints`) touches files, clocks and devices.
"""

__version__ = "0.1.0"
