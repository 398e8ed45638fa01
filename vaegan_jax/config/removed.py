"""Config fields of earlier versions, and what to use instead."""

_SEEDS = "list the seeds in config.seeds, which are trained one after another"
_STOPS = "remove it, and lower the learning rates; a non-finite number stops the run"
_PENALTIES = 'set gan.penalties, such as gan.penalties="r1(weight=3, every=4)"'
_NO_PATHS = "remove it; path lengths are no longer computed"

REMOVED: dict[str, str] = {
    "vae.variance": "use vae.decoder_variance",
    "evaluation.likelihood_draws": "use evaluation.iwae_samples",
    "gan.r1_weight": _PENALTIES,
    "gan.r2_weight": _PENALTIES,
    "gan.gradient_penalty_weight": _PENALTIES,
    "gan.penalty": _PENALTIES,
    "gan.penalty_weight": _PENALTIES,
    "gan.penalty_every": _PENALTIES,
    "together": _SEEDS,
    "training.together_by": _SEEDS,
    "training.on_nonfinite": _STOPS,
    "training.most_rollbacks": _STOPS,
    "training.rollback_rate": _STOPS,
    "training.picture_columns": "remove it; image grids have 8 columns",
    "transfer.generator_rate_decay": "set gan.generator_learning_rate, the same for every layer",
    "gan.generator_rate_warmup_steps": "set gan.generator_learning_rate, which is constant",
    "model.low_pass": "remove it; the strided layers are always low-passed",
    "gan.discriminator_b1": "set gan.b1, which both networks use",
    "gan.discriminator_b2": "set gan.b2, which both networks use",
    "monitor": "remove it; thresholds are constants in vaegan_jax/losses/symptoms.py",
    "evaluation.size": "name the size with the embedding, such as efflite0_128",
    "evaluation.resize": "remove it; images are resized as by clean-fid",
    "evaluation.statistics": "remove it; write samples with `vaegan sample --files` and use "
    "clean-fid for published statistics",
    "evaluation.path_samples": _NO_PATHS,
    "evaluation.paths": _NO_PATHS,
}
"""Field or section of an earlier version -> what to do, where no close name of today says it."""
