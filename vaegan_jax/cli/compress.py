"""Subcommands that compress images by the VAE: encode, decode."""

import argparse
import io
import pathlib

import numpy as np
from PIL import Image

from vaegan_jax.cli import common
from vaegan_jax.errors import UserError
from vaegan_jax.export import codec

_QUALITIES = range(1, 96)
_MAX_COMPARED = 4_096


def encode(arguments: argparse.Namespace) -> None:
    """Compresses images, and says what JPEG and WebP make of as many bytes."""
    model = common.load(arguments, encoder=True, default="vae")
    out = arguments.out or pathlib.Path(f"encoded{codec.SUFFIX}")
    common.require_new(out, arguments.force)
    originals, _ = common.read_images(arguments.images, model)
    mean, _ = model.encode(common.to_network(originals))
    step = arguments.step_size or codec.DEFAULT_STEP
    integers = codec.quantise(mean, step)
    data = codec.pack(integers, step, model.facts["sha256"], model.image_shape)
    latents = codec.unpack(data).latents
    back = common.decode(model, model.to_generator_latents(latents))
    out.write_bytes(data)
    print(f"result: {out}, {len(originals)} images in {len(data)} bytes")
    print(_line("this model", len(data), originals, back))
    if len(originals) <= _MAX_COMPARED:
        for line in comparison(originals, len(data)):
            print(line)
    else:
        print(f"JPEG and WebP are compared with up to {_MAX_COMPARED} images: not with these.")


def decode(arguments: argparse.Namespace) -> None:
    """Brings images back."""
    try:
        data = arguments.file.read_bytes()
    except OSError as error:
        raise UserError(f"{arguments.file} cannot be read: {error.strerror}.") from error
    try:
        found = codec.unpack(data)
    except UserError as error:
        raise UserError(f"{arguments.file} cannot be decoded. {error}") from error
    model = common.load(arguments, default="vae")
    if not model.facts["sha256"].startswith(found.model):
        raise UserError(
            f"{arguments.file} was encoded by another model, whose hash begins with {found.model}, "
            f"and that of {model.facts['source']} ({model.model}, step {model.step}) begins with "
            f"{model.facts['sha256'][:16]}: name the model that encoded it."
        )
    if found.image_shape != model.image_shape or found.integers.shape[1] != model.latent_size:
        raise UserError(f"{arguments.file} cannot be decoded: its header does not fit the model.")
    z = model.to_generator_latents(found.latents)
    out = arguments.out or pathlib.Path("decoded")
    if out.suffix.lower() == ".png":
        common.require_grid(
            out, len(z), 8, model.image_shape, 1, ", or name a folder for one file each"
        )
        common.save_grid(out, common.decode(model, z), 8, 1, arguments.force)
    else:
        common.save_files(out, common.decode_blocks(model, z), len(z))


def comparison(originals: np.ndarray, size: int) -> list[str]:
    """Returns a line for each other way to spend about `size` bytes on uint8 [N, H, W, C].

    JPEG and WebP each twice: a file an image, and one file that shows all of them, in which
    headers weigh little. Each has the highest quality that is not larger.
    """
    lines = []
    for name in ("JPEG", "WEBP"):
        for way, sets in (
            ("a file an image", [image[None] for image in originals]),
            ("one sheet", [originals]),
        ):
            quality, coded = best(sets, name, size)
            total = sum(len(data) for data, _ in coded)
            back = np.concatenate([pictures for _, pictures in coded])
            label = f"{name} quality {quality}, {way}"
            note = "; even its quality 1 is larger" if total > size else ""
            lines.append(_line(label, total, originals, back) + note)
    return lines


Coded = list[tuple[bytes, np.ndarray]]


def best(sets: list[np.ndarray], name: str, size: int) -> tuple[int, Coded]:
    """Returns the highest quality at which all files together have at most `size` bytes, or 1.

    Args:
      sets: of images uint8 [n, H, W, C], a file each.
      name: of Pillow's format.
      size: in bytes.
    """
    low, high = 0, len(_QUALITIES) - 1
    while low < high:  # sizes rise with the quality
        middle = (low + high + 1) // 2
        total = sum(len(_coded(images, name, _QUALITIES[middle])) for images in sets)
        low, high = (middle, high) if total <= size else (low, middle - 1)
    quality = _QUALITIES[low]
    files = [_coded(images, name, quality) for images in sets]
    return quality, [
        (data, _pictures(data, images.shape)) for data, images in zip(files, sets, strict=True)
    ]


def _columns(count: int) -> int:
    return int(np.ceil(np.sqrt(count)))


def _coded(images: np.ndarray, name: str, quality: int) -> bytes:
    # No gap between images instead of the grid's white lines.
    n, height, width, channels = images.shape
    columns = _columns(n)
    rows = -(-n // columns)
    filled = np.concatenate([images, np.repeat(images[-1:], rows * columns - n, axis=0)])
    sheet = filled.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    held = io.BytesIO()
    picture = Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet)
    options = {"method": 6} if name == "WEBP" else {"optimize": True}
    picture.save(held, name, quality=quality, **options)
    return held.getvalue()


def _pictures(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    n, height, width, channels = shape
    with Image.open(io.BytesIO(data)) as picture:
        sheet = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    columns = _columns(n)
    cells = sheet.reshape(-1, height, columns, width, channels).transpose(0, 2, 1, 3, 4)
    return cells.reshape(-1, height, width, channels)[:n]


def _line(name: str, size: int, originals: np.ndarray, back: np.ndarray) -> str:
    n, height, width, _ = originals.shape
    bits = 8 * size / (n * height * width)
    return (
        f"{name}: {bits:.4f} bits per pixel, {size / n:.1f} bytes an image, PSNR "
        f"{common.psnr(originals, back):.2f} dB"
    )
