"""Metrics of samples and reconstructions: distances, bounds and checks, as pure functions."""
