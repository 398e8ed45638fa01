"""Devices and processes: one mesh over all of them, what lies where, and who writes.

A batch is split over the one axis of the mesh, and all else is whole on every device; the compiler
adds up gradients and whatever else is taken over a batch. Every process runs the same program on
the same numbers, and only the first writes files. Without `join` there is one process, and none of
what is here waits for anybody.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vaegan_jax.errors import UserError, one_line

Tree = TypeVar("Tree")

AXIS = "batch"
_HEARTBEAT_SECONDS = 30  # how long a process may be silent before the others give up


def join(
    coordinator: str | None = None, process_id: int | None = None, processes: int | None = None
) -> None:
    """Joins the processes of one run; call it before JAX is first used.

    Args:
      coordinator: "host:port" of the first process. Without it JAX finds the others, as
        under SLURM or Open MPI.
      process_id: of this one, from 0.
      processes: how many there are.

    Raises:
      UserError: where these do not come together.
    """
    given = [value is not None for value in (coordinator, process_id, processes)]
    if any(given) and not all(given):
        raise UserError(
            "--coordinator, --process_id and --num_processes belong together: give all three, or "
            "--distributed alone where JAX finds the others, as under SLURM."
        )
    if processes is not None and not 0 <= (process_id or 0) < processes:
        raise UserError(
            f"--process_id ({process_id}) must be from 0 to --num_processes - 1 ({processes - 1})."
        )
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=120,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"The processes of this run did not come together ({one_line(error)}): start all of "
            "them within two minutes, and check --coordinator; name it where no cluster is found."
        ) from error


def is_primary() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def broadcast_from_primary(numbers: Sequence[int]) -> list[int]:
    """Returns the first process's numbers, in every process; all must call it."""
    if jax.process_count() == 1:
        return list(numbers)
    told = multihost_utils.broadcast_one_to_all(np.asarray(numbers, np.int32))
    return [int(number) for number in told]


def any_process(number: int) -> int:
    """Returns the largest of all processes' numbers, in every process; all must call it."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.asarray(number, np.int32)).max())


def make_mesh() -> Mesh:
    """Returns all devices of all processes, in one row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds as a whole."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what is split along its first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put(value: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Puts an array that every process has onto the devices, as the sharding says."""
    places = sharding.addressable_devices_indices_map(value.shape)
    parts = [jax.device_put(value[index], device) for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(value.shape, sharding, parts)


def local_shards(mesh: Mesh) -> list[int]:
    """Returns which parts of what is split over a mesh lie on this process's devices."""
    own = jax.process_index()
    return [part for part, device in enumerate(mesh.devices.flat) if device.process_index == own]


def put_shards(parts: np.ndarray, mesh: Mesh) -> jax.Array:
    """Puts this process's shards, [shards, N, ...] in the order of `local_shards`, on its devices.

    Returns:
      [parts of all * N, ...], split along its first axis.
    """
    devices = [mesh.devices.flat[part] for part in local_shards(mesh)]
    placed = [jax.device_put(part, device) for part, device in zip(parts, devices, strict=True)]
    shape = (mesh.size * parts.shape[1], *parts.shape[2:])
    return jax.make_array_from_single_device_arrays(shape, sharded(mesh), placed)


def put_state(state: Tree, sharding: NamedSharding) -> Tree:
    """Puts the first process's tree of arrays onto all devices; every process must call it.

    Typed keys are not supported, and a state has none.
    """
    if jax.process_count() > 1:
        # Processes on other processors may have come to other last bits.
        state = multihost_utils.broadcast_one_to_all(state)
        placed: Tree = jax.tree.map(lambda leaf: put(np.asarray(leaf), sharding), state)
    else:
        placed = jax.device_put(state, sharding)
    return placed


def local(tree: Tree) -> Tree:
    """Returns what this process's first device holds of arrays that are whole on every device."""
    held: Tree = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
    return held


def shard_batch(x: jax.Array) -> jax.Array:
    """Has the compiler split an array along its first axis, where a mesh is in use.

    To be called within a jitted function. The numbers stay the same; outside of a mesh nothing
    happens.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    constrained: jax.Array = jax.lax.with_sharding_constraint(x, PartitionSpec(AXIS))
    return constrained


def require_divisible(batch_size: int, field: str) -> None:
    """Checks that a batch can be split over all devices.

    Raises:
      UserError: where it cannot.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UserError(
            f"{field} ({batch_size}) cannot be divided among the {devices} devices that JAX sees: "
            "make it a multiple of that, or hide some of them (CUDA_VISIBLE_DEVICES)."
        )
