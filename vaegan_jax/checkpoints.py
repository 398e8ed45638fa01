"""Orbax checkpoints: saved, restored in full or in part, and verified by checksums.

A checkpoint is written under a hidden name, read back, given its checksum manifest (the SHA-256 of
each of its files) and then renamed; only then are older ones deleted. Orbax restores most flipped
bits without an error, so every checkpoint is compared with its manifest before it is used. A
damaged one is moved aside, and the latest undamaged one is used.
"""

import contextlib
import functools
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from vaegan_jax.errors import UserError, one_line
from vaegan_jax.runtime import manifest, parallel
from vaegan_jax.runtime.files import without_wildcards, write_atomic

State = TypeVar("State")
Progress = dict[str, Any]

FORMAT = 3
"""The version of the checkpoints' layout: 3 has a manifest, and states without `attempt`."""

_STATE, _PROGRESS = "state", "progress"
_FORMAT, _DAMAGED, _PARTIAL = "format.json", "damaged", ".partial-"


class Checkpoints:
    """The checkpoints of one stage: a folder with one subfolder per step, the latest few kept.

    Each holds the stage's state and its progress, a JSON object of what the loop needs in addition,
    such as the seconds spent.

    Attributes:
      warnings: one sentence for each checkpoint that was moved aside.
    """

    def __init__(self, directory: pathlib.Path, keep: int) -> None:
        """Opens the folder, creating it if necessary.

        Raises:
          UserError: if its checkpoints have another format, or it cannot be accessed.
        """
        self._directory, self._keep = directory.absolute(), keep
        self.warnings: list[str] = []
        if parallel.is_primary():
            with _access(self._directory):
                self._directory.mkdir(parents=True, exist_ok=True)
                _require_format(self._directory)
                if not (self._directory / _FORMAT).exists():
                    write_atomic(self._directory / _FORMAT, json.dumps({"format": FORMAT}) + "\n")
                for partial in self._directory.glob(f"{_PARTIAL}*"):
                    shutil.rmtree(partial)
        parallel.barrier("checkpoints opened")

    def latest(self) -> int | None:
        """Returns the latest step with an undamaged checkpoint, or None if none was ever saved.

        Later checkpoints, which are damaged, are moved to the folder `damaged`.

        Raises:
          UserError: if all checkpoints are damaged, or one cannot be accessed; nothing is moved
            then.
        """
        newest = self._move_damaged() if parallel.is_primary() else None
        step = parallel.broadcast_from_primary(-1 if newest is None else newest)
        return None if step < 0 else step

    def _move_damaged(self) -> int | None:
        with _access(self._directory):
            newest, damaged = _newest(self._directory)
            for step, why in damaged.items():
                aside = self._directory / _DAMAGED / str(step)
                aside.parent.mkdir(exist_ok=True)
                while aside.exists():
                    aside = aside.with_name(f"{aside.name}.1")
                (self._directory / str(step)).rename(aside)
                self.warnings.append(
                    f"The checkpoint of step {step} is damaged ({why}) and was moved to {aside}: "
                    f"using that of step {newest}."
                )
        return newest

    def save(self, step: int, state: Any, progress: Progress) -> None:
        """Saves a tree of `jax.Array`, and deletes the oldest checkpoints.

        Raises:
          UserError: if that fails; earlier checkpoints are untouched.
        """
        partial = self._directory / f"{_PARTIAL}{step}"
        items = ocp.args.Composite(
            **{_STATE: ocp.args.StandardSave(state), _PROGRESS: ocp.args.JsonSave(progress)}
        )
        try:
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
                path = without_wildcards(self._directory) / partial.name
                checkpointer.save(path, args=items, force=True)
            if _leaves(_read_tree(partial)) != _leaves(state):
                raise ValueError("the arrays read back differ from the saved ones")
            parallel.barrier("checkpoint read back")
            if parallel.is_primary():
                manifest.write(partial)
                partial.rename(self._directory / str(step))
                for old in steps(self._directory)[: -self._keep]:
                    deleting = self._directory / f"{_PARTIAL}{old}"
                    (self._directory / str(old)).rename(deleting)
                    shutil.rmtree(deleting)
            parallel.barrier("checkpoint complete")
        except (OSError, ValueError) as error:
            raise UserError(
                f"A checkpoint could not be written to {self._directory} ({_first_line(error)}): "
                "free space or give write access there, then run the same command again; earlier "
                "checkpoints are kept."
            ) from error

    def restore(
        self, step: int, template: State, sharding: jax.sharding.Sharding | None = None
    ) -> tuple[State, Progress]:
        """Returns the state and the progress of a saved step; see `read`."""
        state: State = read(self._directory, step, {(): template}, sharding)[()]
        with _reading(self._directory, step) as folder:
            progress: Progress = json.loads((folder / _PROGRESS / "metadata").read_bytes())
        return state, progress


def latest(directory: pathlib.Path) -> int | None:
    """Returns the latest step with an undamaged checkpoint in a stage's folder, or None.

    Nothing in the folder is changed. Newer checkpoints that are damaged are listed in warnings on
    standard error.

    Raises:
      UserError: if the folder has another format, if one of its files cannot be accessed, or if all
        checkpoints are damaged.
    """
    with _access(directory):
        _require_format(directory)
        newest, damaged = _newest(directory)
    for step, why in damaged.items():
        sys.stderr.write(
            f"Warning: the checkpoint {directory / str(step)} is damaged ({why}): using that of "
            f"step {newest}.\n"
        )
    return newest


def steps(directory: pathlib.Path) -> list[int]:
    """Returns the steps saved in a stage's folder in ascending order, damaged ones included."""
    with _access(directory):
        paths = directory.iterdir() if directory.is_dir() else ()
        return sorted(int(path.name) for path in paths if path.name.isdecimal())


def load(directory: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns a saved state without a template.

    Args:
      directory: a stage's folder of checkpoints.
      step: a saved step.

    Returns:
      ``{"params.decoder.bias": array, ...}``, with the saved shapes and dtypes.

    Raises:
      UserError: if the checkpoint is damaged or cannot be accessed.
    """
    with _reading(directory, step) as folder:
        return {name: np.asarray(leaf) for name, leaf in _named(_read_tree(folder))}


def read(
    directory: pathlib.Path,
    step: int,
    templates: Mapping[tuple[str, ...], Any],
    sharding: jax.sharding.Sharding | None = None,
) -> dict[tuple[str, ...], Any]:
    """Restores parts of a saved state, and reads nothing else.

    Args:
      directory: a stage's folder of checkpoints.
      step: a saved step.
      templates: for the path of each part, such as ("params", "decoder"), its tree of
        `jax.ShapeDtypeStruct`; the path () alone stands for the full state.
      sharding: of the restored arrays; the first device by default.

    Returns:
      The parts, by the same paths.

    Raises:
      UserError: if a part is missing, its leaves differ from the template's, or the checkpoint is
        damaged or cannot be accessed.
    """
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    with _reading(directory, step) as folder:
        saved = _saved_tree(folder)
        for path, template in templates.items():
            where = f"{'.'.join(path) or 'the state'} in the checkpoint {folder}"
            require_equal_leaves(_part(saved, path), template, where)
        placed = jax.tree.map(lambda leaf: place(leaf.shape, leaf.dtype), dict(templates))
        expected = placed[()] if () in placed else traverse_util.unflatten_dict(placed)
        restored = _read_tree(folder, expected)
    return {path: _part(restored, path) for path in templates}


def require_equal_leaves(saved: Any, expected: Any, where: str) -> None:
    """Compares saved arrays with those of a config's networks: names, shapes and dtypes.

    Args:
      saved: a tree of arrays or of their descriptions.
      expected: another one.
      where: names the place of the saved arrays.

    Raises:
      UserError: listing the leaves that differ, or that only one side has.
    """
    found, wanted = _leaves(saved), _leaves(expected)
    names = sorted(found.keys() | wanted.keys())
    pairs = [(name, found.get(name, "nothing"), wanted.get(name, "nothing")) for name in names]
    differences = [
        f"{name} is saved as {one} and expected as {other}"
        for name, one, other in pairs
        if one != other
    ]
    if differences:
        raise UserError(
            f"{where} does not fit the networks of the config ({'; '.join(differences)}): use the "
            "config with which it was saved, or another --workdir."
        )


def _leaves(tree: Any) -> dict[str, str]:
    """Returns ``{"a.b": "float32[3,4]"}`` for a tree of arrays or of their descriptions."""
    return {
        name: f"{jnp.dtype(leaf.dtype)}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in _named(tree)
    }


def _named(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a tree as ``("a.b", leaf)``."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _part(tree: Any, path: tuple[str, ...]) -> Any:
    """Returns the part of a tree of dicts at a path; {} if there is none."""
    return functools.reduce(lambda part, name: part.get(name, {}), path, tree)


def _newest(directory: pathlib.Path) -> tuple[int | None, dict[int, str]]:
    """Returns the latest undamaged step, and the damage of each later one.

    Raises:
      UserError: if all checkpoints are damaged, or were and have been moved aside.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps(directory)):
        why = manifest.damage(directory / str(step))
        if not why:
            return step, damaged
        damaged[step] = why
    if not damaged.keys() <= set(steps(directory)):
        return _newest(directory)  # a running training has deleted some of those listed
    aside = directory / _DAMAGED
    # Earlier versions moved interrupted saves there too, without a manifest.
    if damaged or any(aside.glob(f"*/{manifest.NAME}")):
        details = "; ".join(f"step {step}: {why}" for step, why in damaged.items())
        raise UserError(
            f"All checkpoints in {directory} are damaged ({details or aside}): restore one from a "
            "backup, or name another --workdir to train from the start."
        )
    return None, {}


def _require_format(directory: pathlib.Path) -> None:
    """Checks the format of the checkpoints in a folder, if there are any."""
    path = directory / _FORMAT
    try:
        version = json.loads(path.read_bytes())["format"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        version = f"an unreadable {_FORMAT}"
    if version != FORMAT:
        raise UserError(
            f"The checkpoints in {directory} have format {version}, and this version of vaegan_jax "
            f"reads format {FORMAT}: use the version that wrote them, or name another --workdir."
        )


@contextlib.contextmanager
def _access(path: pathlib.Path) -> Iterator[None]:
    """Turns an `OSError` into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or path} cannot be accessed ({error.strerror or one_line(error)}): "
            "give this user access to it, and run the same command again; nothing was changed."
        ) from error


@contextlib.contextmanager
def _reading(directory: pathlib.Path, step: int) -> Iterator[pathlib.Path]:
    """Yields a checkpoint's folder; an error of a damaged or inaccessible one is a `UserError`."""
    folder = directory / str(step)
    try:
        with _access(folder):
            if damage := manifest.damage(folder):
                raise ValueError(damage)
            yield folder
    except (ValueError, KeyError, TypeError) as error:
        others = [str(other) for other in steps(directory) if other != step]
        advice = f"use another step ({', '.join(others)})" if others else "restore it from a backup"
        raise UserError(
            f"The checkpoint {folder} cannot be read ({_first_line(error)}): {advice}."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _saved_tree(folder: pathlib.Path) -> Any:
    """Returns the tree of a saved state, with descriptions instead of arrays."""
    # A `Checkpointer` would warn about metadata that an item's folder does not have.
    metadata = ocp.PyTreeCheckpointHandler().metadata(without_wildcards(folder.absolute()) / _STATE)
    if metadata is None:
        raise ValueError("it has no readable metadata")
    return metadata.tree


def _read_tree(folder: pathlib.Path, template: Any = None) -> Any:
    """Reads the leaves of a tree of `jax.ShapeDtypeStruct`; without one, all of them as NumPy."""
    if template is None:
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        arguments = ocp.args.PyTreeRestore(
            restore_args=jax.tree.map(lambda _: as_numpy, _saved_tree(folder))
        )
    else:
        arguments = ocp.args.PyTreeRestore(
            item=template,
            restore_args=ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        )
    return ocp.PyTreeCheckpointHandler().restore(
        without_wildcards(folder.absolute()) / _STATE, args=arguments
    )
