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
      speed: images/s of the fastest 256 images.
    """

    floor: tuple[float, float]
    sensitivity: dict[str, list[float]]
    speed: float


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
    extract: Callable[[np.ndarray], np.ndarray], faces: np.ndarray, clean: np.ndarray, split: int
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields the features of each distortion of a split at each strength, float32 [COUNT, d]."""
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


def study(
    extract: Callable[[np.ndarray], np.ndarray],
    faces: np.ndarray,
    views: Callable[[np.ndarray], dict[str, np.ndarray]],
) -> dict[str, Study]:
    """Studies an embedding, or several views of the features of one network.

    Args:
      extract: faces uint8 [N, H, W, 3] -> features float32 [N, d].
      faces: real images, uint8 [POOL, H, W, 3], in random order.
      views: features -> features by name.
    """
    extract(faces[:CHUNK])  # compiles
    parts, seconds = [], []
    for start in range(0, POOL - POOL % CHUNK, CHUNK):
        began = time.perf_counter()
        parts.append(extract(faces[start : start + CHUNK]))
        seconds.append(time.perf_counter() - began)
    speed = CHUNK / min(seconds)
    clean = np.concatenate([*parts, extract(faces[len(parts) * CHUNK :])])

    rng = np.random.default_rng(0)
    pairs = [rng.permutation(POOL)[: 2 * COUNT].reshape(2, COUNT) for _ in range(FLOORS)]
    floors = {
        name: [frechet(view[a], view[b]) for a, b in pairs] for name, view in views(clean).items()
    }
    rises: dict[str, dict[str, list[list[float]]]] = {name: {} for name in floors}
    for split in range(SPLITS):
        first = 2 * split * COUNT
        real = views(clean[first : first + COUNT])
        probe = views(clean[first + COUNT : first + 2 * COUNT])
        floor = {name: frechet(real[name], probe[name]) for name in real}
        for kind, variants in distorted_features(extract, faces, clean, split):
            seen = [views(variant) for variant in variants]
            for name in real:
                values = [frechet(real[name], view[name]) - floor[name] for view in seen]
                rises[name].setdefault(kind, []).append(values)
    return {
        name: Study(
            (float(np.mean(floors[name])), float(np.std(floors[name], ddof=1))),
            {
                kind: list(np.mean(values, axis=0) / np.std(floors[name], ddof=1))
                for kind, values in rises[name].items()
            },
            speed,
        )
        for name in rises
    }


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
    print("\n| embedding | floor | sd | images/s | not ordered |\n|" + "---|" * 5)
    for name, result in results.items():
        mean, deviation = result.floor
        wrong = "; ".join(unordered(result)) or "none"
        print(f"| {name} | {mean:.4g} | {deviation:.2g} | {result.speed:.0f} | {wrong} |")
    for network in dict.fromkeys(name.partition("_")[0] for name in results):
        of_network = {k: v for k, v in results.items() if k.startswith(f"{network}_")}
        print("{}: fast {}, default {}".format(network, *chosen(of_network)))


def load_faces() -> np.ndarray:
    """Returns training faces in random order, uint8 [POOL, 64, 64, 3]."""
    data = images.load(configuration.default_config().data)
    return data.train[np.random.default_rng(0).permutation(len(data.train))[:POOL]]


def main() -> None:
    """Studies the embeddings named on the command line."""
    sizes = {"efflite0": (64, 96, 128, 160, 224), "alexnet": (64, 96, 128, 224)}
    default = ",".join(f"{name}_{size}" for name, many in sizes.items() for size in many)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--embeddings", default=default, help="comma-separated names")
    parser.add_argument("--out", type=pathlib.Path, help="also write the results as JSON")
    arguments = parser.parse_args()
    faces, results = load_faces(), {}
    for embedding in embeddings.make_all(arguments.embeddings):
        began = time.perf_counter()

        def extract(pixels: np.ndarray, embedding: embeddings.Embedding = embedding) -> np.ndarray:
            return embeddings.extract(embedding, pixels)

        name = embedding.name
        results |= study(extract, faces, lambda x, name=name: {name: x})
        jax.clear_caches()
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    report(results)
    if arguments.out:
        arguments.out.write_text(json.dumps({k: v._asdict() for k, v in results.items()}, indent=1))


if __name__ == "__main__":
    main()
