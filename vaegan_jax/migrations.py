"""Config fields and commands of earlier versions: refused by name, with what to use instead."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from vaegan_jax.errors import UserError

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

_CODEC = "use the Python API, whose `encode` and `decode` map images to latents and back"

REMOVED_COMMANDS: dict[str, str] = {
    "encode": _CODEC,
    "decode": _CODEC,
    "morph": "use `vaegan interpolate RUN --images IMAGE IMAGE`",
    "traverse": "move the sliders of `vaegan explore RUN`, or see the traversals in the report",
}
"""Command of `vaegan` in an earlier version -> what to do instead."""


def has_earlier_networks(flat: Mapping[str, Any]) -> bool:
    """Returns whether a flattened config describes the networks of an earlier version (4x4)."""
    # `model.max_width` was added together with today's networks.
    is_complete = "model.base_width" in flat
    return is_complete and not ("model.max_width" in flat and flat.get("model.low_pass", True))


def unknown_field(name: str, fields: Collection[str]) -> UserError:
    """Returns the error for a field that does not exist, with the closest existing ones.

    Args:
      name: of the field, or only its section or last part, as ml_collections reports it.
      fields: the names of all fields.
    """
    for removed, instead in REMOVED.items():
        if name in (removed, *removed.split(".")) or name.startswith(f"{removed}."):
            return UserError(f"The config field {name} was removed: {instead}.")
    last = {field.rpartition(".")[2]: field for field in fields}
    near = difflib.get_close_matches(name, fields, n=3)
    near += [last[match] for match in difflib.get_close_matches(name.rpartition(".")[2], last)]
    near = list(dict.fromkeys(near))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "vaegan_jax/config.py lists them all."
    return UserError(f"The config has no field {name}: {hint}")
