"""Trained networks as safetensors and StableHLO, the VAE as a codec, and the bundled model."""
