"""`vaegan explore`, which `explorer.command` does."""

from vaegan_jax.explorer.command import explore

__all__ = ["explore"]
