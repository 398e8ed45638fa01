"""Subcommands that make pictures: sample, interpolate, traverse, reconstruct, morph."""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import trained
from vaegan_jax.cli import common
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation.latents import slerp
from vaegan_jax.report.pictures import alternate


def sample(arguments: argparse.Namespace) -> None:
    """Draws images."""
    model = common.load(arguments)
    if arguments.latents is not None and (arguments.count or arguments.seed is not None):
        raise UserError("--latents says which images there are: leave out --count and --seed.")
    z = common.latents(arguments, model, arguments.count or 64)
    if arguments.files:
        out = arguments.out or pathlib.Path("sample")
        blocks = common.decode_blocks(model, z)
        common.save_files(out, blocks, len(z), "sample_", arguments.scale)
    else:
        out = arguments.out or pathlib.Path("sample.png")
        columns, scale = arguments.columns, arguments.scale
        common.require_grid(
            out, len(z), columns, model.image_shape, scale, ", or give --files for one file each"
        )
        common.save_grid(out, common.decode(model, z), columns, scale, arguments.force)
    if arguments.save_latents:
        common.write_latents(arguments.save_latents, z, arguments.force)


def interpolate(arguments: argparse.Namespace) -> None:
    """Goes from image to image."""
    model = common.load(arguments)
    if arguments.latents is not None and (arguments.stops or arguments.seed is not None):
        raise UserError("--latents says which images there are: leave out --stops and --seed.")
    z = common.latents(arguments, model, arguments.stops or 4)
    if len(z) < 2:
        raise UserError(f"{arguments.latents} holds one latent, and a way needs two or more.")
    if arguments.loop:
        z = np.concatenate([z, z[:1]])
    out = arguments.out or pathlib.Path("interpolate.png")
    common.require_way(arguments, out, len(z) - 1, arguments.frames, model.image_shape)
    common.save_way(arguments, out, way(model, z, arguments.frames))


def way(model: trained.Trained, stops: np.ndarray, frames: int) -> np.ndarray:
    """Returns the images on the way from latent to latent: uint8 [N - 1, frames, H, W, C].

    Args:
      model: that decodes.
      stops: its own latents, float32 [N, L].
      frames: of each leg, both of its ends included.
    """
    t, ends = jnp.linspace(0, 1, frames), jnp.asarray(stops)
    legs = np.asarray(jax.vmap(slerp, (0, 0, None))(ends[:-1], ends[1:], t))
    pictures = common.decode(model, legs.reshape(-1, legs.shape[-1]))
    return pictures.reshape(len(legs), frames, *pictures.shape[1:])


def traverse(arguments: argparse.Namespace) -> None:
    """Shows what single dimensions or directions do."""
    model = common.load(arguments)
    variances = (model.facts.get("latent") or {}).get("variance_by_unit")
    by = arguments.by or ("units" if variances else "directions")
    if arguments.seed is None:
        middle = np.zeros((1, model.latent_size), np.float32)
    else:
        middle = common.draw(model, 1, arguments.seed, 1.0)
    count = min(8, model.latent_size) if arguments.count is None else arguments.count
    if count > model.latent_size:
        raise UserError(
            f"--count ({count}) is above the number of latent dimensions ({model.latent_size}): "
            "lower it."
        )
    out = arguments.out or pathlib.Path("traverse.png")
    size = count * arguments.columns, arguments.columns
    common.require_grid(out, *size, model.image_shape, arguments.scale)
    reach = np.linspace(-arguments.reach, arguments.reach, arguments.columns, dtype=np.float32)
    if by == "units":
        if not variances or len(variances) != model.latent_size:
            raise UserError(
                f"{model.facts['source']} does not say which units are active, as a finished VAE "
                "does: use --by directions."
            )
        spread = np.asarray(variances)
        units = np.argsort(-spread, kind="stable")[:count]
        axes = np.eye(model.latent_size)[units] * np.sqrt(spread[units])[:, None]
        z = model.to_generator_latents(_along(model.to_encoder_latents(middle), axes, reach))
        print(f"units, most active first: {', '.join(map(str, units))}")
    else:
        z = _along(middle, principal_directions(model)[:count], reach)
    pictures = common.decode(model, z)
    common.save_grid(out, pictures, arguments.columns, arguments.scale, arguments.force)


def principal_directions(model: trained.Trained) -> np.ndarray:
    """Returns the directions in which the first layer answers most, by size: float32 [L, L] rows.

    The right singular vectors of its weights (Shen and Zhou 2020, arXiv 2007.06600, equation 4),
    which are the principal components of its output over normal latents.
    """
    kernel = np.asarray(model.params["dense"]["kernel"], np.float64)
    directions, _, _ = np.linalg.svd(kernel, full_matrices=False)
    # Of the two signs the one whose largest entry is positive.
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    rows: np.ndarray = (directions * signs).T.astype(np.float32)
    return rows


def _along(middle: np.ndarray, axes: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Returns ``middle + r axis`` for each axis and then each r: float32 [axes * reach, L]."""
    found = middle[None] + axes[:, None] * reach[None, :, None]
    rows: np.ndarray = found.reshape(-1, middle.shape[-1]).astype(np.float32)
    return rows


def reconstruct(arguments: argparse.Namespace) -> None:
    """Puts images through encoder and decoder."""
    model = common.load(arguments, encoder=True, default="vae")
    originals, _ = common.read_images(arguments.images, model)
    columns = min(arguments.columns, len(originals))
    out = arguments.out or pathlib.Path("reconstruct.png")
    shown = 2 * -(-len(originals) // columns) * columns
    common.require_grid(out, shown, columns, model.image_shape, arguments.scale)
    mean, _ = model.encode(common.to_network(originals))
    back = common.decode(model, model.to_generator_latents(mean))
    pictures = alternate((originals, back), columns)
    common.save_grid(out, pictures, columns, arguments.scale, arguments.force)
    print(f"PSNR: {common.psnr(originals, back):.2f} dB over {len(originals)} images")


def morph(arguments: argparse.Namespace) -> None:
    """Goes from one image to another; both ends of a strip show the images themselves."""
    model = common.load(arguments, encoder=True)
    originals, _ = common.read_images(arguments.images, model)
    if len(originals) != 2:
        raise UserError("morph goes from one image to another: name two images, not folders.")
    out = arguments.out or pathlib.Path("morph.png")
    common.require_way(arguments, out, 1, arguments.frames + 2, model.image_shape)
    mean, _ = model.encode(common.to_network(originals))
    legs = way(model, model.to_generator_latents(mean), arguments.frames)
    if out.suffix.lower() not in (".gif", ".webp"):
        legs = np.concatenate([originals[None, :1], legs, originals[None, 1:]], axis=1)
    common.save_way(arguments, out, legs)
