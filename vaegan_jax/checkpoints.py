"""Orbax checkpoints: saved, restored in full or in part, and verified by checksums.

A checkpoint is written under a hidden name, read back, given its checksum manifest (the SHA-256 of
each of its files) and then renamed; only then are older ones deleted. Orbax restores most flipped
bits without an error, so every checkpoint is compared with its manifest before it is used. A
damaged one is moved aside, and the latest undamaged one is used.
"""

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

from vaegan_jax.errors import UserError
from vaegan_jax.runtime import manifest, parallel
from vaegan_jax.runtime.files import without_wildcards, write_atomic

State = TypeVar("State")
Progress = dict[str, Any]

FORMAT = '{"format": 3}'
"""The layout of checkpoints, as in format.json: 3 has a manifest, and states without `attempt`."""

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
          UserError: if its checkpoints have another format.
        """
        self._directory, self._keep = directory.absolute(), keep
        self.warnings: list[str] = []
        if parallel.is_primary():
            self._directory.mkdir(parents=True, exist_ok=True)
            _require_format(self._directory)
            if not (self._directory / _FORMAT).exists():
                write_atomic(self._directory / _FORMAT, f"{FORMAT}\n")
            for partial in self._directory.glob(f"{_PARTIAL}*"):
                shutil.rmtree(partial)
        parallel.barrier("checkpoints opened")

    def latest(self) -> int | None:
        """Returns the latest step with an undamaged checkpoint, or None if none was ever saved.

        Later checkpoints, which are damaged, are moved to the folder `damaged`.

        Raises:
          UserError: if all checkpoints are damaged.
          OSError: if one cannot be read. In both cases, nothing is moved.
        """
        newest = None
        if parallel.is_primary():
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
        step = parallel.broadcast_from_primary(-1 if newest is None else newest)
        return None if step < 0 else step

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
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"A checkpoint could not be written to {self._directory} ({reason}): "
                "free space or give write access there, and run the same command again."
            ) from error

    def restore(
        self, step: int, template: State, sharding: jax.sharding.Sharding | None = None
    ) -> tuple[State, Progress]:
        """Returns the state and the progress of a saved step; see `read`."""
        state: State = read(self._directory, step, {(): template}, sharding)[()]
        progress = (self._directory / str(step) / _PROGRESS / "metadata").read_bytes()
        return state, json.loads(progress)


def latest(directory: pathlib.Path) -> int | None:
    """Returns the latest step with an undamaged checkpoint in a stage's folder, or None.

    Nothing in the folder is changed. Newer checkpoints that are damaged are listed in warnings on
    standard error.

    Raises:
      UserError: if the folder has another format, or if all checkpoints are damaged.
    """
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
    paths = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in paths if path.name.isdecimal())


def load(directory: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns a saved state without a template: ``{"params.decoder.bias": array, ...}``.

    Raises:
      UserError: if the checkpoint is damaged.
    """
    tree = _read_tree(_undamaged(directory, step))
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
      UserError: if the leaves of a part differ from its template, or the checkpoint is damaged.
    """
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    folder = _undamaged(directory, step)
    saved = _saved_tree(folder)
    for path, template in templates.items():
        where = f"{'.'.join(path) or 'the state'} in the checkpoint {folder}"
        require_equal_leaves(_part(saved, path), template, where)
    placed = jax.tree.map(lambda leaf: place(leaf.shape, leaf.dtype), dict(templates))
    expected = placed[()] if () in placed else traverse_util.unflatten_dict(placed)
    restored = _read_tree(folder, expected)
    return {path: _part(restored, path) for path in templates}


def require_equal_leaves(saved: Any, expected: Any, where: str) -> None:
    """Compares the names, shapes and dtypes of two trees of arrays, or of their descriptions.

    Raises:
      UserError: listing the leaves that differ, or that only one has; it begins with `where`.
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
      UserError: if all checkpoints are damaged.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps(directory)):
        why = manifest.damage(directory / str(step))
        if not why:
            return step, damaged
        damaged[step] = why
    if not damaged.keys() <= set(steps(directory)):
        return _newest(directory)  # a running training has deleted some of those listed
    if damaged:
        details = "; ".join(f"step {step}: {why}" for step, why in damaged.items())
        raise UserError(
            f"All checkpoints in {directory} are damaged ({details}): restore one from a backup, "
            "or name another --workdir to train from the start."
        )
    return None, {}


def _require_format(directory: pathlib.Path) -> None:
    """Checks the format of the checkpoints in a folder, if there are any."""
    path = directory / _FORMAT
    found = path.read_text(errors="replace").strip() if path.exists() else FORMAT
    if found != FORMAT:
        raise UserError(
            f"The checkpoints in {directory} have the format {found!r}, and this version of "
            f"vaegan_jax reads {FORMAT!r}: use the version that wrote them, or name another "
            "--workdir."
        )


def _undamaged(directory: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the folder of a checkpoint.

    Raises:
      UserError: if it is damaged.
    """
    folder = directory / str(step)
    if damage := manifest.damage(folder):
        raise UserError(
            f"The checkpoint {folder} cannot be read ({damage}): use another step, or restore it "
            "from a backup."
        )
    return folder


def _saved_tree(folder: pathlib.Path) -> Any:
    """Returns the tree of a saved state, with descriptions instead of arrays."""
    # A `Checkpointer` would warn about metadata that an item's folder does not have.
    path = without_wildcards(folder.absolute()) / _STATE
    return ocp.PyTreeCheckpointHandler().metadata(path).tree


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
