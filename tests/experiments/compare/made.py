"""Folders of runs, written by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vaegan_jax import workdir
from vaegan_jax.checkpoints import Checkpoints


def write_lines(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def read_lines(path):
    return list(map(json.loads, path.read_text().splitlines()))


def edit(path, **changes):
    """Changes a JSON file; None takes a name away."""
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: x for name, x in found.items() if x is not None}))


def keep_only(run, *names):
    """Removes all other files of a run."""
    for file in run.rglob("*"):
        if file.is_file() and file.name not in names:
            file.unlink()


def edit_number(run, index, **changes):
    """Changes a number of a run's evaluation."""
    path = run / "evaluation/numbers.json"
    numbers = json.loads(path.read_text())["numbers"]
    numbers[index] |= changes
    edit(path, numbers=numbers)


def metrics(seconds=1.0):
    """Three lines of either stage."""
    return [
        {"stage": stage, "step": step, "seconds": seconds * step, "images": 4 * step,
         "steps_per_second": 1 / seconds, "images_per_second": 4 / seconds} | scalars
        for stage in ("vae", "gan")
        for step in (2, 4, 6)
        for scalars in [
            {"loss": 90.1 / step, "kl": 0.1 * step, "sharpness": 0.5} if stage == "vae"
            else {"discriminator_loss": 1.3, "generator_loss": 0.1 * step}
        ]
    ]  # fmt: skip


def number(subject, against, metric, value, error=0.25, embedding="pixels", **more):
    return {"subject": subject, "against": against, "embedding": embedding, "metric": metric,
            "value": value, "error": error, "floor": 2.0, "count": 100,
            "reference_count": 200 if against else 0, "informative": True} | more  # fmt: skip


def numbers(distance):
    return [
        number("vae_samples", "test", "fd_n100", distance + 1),
        number("gan_samples", "test", "fd_n100", distance),
        number("gan_samples", "test", "precision", 0.5),
        number("gan_samples", "", "vendi", None),
        number("vae", "", "active_units", 4.0, embedding=""),
    ]


def run(path, seconds=1.0, distance=20.0, **config):
    """Makes the folder of a whole run but for its checkpoints."""
    path.mkdir(parents=True)
    fields = {"seed": 0, "vae.steps": 6, "gan.steps": 6, "evaluation.samples": 100} | config
    (path / "config.json").write_text(json.dumps(fields))
    data = {"digest": "d" * 64, "train": 900, "validation": 50, "test": 100, "shape": [8, 8, 3],
            "is_test_unseen": True, "duplicates": 1, "skipped": 2}  # fmt: skip
    (path / "data.json").write_text(json.dumps(data))
    environment = {"python": "3.11", "packages": {"jax": "0.10"}, "cpu": "chip", "cores": 2,
                   "platform": "Linux", "device": "cpu", "devices": 1}  # fmt: skip
    (path / "run.json").write_text(json.dumps(environment))
    write_lines(path / "metrics.jsonl", metrics(seconds))
    curve = [
        {"stage": stage, "step": step, "seconds": step * seconds, "images": 4 * step,
         "fd_pixels": distance + more, "fd_pixels_floor": 1.5}
        for stage, step, more in (("vae", 3, 5), ("vae", 6, 3), ("gan", 3, 1), ("gan", 6, 0))
    ]  # fmt: skip
    write_lines(path / "curve.jsonl", curve)
    (path / "evaluation").mkdir()
    evaluation = {
        "format": workdir.EVALUATION_FORMAT,
        "checkpoints": {"vae": 6, "gan": 6},
        "embeddings": [{"name": "pixels", "sha256": "f" * 64, "resize": "to 8x8"}],
        "data": {"train": 900, "is_test_unseen": True},
        "settings": {"evaluation.samples": 100},
        "numbers": numbers(distance),
        "findings": [],
        "seconds": 3.0,
    }
    (path / "evaluation" / "numbers.json").write_text(json.dumps(evaluation))
    return path


def state(change=0.0):
    """A state like a stage's: a tree with floats of two widths and a whole number."""
    bias = np.array([1.0 + change, -2.0, 3.0], np.float32)
    return {
        "step": np.int32(6),
        "params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": bias},
        "optimizer": (np.zeros(2, np.float16), {}),
    }


def save(path, stage, step, tree):
    checkpoints = Checkpoints(path / "checkpoints" / stage, keep=9)
    tree = jax.tree.map(jnp.asarray, tree)
    checkpoints.save(step, tree, {"seconds": np.random.default_rng().random()})


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(path)
