"""Kernels, bytes and collectives of a train step, compiled for an H100 that need not be there.

    pip install "jax[cuda12]"
    python benchmarks/compiled.py --stage gan --base_width 64 --batch 64 --devices 8

Counts the optimized HLO: a loop within a step as often as it runs, and of a condition the branch
with the most kernels. Bytes are the sizes of all operands and results. Without a device XLA cannot
time kernels, so it may choose others than on a real H100.
"""

import argparse
import collections
import functools
import math
import os
import pathlib
import re

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from vaegan_jax import config as configuration
from vaegan_jax import gan, randomness, vae
from vaegan_jax.runtime import parallel
from vaegan_jax.training import loop

SHAPE = (64, 64, 3)
H100 = (pathlib.Path(__file__).parent / "h100.txtpb").read_text()
NO_KERNEL = "parameter|get-tuple-element|tuple|bitcast|constant|after-all|partition-id|.*-done"
COLLECTIVE = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "u8": 1, "pred": 1}
CALLED = r"(?:body|to_apply|(?:true|false)_computation)=%([\w.\-]+)"


def count(lines: dict[str, list[str]], name: str) -> collections.Counter[str]:
    """Returns the kernels, bytes and collectives of one computation of HLO, by name."""
    total, shapes = collections.Counter[str](), dict[str, str]()
    for line in lines[name]:
        match = re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)", line)
        result, shape, kind, rest = match.groups() if match else ("", "", "tuple", "")
        shapes[result] = shape
        if kind in ("while", "conditional", "call"):
            branches = re.search(r"branch_computations=\{([^}]*)\}", rest)
            called = re.findall(r"%([\w.\-]+)", branches[1]) if branches else None
            inner = [count(lines, one) for one in called or re.findall(CALLED, rest)]
            largest = max(inner, key=lambda one: one["kernels"])
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
            total += {key: largest[key] * int(trips[1] if trips else 1) for key in largest}
        elif not re.fullmatch(NO_KERNEL, kind):
            operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
            sizes = [size(shape), *(size(shapes.get(operand, "")) for operand in operands)]
            is_collective = bool(re.match(COLLECTIVE, kind))
            total += {"kernels": 1, "bytes": sum(sizes), "collectives": int(is_collective)}
    return total


def size(shape: str) -> int:
    """Returns the bytes of a shape in HLO, 0 for the data set, of which a step reads a batch."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    counts = [(kind, math.prod(map(int, filter(None, n.split(","))))) for kind, n in arrays]
    return sum(n * BYTES.get(kind, 0) for kind, n in counts if n < 5e7)


def main() -> None:
    """Compiles the jitted call of a stage, and counts the body of its loop."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    defaults = {
        "stage": "gan",
        "base_width": 64,
        "batch": 64,
        "devices": 1,
        "penalties": "r1(weight=3.0, every=4)",
    }
    for name, value in (defaults | {"dtype": "float32"}).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    args = parser.parse_args()
    config = configuration.default_config()
    config.model.update(base_width=args.base_width, max_width=8 * args.base_width, dtype=args.dtype)
    config.vae.batch_size = config.gan.batch_size = args.batch
    config.gan.update(penalties=args.penalties, ema_half_life_images=1e4, augmentations="")
    module, initial = (vae, []) if args.stage == "vae" else (gan, [gan.random_init])
    parts = [jax.eval_shape(functools.partial(init, config, SHAPE)) for init in initial]
    state = jax.eval_shape(functools.partial(module.init, config, SHAPE), *parts)
    target = f"1x1x{args.devices}"
    topology = topologies.get_topology_desc(platform="cuda", target_config=H100, topology=target)
    mesh = jax.sharding.Mesh(np.array(topology.devices), (parallel.AXIS,))
    put = functools.partial(jax.ShapeDtypeStruct, sharding=parallel.replicated(mesh))
    places, scalars = put((100, args.batch), jnp.int32), (put((), jnp.int32), put((), jnp.uint32))
    block = loop.Block(put((7000, *SHAPE), jnp.uint8), places, places, *scalars)
    step, number = module.make_train_step(config, SHAPE), randomness.Stage[args.stage.upper()]
    with jax.set_mesh(mesh):
        call = loop._compile_steps(step, number, 100, False, mesh)
        state = jax.tree.map(lambda leaf: put(leaf.shape, leaf.dtype), state)
        text = call.lower(state, block).compile().as_text()
    found = re.findall(r"^(?:ENTRY )?%([\w.\-]+) \(.*\{\n((?:.|\n)*?)^\}", text, re.MULTILINE)
    lines = {name: body.splitlines() for name, body in found}
    loop_line = next(line for line in lines[found[-1][0]] if " while(" in line)
    total = count(lines, re.findall(CALLED, loop_line)[0])
    print({name: f"{number:,}" for name, number in total.items()})


if __name__ == "__main__":
    main()
