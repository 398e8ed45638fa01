"""Trains variants of a config, and compares their samples with the test images in two embeddings.

    python benchmarks/recipes.py --workdir runs/recipes --name batch_8 \
        --set gan.batch_size=8 gan.steps=5600 --seeds 0 1 2
    python benchmarks/recipes.py --workdir runs/recipes

Variants with equal fields of data, model and VAE share one VAE per seed. A line of results.jsonl has
the Frechet distances of 1,000 samples of the generator and of its moving average, and the seconds
of both stages. Without a name, the results are printed as a table.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sys
from typing import Any

import PIL.Image
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vaegan_jax import config as configuration
from vaegan_jax import networks, overrides, randomness, trained, workdir
from vaegan_jax.data import images
from vaegan_jax.evaluation import distances, embeddings, latents, number
from vaegan_jax.pipeline import run
from vaegan_jax.report import pictures

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs import quickstart

EMBEDDINGS = {"efflite0": 224, "alexnet": 160}
SAMPLES = 1_000


def vae_folder(config: ConfigDict, path: pathlib.Path) -> pathlib.Path:
    """Trains the VAE of a config unless a variant has trained it; returns the run's folder."""
    flat = configuration.flatten(config)
    fields = {name: flat[name] for name in flat if name.split(".")[0] in ("data", "model", "vae")}
    text = json.dumps(fields | {"seed": config.seed}) + os.environ.get("VARIANT", "")
    shared = quickstart.get_config()
    shared.evaluation.embeddings, shared.seed = "none", config.seed
    for section in ("data", "model", "vae"):
        shared[section] = config[section]
    folder = path / f"vae_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    run.train_and_evaluate(shared, folder, ("vae",))
    return folder


def train(config: ConfigDict, path: pathlib.Path, name: str) -> pathlib.Path:
    """Trains both stages of a config with a shared VAE; returns the run's folder."""
    folder = path / f"{name}_{config.seed}"
    if not folder.exists() and config.transfer.generator == "vae":
        shared = vae_folder(config.copy_and_resolve_references(), path)
        shutil.copytree(shared, folder)
        (folder / workdir.CONFIG).write_text(configuration.to_json(config))
    run.train_and_evaluate(config, folder, ("gan",))
    return folder


def evaluate(config: ConfigDict, folder: pathlib.Path, path: pathlib.Path) -> dict[str, Any]:
    """Returns the distances of a run's samples, and writes a picture of the first 64."""
    data = images.load(config.data)
    model = trained.load(folder, "gan", encoder=False)
    z = randomness.latents(
        number.evaluation_key(0, 0, randomness.Purpose.LATENT),
        (SAMPLES, config.model.latent_size),
        config.gan.noise,
    )
    decode = jax.jit(networks.make_decode(config.model, data.shape))
    fakes = latents.decode_images(decode, jax.tree.map(jnp.asarray, model.params), z)
    grid = pictures.grid(fakes[:64], 8)
    PIL.Image.fromarray(grid).save(folder / "samples.png")
    result: dict[str, Any] = {}
    for name, size in EMBEDDINGS.items():
        embedding = embeddings.make(name, size) if False else embeddings.make(f"{name}_{size}")
        cache = path / f"{embedding.name}.npy"
        if not cache.exists():
            test = data.test.take(np.arange(len(data.test)))
            np.save(cache, embeddings.extract(embedding, test))
        real = distances.gaussian(np.load(cache))
        fake = distances.gaussian(embeddings.extract(embedding, fakes))
        result[embedding.name] = round(float(distances.frechet(real, fake)), 1)
    return result


def main() -> None:
    """Trains and evaluates one variant, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    path = args.workdir
    path.mkdir(parents=True, exist_ok=True)
    results = path / "results.jsonl"
    for seed in args.seeds if args.name else []:
        config = quickstart.get_config()
        config.evaluation.embeddings = "none"
        config.training.log_every, config.training.checkpoint_every = 100, 4_000
        config.training.picture_every = 4_000
        for text in args.set:
            overrides.set_field(config, text)
        config.seed = seed
        folder = train(config, path, args.name)
        seconds = {
            f"{stage}_s": round(workdir.Reader(folder).metrics(stage)[-1]["seconds"])
            for stage in ("vae", "gan")
            if workdir.Reader(folder).metrics(stage)
        }
        line = {"name": args.name, "seed": seed, "set": args.set, "env": os.environ.get("VARIANT", "")}
        line |= seconds | evaluate(config, folder, path)
        print(line, flush=True)
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
