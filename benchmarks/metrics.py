"""How exact and how fast the metrics are.

    python benchmarks/metrics.py --parity --frechet --embeddings

`--parity` holds ours against the standard libraries' values in tests/evaluation/parity.json.
`--frechet` holds the float32 Frechet distance against float64 on the host, at the sizes that are
met. `--embeddings` counts images a second. Without a flag all three are done.
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

from vaegan_jax.evaluation import distances, embeddings, vae_bounds

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
        manifold = distances.manifold(real, fake)
        fidelity = case["improved_precision_recall_k3 (<=)"]["torch_fidelity"]
        prdc = case["prdc_k5 (strict <)"]
        rows = {
            "Frechet, exact in float64": (
                case["fid"]["svd_of_factors_float64 (own, most accurate)"],
                distances.frechet(real, fake),
            ),
            "Frechet, pytorch-fid": (
                case["fid"]["pytorch_fid.calculate_frechet_distance"],
                distances.frechet(real, fake),
            ),
            "KID, torchmetrics": (
                case["kid"]["torchmetrics.poly_mmd same rows"],
                distances.polynomial_mmd(real[:n], fake[:n]),
            ),
            "precision, torch-fidelity": (fidelity["precision"], manifold.precision),
            "recall, torch-fidelity": (fidelity["recall"], manifold.recall),
            "density, prdc": (prdc["density"], manifold.density),
            "coverage, prdc": (prdc["coverage"], manifold.coverage),
            "authenticity, dgm-eval": (
                case["authenticity_fraction (dgm-eval authpct rule, x0.01)"],
                distances.authenticity(real, fake),
            ),
            "Vendi, vendi-score": (
                case["vendi (cosine kernel, q=1) of fake"][
                    "vendi_score.vendi.score_X(normalize=True)"
                ],
                distances.vendi(fake),
            ),
            "Gaussian MMD, torch-fidelity": (
                case["mmd2_rbf_sigma2_unbiased"]["torch_fidelity"],
                vae_bounds.gaussian_mmd(real[:n], fake[:n], 2.0),
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
            jax.block_until_ready(distances.frechet(real, fake))
            began = time.perf_counter()
            ours = float(distances.frechet(real, fake))
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
    images = np.random.default_rng(0).integers(0, 256, (256, 64, 64, 3)).astype(np.uint8)
    for size in (224, 128, 64):
        embedding = embeddings.make("efflite0", size)
        embeddings.extract(embedding, images[:64])
        began = time.perf_counter()
        embeddings.extract(embedding, images)
        print(f"| {embedding.name} | {len(images) / (time.perf_counter() - began):.0f} |")


def main() -> None:
    """Does what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"parity": parity, "frechet": frechet, "embeddings": images_per_second}
    for name in parts:
        parser.add_argument(f"--{name}", action="store_true")
    arguments = vars(parser.parse_args())
    print(f"{os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}")
    for name, part in parts.items():
        if arguments[name] or not any(arguments.values()):
            part()


if __name__ == "__main__":
    main()
