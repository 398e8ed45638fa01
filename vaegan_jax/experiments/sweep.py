"""Several runs from one config: every variant with every seed, one after another."""

import ast
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import run


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
      UserError: for a variant of another form, for a field that does not exist, may not have that
        value or is set twice, for two runs of one name, and for two variants of one config.
    """
    found = []
    for text in config.variants or ("",):
        name, _, overrides = text.partition(":")
        name = name.strip()
        for seed in config.seeds or (config.seed,):
            one = configuration.default_config()
            one.update_from_flattened_dict(flatten_dict(config.to_dict(), sep="."))
            one.seeds, one.variants, one.seed = (), (), seed
            changed = [_set(one, name, each) for each in overrides.split(";") if each.strip()]
            twice = sorted({field for field in changed if changed.count(field) > 1})
            if twice:
                raise UserError(f"The variant {name!r} sets {twice[0]} twice: set it once.")
            if config.seeds and "seed" in changed:
                raise UserError(
                    f"The variant {name!r} sets seed, and seeds names the seeds of all variants: "
                    "leave out one of the two."
                )
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
    first: dict[str, str] = {}
    for name, one in found:
        other = first.setdefault(configuration.to_json(one), name)
        if other != name:
            raise UserError(
                f"The runs {other} and {name} would have the same config: give one of the variants "
                "an override, such as transfer.generator=scratch."
            )
    return found


def run_all(
    config: ConfigDict,
    path: pathlib.Path,
    stages: Sequence[str] = run.STAGES,
    profile: bool = False,
) -> None:
    """Trains all runs of a sweep, each in its own subfolder.

    Finished runs are skipped, so that a sweep that was stopped resumes where it was.

    Raises:
      UserError: as `train_and_evaluate`, and for what `members` refuses, before any run begins.
      Stopped: where a signal asked for it; everything is saved.
    """
    configuration.check(config)
    all_of_it = members(config)
    for number, member in enumerate(all_of_it, 1):
        print(f"Run {number} of {len(all_of_it)}: {member.name}", flush=True)
        run.train_and_evaluate(member.config, path / member.name, stages, profile)
    folders = " ".join(str(path / member.name) for member in all_of_it)
    print(f"All {len(all_of_it)} runs are there. To compare them:\n"
          f"vaegan compare {folders}")  # fmt: skip


def _set(config: ConfigDict, name: str, override: str) -> str:
    """Sets one field of a variant's config; returns which."""
    field, separator, text = (part.strip() for part in override.partition("="))
    if not separator:
        raise UserError(
            f"The variant {name!r} has {field!r}, which is no override: write field=value."
        )
    if field not in configuration.FIELDS or field in ("seeds", "variants"):
        raise configuration.unknown_field(field)
    try:
        config.update_from_flattened_dict({field: _value(text)})
    except TypeError as error:
        wanted = configuration.FIELDS[field].rule.text
        raise UserError(
            f"The variant {name!r} sets {field} to {text!r}: it must be {wanted}."
        ) from error
    return field


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
