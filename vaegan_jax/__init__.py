"""Pre-train a VAE, grow a GAN from its decoder, and see what came of it.

Everything that computes is a pure function of ``(state, batch, key, config)``; only a thin shell
(`pipeline`, `training`, `workdir`, `checkpoints`) touches files, clocks and devices.
"""

__version__ = "0.1.0"
