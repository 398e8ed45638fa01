"""Devices and processes: one mesh over all devices, shardings, and the primary process.

Batches are sharded over the single axis of the mesh, and everything else is replicated; the
compiler inserts the reductions over a batch. Every process runs the same program, and only the
primary process writes files. Without `join` there is one process, and nothing here waits.
"""

from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vaegan_jax.errors import UserError, one_line

Tree = TypeVar("Tree")

AXIS = "batch"
_HEARTBEAT_SECONDS = 30  # after which the other processes give up


def join(
    coordinator: str | None = None, process_id: int | None = None, processes: int | None = None
) -> None:
    """Joins the processes of one run; call it before JAX is first used.

    Args:
      coordinator: "host:port" of the primary process. Without it JAX detects the cluster, as
        under SLURM or Open MPI.
      process_id: the index of this process, from 0.
      processes: the number of processes.

    Raises:
      UserError: if the processes do not connect.
    """
    given = [value for value in (coordinator, process_id, processes) if value is not None]
    is_valid = len(given) == 3 and 0 <= (process_id or 0) < (processes or 0)
    if given and not is_valid:
        raise UserError(
            "--coordinator, --process_id (from 0) and --num_processes belong together: give all "
            "three, or --distributed alone where JAX detects the cluster, as under SLURM."
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
            f"The processes of this run did not connect ({one_line(error)}): start all of "
            "them within two minutes, and check --coordinator; give it if no cluster was detected."
        ) from error


def is_primary() -> bool:
    """Returns whether this process is the one that writes files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has reached this point."""
    multihost_utils.sync_global_devices(name)


def broadcast_from_primary(number: int) -> int:
    """Returns the primary process's number in every process; all must call it."""
    return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


def any_process(number: int) -> int:
    """Returns the maximum over all processes in every process; all must call it."""
    return int(multihost_utils.process_allgather(np.asarray(number, np.int32)).max())


def make_mesh() -> Mesh:
    """Returns a one-dimensional mesh of all devices of all processes."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that are replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(tree: Any) -> Any:
    """Replicates a tree of arrays that every process has on all devices."""
    return _place(tree, replicated(make_mesh()))


def local_shards(mesh: Mesh) -> list[int]:
    """Returns the indices of the shards on this process's devices."""
    process = jax.process_index()
    return [i for i, device in enumerate(mesh.devices.flat) if device.process_index == process]


def put_shards(shards: np.ndarray, mesh: Mesh) -> jax.Array:
    """Splits an array over all devices along its first axis.

    Args:
      shards: this process's shards, concatenated in the order of `local_shards`.
      mesh: of all devices.
    """
    placed: jax.Array = _place(shards, NamedSharding(mesh, PartitionSpec(AXIS)))
    return placed


def _place(tree: Any, sharding: NamedSharding) -> Any:
    with jax.transfer_guard("allow"):  # with several processes JAX takes this for implicit
        return jax.make_array_from_process_local_data(sharding, tree)


def put_state(state: Tree) -> Tree:
    """Replicates the primary process's tree of arrays on all devices; every process must call it.

    Typed keys are not supported.
    """
    if jax.process_count() > 1:
        # Processes on other processors may have computed other last bits.
        state = multihost_utils.broadcast_one_to_all(state)
    placed: Tree = put(state)
    return placed


def local(tree: Tree) -> Tree:
    """Returns this process's first copy of replicated arrays."""
    copies: Tree = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
    return copies


def shard_batch(x: jax.Array) -> jax.Array:
    """Constrains an array to be sharded along its first axis if a mesh is in use.

    Call it within a jitted function. The values stay the same.
    """
    return _constrained(x, PartitionSpec(AXIS))


def gather_batch(x: jax.Array) -> jax.Array:
    """Constrains an array to be replicated if a mesh is in use; see `shard_batch`."""
    return _constrained(x, PartitionSpec())


def _constrained(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    constrained: jax.Array = jax.lax.with_sharding_constraint(x, spec)
    return constrained


def require_divisible(batch_size: int, field: str) -> None:
    """Checks that a batch can be split over all devices.

    Raises:
      UserError: if it cannot.
    """
    devices = jax.device_count()
    if batch_size % devices:
        below = batch_size // devices * devices
        nearest = f"{below} or {below + devices}" if below else f"{devices}"
        raise UserError(
            f"{field} ({batch_size}) cannot be divided among the {devices} devices that JAX sees: "
            f"set it to {nearest}, or hide some devices (CUDA_VISIBLE_DEVICES)."
        )
