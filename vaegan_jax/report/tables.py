"""An evaluation's numbers as tables, for the terminal and for the report."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from vaegan_jax.evaluation.number import text

SUBJECTS = {
    "vae_samples": "VAE samples",
    "vae_reconstructions": "VAE reconstructions",
    "gan_samples": "GAN samples",
}

MEANINGS = {
    "fd_, fid_": "Frechet distance between Gaussians fitted to features; lower is nearer. Only "
    "Inception's is called FID, with the way of resizing.",
    "kd_, kid_": "Kernel distance (squared maximum mean discrepancy, cubic kernel), unbiased, so "
    "that its floor is about 0.",
    "precision": "Share of the samples that lie among real images.",
    "recall": "Share of the real images that lie among samples; falls when modes are missing.",
    "density": "How thickly real images lie around the samples; may exceed 1.",
    "coverage": "Share of the real images that have a sample near them.",
    "authenticity": "Share of the samples that are not nearer to a real image than its own "
    "neighbours are; falls with copies.",
    "completeness": "Share of the samples no further from a real image than 95 % of these from "
    "one another.",
    "vendi": "Effective number of different images.",
    "duplicates": "Share of the samples that nearly equal another; about 0.01 among real images.",
    "nearer_to_training": "Share of the samples nearer to a training than to a held-out image; "
    "0.5 where nothing is memorised.",
    "sharpness": "Mean square of the Laplacian; falls with blur, rises with noise.",
    "path_length": "How fast features change along the way between two latents; lower is steadier.",
    "inception_score": "A footnote: blind to most faults.",
    "psnr, ssim, lpips": "Reconstruction against original: decibels (higher is better), structural "
    "similarity (1 is equal), perceptual distance (lower is better).",
    "elbo, iwae_K": "Bounds on the likelihood of held-out images in bits per pixel and channel; "
    "lower is better, 8 says nothing. With the variance that the training loss implies, or "
    "calibrated to the reconstructions of training images.",
    "kl_nats": "What the posterior says of an image, in nats.",
    "active_units": "Latent dimensions whose posterior mean varies with the image; none after a "
    "posterior collapse.",
    "posterior_prior_mmd": "How far the latents of real images are from those that are sampled.",
}
"""What the names of metrics mean, for the report."""

Row = dict[str, Any]


class Table(NamedTuple):
    """Numbers to be shown together.

    Attributes:
      title: what they are compared with, and how many were.
      columns: the first is the metric's.
      rows: a cell a column, texts.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]


def make(evaluation: dict[str, Any]) -> list[Table]:
    """Returns the tables of what `evaluation/numbers.json` holds."""
    numbers: list[Row] = evaluation["numbers"]
    tables = []
    for against, title in (
        ("held_out", "Against held-out images"),
        ("train", "Against training images"),
        ("statistics", "Against the statistics file"),
        ("", "By themselves"),
    ):
        chosen = [n for n in numbers if n["against"] == against and n["subject"] in SUBJECTS]
        if chosen:
            tables.append(_side_by_side(title, chosen))
    of_vae = [n for n in numbers if n["subject"] == "vae"]
    if of_vae:
        rows = [[n["metric"], with_error(n), text(n["floor"]), str(n["count"])] for n in of_vae]
        tables.append(Table("The VAE as a density", ["", "value", "floor", "count"], rows))
    return tables


def _side_by_side(title: str, numbers: Sequence[Row]) -> Table:
    """Lays out the sets beside one another, and their floor where it is one and the same."""
    subjects = [name for name in SUBJECTS if any(n["subject"] == name for n in numbers)]
    by_place = {(n["metric"], n["subject"]): n for n in numbers}
    counts = sorted({n["count"] for n in numbers if n["metric"] != "path_length"})
    references = sorted({n["reference_count"] for n in numbers if n["reference_count"]})
    title += f", {' and '.join(map(str, counts))} of each"
    if references:
        title += f" and {' and '.join(map(str, references))} real ones"
    rows = []
    for metric in dict.fromkeys(n["metric"] for n in numbers):
        found = [by_place.get((metric, subject)) for subject in subjects]
        floors = {n["floor"] for n in found if n}
        shared = len(floors) == 1
        cells = [
            ""
            if n is None
            else with_error(n)
            if shared
            else f"{with_error(n)} (floor: {_floor(n)})"
            for n in found
        ]
        floor = next(_floor(n) for n in found if n) if shared else "see each"
        rows.append([metric, *cells, floor])
    return Table(title, ["", *(SUBJECTS[name] for name in subjects), "floor"], rows)


def _floor(number: Row) -> str:
    if number["floor"] is None and number["against"] in ("train", "held_out"):
        return "none at this count"
    return text(number["floor"])


def with_error(number: Row) -> str:
    """Returns ``value ± standard error``, the value to the digits that the error leaves it."""
    value, error = number["value"], number["error"]
    if value is None:
        return "not finite"
    if error is None:
        return text(value)
    if not 0 < error < float("inf"):
        return f"{text(value)} ± {text(error)}"
    # Two digits of the error, and as many decimals of the value.
    exponent = int(f"{error:.1e}".partition("e")[2])
    decimals = max(0, 1 - exponent)
    if decimals > 5 and abs(value) < 1e-3:
        digits = max(0, int(f"{value:e}".partition("e")[2]) - exponent + 1) if value else 0
        return f"{value:.{digits}e} ± {error:.1e}"
    return f"{value:z.{decimals}f} ± {error:.{decimals}f}"


def as_text(evaluation: dict[str, Any]) -> str:
    """Returns the tables for a terminal."""
    lines = [f"evaluated by {evaluation['embedding']['name']}, ± standard error:"]
    for table in make(evaluation):
        lines += lay_out(table)
    return "\n".join(lines)


def lay_out(table: Table) -> list[str]:
    """Returns the lines of a table for a terminal, its title first."""
    cells = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    return [f"  {table.title}"] + [
        "    " + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]  # fmt: skip
