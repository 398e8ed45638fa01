"""Orbax checkpoints: saved in the background, restored in full or in part.

A checkpoint is complete once it was read back and its checksum manifest, the SHA-256 of each of its
files, was written into it; only then are older checkpoints deleted. Orbax restores most flipped
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

from vaegan_jax.errors import UserError, one_line
from vaegan_jax.runtime import manifest, parallel
from vaegan_jax.runtime.files import without_wildcards, write_atomic

State = TypeVar("State")
Progress = dict[str, Any]
Leaves = dict[str, tuple[tuple[int, ...], str]]

FORMAT = 3
"""The version of the checkpoints' layout: 3 has a manifest, and states without `attempt`."""

_STATE, _PROGRESS = "state", "progress"
_FORMAT, _DELETING = "format.json", ".deleting-"


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
                for half_deleted in self._directory.glob(f"{_DELETING}*"):
                    shutil.rmtree(half_deleted)
        parallel.barrier("checkpoints opened")
        # Orbax deletes nothing: old checkpoints are kept until the new one has its manifest.
        self._manager = ocp.CheckpointManager(
            without_wildcards(self._directory),
            item_names=(_STATE, _PROGRESS),
            options=ocp.CheckpointManagerOptions(max_to_keep=None, create=True),
        )
        self._pending: tuple[int, Leaves] | None = None

    def latest(self) -> int | None:
        """Returns the latest step with an undamaged checkpoint, or None if none was ever saved.

        Damaged checkpoints and interrupted saves are moved to the folder `damaged`.

        Raises:
          UserError: if all checkpoints are damaged, or one cannot be accessed; nothing is moved
            then.
        """
        newest = self._move_damaged() if parallel.is_primary() else None
        (step,) = parallel.broadcast_from_primary([-1 if newest is None else newest])
        self._manager.reload()
        return None if step < 0 else step

    def _move_damaged(self) -> int | None:
        with _access(self._directory):
            newest, damaged = _newest(self._directory)
            for step in manifest.folders(self._directory) - set(steps(self._directory)):
                damaged[step] = f"{manifest.NAME} is missing: saving it was interrupted"
        used = "no checkpoint" if newest is None else f"that of step {newest}"
        for step, why in sorted(damaged.items(), reverse=True):
            aside = manifest.move_aside(self._directory, step)
            self.warnings.append(
                f"The checkpoint of step {step} is damaged ({why}) and was moved to {aside}: "
                f"using {used}."
            )
        return newest

    def save(self, step: int, state: Any, progress: Progress) -> None:
        """Saves a tree of `jax.Array` in the background, after finishing a pending save.

        Raises:
          UserError: if this or the pending save fails; earlier checkpoints are untouched.
        """
        self.finish()
        # A copy, since the next step donates the state's buffers while they are written. `jnp.copy`
        # would compile a program for every shape.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        state = jax.device_put(state, shardings, may_alias=False)
        items = ocp.args.Composite(
            **{_STATE: ocp.args.StandardSave(state), _PROGRESS: ocp.args.JsonSave(progress)}
        )
        with self._saving():
            self._manager.save(step, args=items)
        self._pending = step, leaves(state)

    def finish(self) -> None:
        """Waits for a pending save, reads it back, completes it, and deletes the oldest ones.

        Raises:
          UserError: if that fails; earlier checkpoints are untouched.
        """
        pending, self._pending = self._pending, None
        with self._saving():
            self._manager.wait_until_finished()
            if pending is None:
                return
            step, saved = pending
            if leaves(_read_tree(self._directory, step)) != saved:
                raise ValueError("the arrays read back differ from the saved ones")
            parallel.barrier("checkpoint read back")
            if parallel.is_primary():
                manifest.write(self._directory / str(step))
                for old in steps(self._directory)[: -self._keep]:
                    deleting = self._directory / f"{_DELETING}{old}"
                    (self._directory / str(old)).rename(deleting)
                    shutil.rmtree(deleting)
            parallel.barrier("checkpoint complete")

    def close(self) -> None:
        """Releases the folder; call `finish` first."""
        self._manager.close()

    def restore(
        self, step: int, template: State, sharding: jax.sharding.Sharding | None = None
    ) -> tuple[State, Progress]:
        """Returns the state and the progress of a saved step; see `read`."""
        state: State = read(self._directory, step, {(): template}, sharding)[()]
        with _reading(self._directory, step):
            items = ocp.args.Composite(**{_PROGRESS: ocp.args.JsonRestore()})
            progress: Progress = self._manager.restore(step, args=items)[_PROGRESS]
        return state, progress

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise UserError(
                f"A checkpoint could not be written to {self._directory} ({_first_line(error)}): "
                "free space or give write access there, then run the same command again; earlier "
                "checkpoints are kept."
            ) from error


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
        return manifest.complete(directory)


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
    with _reading(directory, step):
        tree = _read_tree(directory, step)
    return {name: np.asarray(leaf) for name, leaf in _named(tree)}


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
    with _reading(directory, step):
        saved = _saved_tree(directory, step)
        expected: Any = {}
        for path, template in templates.items():
            part = functools.reduce(lambda tree, name: tree.get(name, {}), path, saved)
            where = f"the checkpoint {directory / str(step)}"
            where = f"{'.'.join(path)} in {where}" if path else where
            require_equal_leaves(
                leaves(part), leaves(template), where, "the networks of this config"
            )
            placed = jax.tree.map(lambda leaf: place(leaf.shape, leaf.dtype), template)
            expected = _insert(expected, path, placed)
        restored = _read_tree(directory, step, expected)
    return {path: functools.reduce(lambda tree, name: tree[name], path, restored)
            for path in templates}  # fmt: skip


def leaves(tree: Any) -> Leaves:
    """Returns ``{"a.b": (shape, dtype)}`` for a tree of arrays or of their descriptions."""
    return {name: (tuple(leaf.shape), str(jnp.dtype(leaf.dtype))) for name, leaf in _named(tree)}


def require_equal_leaves(
    saved: Leaves, expected: Leaves, saved_name: str, expected_name: str
) -> None:
    """Compares two trees leaf by leaf: names, shapes and dtypes.

    Raises:
      UserError: listing the leaves that differ, or that only one side has.
    """

    def shown(leaf: tuple[tuple[int, ...], str]) -> str:
        return f"{leaf[1]}[{','.join(map(str, leaf[0]))}]"

    differences = []
    for name in sorted(saved.keys() | expected.keys()):
        if name not in expected:
            differences.append(f"only saved: {name} {shown(saved[name])}")
        elif name not in saved:
            differences.append(f"only expected: {name} {shown(expected[name])}")
        elif saved[name] != expected[name]:
            sides = f"is saved as {shown(saved[name])} and expected as {shown(expected[name])}"
            differences.append(f"{name} {sides}")
    if differences:
        raise UserError(
            f"{saved_name} does not fit {expected_name} ({'; '.join(differences)}): use "
            "the config with which it was saved, or another --workdir."
        )


def _named(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a tree as ``("a.b", leaf)``."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _insert(tree: dict[str, Any], path: tuple[str, ...], part: Any) -> Any:
    """Returns a tree of dicts with a part at a path."""
    if not path:
        return part
    return tree | {path[0]: _insert(tree.get(path[0], {}), path[1:], part)}


def _newest(directory: pathlib.Path) -> tuple[int | None, dict[int, str]]:
    """Returns the latest undamaged step, and the damage of each later one.

    Raises:
      UserError: if all checkpoints are damaged, or were and have been moved aside.
    """
    newest, damaged = manifest.newest_intact(directory)
    aside = directory / manifest.DAMAGED
    # Interrupted saves are moved there too, but have no manifest.
    moved = aside.is_dir() and any(manifest.exists(path) for path in aside.iterdir())
    if newest is None and (damaged or moved):
        details = "; ".join(f"step {step}: {why}" for step, why in damaged.items())
        raise UserError(
            f"All checkpoints in {directory} are damaged ({details or aside}): restore one from a "
            "backup, or name another --workdir to train from the start."
        )
    return newest, damaged


def _require_format(directory: pathlib.Path) -> None:
    """Checks the format of the checkpoints in a folder, if there are any."""
    path = directory / _FORMAT
    try:
        version = json.loads(path.read_bytes())["format"]
    except FileNotFoundError:
        version = 1 if manifest.folders(directory) else FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} cannot be read ({_first_line(error)}): write {{"format": {FORMAT}}} to it if '
            "these checkpoints were saved by this version."
        ) from error
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
def _reading(directory: pathlib.Path, step: int) -> Iterator[None]:
    """Turns the errors of a damaged or inaccessible checkpoint into a `UserError`."""
    try:
        with _access(directory / str(step)):
            if damage := manifest.damage(directory / str(step)):
                raise ValueError(damage)
            yield
    except (ValueError, KeyError, TypeError) as error:
        others = [str(other) for other in steps(directory) if other != step]
        advice = f"use another step ({', '.join(others)})" if others else "restore it from a backup"
        raise UserError(
            f"The checkpoint {directory / str(step)} cannot be read ({_first_line(error)}): "
            f"{advice}."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _saved_tree(directory: pathlib.Path, step: int) -> Any:
    """Returns the tree of a saved state, with descriptions instead of arrays."""
    # A `Checkpointer` would warn about metadata that the manager does not write.
    path = without_wildcards(directory.absolute()) / str(step) / _STATE
    metadata = ocp.PyTreeCheckpointHandler().metadata(path)
    if metadata is None:
        raise ValueError("it has no readable metadata")
    return metadata.tree


def _read_tree(directory: pathlib.Path, step: int, template: Any = None) -> Any:
    """Reads the leaves of a tree of `jax.ShapeDtypeStruct`; without one, all of them as NumPy."""
    if template is None:
        arguments = ocp.args.PyTreeRestore(
            restore_args=jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _saved_tree(directory, step)
            )
        )
    else:
        arguments = ocp.args.PyTreeRestore(
            item=template,
            restore_args=ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        )
    path = without_wildcards(directory.absolute()) / str(step) / _STATE
    return ocp.PyTreeCheckpointHandler().restore(path, args=arguments)
