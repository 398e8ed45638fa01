"""Sensitivity of the embeddings to known distortions of real images, and their speed.

    python benchmarks/embeddings.py --embeddings=efflite0_224,efflite0_64

Real faces are compared with distorted real faces; no trained model is involved. In each of three
splits, 500 faces are the reference, and 500 others are distorted. The sensitivity is the increase
of the Frechet distance over that of the same faces without distortion, divided by the standard
deviation of the Frechet distance between real sets of 500 faces over 20 random pairs of sets.

The rule by which docs/embeddings.md chooses input sizes: a distortion is detected at a strength if
its mean sensitivity is at least 5, and ordered if its sensitivities increase with its strength. The
fast size of a network is the smallest that detects, at the middle strength, and orders every
distortion that the network detects there at 224 pixels, the size of its training. The default size
is the smallest that also detects, at the lowest strength, every distortion that it detects there at
224 pixels.
"""

import argparse
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from vaegan_jax import config as configuration
from vaegan_jax import registry
from vaegan_jax.data import images
from vaegan_jax.evaluation import distances, embeddings

SPLITS, COUNT, FLOORS, POOL = 3, 500, 20, 3_000
THRESHOLD = 5
CHUNK = 256

Strengths = tuple[float, float, float]


class Study(NamedTuple):
    """The results for one embedding.

    Attributes:
      floor: mean Frechet distance between real sets, and its standard deviation.
      sensitivity: by distortion, at each strength: the mean over the splits.
      cost: CPU time per image in milliseconds, summed over cores; the lowest of groups of images.
    """

    floor: tuple[float, float]
    sensitivity: dict[str, list[float]]
    cost: float


def blur(faces: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur, sigma in pixels."""
    return scipy.ndimage.gaussian_filter(faces, (0, sigma, sigma, 0), mode="nearest")


def noise(faces: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian noise, of a deviation in 1/255."""
    return faces + np.random.default_rng(1).normal(0, deviation, faces.shape)


def shift(faces: np.ndarray, pixels: float) -> np.ndarray:
    """A shift to the right, with repeated borders."""
    return scipy.ndimage.shift(faces, (0, 0, pixels, 0), order=1, mode="nearest")


def colour(faces: np.ndarray, share: float) -> np.ndarray:
    """Saturation and brightness reduced by a share."""
    grey = faces.mean(axis=-1, keepdims=True)
    return (1 - share) * (grey + (1 - share) * (faces - grey))


def lattice(faces: np.ndarray, amplitude: float) -> np.ndarray:
    """A checkerboard of single pixels, of an amplitude in 1/255."""
    sign = (-1.0) ** np.add.outer(np.arange(faces.shape[1]), np.arange(faces.shape[2]))
    return faces + amplitude * sign[None, :, :, None]


DISTORTIONS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], Strengths]] = {
    "blur, sigma in pixels": (blur, (0.4, 0.6, 1.0)),
    "noise, of 255": (noise, (4, 8, 16)),
    "shift, pixels": (shift, (1, 2, 4)),
    "colour, share": (colour, (0.04, 0.08, 0.16)),
    "lattice, of 255": (lattice, (4, 8, 16)),
}
"""Distortions of each image."""

FOREIGN: Strengths = (0.02, 0.05, 0.1)
KEPT: Strengths = (0.75, 0.5, 0.25)
DISTINCT: Strengths = (200, 100, 50)
STRENGTHS: dict[str, Strengths] = {name: part[1] for name, part in DISTORTIONS.items()} | {
    "foreign images, share": FOREIGN,
    "missing modes, share kept": KEPT,
    "copies, different images": DISTINCT,
}


def gradients(count: int, size: int) -> np.ndarray:
    """Returns foreign images: colour gradients with a straight edge, uint8."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:size, :size] / size
    below = y > rng.uniform(0.2, 0.8, (count, 1, 1)) + rng.uniform(-0.5, 0.5, (count, 1, 1)) * x
    colours = rng.uniform(40, 255, (2, count, 1, 1, 3)) * (1 - 0.4 * y[None, None, :, :, None])
    return np.where(below[..., None], *colours).astype(np.uint8)


def main_colour(faces: np.ndarray) -> np.ndarray:
    """Returns the position of each face along the first principal component of 8x8 colours."""
    cells = faces.reshape(len(faces), 8, faces.shape[1] // 8, 8, faces.shape[2] // 8, 3)
    means = cells.mean(axis=(2, 4)).reshape(len(faces), -1)
    left, scale, _ = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    return left[:, 0] * scale[0]


def distorted_features(
    embedding: embeddings.Embedding, faces: np.ndarray, clean: np.ndarray, split: int
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields the features of each distortion of a split at each strength, float32 [COUNT, d].

    `clean` are the features of the faces, in the same order.
    """
    extract = functools.partial(embeddings.extract, embedding)
    first = (2 * split + 1) * COUNT
    probe, features = faces[first : first + COUNT], clean[first : first + COUNT]
    for name, (function, strengths) in DISTORTIONS.items():
        pixels = [function(probe.astype(np.float32), strength) for strength in strengths]
        yield name, [extract(np.clip(np.round(x), 0, 255).astype(np.uint8)) for x in pixels]
    foreign = extract(gradients(int(COUNT * FOREIGN[-1]), faces.shape[1]))
    counts = [int(COUNT * share) for share in FOREIGN]
    yield (
        "foreign images, share",
        [np.concatenate([foreign[:n], features[n:]]) for n in counts],
    )
    # Faces outside the reference whose main colour is among the lowest.
    position = main_colour(faces)
    others = np.setdiff1d(np.arange(len(faces)), np.arange(first - COUNT, first))
    others = np.random.default_rng(split).permutation(others)
    limits = np.quantile(position, KEPT)
    yield (
        "missing modes, share kept",
        [clean[others[position[others] <= limit][:COUNT]] for limit in limits],
    )
    yield (
        "copies, different images",
        [np.resize(features[: int(n)], features.shape) for n in DISTINCT],
    )


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Returns the Frechet distance of features."""
    both = (distances.gaussian(jnp.asarray(x)) for x in (real, fake))
    return float(distances.frechet(*both))


def study(embedding: embeddings.Embedding, faces: np.ndarray) -> Study:
    """Studies an embedding on real images in random order, uint8 [POOL, H, W, 3]."""
    embeddings.extract(embedding, faces[:CHUNK])  # compiles
    parts, seconds = [], []
    for start in range(0, POOL, CHUNK):
        began = time.process_time()
        parts.append(embeddings.extract(embedding, faces[start : start + CHUNK]))
        seconds.append((time.process_time() - began) / len(parts[-1]))
    clean = np.concatenate(parts)
    rng = np.random.default_rng(0)
    pairs = [rng.permutation(POOL)[: 2 * COUNT].reshape(2, COUNT) for _ in range(FLOORS)]
    floors = [frechet(clean[a], clean[b]) for a, b in pairs]
    mean, deviation = float(np.mean(floors)), float(np.std(floors, ddof=1))
    rises: dict[str, list[list[float]]] = {name: [] for name in STRENGTHS}
    for split in range(SPLITS):
        real, probe = np.split(clean[2 * split * COUNT : 2 * (split + 1) * COUNT], 2)
        floor = frechet(real, probe)
        for name, variants in distorted_features(embedding, faces, clean, split):
            rises[name].append([frechet(real, fake) - floor for fake in variants])
    sensitivity = {
        name: [float(x) for x in np.mean(values, axis=0) / deviation]
        for name, values in rises.items()
    }
    return Study((mean, deviation), sensitivity, 1_000 * min(seconds))


def unordered(result: Study) -> list[str]:
    """Returns the distortions whose sensitivities do not increase with their strength."""
    return [
        kind
        for kind, values in result.sensitivity.items()
        if any(a >= b for a, b in itertools.pairwise(values))
    ]


def chosen(results: dict[str, Study]) -> tuple[str, str]:
    """Returns the names of the fast and the default size of a network, by the rule.

    Args:
      results: by name, from the smallest size to the size of the training.
    """

    def detected(result: Study, strength: int) -> set[str]:
        return {k for k, values in result.sensitivity.items() if values[strength] >= THRESHOLD}

    full = list(results.values())[-1]
    fast = [
        name
        for name, result in results.items()
        if detected(full, 1) <= detected(result, 1) - set(unordered(result))
    ]
    default = [name for name in fast if detected(full, 0) <= detected(results[name], 0)]
    return next(iter(fast), "none"), next(iter(default), "none")


def report(results: dict[str, Study]) -> None:
    """Prints the results as tables."""
    print("\n| | strengths | " + " | ".join(results) + " |\n|" + "---|" * (len(results) + 2))
    for kind, strengths in STRENGTHS.items():
        cells = (
            " / ".join(f"{value:.1f}" for value in result.sensitivity[kind])
            for result in results.values()
        )
        print(f"| {kind} | {' / '.join(f'{x:g}' for x in strengths)} | {' | '.join(cells)} |")
    print("\n| embedding | floor | sd | CPU ms per image | not ordered |\n|" + "---|" * 5)
    for name, result in results.items():
        mean, deviation = result.floor
        wrong = "; ".join(unordered(result)) or "none"
        print(f"| {name} | {mean:.4g} | {deviation:.2g} | {result.cost:.1f} | {wrong} |")
    for network in dict.fromkeys(name.partition("_")[0] for name in results):
        of_network = {k: v for k, v in results.items() if k.startswith(f"{network}_")}
        print("{}: fast {}, default {}".format(network, *chosen(of_network)))


def load_faces() -> np.ndarray:
    """Returns training faces in random order, uint8 [POOL, 64, 64, 3]."""
    data = images.load(configuration.default_config().data)
    return data.train[np.random.default_rng(0).permutation(len(data.train))[:POOL]]


def main() -> None:
    """Studies the embeddings named on the command line."""
    default = ",".join(f"{n}_{size}" for n in registry.SIZED for size in (64, 128, 160, 224))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--embeddings", default=default, help="comma-separated names")
    parser.add_argument("--out", type=pathlib.Path, help="also write the results as JSON")
    arguments = parser.parse_args()
    faces = load_faces()
    results: dict[str, Study] = {}
    for embedding in embeddings.make_all(arguments.embeddings):
        results[embedding.name] = study(embedding, faces)
        jax.clear_caches()
        print(f"{embedding.name} done", flush=True)
    report(results)
    if arguments.out:
        arguments.out.write_text(json.dumps({k: v._asdict() for k, v in results.items()}, indent=1))


if __name__ == "__main__":
    main()
