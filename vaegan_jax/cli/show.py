"""Commands that make pictures: sample, interpolate, reconstruct."""

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
    add_reconstruct(commands)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--columns", type=options.integer(1), default=8, help="images per row")
    options.add_scale(parser)


def add_sample(commands: options.Commands) -> None:
    """Adds `sample`."""
    parser = options.add_command(
        commands, sample, "draw new images", "runs/quickstart --count 36 --seed 7 --out faces.png"
    )
    options.add_model(parser)
    options.add_latents(parser)
    parser.add_argument("--count", type=options.integer(1), default=64, help="number of images")
    _add_columns(parser)
    parser.add_argument(
        "--files", action="store_true", help="write one file per image to a folder, not a grid"
    )
    options.add_out(parser, None, " (default: sample.png, or with --files the folder sample)")


def sample(arguments: argparse.Namespace) -> None:
    """Draws images."""
    model = common.load(arguments)
    z = common.latents(arguments, model, arguments.count)
    arguments.out = arguments.out or pathlib.Path("sample" if arguments.files else "sample.png")
    if arguments.files:
        common.save_files(arguments, model, z)
    else:
        columns = min(arguments.columns, len(z))
        common.require_picture(arguments, -(-len(z) // columns), columns, model.image_shape)
        common.save_grid(arguments, common.decode(model, z), columns)


def add_interpolate(commands: options.Commands) -> None:
    """Adds `interpolate`."""
    parser = options.add_command(
        commands,
        interpolate,
        "interpolate between samples or images (slerp)",
        "runs/quickstart --stops 5 --out walk.webp",
    )
    options.add_model(parser)
    options.add_latents(parser)
    parser.add_argument("--stops", type=options.integer(2), help="number of samples (default: 4)")
    parser.add_argument(
        "--images", nargs="+", type=pathlib.Path, metavar="IMAGE", help="image files, not samples"
    )
    parser.add_argument("--loop", action="store_true", help="return to the beginning")
    parser.add_argument(
        "--frames",
        type=options.integer(2),
        default=9,
        help="frames from one sample to the next, both included",
    )
    options.add_scale(parser)
    text = ": .png for a strip, .gif or .webp for an animation"
    options.add_out(parser, "interpolate.png", text)


def interpolate(arguments: argparse.Namespace) -> None:
    """Interpolates between samples, or between the latents of images."""
    model = common.load(arguments, encoder=arguments.images is not None)
    if arguments.images is None:
        z = common.latents(arguments, model, arguments.stops or 4)
    elif arguments.stops or arguments.seed is not None:
        raise UserError("--images cannot be combined with --stops or --seed.")
    else:
        z = common.encode(model, common.read_images(arguments.images, model))
        z = np.float32(arguments.truncation) * z
    if len(z) < 2:
        raise UserError("Interpolation needs two images or more.")
    if arguments.loop:
        z = np.concatenate([z, z[:1]])
    common.require_picture(arguments, len(z) - 1, arguments.frames, model.image_shape)
    common.save_animation(arguments, _interpolations(model, z, arguments.frames))


def _interpolations(model: Trained, z: np.ndarray, frames: int) -> np.ndarray:
    """Returns images on great circles between latents [N, L]: uint8 [N - 1, frames, H, W, C]."""
    import jax
    import jax.numpy as jnp

    from vaegan_jax.evaluation.latents import slerp

    t, ends = jnp.linspace(0, 1, frames), jnp.asarray(z)
    segments = np.asarray(jax.vmap(slerp, (0, 0, None))(ends[:-1], ends[1:], t))
    pictures = common.decode(model, segments.reshape(-1, segments.shape[-1]))
    return pictures.reshape(len(segments), frames, *pictures.shape[1:])


def add_reconstruct(commands: options.Commands) -> None:
    """Adds `reconstruct`."""
    parser = options.add_command(
        commands,
        reconstruct,
        "encode images, and decode them with the VAE and with the GAN's generator",
        "runs/quickstart ~/Pictures/me.png",
    )
    options.add_model(parser)
    parser.add_argument("images", nargs="+", type=pathlib.Path, metavar="IMAGE", help="image files")
    _add_columns(parser)
    options.add_out(parser, "reconstruct.png")


def reconstruct(arguments: argparse.Namespace) -> None:
    """Shows images above those of each model at the same latents, and prints the PSNR."""
    from vaegan_jax import trained
    from vaegan_jax.report.pictures import alternate

    if arguments.step is not None and not arguments.model:
        raise UserError("--step needs --model, the model whose step it is.")
    available = [name for name in trained.MODELS if trained.steps(arguments.run, name)]
    names = [arguments.model] if arguments.model else available or ["vae"]  # which is refused
    models = {name: trained.load(arguments.run, name, arguments.step) for name in names}
    originals = common.read_images(arguments.images, models[names[0]])
    columns, rows = min(arguments.columns, len(originals)), 1 + len(models)
    common.require_picture(
        arguments, rows * -(-len(originals) // columns), columns, originals.shape[1:]
    )
    shown = [originals]
    for name, model in models.items():
        shown.append(common.decode(model, common.encode(model, originals)))
        difference = originals.astype(np.float64) - shown[-1]
        with np.errstate(divide="ignore"):
            psnr = 10 * np.log10(255**2 / np.mean(difference * difference))
        print(f"{name}: PSNR {psnr:.2f} dB over {len(originals)} images")
    common.save_grid(arguments, alternate(shown, columns), columns)
