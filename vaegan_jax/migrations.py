"""Config fields and commands of earlier versions: migrated if renamed, refused if removed."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from vaegan_jax.errors import UserError

RENAMED: dict[str, str] = {
    "data.resident_limit_mb": "data.max_resident_mb",
    "vae.variance": "vae.decoder_variance",
    "gan.ema_half_life": "gan.ema_half_life_images",
    "training.keep_checkpoints": "training.max_checkpoints",
    "evaluation.reference_images": "evaluation.max_reference_images",
    "evaluation.likelihood_images": "evaluation.max_likelihood_images",
    "evaluation.likelihood_draws": "evaluation.iwae_samples",
    "evaluation.embedding": "evaluation.embeddings",
}
"""Earlier name -> today's name."""

_USE_SEEDS = "list the seeds in config.seeds, which are trained one after another"
_STOPS = "a non-finite number stops the run; remove the field, and lower the learning rates"
_NO_PATHS = "remove it; path lengths are no longer computed"

_PENALTIES = 'use gan.penalties, such as gan.penalties="{}"'

PENALTIES: dict[str, str] = {
    "gan.r1_weight": _PENALTIES.format("r1(weight=3, every=4)"),
    "gan.r2_weight": _PENALTIES.format("r2(weight=1)"),
    "gan.gradient_penalty_weight": _PENALTIES.format("gradient_penalty(weight=10)"),
    "gan.penalty": _PENALTIES.format("my_losses:small_logits(weight=0.1)"),
    "gan.penalty_weight": _PENALTIES.format("my_losses:small_logits(weight=0.1)"),
    "gan.penalty_every": _PENALTIES.format("r1(weight=3, every=4)"),
}
"""Earlier field of a penalty -> what to do instead; `migrate` replaces them."""

REMOVED: dict[str, str] = PENALTIES | {
    "together": _USE_SEEDS,
    "training.together_by": _USE_SEEDS,
    "training.on_nonfinite": _STOPS,
    "training.most_rollbacks": _STOPS,
    "training.rollback_rate": _STOPS,
    "training.picture_columns": "remove it; image grids have 8 columns",
    "transfer.generator_rate_decay": "set gan.generator_learning_rate, the same for every layer",
    "gan.generator_rate_warmup_steps": "set gan.generator_learning_rate, which is constant",
    "model.low_pass": "remove it; the strided layers are always low-passed",
    "gan.discriminator_b1": "set gan.b1, which both networks use",
    "gan.discriminator_b2": "set gan.b2, which both networks use",
    **{
        f"monitor.{name}": "remove it; thresholds are constants in vaegan_jax/losses/symptoms.py"
        for name in (
            *("window", "accuracy", "generator_slope", "swing", "steadiness", "logit"),
            *("diversity", "duplicates", "kl", "active", "sharpness"),
        )
    },
    "evaluation.size": "name the size with the embedding, such as efflite0_128",
    "evaluation.resize": "remove it; images are resized as by clean-fid",
    "evaluation.statistics": "remove it; write samples with `vaegan sample --files` and use "
    "clean-fid for published statistics",
    "evaluation.path_samples": _NO_PATHS,
    "evaluation.paths": _NO_PATHS,
}
"""Field of an earlier version -> what to do instead."""

_CODEC = "use the Python API, whose `encode` and `decode` map images to latents and back"

REMOVED_COMMANDS: dict[str, str] = {
    "encode": _CODEC,
    "decode": _CODEC,
    "morph": "use `vaegan interpolate RUN --images IMAGE IMAGE`",
    "traverse": "move the sliders of `vaegan explore RUN`, or see the traversals in the report",
}
"""Command of `vaegan` in an earlier version -> what to do instead."""


def migrate(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a flattened config of an earlier version under today's field names.

    Removed fields of the evaluation are dropped, since they do not affect training.
    ``model.low_pass`` is left, as False, only in configs of networks with 4x4 kernels, which this
    version does not have: see `has_earlier_networks`.
    """
    migrated = {
        RENAMED.get(name, name): value
        for name, value in flat.items()
        if name not in REMOVED or not name.startswith("evaluation.")
    }
    if PENALTIES.keys() & migrated.keys():
        migrated = _with_penalties(migrated)
    # `model.max_width` was added together with today's networks.
    is_complete = "model.base_width" in flat
    if is_complete and not ("model.max_width" in flat and flat.get("model.low_pass", True)):
        return migrated | {"model.low_pass": False}
    migrated.pop("model.low_pass", None)
    return migrated


def _with_penalties(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the earlier fields of the penalties by ``gan.penalties``."""
    weights = {
        "r1": flat.get("gan.r1_weight", -1),
        "r2": flat.get("gan.r2_weight", 0),
        "gradient_penalty": flat.get("gan.gradient_penalty_weight", 0),
        flat.get("gan.penalty", ""): flat.get("gan.penalty_weight", 1),
    }
    every = flat.get("gan.penalty_every", 4)
    terms = [f"{name}(weight={weight}, every={every})" for name, weight in weights.items()
             if name and weight > 0]  # fmt: skip
    text = "auto" if weights["r1"] < 0 and not terms else ", ".join(terms)
    kept = {name: value for name, value in flat.items() if name not in PENALTIES}
    return kept | {"gan.penalties": text}


def has_earlier_networks(migrated: Mapping[str, Any]) -> bool:
    """Returns whether a config that `migrate` returned describes networks of an earlier version."""
    return "model.low_pass" in migrated


def unknown_field(name: str, fields: Iterable[str]) -> UserError:
    """Returns the error for a field that does not exist, with the closest existing ones.

    Args:
      name: of the field, or only its section or last part, as ml_collections reports it.
      fields: the names of all fields.
    """
    for old, new in RENAMED.items():
        if name in (old, old.rpartition(".")[2]):
            return UserError(f"The config field {old} was renamed: use {new}.")
    for removed, instead in REMOVED.items():
        if name in (removed, *removed.split(".")):
            return UserError(f"The config field {name} was removed: {instead}.")
    fields = list(fields)
    last = {field.rpartition(".")[2]: field for field in fields}
    near = difflib.get_close_matches(name, fields, n=3)
    near += [last[match] for match in difflib.get_close_matches(name.rpartition(".")[2], last)]
    near = list(dict.fromkeys(near))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "vaegan_jax/config.py lists them all."
    return UserError(f"The config has no field {name}: {hint}")
