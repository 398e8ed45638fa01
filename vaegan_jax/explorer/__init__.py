"""Latent space explorer in the browser, with decoder and generator side by side."""
