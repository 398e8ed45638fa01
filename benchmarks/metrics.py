"""Accuracy, speed and sensitivity of the metrics.

    python benchmarks/metrics.py --parity --frechet --embeddings --sensitivity

`--parity` compares the metrics with the values of standard libraries in
tests/evaluation/parity.json, `--frechet` compares the float32 Frechet distance with float64 on the
host, `--embeddings` measures images/s, and `--sensitivity` evaluates comic faces that are modified
in known ways. Without flags, all four run.
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
    """Prints the libraries' values, the values of this package, and the differences."""
    expected = json.loads((FIXTURE / "parity.json").read_text())
    with np.load(FIXTURE / "parity.npz") as file:
        arrays = dict(file)
    print("\n| features | metric | library | this package | difference |\n|---|---|---|---|---|")
    for name, case in sorted(expected["cases"].items()):
        real, fake = arrays[f"{name}/real"], arrays[f"{name}/fake"]
        n = case["kid"]["n"]
        nearest = distances.nearest_others(real, 5)
        manifold = distances.manifold(real, nearest, fake)
        distance = distances.frechet(distances.gaussian(real), distances.gaussian(fake))
        kernel = distances.mmd(distances.cubic_kernel, real[:n], fake[:n])
        neighbours = distances.neighbours(fake, real)
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
                comparison.authenticity(nearest, neighbours),
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
        for metric, (expected_value, value) in rows.items():
            print(
                f"| {name} | {metric} | {expected_value:.6g} | {float(value):.6g} | "
                f"{abs(float(value) - expected_value):.1e} |"
            )


def features(key: jax.Array, n: int, d: int) -> jax.Array:
    """Returns rectified features with a decaying spectrum, float32 [n, d]."""
    key_mix, key_draw = jax.random.split(key)
    mix = jax.random.normal(key_mix, (256, d)) / 16 * jnp.linspace(1.5, 0.05, 256)[:, None]
    noise = 0.1 * jax.random.normal(jax.random.fold_in(key_draw, 1), (n, d))
    return jax.nn.relu(jax.random.normal(key_draw, (n, 256)) @ mix + noise + 0.1)


def frechet() -> None:
    """Prints the error and the time of the Frechet distance for several sizes."""
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
            value = distance()
            seconds = time.perf_counter() - began
            began = time.perf_counter()
            exact = distances.frechet_from_statistics(
                distances.statistics(np.asarray(real)), distances.statistics(np.asarray(fake))
            )
            exact_seconds = time.perf_counter() - began
            print(
                f"| {d} | {n} | {exact:.6g} | {value:.6g} | {abs(value / exact - 1):.1e} | "
                f"{seconds:.2f} | {exact_seconds:.2f} |",
                flush=True,
            )


def images_per_second() -> None:
    """Prints images/s of the embedding at three input sizes, for 64x64 images."""
    print("\n| embedding | images/s |\n|---|---|")
    noise = np.random.default_rng(0).integers(0, 256, (256, 64, 64, 3)).astype(np.uint8)
    for size in (224, 128, 64):
        embedding = embeddings.make(f"efflite0_{size}")
        embeddings.extract(embedding, noise[:64])
        began = time.perf_counter()
        embeddings.extract(embedding, noise)
        print(f"| {embedding.name} | {len(noise) / (time.perf_counter() - began):.0f} |")


def landscapes(count: int) -> np.ndarray:
    """Returns synthetic images without faces, uint8 [count, 64, 64, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    result = []
    for _ in range(count):
        sky, hill = rng.integers(60, 256, (2, 3))
        ridge = 32 + 8 * np.sin(x / rng.uniform(4, 12) + rng.uniform(0, 6)) + rng.uniform(-8, 8)
        shade = 1 - 0.4 * y / 64
        result.append(np.where((y > ridge)[..., None], hill, sky * shade[..., None]))
    return np.stack(result).astype(np.uint8)


def sensitivity() -> None:
    """Prints the metrics of real faces and of five modified or copied sets."""
    size, count = 224, 1_000
    embedding = embeddings.make(f"efflite0_{size}")
    data = images.load(configuration.default_config().data)
    order = np.random.default_rng(0).permutation(len(data.train))
    train, other = data.train[order[:count]], data.train[order[count : 2 * count]]
    noise = np.random.default_rng(1).normal(0, 8, other.shape)
    blurred = [Image.fromarray(x).filter(ImageFilter.GaussianBlur(0.6)) for x in other]
    sets = {
        "other real faces (the floor)": other,
        "Gaussian blur, 0.6 pixels": np.stack([np.asarray(x) for x in blurred]),
        "Gaussian noise, 8/255": np.clip(other + noise, 0, 255).round().astype(np.uint8),
        "100 faces, 10 copies each": np.repeat(other[:100], 10, axis=0),
        "10 % images without faces": np.concatenate([other[:900], landscapes(100)]),
        "training faces": train,
    }
    test = comparison.reference(jnp.asarray(embeddings.extract(embedding, data.test[:count])))
    seen = comparison.reference(jnp.asarray(embeddings.extract(embedding, train)))
    print(f"\n{embedding.name}, {count} faces each, against {count} test faces")
    names = ("Frechet", "kernel x 1000", "precision", "recall", "density", "coverage")
    names += (
        "completeness",
        "Vendi",
        "sharpness",
        "duplicates",
        "nearer to training",
        "authenticity",
    )
    print("| | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for name, pixels in sets.items():
        fake = jnp.asarray(embeddings.extract(embedding, pixels))
        metrics = comparison.compare(test, fake)
        diversity = comparison.diversity(test.nearest, fake)
        memorisation = comparison.memorisation(
            jax.random.key(0), fake, seen.features, test.features
        )
        row = (
            f"{float(metrics['frechet']):.1f}",
            f"{1000 * float(metrics['kernel']):.2f}",
            *(
                f"{float(metrics[metric]):.2f}"
                for metric in ("precision", "recall", "density", "coverage", "completeness")
            ),
            f"{float(diversity['vendi']):.1f}",
            f"{float(jnp.mean(vae_metrics.sharpness(jnp.asarray(pixels)))):.3f}",
            f"{float(diversity['duplicates']):.2f}",
            f"{float(memorisation.share):.2f}",
            f"{float(comparison.compare(seen, fake)['authenticity']):.2f}",
        )
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


def main() -> None:
    """Runs the selected measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = {
        "parity": parity,
        "frechet": frechet,
        "embeddings": images_per_second,
        "sensitivity": sensitivity,
    }
    for name in parts:
        parser.add_argument(f"--{name}", action="store_true")
    args = vars(parser.parse_args())
    print(f"{os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}")
    for name, part in parts.items():
        if args[name] or not any(args.values()):
            part()


if __name__ == "__main__":
    main()
