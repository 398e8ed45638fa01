"""Commands that compress images with the VAE: encode, decode."""

import argparse
import pathlib

from vaegan_jax.cli import common, options
from vaegan_jax.errors import UserError
from vaegan_jax.export import codec


def add_parsers(commands: options.Commands) -> None:
    """Adds the commands of this module."""
    parser = options.add_command(
        commands,
        encode,
        "compress images into one file with the VAE",
        "runs/quickstart ~/Pictures/faces --out faces.vgl",
    )
    options.add_model(parser)
    options.add_images(parser)
    parser.add_argument(
        "--step-size",
        type=options.positive,
        default=codec.DEFAULT_STEP,
        help="quantisation step of the latents; larger steps give smaller files and a lower PSNR",
    )
    options.add_out(parser, f"encoded{codec.SUFFIX}")

    parser = options.add_command(
        commands, decode, "decompress images", "runs/quickstart faces.vgl --out faces"
    )
    options.add_model(parser)
    parser.add_argument("file", type=pathlib.Path, metavar="FILE", help="written by `encode`")
    options.add_out(parser, "decoded", ": a folder, or a .png for a grid")


def encode(arguments: argparse.Namespace) -> None:
    """Compresses images, and prints the size and the PSNR."""
    model = common.load(arguments, encoder=True, default="vae")
    common.require_new(arguments.out, arguments.force)
    originals = common.read_images(arguments.images, model)
    mean, _ = model.encode(common.to_network(originals))
    step = arguments.step_size
    integers = codec.quantise(mean, step)
    data = codec.pack(integers, step, model.facts["sha256"], model.image_shape)
    latents = codec.unpack(data).latents
    back = common.decode(model, model.to_generator_latents(latents))
    arguments.out.write_bytes(data)
    print(f"result: {arguments.out}, {len(originals)} images in {len(data)} bytes")
    n, height, width, _ = originals.shape
    print(
        f"{8 * len(data) / (n * height * width):.4f} bits per pixel, {len(data) / n:.1f} bytes per "
        f"image, PSNR {common.psnr(originals, back):.2f} dB"
    )


def decode(arguments: argparse.Namespace) -> None:
    """Decompresses images."""
    file, out = arguments.file, arguments.out
    try:
        encoded = codec.unpack(file.read_bytes())
    except (OSError, UserError) as error:
        raise UserError(f"{file} cannot be decoded. {error}") from error
    model = common.load(arguments, default="vae")
    if not model.facts["sha256"].startswith(encoded.model):
        raise UserError(
            f"{file} was encoded by another model, whose hash begins with {encoded.model}: the "
            f"hash of {model.facts['source']} ({model.model}, step {model.step}) begins with "
            f"{model.facts['sha256'][:16]}. Name the model that encoded it."
        )
    if encoded.image_shape != model.image_shape or encoded.integers.shape[1] != model.latent_size:
        raise UserError(f"{file} cannot be decoded: its header does not match the model.")
    z = model.to_generator_latents(encoded.latents)
    if out.suffix.lower() == ".png":
        common.require_grid(out, len(z), 8, model.image_shape, 1)
        common.save_grid(out, common.decode(model, z), 8, 1, arguments.force)
    else:
        common.save_files(out, common.decode_blocks(model, z), len(z))
