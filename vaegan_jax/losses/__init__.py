"""Losses as pure functions: VAE terms in nats per image, GAN objectives and penalties."""
