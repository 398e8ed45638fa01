"""How exact and how fast the metrics are.

    python benchmarks/metrics.py --parity --frechet --embeddings --sensitivity

`--parity` holds ours against the standard libraries' values in tests/evaluation/parity.json.
`--frechet` holds the float32 Frechet distance against float64 on the host, at the sizes that are
met. `--embeddings` counts images a second. `--sensitivity` spoils real comic faces in known ways
and shows what each metric makes of them. Without a flag all four are done.
"""

import argparse
import json
import os
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageFilter

from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.evaluation import comparison, distances, embeddings, vae_metrics

FIXTURE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "evaluation"


def parity() -> None:
    """Prints a table of the libraries' values, ours, and the difference."""
    expected = json.loads((FIXTURE / "parity.json").read_text())
    with np.load(FIXTURE / "parity.npz") as file:
        arrays = dict(file)
    print("\n| features | metric | library | ours | difference |\n|---|---|---|---|---|")
    for name, case in sorted(expected["cases"].items()):
        real, fake = arrays[f"{name}/real"], arrays[f"{name}/fake"]
        n = case["kid"]["n"]
        nearest = distances.nearest_others(real, 5)
        manifold = distances.manifold(real, nearest, fake)
        distance = distances.frechet(distances.gaussian(real), distances.gaussian(fake))
        kernel = distances.mmd(distances.cubic_kernel, real[:n], fake[:n])
        found = distances.neighbours(fake, real)
        fidelity = case["improved_precision_recall_k3 (<=)"]["torch_fidelity"]
        prdc = case["prdc_k5 (strict <)"]
        rows = {
            "Frechet, exact in float64": (
                case["fid"]["svd_of_factors_float64 (own, most accurate)"],
                distance,
            ),
            "Frechet, pytorch-fid": (
                case["fid"]["pytorch_fid.calculate_frechet_distance"],
                distance,
            ),
            "KID, torchmetrics": (
                case["kid"]["torchmetrics.poly_mmd same rows"],
                kernel,
            ),
            "precision, torch-fidelity": (fidelity["precision"], manifold.precision),
            "recall, torch-fidelity": (fidelity["recall"], manifold.recall),
            "density, prdc": (prdc["density"], manifold.density),
            "coverage, prdc": (prdc["coverage"], manifold.coverage),
            "authenticity, dgm-eval": (
                case["authenticity_fraction (dgm-eval authpct rule, x0.01)"],
                comparison.authenticity(nearest, found),
            ),
            "Vendi, vendi-score": (
                case["vendi (cosine kernel, q=1) of fake"][
                    "vendi_score.vendi.score_X(normalize=True)"
                ],
                distances.vendi(fake),
            ),
            "Gaussian MMD, torch-fidelity": (
                case["mmd2_rbf_sigma2_unbiased"]["torch_fidelity"],
                distances.mmd(distances.gaussian_kernel(2.0), real[:n], fake[:n]),
            ),
        }
        for metric, (theirs, ours) in rows.items():
            print(
                f"| {name} | {metric} | {theirs:.6g} | {float(ours):.6g} | "
                f"{abs(float(ours) - theirs):.1e} |"
            )


def features(key: jax.Array, n: int, d: int) -> jax.Array:
    """Returns rectified features whose variances fall off as those of a network's do."""
    key_mix, key_draw = jax.random.split(key)
    mix = jax.random.normal(key_mix, (256, d)) / 16 * jnp.linspace(1.5, 0.05, 256)[:, None]
    noise = 0.1 * jax.random.normal(jax.random.fold_in(key_draw, 1), (n, d))
    return jax.nn.relu(jax.random.normal(key_draw, (n, 256)) @ mix + noise + 0.1)


def frechet() -> None:
    """Prints error and time of the Frechet distance at several sizes."""
    print("\n| d | n | float64 | float32 | relative error | seconds, float32 | seconds, float64 |")
    print("|---|---|---|---|---|---|---|")
    for d in (1280, 2048):
        for n in (1_000, 8_300, 50_000):
            real = jax.block_until_ready(features(jax.random.key(0), n, d))
            fake = jax.block_until_ready(1.05 * features(jax.random.key(0), n, d)[::-1] + 0.01)
            fake = fake + 0.05 * jax.random.normal(jax.random.key(2), fake.shape)

            def distance(real: jax.Array = real, fake: jax.Array = fake) -> float:
                return float(distances.frechet(distances.gaussian(real), distances.gaussian(fake)))

            distance()
            began = time.perf_counter()
            ours = distance()
            ours_seconds = time.perf_counter() - began
            began = time.perf_counter()
            exact = distances.frechet_from_statistics(
                distances.statistics(np.asarray(real)), distances.statistics(np.asarray(fake))
            )
            exact_seconds = time.perf_counter() - began
            print(
                f"| {d} | {n} | {exact:.6g} | {ours:.6g} | {abs(ours / exact - 1):.1e} | "
                f"{ours_seconds:.2f} | {exact_seconds:.2f} |",
                flush=True,
            )


def images_per_second() -> None:
    """Prints images a second of the embedding at three sizes, on images of 64x64."""
    print("\n| embedding | images/s |\n|---|---|")
    noise = np.random.default_rng(0).integers(0, 256, (256, 64, 64, 3)).astype(np.uint8)
    for size in (224, 128, 64):
        embedding = embeddings.make("efflite0", size)
        embeddings.extract(embedding, noise[:64])
        began = time.perf_counter()
        embeddings.extract(embedding, noise)
        print(f"| {embedding.name} | {len(noise) / (time.perf_counter() - began):.0f} |")


def foreign(count: int) -> np.ndarray:
    """Returns pictures that are no faces: hills before a sky, uint8 [count, 64, 64, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    pictures = []
    for _ in range(count):
        sky, hill = rng.integers(60, 256, (2, 3))
        ridge = 32 + 8 * np.sin(x / rng.uniform(4, 12) + rng.uniform(0, 6)) + rng.uniform(-8, 8)
        shade = 1 - 0.4 * y / 64
        pictures.append(np.where((y > ridge)[..., None], hill, sky * shade[..., None]))
    return np.stack(pictures).astype(np.uint8)


def sensitivity() -> None:
    """Prints what each metric makes of real faces and of five ways to spoil them."""
    size, count = 224, 1_000
    embedding = embeddings.make("efflite0", size)
    data = images.load(configuration.default_config().data)
    order = np.random.default_rng(0).permutation(len(data.train))
    train, fresh = data.train[order[:count]], data.train[order[count : 2 * count]]
    noise = np.random.default_rng(1).normal(0, 8, fresh.shape)
    blurred = [Image.fromarray(x).filter(ImageFilter.GaussianBlur(0.6)) for x in fresh]
    sets = {
        "fresh real faces (the floor)": fresh,
        "blurred by 0.6 pixels": np.stack([np.asarray(x) for x in blurred]),
        "noise of 8/255": np.clip(fresh + noise, 0, 255).round().astype(np.uint8),
        "100 faces, ten times each": np.repeat(fresh[:100], 10, axis=0),
        "a tenth is no faces": np.concatenate([fresh[:900], foreign(100)]),
        "the training faces themselves": train,
    }
    held_out = comparison.reference(
        jnp.asarray(embeddings.extract(embedding, data.held_out[:count]))
    )
    seen = comparison.reference(jnp.asarray(embeddings.extract(embedding, train)))
    print(f"\n{embedding.name}, {count} faces each, against as many held-out faces")
    names = ("Frechet", "kernel x 1000", "precision", "recall", "density", "coverage")
    names += ("complete", "Vendi", "sharpness", "duplicates", "nearer to training", "authentic")
    print("| | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for name, pixels in sets.items():
        fake = jnp.asarray(embeddings.extract(embedding, pixels))
        found = comparison.compare(held_out, fake)
        alone = comparison.diversity(held_out.nearest, fake)
        memorised = comparison.memorisation(
            jax.random.key(0), fake, seen.features, held_out.features
        )
        row = (
            f"{float(found['frechet']):.1f}",
            f"{1000 * float(found['kernel']):.2f}",
            *(
                f"{float(found[metric]):.2f}"
                for metric in ("precision", "recall", "density", "coverage", "completeness")
            ),
            f"{float(alone['vendi']):.1f}",
            f"{float(jnp.mean(vae_metrics.sharpness(jnp.asarray(pixels)))):.3f}",
            f"{float(alone['duplicates']):.2f}",
            f"{float(memorised.share):.2f}",
            f"{float(comparison.compare(seen, fake)['authenticity']):.2f}",
        )
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


def main() -> None:
    """Does what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {
        "parity": parity,
        "frechet": frechet,
        "embeddings": images_per_second,
        "sensitivity": sensitivity,
    }
    for name in parts:
        parser.add_argument(f"--{name}", action="store_true")
    arguments = vars(parser.parse_args())
    print(f"{os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}")
    for name, part in parts.items():
        if arguments[name] or not any(arguments.values()):
            part()


if __name__ == "__main__":
    main()
