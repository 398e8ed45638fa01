"""Experiments: several runs of one config, and finished runs compared."""
