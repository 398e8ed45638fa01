"""Several runs of one config: every variant with every seed, one after another."""

import copy
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from vaegan_jax import config as configuration
from vaegan_jax import workdir
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import STAGES
from vaegan_jax.training import monitor


class Member(NamedTuple):
    """One run of a sweep: its subfolder, its config, and the variant's name or ""."""

    name: str
    config: ConfigDict
    variant: str


def is_sweep(config: ConfigDict) -> bool:
    """Whether a config describes several runs."""
    return bool(config.seeds or config.variants)


def members(config: ConfigDict) -> list[Member]:
    """Returns the runs of a sweep: for each variant in turn, all seeds.

    A variant is a name, or a name, a colon and overrides separated by semicolons, such as
    ``"scratch: transfer.generator=scratch; gan.steps=2000"``.

    Raises:
      UserError: for a variant that is not of this form, an unknown field or an invalid value, two
        runs with one name, or two runs with one config.
    """
    result = []
    for variant in config.variants or ("",):
        name, _, overrides = (part.strip() for part in variant.partition(":"))
        base = copy.deepcopy(config)
        base.seeds, base.variants = (), ()
        try:
            for override in filter(None, map(str.strip, overrides.split(";"))):
                field = configuration.set_field(base, override)
                if field in ("seeds", "variants") or (field == "seed" and config.seeds):
                    raise UserError(f"It sets {field}, as seeds and variants do: remove it.")
        except UserError as error:
            raise UserError(f"The variant {name!r} is invalid. {error}") from error
        for seed in config.seeds or (base.seed,):
            run = copy.deepcopy(base)
            run.seed = seed
            configuration.check(run)
            parts = name, f"seed_{seed}" if config.seeds else ""
            result.append(Member("_".join(filter(None, parts)), run, name))
    _require_distinct(result)
    return result


def run_all(
    config: ConfigDict,
    path: pathlib.Path,
    stages: Sequence[str] = STAGES,
    profile: bool = False,
) -> None:
    """Trains all runs of a sweep, each in a subfolder of `path`.

    Finished runs are skipped, so an interrupted sweep resumes. A run with a value that is not
    finite does not stop the others, so that a comparison can count it.

    Raises:
      UserError: as `train_and_evaluate`; errors of `members` are raised before any run begins, and
        values that are not finite are reported after the last run.
      Stopped: after a signal; everything is saved.
    """
    from vaegan_jax.pipeline import run

    configuration.check(config)
    runs = members(config)
    failed = []
    for number, (name, member, variant) in enumerate(runs, 1):
        print(f"Run {number} of {len(runs)}: {name}", flush=True)
        try:
            run.train_and_evaluate(member, path / name, stages, profile, variant)
        except UserError as error:
            troubles = workdir.Reader(path / name).troubles()
            if all(line["trouble"] != monitor.NOT_FINITE for line in troubles):
                raise
            failed.append(name)
            print(error, flush=True)
    folders = " ".join(str(path / member.name) for member in runs)
    print(f"All {len(runs)} runs have ended. To compare them:\nvaegan compare {folders}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(runs)} runs had values that are not finite "
            f"({', '.join(failed)}): compare the others, or lower the learning rates in another "
            "--workdir."
        )


def _require_distinct(runs: Sequence[Member]) -> None:
    """Checks that names are valid and unique, and that no two configs are equal."""
    names = [run.name for run in runs]
    first: dict[str, str] = {}
    for name, config, _ in runs:
        if names.count(name) > 1:
            raise UserError(f"seeds and variants give two runs the name {name}: make names unique.")
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(
                f"variants contains the name {name!r}, which cannot name a folder: use letters, "
                "digits, dots, dashes and underscores."
            )
        other = first.setdefault(configuration.to_json(config), name)
        if other != name:
            raise UserError(
                f"The runs {other} and {name} have the same config: override a field in one of "
                "the variants, such as transfer.generator=scratch."
            )
