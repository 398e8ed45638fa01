"""Checks of a run's folder before a run; they only read."""

import pathlib

from ml_collections import ConfigDict

from vaegan_jax import checkpoints
from vaegan_jax import config as configuration
from vaegan_jax.config import resume
from vaegan_jax.errors import UserError
from vaegan_jax.runtime import parallel
from vaegan_jax.workdir.reader import CHECKPOINTS, CONFIG, ENVIRONMENT, Reader


def require_usable(path: pathlib.Path, config: ConfigDict) -> None:
    """Checks that a folder is empty or holds a run of this config.

    Only the primary process checks, since it may be writing there.

    Raises:
      UserError: if the folder holds a run with another config, or something other than a run.
    """
    if not parallel.is_primary():
        return
    if not path.exists() or all(entry.name.startswith(".") for entry in path.iterdir()):
        return
    if not (path / CONFIG).exists():
        raise UserError(
            f"The workdir {path} is not empty and holds no run: name a new or an empty folder."
        )
    steps = {
        stage: saved_steps[-1]
        for stage in ("vae", "gan")
        if (saved_steps := checkpoints.steps(path / CHECKPOINTS / stage))
    }
    refused = [
        f"\n  {change.name}: was {change.before!r}, is {change.now!r}; {objection}"
        for change in resume.differences(Reader(path).config(), configuration.flatten(config))
        if (objection := resume.objection(change, config, steps))
    ]
    if refused:
        raise UserError(
            f"The workdir {path} holds a run with another config: name another --workdir, or set "
            f"these fields back to resume that run.{''.join(refused)}"
        )


def require_same_sources(
    path: pathlib.Path, config: ConfigDict, sources: dict[str, dict[str, str]]
) -> None:
    """Compares the sources of the user's functions with those with which the run in a folder began.

    Fields that do not affect training are ignored. See `registry.source_digests`.

    Raises:
      UserError: if the source of a function has changed.
    """
    recorded = (Reader(path).read_json(ENVIRONMENT) or {}).get("sources", {})
    values = configuration.flatten(config)
    for field, before in recorded.items():
        now = sources.get(field, before)
        if now != before and resume.affects_training(field):
            changed = sorted({name for name, _ in before.items() ^ now.items()})
            raise UserError(
                f"The source of {field}={values[field]} has changed since the run in {path} began "
                f"({', '.join(changed)}): restore it to continue this run, or name another "
                "--workdir to start a new one."
            )
