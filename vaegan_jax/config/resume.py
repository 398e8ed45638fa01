"""Which config fields may change when a run resumes."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vaegan_jax.config import FIELDS, default_config, flatten
from vaegan_jax.config.recipe import is_automatic

_NO_EFFECT = {
    "data.path",
    "data.directory",
    "data.max_resident_mb",
    "data.workers",
    "transfer.vae",
    "training.max_checkpoints",
    "training.seconds_per_call",
}
"""Fields on which nothing that is trained depends, besides those of the evaluation."""

_AHEAD = {
    "vae.steps",
    "gan.steps",
    "training.log_every",
    "training.picture_every",
    "training.checkpoint_every",
}
"""Fields on which only later steps depend."""


class Change(NamedTuple):
    """A field that differs between two configs, and its values in them."""

    name: str
    before: Any
    now: Any


def affects_training(name: str) -> bool:
    """Returns whether anything that is trained depends on a field of this or another version."""
    return name not in _NO_EFFECT and not name.startswith("evaluation.")


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Returns the fields that differ between two flattened configs, sorted by name.

    Fields that no training result depends on are ignored, and so are those that `now` leaves
    automatic. A field that a config lacks has its default.
    """
    defaults = flatten(default_config())
    before, now = defaults | before, defaults | now
    changes = [
        Change(name, before.get(name, "absent"), now.get(name, "absent"))
        for name in sorted(before.keys() | now.keys())
        if affects_training(name) and not is_automatic(name, now.get(name))
    ]
    return [change for change in changes if change.before != change.now]


def objection(change: Change, config: ConfigDict, saved: dict[str, int]) -> str:
    """Returns why a run cannot resume with a changed field, or "" if it can.

    Args:
      change: of one field.
      config: the new config.
      saved: the newest saved step of each stage that has begun.
    """
    stage, _, field = change.name.partition(".")
    if stage in ("gan", "transfer") and "gan" not in saved:
        return ""
    if change.name not in FIELDS:
        return "it was removed: resume with the version that run.json names"
    if change.name not in _AHEAD:
        return "the steps already taken depend on it"
    if field != "steps":
        return ""
    if change.now < saved.get(stage, 0):
        return f"step {saved[stage]} is already saved"
    if stage == "vae" and "gan" in saved:
        return "the GAN was initialised from the finished VAE"
    if stage == "vae" and config.vae.kl_schedule == "cyclical":
        return "the cycles of vae.kl_schedule depend on it"
    return ""
