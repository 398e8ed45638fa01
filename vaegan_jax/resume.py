"""Which config fields may change when a run resumes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vaegan_jax.config import FIELDS
from vaegan_jax.recipe import is_automatic
from vaegan_jax.rules import Resume


class Change(NamedTuple):
    """A field that differs between two configs.

    Attributes:
      name: of the field.
      before: its earlier value.
      now: its new value.
    """

    name: str
    before: Any
    now: Any


def affects_training(name: str) -> bool:
    """Returns whether anything that is trained depends on a field; True for unknown fields."""
    return name not in FIELDS or FIELDS[name].resume is not Resume.ALWAYS


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Returns the fields that differ between two flattened configs, sorted by name.

    Fields that no training result depends on are ignored, and so are those that `now` leaves
    automatic. A field that a config lacks has its default.
    """
    missing = "absent"
    defaults = {name: field.default for name, field in FIELDS.items()}
    before, now = defaults | before, defaults | now
    return [
        Change(name, before.get(name, missing), now.get(name, missing))
        for name in sorted(before.keys() | now.keys())
        if before.get(name, missing) != now.get(name, missing)
        and affects_training(name)
        and not is_automatic(name, now.get(name))
    ]


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
    if change.name not in FIELDS or FIELDS[change.name].resume is not Resume.AHEAD:
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


def table(rows: Iterable[tuple[Any, ...]], heading: tuple[str, ...]) -> str:
    """Returns rows as indented, aligned columns of text."""
    cells = [heading, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
