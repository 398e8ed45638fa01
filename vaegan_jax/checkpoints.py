"""Orbax checkpoints: saved without waiting, restored whole or in part. Nothing else knows Orbax.

A checkpoint is sealed, once it is written, by a file with the digest of each of its files, and only
then are older ones deleted. Orbax would restore most bit flips without a word; here, what does not
match its seal is set aside, and the checkpoint before it counts.
"""

import contextlib
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from vaegan_jax import parallel
from vaegan_jax.errors import UserError
from vaegan_jax.files import write_whole

State = TypeVar("State")

Progress = dict[str, Any]
Leaves = dict[str, tuple[tuple[int, ...], str]]

FORMAT = 2
"""Of checkpoints: 2 since they are sealed, and since the decoder's first layer has a bias."""

_STATE = "state"
_PROGRESS = "progress"
_SEAL = "seal.json"
_FORMAT = "format.json"
_DAMAGED = "damaged"


class Checkpoints:
    """The checkpoints of one stage: a folder with one folder a step, the last few kept.

    Each holds the stage's state and its progress, which is JSON: what the loop knows beside the
    state, such as the seconds spent.

    Attributes:
      warnings: what was wrong with checkpoints that had to be set aside, a sentence each.
    """

    def __init__(self, directory: pathlib.Path, keep: int) -> None:
        """Opens the folder, making it where needed.

        What was never sealed is removed, since its writing was interrupted.

        Raises:
          UserError: where it is of another format.
        """
        self._directory, self._keep = directory.absolute(), keep
        self.warnings: list[str] = []
        self._sound: int | None = None
        if parallel.is_first():
            self._directory.mkdir(parents=True, exist_ok=True)
            _require_format(self._directory)
            if not (self._directory / _FORMAT).exists():
                write_whole(self._directory / _FORMAT, json.dumps({"format": FORMAT}) + "\n")
            for step in _folders(self._directory) - _sealed(self._directory):
                shutil.rmtree(self._directory / str(step))
        parallel.wait("checkpoints opened")
        # Nothing is deleted by Orbax: an old checkpoint goes when a new one is sealed.
        options = ocp.CheckpointManagerOptions(max_to_keep=None, create=True)
        self._manager = ocp.CheckpointManager(
            self._directory, item_names=(_STATE, _PROGRESS), options=options
        )
        self._unsealed: int | None = None

    def latest(self) -> int | None:
        """Returns the newest step whose checkpoint is sound, or None.

        Those that are not are moved into the folder `damaged`, with a warning each.
        """
        found = self._find_latest() if parallel.is_first() else None
        (step,) = parallel.first_says([-1 if found is None else found])
        self._sound = None if step < 0 else step
        if not parallel.is_first():
            self._manager.reload()
        return self._sound

    def _find_latest(self) -> int | None:
        for step in sorted(_sealed(self._directory), reverse=True):
            complaint = _complaint(self._directory, step)
            if not complaint:
                return step
            aside = self._directory / _DAMAGED / str(step)
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            (self._directory / str(step)).rename(aside)
            self._manager.reload()
            self.warnings.append(
                f"The checkpoint of step {step} is damaged ({complaint}) and was moved to {aside}: "
                "the one before it counts."
            )
        return None

    def save(self, step: int, state: Any, progress: Progress) -> None:
        """Saves a tree of `jax.Array` in the background; one still under way is finished first.

        Raises:
          UserError: where a save fails, this one or the one before; earlier ones are untouched.
        """
        self.finish()
        # The state's own buffers are donated to the next step while this one is being written. It
        # is copied without `jnp.copy`, which compiles a program for every shape.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        state = jax.device_put(state, shardings, may_alias=False)
        arguments = ocp.args.Composite(
            **{_STATE: ocp.args.StandardSave(state), _PROGRESS: ocp.args.JsonSave(progress)}
        )
        try:
            self._manager.save(step, args=arguments)
        except (OSError, ValueError) as error:
            raise self._not_saved(error) from error
        self._unsealed = step

    def finish(self) -> None:
        """Waits for the save under way, seals it, and deletes what is older than to be kept.

        Raises:
          UserError: where it fails; earlier ones are untouched.
        """
        step, self._unsealed = self._unsealed, None
        try:
            self._manager.wait_until_finished()
            if step is None:
                return
            old = sorted(_sealed(self._directory) | {step})[: -self._keep]
            parallel.wait("checkpoint written")
            if parallel.is_first():
                _seal(self._directory, step)
                for each in old:
                    # First the seal, so that one that is half deleted counts as never written.
                    (self._directory / str(each) / _SEAL).unlink()
            parallel.wait("checkpoint sealed")
            for each in old:
                self._manager.delete(each)
        except (OSError, ValueError) as error:
            raise self._not_saved(error) from error

    def close(self) -> None:
        """Lets go of the folder; call `finish` first."""
        self._manager.close()

    def restore(
        self, step: int, template: State, sharding: jax.sharding.Sharding | None = None
    ) -> tuple[State, Progress]:
        """Returns the state and the progress saved at a step.

        Args:
          step: one that was saved.
          template: a state of `jax.ShapeDtypeStruct`, of the shapes to expect.
          sharding: where to put it; on the first device if not said.

        Raises:
          UserError: where the checkpoint holds other leaves than the template, or is damaged.
        """
        sharding = sharding or _first_device()
        with _reading(self._directory, step):
            if step != self._sound:
                _require_sound(self._directory, step)
            require_equal_leaves(
                leaves(_saved_tree(self._directory, step)),
                leaves(template),
                f"The checkpoint {self._directory / str(step)}",
                "the networks of this config",
            )
            arguments = ocp.args.Composite(
                **{
                    _STATE: ocp.args.StandardRestore(_placed(template, sharding)),
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
    """Returns the newest sound step in the folder of a stage's checkpoints, or None.

    It changes nothing in the folder.

    Raises:
      UserError: where that is of another format.
    """
    if not directory.is_dir():
        return None
    _require_format(directory)
    sound = (step for step in sorted(_sealed(directory), reverse=True)
             if not _complaint(directory, step))  # fmt: skip
    return next(sound, None)


def steps(directory: pathlib.Path) -> list[int]:
    """Returns the steps saved in the folder of a stage's checkpoints, rising; writes nothing.

    Of an older version's, which had no seals, all count.
    """
    if not directory.is_dir():
        return []
    sealed = (directory / _FORMAT).exists()
    return sorted(_sealed(directory) if sealed else _folders(directory))


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
        if (directory / _FORMAT).exists():
            _require_sound(directory, step)
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
        _require_sound(directory, step)
        saved = _saved_tree(directory, step)
        for name in path:
            saved = saved.get(name, {})
        require_equal_leaves(
            leaves(saved),
            leaves(template),
            f"{'.'.join(path)} in the checkpoint {directory / str(step)}",
            "the network that is to take it",
        )
        wanted: Any = _placed(template, _first_device())
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


def _folders(directory: pathlib.Path) -> set[int]:
    """Returns the steps of which there is a folder."""
    return {int(path.name) for path in directory.iterdir() if path.name.isdigit()}


def _sealed(directory: pathlib.Path) -> set[int]:
    return {step for step in _folders(directory) if (directory / str(step) / _SEAL).exists()}


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of every file in a folder, by its path in there, but for the seal."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _SEAL
    }


def _seal(directory: pathlib.Path, step: int) -> None:
    """Writes the digests of a checkpoint into it, whole or not at all."""
    folder = directory / str(step)
    write_whole(folder / _SEAL, json.dumps(_digests(folder), indent=0))


def _complaint(directory: pathlib.Path, step: int) -> str:
    """Returns what is wrong with a checkpoint, or nothing where it is as it was sealed."""
    folder = directory / str(step)
    try:
        wanted = json.loads((folder / _SEAL).read_text())
        found = _digests(folder)
    except (OSError, ValueError) as error:
        return f"its seal cannot be read: {_first_line(error)}"
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if wanted.get(name) != found[name]:
            return f"{name} is not as it was written"
    return ""


def _require_sound(directory: pathlib.Path, step: int) -> None:
    complaint = _complaint(directory, step)
    if complaint:
        raise ValueError(complaint)


def _require_format(directory: pathlib.Path) -> None:
    """Checks that a folder's checkpoints, if there are any, are of the format that is read here."""
    path = directory / _FORMAT
    if path.exists():
        try:
            found = json.loads(path.read_text())["format"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f'{path} cannot be read ({_first_line(error)}): write {{"format": {FORMAT}}} into '
                "it if these checkpoints are of this version."
            ) from error
    elif _folders(directory):
        found = 1
    else:
        return
    if found != FORMAT:
        raise UserError(
            f"The checkpoints in {directory} are of format {found}, and this version of vaegan_jax "
            f"reads format {FORMAT}: go on with the version that wrote them, or name another "
            "--workdir."
        )


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


def _first_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _placed(template: Any, sharding: jax.sharding.Sharding) -> Any:
    """Returns a template that says where its arrays are to lie."""
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
