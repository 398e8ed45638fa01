"""Commands that compress images with the VAE: encode, decode."""

import argparse
import io
import pathlib

import numpy as np
from PIL import Image

from vaegan_jax.cli import common, options
from vaegan_jax.errors import UserError
from vaegan_jax.export import codec

_QUALITIES = range(1, 96)
_MAX_COMPARED = 4_096


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
    """Compresses images, and prints the sizes and the PSNR of JPEG and WebP for comparison."""
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
    print(_line("this model", len(data), originals, back))
    if len(originals) <= _MAX_COMPARED:
        for line in comparison(originals, len(data)):
            print(line)
    else:
        print(f"JPEG and WebP: not compared, since there are more than {_MAX_COMPARED} images")


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


def comparison(originals: np.ndarray, size: int) -> list[str]:
    """Returns a line each for JPEG and WebP, for uint8 [N, H, W, C].

    All images are saved as one sheet, which costs fewer headers than one file per image, at the
    highest quality whose size is not larger than `size`.
    """
    lines = []
    for name in ("JPEG", "WEBP"):
        quality, data = best(originals, name, size)
        note = "; larger even at quality 1" if len(data) > size else ""
        back = _from_sheet(data, originals.shape)
        lines.append(_line(f"{name} quality {quality}", len(data), originals, back) + note)
    return lines


def best(images: np.ndarray, name: str, size: int) -> tuple[int, bytes]:
    """Returns the highest quality whose file has at most `size` bytes, or 1, and the file."""
    low, high = 0, len(_QUALITIES) - 1
    while low < high:  # sizes increase with the quality
        middle = (low + high + 1) // 2
        fits = len(_sheet(images, name, _QUALITIES[middle])) <= size
        low, high = (middle, high) if fits else (low, middle - 1)
    return _QUALITIES[low], _sheet(images, name, _QUALITIES[low])


def _columns(count: int) -> int:
    return int(np.ceil(np.sqrt(count)))


def _sheet(images: np.ndarray, name: str, quality: int) -> bytes:
    """Returns uint8 [N, H, W, C] as one file, without gaps between images."""
    n, height, width, channels = images.shape
    columns = _columns(n)
    rows = -(-n // columns)
    filled = np.concatenate([images, np.repeat(images[-1:], rows * columns - n, axis=0)])
    sheet = filled.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    buffer = io.BytesIO()
    picture = Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet)
    options = {"method": 6} if name == "WEBP" else {"optimize": True}
    picture.save(buffer, name, quality=quality, **options)
    return buffer.getvalue()


def _from_sheet(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    n, height, width, channels = shape
    with Image.open(io.BytesIO(data)) as picture:
        sheet = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    cells = sheet.reshape(-1, height, _columns(n), width, channels).transpose(0, 2, 1, 3, 4)
    return cells.reshape(-1, height, width, channels)[:n]


def _line(name: str, size: int, originals: np.ndarray, back: np.ndarray) -> str:
    n, height, width, _ = originals.shape
    bits = 8 * size / (n * height * width)
    return (
        f"{name}: {bits:.4f} bits per pixel, {size / n:.1f} bytes per image, PSNR "
        f"{common.psnr(originals, back):.2f} dB"
    )
