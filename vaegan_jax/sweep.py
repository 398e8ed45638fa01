"""Several runs from one config: every variant with every seed, one after another."""

import ast
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from vaegan_jax import config as configuration
from vaegan_jax import pipeline
from vaegan_jax.errors import UserError


class Member(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: of its folder in the sweep's.
      config: its own, as if it were run alone.
    """

    name: str
    config: ConfigDict


def is_sweep(config: ConfigDict) -> bool:
    """Whether a config asks for several runs."""
    return bool(config.seeds or config.variants)


def members(config: ConfigDict) -> list[Member]:
    """Returns the runs that a config asks for, all seeds of one variant after those of another.

    A variant is a name, or a name, a colon and overrides with semicolons, such as
    ``"scratch: transfer.generator=scratch; gan.steps=2000"``.

    Raises:
      UserError: for a variant of another form, for a field that does not exist or may not have
        that value, and for two of one name.
    """
    found = []
    for text in config.variants or ("",):
        name, _, overrides = text.partition(":")
        name = name.strip()
        for seed in config.seeds or (config.seed,):
            one = configuration.default_config()
            one.update_from_flattened_dict(flatten_dict(config.to_dict(), sep="."))
            one.seeds, one.variants, one.together, one.seed = (), (), False, seed
            for override in filter(None, map(str.strip, overrides.split(";"))):
                _set(one, name, override)
            parts = [name] if name else []
            parts += [f"seed_{seed}"] if config.seeds else []
            configuration.check(one)
            found.append(Member("_".join(parts), one))
    names = [member.name for member in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"seeds and variants name {twice[0]} twice: name each but once.")
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(
                f"variants has the name {name!r}, which is to be a folder's: use letters, digits, "
                "dots, dashes and underscores."
            )
    return found


def run(
    config: ConfigDict,
    path: pathlib.Path,
    stages: Sequence[str] = pipeline.STAGES,
    profile: bool = False,
) -> None:
    """Goes through all runs of a sweep, each in a folder of its own within the sweep's.

    What is finished is passed over, so that a sweep that was stopped goes on where it was. With
    `together` the runs of one variant are trained in one program.

    Raises:
      UserError: as `pipeline.run`, and for what `members` refuses, before any run begins.
      Stopped: where a signal asked for it; everything is saved.
    """
    configuration.check(config)
    all_of_it = members(config)
    size = len(config.seeds) if config.together else 1
    for first in range(0, len(all_of_it), size):
        some = all_of_it[first : first + size]
        numbers = f"Run {first + 1}" if size == 1 else f"Runs {first + 1} to {first + size}"
        names = ", ".join(member.name for member in some)
        print(f"{numbers} of {len(all_of_it)}: {names}", flush=True)
        configs = {path / member.name: member.config for member in some}
        pipeline.run_together(configs, stages, profile)
    folders = " ".join(str(path / member.name) for member in all_of_it)
    print(f"All {len(all_of_it)} runs are there. To compare them:\n"
          f"vaegan compare {folders}")  # fmt: skip


def _set(config: ConfigDict, name: str, override: str) -> None:
    field, separator, text = (part.strip() for part in override.partition("="))
    if not separator:
        raise UserError(
            f"The variant {name!r} has {override!r}, which is no override: write field=value."
        )
    if field not in configuration.FIELDS or field in ("seeds", "variants", "together"):
        raise configuration.unknown_field(field)
    try:
        config.update_from_flattened_dict({field: _value(text)})
    except TypeError as error:
        wanted = configuration.FIELDS[field].wanted
        raise UserError(
            f"The variant {name!r} sets {field} to {text!r}: it must be {wanted}."
        ) from error


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
