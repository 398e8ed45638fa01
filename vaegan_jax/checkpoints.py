"""Orbax checkpoints: saved without waiting, restored whole or in part. Nothing else knows Orbax."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from vaegan_jax.errors import UserError

State = TypeVar("State")

Progress = dict[str, Any]
Leaves = dict[str, tuple[tuple[int, ...], str]]

_STATE = "state"
_PROGRESS = "progress"


class Checkpoints:
    """The checkpoints of one stage: a folder with one folder a step, the last few kept.

    Each holds the stage's state and its progress, which is JSON: what the loop knows beside the
    state, such as the seconds spent.
    """

    def __init__(self, directory: pathlib.Path, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self._directory, item_names=(_STATE, _PROGRESS), options=options
        )

    def latest(self) -> int | None:
        """Returns the newest step saved, or None."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, state: Any, progress: Progress) -> None:
        """Saves in the background; a save still under way is finished first.

        Raises:
          UserError: where a save fails, this one or the one before; earlier ones are untouched.
        """
        # The state's own buffers are donated to the next step while this one is being written.
        state = jax.tree.map(jnp.copy, state)
        arguments = ocp.args.Composite(
            **{_STATE: ocp.args.StandardSave(state), _PROGRESS: ocp.args.JsonSave(progress)}
        )
        try:
            self._manager.save(step, args=arguments)
        except (OSError, ValueError) as error:
            raise self._not_saved(error) from error

    def finish(self) -> None:
        """Waits for the save under way.

        Raises:
          UserError: where it fails; earlier ones are untouched.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._not_saved(error) from error

    def close(self) -> None:
        """Lets go of the folder; call `finish` first."""
        self._manager.close()

    def restore(self, step: int, template: State) -> tuple[State, Progress]:
        """Returns the state and the progress saved at a step.

        Args:
          step: one that was saved.
          template: a state of `jax.ShapeDtypeStruct`, of the shapes to expect.

        Raises:
          UserError: where the checkpoint holds other leaves than the template, or is damaged.
        """
        with _reading(self._directory, step):
            require_equal_leaves(
                leaves(_saved_tree(self._directory, step)),
                leaves(template),
                f"The checkpoint {self._directory / str(step)}",
                "the networks of this config",
            )
            arguments = ocp.args.Composite(
                **{
                    _STATE: ocp.args.StandardRestore(jax.tree.map(_on_first_device, template)),
                    _PROGRESS: ocp.args.JsonRestore(),
                }
            )
            restored = self._manager.restore(step, args=arguments)
        return restored[_STATE], restored[_PROGRESS]

    def _not_saved(self, error: Exception) -> UserError:
        return UserError(
            f"A checkpoint could not be written to {self._directory} ({_first_line(error)}): make "
            "room or give write access there, then run the same command again; what was saved is "
            "kept."
        )


def latest(directory: pathlib.Path) -> int | None:
    """Returns the newest step saved in the folder of a stage's checkpoints, or None."""
    if not directory.is_dir():
        return None
    checkpoints = Checkpoints(directory, keep=1)
    try:
        return checkpoints.latest()
    finally:
        checkpoints.close()


def steps(directory: pathlib.Path) -> list[int]:
    """Returns the steps saved in the folder of a stage's checkpoints, rising; writes nothing."""
    if not directory.is_dir():
        return []
    # A save under way has a longer name, which is cut down when all of it is there.
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal())


def load(directory: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns a saved state, whatever it holds, without a template and without writing.

    Args:
      directory: the folder of a stage's checkpoints.
      step: one that was saved.

    Returns:
      ``{"params.decoder.bias": array, ...}``, of the shapes and dtypes that were saved, on the
      host.

    Raises:
      UserError: where the checkpoint is damaged.
    """
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    with _reading(directory, step), checkpointer:
        to_host = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _saved_tree(directory, step)
        )
        arguments = ocp.args.PyTreeRestore(restore_args=to_host)
        restored = checkpointer.restore(_folder(directory, step), args=arguments)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(restored)
    }


def restore_part(
    directory: pathlib.Path, step: int, path: tuple[str, ...], template: State
) -> State:
    """Restores one part of a saved state, reading nothing else.

    Args:
      directory: the folder of a stage's checkpoints.
      step: one that was saved.
      path: the names that lead to the part, such as ("params", "decoder").
      template: a tree of `jax.ShapeDtypeStruct`, of the shapes to expect.

    Raises:
      UserError: where the part is absent, its leaves differ from the template's in any way, or
        the checkpoint is damaged.
    """
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    with _reading(directory, step), checkpointer:
        saved = _saved_tree(directory, step)
        for name in path:
            saved = saved.get(name, {})
        require_equal_leaves(
            leaves(saved),
            leaves(template),
            f"{'.'.join(path)} in the checkpoint {directory / str(step)}",
            "the network that is to take it",
        )
        wanted: Any = jax.tree.map(_on_first_device, template)
        for name in reversed(path):
            wanted = {name: wanted}
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        restored = checkpointer.restore(_folder(directory, step), args=arguments)
    for name in path:
        restored = restored[name]
    part: State = restored
    return part


@contextlib.contextmanager
def _reading(directory: pathlib.Path, step: int) -> Iterator[None]:
    """Turns what Orbax raises over a damaged checkpoint into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The checkpoint {directory / str(step)} cannot be read ({_first_line(error)}): delete "
            "that folder to go on from the one before it."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _folder(directory: pathlib.Path, step: int) -> pathlib.Path:
    return directory.absolute() / str(step) / _STATE


def _saved_tree(directory: pathlib.Path, step: int) -> Any:
    """Returns the tree of a saved state, with descriptions in the place of arrays."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        metadata = checkpointer.metadata(_folder(directory, step)).item_metadata
    if metadata is None:
        raise ValueError("it has no readable metadata")
    return metadata.tree


def _on_first_device(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


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
