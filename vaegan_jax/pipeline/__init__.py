"""A run from data to report."""

STAGES = ("vae", "gan", "evaluate")
