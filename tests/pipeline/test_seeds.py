"""Runs of several seeds share compiled programs."""

import jax
import numpy as np

from tests.end_to_end.launched import metrics
from vaegan_jax.pipeline.run import train_and_evaluate

COMPILE = "/jax/core/compile/backend_compile_duration"


def test_second_seed_compiles_nothing(config, tmp_path):
    config.data.image_size = 16
    config.evaluation.update(
        embeddings="pixels", samples=40, max_reference_images=80,
        max_likelihood_images=4, iwae_samples=2, curve_every=7, curve_samples=40,
    )  # fmt: skip
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event == COMPILE else None
    )
    train_and_evaluate(config, tmp_path / "first")
    assert compiled
    compiled.clear()
    config.seed = 1
    train_and_evaluate(config, tmp_path / "second")
    assert not compiled

    first, second = (metrics(tmp_path / name) for name in ("first", "second"))
    assert not np.isclose(first[0]["loss"], second[0]["loss"], rtol=1e-6)
