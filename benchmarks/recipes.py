"""Trains variants of the quickstart, and compares their samples with the test images.

    python benchmarks/recipes.py --workdir runs/recipes --name batch_4 \
        --set gan.batch_size=4 gan.steps=12000 --seeds 0 1 2
    python benchmarks/recipes.py --workdir runs/recipes

A line of results.jsonl has the Frechet distances of 1,000 samples of the generator's moving average
to the test images, in two embeddings, and the seconds of both stages; samples.png shows the first
64. Without a name, the results are printed as a table.
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from vaegan_jax import networks, randomness, recipe, trained, workdir
from vaegan_jax.config import set_field
from vaegan_jax.data import images
from vaegan_jax.evaluation import distances, embeddings, latents, number
from vaegan_jax.pipeline import run
from vaegan_jax.report import pictures

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs import quickstart

EMBEDDINGS = ("efflite0_224", "alexnet_160")
SAMPLES = 1_000


def base_config(seed: int) -> ConfigDict:
    """Returns the quickstart's config without its evaluation."""
    config = quickstart.get_config()
    config.seed, config.evaluation.embeddings = seed, "none"
    config.training.picture_every = config.training.checkpoint_every = 4_000
    return config


def sample(folder: pathlib.Path, step: int | None = None) -> np.ndarray:
    """Returns samples of a run's generator (EMA), uint8 [`SAMPLES`, H, W, C]."""
    model = trained.load(folder, "gan", step, encoder=False)
    key = number.evaluation_key(0, 0, randomness.Purpose.LATENT)
    z = randomness.latents(key, (SAMPLES, model.latent_size), model.config.gan.noise)
    decode = jax.jit(networks.make_decode(model.config.model, model.image_shape))
    return latents.decode_images(decode, jax.device_put(model.params), z)


def evaluate(data: images.Images, fakes: np.ndarray, cache: pathlib.Path) -> dict[str, float]:
    """Returns the Frechet distances of samples to the test images; `cache` is a folder."""
    result = {}
    for name in EMBEDDINGS:
        embedding, file = embeddings.make(name), cache / f"{name}.npy"
        if not file.exists():
            test = data.test.take(np.arange(len(data.test)))
            np.save(file, embeddings.extract(embedding, test))
        real = distances.gaussian(np.load(file))
        fake = distances.gaussian(embeddings.extract(embedding, fakes))
        result[name] = round(float(distances.frechet(real, fake)), 1)
    return result


def main() -> None:
    """Trains and evaluates one variant, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    results = args.workdir / "results.jsonl"
    for seed in args.seeds if args.name else []:
        config = base_config(seed)
        for text in args.set:
            set_field(config, text)
        data = images.load(config.data)
        config = recipe.resolve(config, len(data.train), data.shape)
        folder = args.workdir / f"{args.name}_{seed}"
        run.train_and_evaluate(config, folder, ("vae", "gan"))
        line = {"name": args.name, "seed": seed, "set": args.set}
        for stage in ("vae", "gan"):
            metrics = workdir.Reader(folder).metrics(stage)
            line[stage] = round(metrics[-1]["seconds"]) if metrics else 0
        fakes = sample(folder)
        Image.fromarray(pictures.grid(fakes[:64], 8)).save(folder / "samples.png")
        with results.open("a") as file:
            file.write(json.dumps(line | evaluate(data, fakes, args.workdir)) + "\n")
    columns = ("name", "seed", "vae", "gan", *EMBEDDINGS)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for line in map(json.loads, results.read_text().splitlines()):
        print(f"| {' | '.join(str(line[column]) for column in columns)} |")


if __name__ == "__main__":
    main()
