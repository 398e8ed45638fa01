"""Checks of a run's folder before a run; they only read."""

import pathlib

from ml_collections import ConfigDict

from vaegan_jax import checkpoints
from vaegan_jax import config as configuration
from vaegan_jax.config import resume
from vaegan_jax.errors import UserError
from vaegan_jax.runtime import parallel
from vaegan_jax.workdir.reader import CHECKPOINTS, CONFIG, ENVIRONMENT, Reader


def require_run(path: pathlib.Path) -> None:
    """Checks that a run has begun in a folder.

    Raises:
      UserError: if it has not.
    """
    if not (path / CONFIG).exists():
        raise UserError(f"There is no run in {path} yet: omit --stages to start one.")


def require_usable(path: pathlib.Path, config: ConfigDict) -> None:
    """Checks that a folder is empty or holds a run of this config.

    Only the primary process checks, since it may be writing there.

    Raises:
      UserError: if the folder holds a run with another config, or something other than a run.
    """
    if not parallel.is_primary():
        return
    try:
        names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise not_writable(path, error) from error
    if not names:
        return
    if CONFIG not in names:
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


def not_writable(path: pathlib.Path, error: OSError) -> UserError:
    """Returns the error for a workdir that cannot be written."""
    return UserError(
        f"The workdir {path} cannot be written ({error.strerror}): name another with --workdir."
    )
