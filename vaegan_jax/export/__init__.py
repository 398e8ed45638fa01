"""Trained networks as safetensors and StableHLO, and the bundled model."""
