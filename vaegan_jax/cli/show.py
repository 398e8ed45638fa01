"""Commands that make pictures: sample, interpolate, traverse, reconstruct, morph."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from vaegan_jax.cli import common, options
from vaegan_jax.errors import UserError

if TYPE_CHECKING:
    from vaegan_jax.trained import Trained


def add_parsers(commands: options.Commands) -> None:
    """Adds the commands of this module."""
    add_sample(commands)
    add_interpolate(commands)
    add_traverse(commands)
    add_reconstruct(commands)
    add_morph(commands)


def add_sample(commands: options.Commands) -> None:
    """Adds `sample`."""
    parser = options.add_command(
        commands, sample, "draw new images", "runs/quickstart --count 36 --seed 7 --out faces.png"
    )
    options.add_model(parser)
    options.add_latents(parser)
    parser.add_argument("--count", type=options.integer(1), help="number of images (default: 64)")
    options.add_columns(parser)
    parser.add_argument(
        "--files", action="store_true", help="write one file per image to a folder, not a grid"
    )
    parser.add_argument(
        "--save-latents", type=pathlib.Path, metavar="FILE", help="write the latents, .npy or .csv"
    )
    options.add_out(parser, None, " (default: sample.png, or with --files the folder sample)")


def sample(arguments: argparse.Namespace) -> None:
    """Draws images."""
    model = common.load(arguments)
    z = common.latents(arguments, model, arguments.count, "--count", 64)
    if arguments.files:
        out = arguments.out or pathlib.Path("sample")
        blocks = common.decode_blocks(model, z)
        common.save_files(out, blocks, len(z), "sample_", arguments.scale)
    else:
        out = arguments.out or pathlib.Path("sample.png")
        columns, scale = arguments.columns, arguments.scale
        common.require_grid(out, len(z), columns, model.image_shape, scale)
        common.save_grid(out, common.decode(model, z), columns, scale, arguments.force)
    if arguments.save_latents:
        common.write_latents(arguments.save_latents, z, arguments.force)


def add_interpolate(commands: options.Commands) -> None:
    """Adds `interpolate`."""
    parser = options.add_command(
        commands,
        interpolate,
        "interpolate between samples (slerp)",
        "runs/quickstart --stops 5 --out walk.webp",
    )
    options.add_model(parser)
    options.add_latents(parser)
    parser.add_argument("--stops", type=options.integer(2), help="number of samples (default: 4)")
    parser.add_argument("--loop", action="store_true", help="return to the first sample")
    options.add_animation(parser, "interpolate.png")


def interpolate(arguments: argparse.Namespace) -> None:
    """Interpolates between samples."""
    model = common.load(arguments)
    z = common.latents(arguments, model, arguments.stops, "--stops", 4)
    if len(z) < 2:
        raise UserError(f"{arguments.latents} has one latent: interpolation needs two or more.")
    if arguments.loop:
        z = np.concatenate([z, z[:1]])
    common.require_animation(arguments, len(z) - 1, arguments.frames, model.image_shape)
    common.save_animation(arguments, interpolations(model, z, arguments.frames))


def interpolations(model: Trained, z: np.ndarray, frames: int) -> np.ndarray:
    """Returns images on great circles between latents: uint8 [N - 1, frames, H, W, C].

    Args:
      model: the decoder.
      z: latents of the model, float32 [N, L].
      frames: per segment, both ends included.
    """
    import jax
    import jax.numpy as jnp

    from vaegan_jax.evaluation.latents import slerp

    t, ends = jnp.linspace(0, 1, frames), jnp.asarray(z)
    segments = np.asarray(jax.vmap(slerp, (0, 0, None))(ends[:-1], ends[1:], t))
    pictures = common.decode(model, segments.reshape(-1, segments.shape[-1]))
    return pictures.reshape(len(segments), frames, *pictures.shape[1:])


def add_traverse(commands: options.Commands) -> None:
    """Adds `traverse`."""
    parser = options.add_command(
        commands,
        traverse,
        "show the effect of latent dimensions, one per row",
        "runs/quickstart --by units --count 8",
    )
    options.add_model(parser)
    parser.add_argument(
        "--by",
        choices=("units", "directions"),
        help="units: the most active dimensions of the encoder (default if known); directions: "
        "the principal directions of the first layer's weights",
    )
    parser.add_argument(
        "--count", type=options.integer(1), help="number of rows, at most L (default: 8)"
    )
    parser.add_argument("--columns", type=options.integer(2), default=9, help="images per row")
    parser.add_argument(
        "--reach",
        type=options.positive,
        default=3.0,
        help="largest shift to either side, in standard deviations",
    )
    parser.add_argument(
        "--seed",
        type=options.SEED,
        help="shift the first latent of `sample` with this seed (default: the mean latent)",
    )
    options.add_scale(parser)
    options.add_out(parser, "traverse.png")


def traverse(arguments: argparse.Namespace) -> None:
    """Shows the effect of single dimensions or directions."""
    model = common.load(arguments)
    variances = (model.facts.get("latent") or {}).get("variance_by_unit")
    by = arguments.by or ("units" if variances else "directions")
    count, columns = arguments.count or min(8, model.latent_size), arguments.columns
    if count > model.latent_size:
        raise UserError(
            f"--count ({count}) exceeds the number of latent dimensions ({model.latent_size}): "
            "lower it."
        )
    if arguments.seed is None:
        centre = np.zeros((1, model.latent_size), np.float32)
    else:
        centre = common.draw(model, 1, arguments.seed, 1.0)
    common.require_grid(arguments.out, count * columns, columns, model.image_shape, arguments.scale)
    shifts = np.linspace(-arguments.reach, arguments.reach, columns, dtype=np.float32)
    if by == "units":
        if not variances or len(variances) != model.latent_size:
            raise UserError(
                f"The active units of {model.facts['source']} are unknown, since they are measured "
                "when a VAE is finished: use --by directions."
            )
        spread = np.asarray(variances)
        units = np.argsort(-spread, kind="stable")[:count]
        axes = np.eye(model.latent_size)[units] * np.sqrt(spread[units])[:, None]
        z = model.to_generator_latents(_shifted(model.to_encoder_latents(centre), axes, shifts))
        print(f"units, most active first: {', '.join(map(str, units))}")
    else:
        z = _shifted(centre, principal_directions(model)[:count], shifts)
    pictures = common.decode(model, z)
    common.save_grid(arguments.out, pictures, columns, arguments.scale, arguments.force)


def principal_directions(model: Trained) -> np.ndarray:
    """Returns the right singular vectors of the first layer's weights: float32 [L, L], in rows.

    They are the principal components of the layer's output over normal latents, largest first
    (Shen and Zhou 2020, arXiv 2007.06600, equation 4). The largest entry of each is positive.
    """
    kernel = np.asarray(model.params["dense"]["kernel"], np.float64)
    directions, _, _ = np.linalg.svd(kernel, full_matrices=False)
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    rows: np.ndarray = (directions * signs).T.astype(np.float32)
    return rows


def _shifted(centre: np.ndarray, axes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Returns ``centre + shift * axis`` for each axis and shift: float32 [axes * shifts, L]."""
    rows = centre[None] + axes[:, None] * shifts[None, :, None]
    latents: np.ndarray = rows.reshape(-1, centre.shape[-1]).astype(np.float32)
    return latents


def add_reconstruct(commands: options.Commands) -> None:
    """Adds `reconstruct`."""
    parser = options.add_command(
        commands,
        reconstruct,
        "encode and decode images",
        "runs/quickstart ~/Pictures/me.png --model vae",
    )
    options.add_model(parser)
    options.add_images(parser)
    options.add_columns(parser)
    options.add_out(parser, "reconstruct.png")


def reconstruct(arguments: argparse.Namespace) -> None:
    """Shows images above their reconstructions, and prints the PSNR."""
    from vaegan_jax.report.pictures import alternate

    model = common.load(arguments, encoder=True, default="vae")
    originals = common.read_images(arguments.images, model)
    columns = min(arguments.columns, len(originals))
    cells = 2 * -(-len(originals) // columns) * columns
    common.require_grid(arguments.out, cells, columns, model.image_shape, arguments.scale)
    mean, _ = model.encode(common.to_network(originals))
    back = common.decode(model, model.to_generator_latents(mean))
    pictures = alternate((originals, back), columns)
    common.save_grid(arguments.out, pictures, columns, arguments.scale, arguments.force)
    print(f"PSNR: {common.psnr(originals, back):.2f} dB over {len(originals)} images")


def add_morph(commands: options.Commands) -> None:
    """Adds `morph`."""
    parser = options.add_command(
        commands,
        morph,
        "interpolate between two images of yours",
        "runs/quickstart a.png b.png --out morph.webp",
    )
    options.add_model(parser)
    parser.add_argument("images", nargs=2, type=pathlib.Path, metavar="IMAGE", help="both ends")
    options.add_animation(parser, "morph.png")


def morph(arguments: argparse.Namespace) -> None:
    """Interpolates between two images; a strip begins and ends with the images themselves."""
    model = common.load(arguments, encoder=True)
    originals = common.read_images(arguments.images, model)
    if len(originals) != 2:
        raise UserError("morph takes two images: name files, not folders.")
    common.require_animation(arguments, 1, arguments.frames + 2, model.image_shape)
    mean, _ = model.encode(common.to_network(originals))
    legs = interpolations(model, model.to_generator_latents(mean), arguments.frames)
    if not common.is_animation(arguments.out):
        legs = np.concatenate([originals[None, :1], legs, originals[None, 1:]], axis=1)
    common.save_animation(arguments, legs)
