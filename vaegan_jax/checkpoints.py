"""Orbax checkpoints: saved in the background, restored whole or in part. Nothing else uses Orbax.

A checkpoint counts once it was read back and a checksum manifest, the SHA-256 of each of its files,
was written into it; only then are older checkpoints deleted. Orbax restores most flipped bits
without an error, so every checkpoint is compared with its manifest before it is used. One that
differs is damaged: it is moved aside, and the newest one before it is used.
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

_STATE = "state"
_PROGRESS = "progress"
_FORMAT = "format.json"
_DAMAGED = "damaged"
_DELETING = ".deleting-"


class Checkpoints:
    """The checkpoints of one stage: a folder with one subfolder per step, the newest few kept.

    Each holds the stage's state and its progress, a JSON object of what the loop needs beside the
    state, such as the seconds spent.

    Attributes:
      warnings: one sentence for each checkpoint that was moved aside.
    """

    def __init__(self, directory: pathlib.Path, keep: int) -> None:
        """Opens the folder, creating it if necessary.

        Raises:
          UserError: where its checkpoints are of another format, or it cannot be accessed.
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
        # Orbax deletes nothing: old checkpoints go once the new one has its manifest.
        self._manager = ocp.CheckpointManager(
            without_wildcards(self._directory),
            item_names=(_STATE, _PROGRESS),
            options=ocp.CheckpointManagerOptions(max_to_keep=None, create=True),
        )
        self._pending: tuple[int, Leaves] | None = None

    def latest(self) -> int | None:
        """Returns the newest step with an undamaged checkpoint, or None where none was ever saved.

        Damaged checkpoints are moved to the folder `damaged`, with a warning each.

        Raises:
          UserError: where all checkpoints are damaged, or one cannot be accessed; nothing is moved
            then.
        """
        newest = self._move_damaged() if parallel.is_primary() else None
        (step,) = parallel.broadcast_from_primary([-1 if newest is None else newest])
        self._manager.reload()
        return None if step < 0 else step

    def _move_damaged(self) -> int | None:
        with _access(self._directory):
            newest, damaged = _newest(self._directory)
            # Folders without a manifest are interrupted saves.
            unfinished = _folders(self._directory) - _complete(self._directory)
        if newest is None:
            _require_none_damaged(self._directory, damaged)
        for step in sorted([*damaged, *unfinished], reverse=True):
            why = damaged.get(step, f"{manifest.NAME} is missing: saving it was interrupted")
            aside = _move_aside(self._directory, step)
            self.warnings.append(
                f"The checkpoint of step {step} is damaged ({why}) and was moved to {aside}: "
                f"using {'none' if newest is None else f'that of step {newest}'}."
            )
        return newest

    def save(self, step: int, state: Any, progress: Progress) -> None:
        """Saves a tree of `jax.Array` in the background, after finishing a pending save.

        Raises:
          UserError: where this or the pending save fails; earlier checkpoints are untouched.
        """
        self.finish()
        # The next step donates the state's buffers while they are written, so they are copied;
        # not by `jnp.copy`, which compiles a program for every shape.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        state = jax.device_put(state, shardings, may_alias=False)
        arguments = ocp.args.Composite(
            **{_STATE: ocp.args.StandardSave(state), _PROGRESS: ocp.args.JsonSave(progress)}
        )
        try:
            self._manager.save(step, args=arguments)
        except (OSError, ValueError) as error:
            raise self._not_saved(error) from error
        self._pending = step, leaves(state)

    def finish(self) -> None:
        """Waits for a pending save, reads it back, completes it, and deletes the oldest ones.

        Raises:
          UserError: where that fails; earlier checkpoints are untouched.
        """
        pending, self._pending = self._pending, None
        try:
            self._manager.wait_until_finished()
            if pending is None:
                return
            step, saved = pending
            if leaves(_read_tree(self._directory, step, None)) != saved:
                raise ValueError("it reads back with other arrays than were saved")
            parallel.barrier("checkpoint read back")
            if parallel.is_primary():
                manifest.write(self._directory / str(step))
                for old in sorted(_complete(self._directory))[: -self._keep]:
                    doomed = self._directory / f"{_DELETING}{old}"
                    (self._directory / str(old)).rename(doomed)
                    shutil.rmtree(doomed)
            parallel.barrier("checkpoint complete")
        except (OSError, ValueError) as error:
            raise self._not_saved(error) from error

    def close(self) -> None:
        """Releases the folder; call `finish` first."""
        self._manager.close()

    def restore(
        self, step: int, template: State, sharding: jax.sharding.Sharding | None = None
    ) -> tuple[State, Progress]:
        """Returns the state and the progress of a saved step.

        Args:
          step: one that was saved.
          template: a state of `jax.ShapeDtypeStruct`.
          sharding: of the restored arrays; the first device by default.

        Raises:
          UserError: where the checkpoint is damaged, or its leaves differ from the template's.
        """
        with _reading(self._directory, step):
            _require_undamaged(self._directory, step)
            saved = leaves(_saved_tree(self._directory, step))
            _require_template(self._directory, step, saved, template)
            placed = _placed(template, sharding or _first_device())
            arguments = ocp.args.Composite(
                **{_STATE: ocp.args.StandardRestore(placed), _PROGRESS: ocp.args.JsonRestore()}
            )
            restored = self._manager.restore(step, args=arguments)
        return restored[_STATE], restored[_PROGRESS]

    def _not_saved(self, error: Exception) -> UserError:
        return UserError(
            f"A checkpoint could not be written to {self._directory} ({_first_line(error)}): free "
            "space or give write access there, then run the same command again; earlier "
            "checkpoints are kept."
        )


def latest(directory: pathlib.Path) -> int | None:
    """Returns the newest step with an undamaged checkpoint in a stage's folder, or None.

    Nothing in the folder is changed. Where newer checkpoints are damaged, a warning on standard
    error names them, the damage, and the step that is used.

    Raises:
      UserError: where the folder is of another format, where one of its files cannot be accessed,
        or where all checkpoints are damaged.
    """
    with _access(directory):
        if not directory.is_dir():
            return None
        _require_format(directory)
        newest, damaged = _newest(directory)
    if newest is None:
        _require_none_damaged(directory, damaged)
    for step, why in damaged.items():
        sys.stderr.write(
            f"Warning: the checkpoint {directory / str(step)} is damaged ({why}): using that of "
            f"step {newest}.\n"
        )
    return newest


def steps(directory: pathlib.Path) -> list[int]:
    """Returns the steps saved in a stage's folder in ascending order, damaged ones included."""
    with _access(directory):
        return sorted(_complete(directory)) if directory.is_dir() else []


def load(directory: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns a saved state without a template.

    Args:
      directory: a stage's folder of checkpoints.
      step: one that was saved.

    Returns:
      ``{"params.decoder.bias": array, ...}``, in the shapes and dtypes that were saved.

    Raises:
      UserError: where the checkpoint is damaged or cannot be accessed.
    """
    with _reading(directory, step):
        _require_undamaged(directory, step)
        restored = _read_tree(directory, step, None)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(restored)
    }


def read(
    directory: pathlib.Path, step: int, templates: Mapping[tuple[str, ...], Any]
) -> dict[tuple[str, ...], Any]:
    """Restores parts of a saved state onto the first device, and reads nothing else.

    Args:
      directory: a stage's folder of checkpoints.
      step: one that was saved.
      templates: for the path of each part, such as ("params", "decoder"), its tree of
        `jax.ShapeDtypeStruct`.

    Returns:
      The parts, by the same paths.

    Raises:
      UserError: where a part is missing, its leaves differ from the template's, or the checkpoint
        is damaged or cannot be accessed.
    """
    with _reading(directory, step):
        _require_undamaged(directory, step)
        saved = _saved_tree(directory, step)
        wanted: dict[str, Any] = {}
        for path, template in templates.items():
            part = functools.reduce(lambda tree, name: tree.get(name, {}), path, saved)
            _require_template(directory, step, leaves(part), template, ".".join(path))
            inner = wanted
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
            inner[path[-1]] = _placed(template, _first_device())
        restored = _read_tree(directory, step, wanted)
    return {path: functools.reduce(lambda tree, name: tree[name], path, restored)
            for path in templates}  # fmt: skip


def _folders(directory: pathlib.Path) -> set[int]:
    return {int(path.name) for path in directory.iterdir() if path.name.isdecimal()}


def _complete(directory: pathlib.Path) -> set[int]:
    """Returns the steps whose checkpoints have a manifest."""
    return {step for step in _folders(directory) if manifest.exists(directory / str(step))}


def _newest(directory: pathlib.Path) -> tuple[int | None, dict[int, str]]:
    """Returns the newest undamaged step, and the damage of each newer one."""
    damaged: dict[int, str] = {}
    for step in sorted(_complete(directory), reverse=True):
        with _access(directory / str(step)):
            damage = manifest.damage(directory / str(step))
        if not damage:
            return step, damaged
        damaged[step] = damage
    if damaged and not _complete(directory).issuperset(damaged):
        return _newest(directory)  # a run that is training deleted the ones that were listed
    return None, damaged


def _require_none_damaged(directory: pathlib.Path, damaged: dict[int, str]) -> None:
    aside = directory / _DAMAGED
    # Interrupted saves were moved there, too; they have no manifest, and never counted.
    moved = aside.is_dir() and any(p.is_dir() and manifest.exists(p) for p in aside.iterdir())
    if not damaged and not moved:
        return
    found = "; ".join(f"step {step}: {why}" for step, why in damaged.items()) or f"see {aside}"
    raise UserError(
        f"All checkpoints in {directory} are damaged ({found}): restore one from a backup, or name "
        "another --workdir to train from the start."
    )


def _move_aside(directory: pathlib.Path, step: int) -> pathlib.Path:
    """Moves a checkpoint to a new name in the folder of damaged ones, and returns that name."""
    folder = directory / _DAMAGED
    folder.mkdir(exist_ok=True)
    names = (f"{step}{suffix}" for suffix in ("", *(f".{number}" for number in range(1, 10_000))))
    aside = next(folder / name for name in names if not (folder / name).exists())
    (directory / str(step)).rename(aside)
    return aside


def _require_undamaged(directory: pathlib.Path, step: int) -> None:
    damage = manifest.damage(directory / str(step))
    if damage:
        raise ValueError(damage)


def _require_format(directory: pathlib.Path) -> None:
    """Checks that the checkpoints of a folder, if there are any, are of this format."""
    path = directory / _FORMAT
    if path.exists():
        try:
            found = json.loads(path.read_bytes())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{path} cannot be read ({_first_line(error)}): write {{"format": {FORMAT}}} to it '
                "if these checkpoints are of this version."
            ) from error
    elif _folders(directory):
        found = 1
    else:
        return
    if found != FORMAT:
        raise UserError(
            f"The checkpoints in {directory} are of format {found}, and this version of vaegan_jax "
            f"reads format {FORMAT}: use the version that wrote them, or name another --workdir."
        )


@contextlib.contextmanager
def _access(path: pathlib.Path) -> Iterator[None]:
    """Turns an error of access into one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or path} cannot be accessed ({error.strerror or one_line(error)}): "
            "give this user access to it, and run the same command again; nothing was changed."
        ) from error


@contextlib.contextmanager
def _reading(directory: pathlib.Path, step: int) -> Iterator[None]:
    """Turns the errors of a damaged or inaccessible checkpoint into one sentence."""
    try:
        with _access(directory / str(step)):
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


def _state_folder(directory: pathlib.Path, step: int) -> pathlib.Path:
    return without_wildcards(directory.absolute()) / str(step) / _STATE


def _saved_tree(directory: pathlib.Path, step: int) -> Any:
    """Returns the tree of a saved state, with descriptions in place of arrays."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        metadata = checkpointer.metadata(_state_folder(directory, step)).item_metadata
    if metadata is None:
        raise ValueError("it has no readable metadata")
    return metadata.tree


def _read_tree(directory: pathlib.Path, step: int, wanted: Any) -> Any:
    """Reads the arrays of a tree of placed `jax.ShapeDtypeStruct`; where None, all, as NumPy."""
    if wanted is None:
        to_host = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _saved_tree(directory, step)
        )
        arguments = ocp.args.PyTreeRestore(restore_args=to_host)
    else:
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(_state_folder(directory, step), args=arguments)


def _require_template(
    directory: pathlib.Path, step: int, saved: Leaves, template: Any, part: str = ""
) -> None:
    checkpoint = f"the checkpoint {directory / str(step)}"
    require_equal_leaves(
        saved,
        leaves(template),
        f"{part} in {checkpoint}" if part else checkpoint,
        "the networks of this config",
    )


def _first_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _placed(template: Any, sharding: jax.sharding.Sharding) -> Any:
    """Returns a template with the sharding of its arrays."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template
    )


def leaves(tree: Any) -> Leaves:
    """Returns ``{"a.b": (shape, dtype)}`` for a tree of arrays or of their descriptions."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (
            tuple(leaf.shape),
            str(jnp.dtype(leaf.dtype)),
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def require_equal_leaves(saved: Leaves, wanted: Leaves, saved_name: str, wanted_name: str) -> None:
    """Compares two sides leaf by leaf: names, shapes and dtypes.

    Raises:
      UserError: listing what only one side has, and what both have in different shapes.
    """
    complaints = [
        f"only saved: {name} {_shape(*saved[name])}" for name in saved.keys() - wanted.keys()
    ]
    complaints += [
        f"only wanted: {name} {_shape(*wanted[name])}" for name in wanted.keys() - saved.keys()
    ]
    complaints += [
        f"{name} is saved as {_shape(*saved[name])} and wanted as {_shape(*wanted[name])}"
        for name in saved.keys() & wanted.keys()
        if saved[name] != wanted[name]
    ]
    if complaints:
        raise UserError(
            f"{saved_name} does not fit {wanted_name} ({'; '.join(sorted(complaints))}): use the "
            "config that it was saved with, or another --workdir."
        )


def _shape(shape: tuple[int, ...], dtype: str) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"
