"""What commands share: loading models, drawing latents, reading images, writing results."""

from __future__ import annotations

import argparse
import io
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaegan_jax.errors import UserError, one_line

if TYPE_CHECKING:
    from vaegan_jax.trained import Trained

MAX_PIXELS = 80_000_000
"""Maximum of one file, over all frames of an animation."""

MAX_LATENT_NUMBERS = 2**27
"""Maximum of the latents of one command, which is 512 MB."""

_MAX_SIDE = 16_383
"""Maximum of the width and the height of a WebP image, in pixels."""

_MILLISECONDS = 80
"""Duration of a frame."""

_BLOCK = 256
"""Images decoded at a time."""


def load(arguments: argparse.Namespace, encoder: bool = False) -> Trained:
    """Loads the model given by RUN, --model and --step; without --model the GAN, if there is one.

    Args:
      arguments: of the command line.
      encoder: whether the command needs one.
    """
    from vaegan_jax import trained

    model = arguments.model or ("gan" if trained.steps(arguments.run, "gan") else "vae")
    return trained.load(arguments.run, model, arguments.step, encoder)


def latents(arguments: argparse.Namespace, model: Trained, count: int) -> np.ndarray:
    """Draws latents by --seed, multiplied by --truncation: float32 [count, L].

    The first ones are the same for every count. With the run's seed, they are the latents of the
    run's own pictures.

    Raises:
      UserError: for more numbers than `MAX_LATENT_NUMBERS`.
    """
    from vaegan_jax import randomness

    size = model.latent_size
    if count * size > MAX_LATENT_NUMBERS:
        raise UserError(
            f"{count} latents of {size} dimensions are too many for one command: draw at most "
            f"{MAX_LATENT_NUMBERS // size}, and the others with another --seed."
        )
    seed = model.config.seed if arguments.seed is None else arguments.seed
    z = randomness.picture_latents(seed, (count, size), model.noise)
    return np.float32(arguments.truncation) * np.asarray(z)


def read_images(paths: Sequence[pathlib.Path], model: Trained) -> np.ndarray:
    """Reads image files, prepared as the model's config says: uint8 [N, H, W, C].

    Raises:
      UserError: if a file is unusable.
    """
    from vaegan_jax.data import decoding, images, preprocessing

    settings = images.settings(model.config.data)
    result = []
    for path in paths:
        try:
            if path.stat().st_size > decoding.MAX_BYTES:
                raise ValueError("too large")
            image = decoding.decode(path.read_bytes())
            result.append(preprocessing.prepare(image, settings))
        except (OSError, decoding.BadImage, ValueError) as error:
            raise UserError(f"{path} cannot be used ({one_line(error)}).") from error
    return np.stack(result)


def encode(model: Trained, pictures: np.ndarray) -> np.ndarray:
    """Returns the latents of the model for images: uint8 [N, H, W, C] -> float32 [N, L]."""
    import jax.numpy as jnp

    from vaegan_jax.data import preprocessing

    mean, _ = model.encode(preprocessing.to_network(jnp.asarray(pictures)))
    return np.asarray(model.to_generator_latents(mean))


def decode(model: Trained, z: np.ndarray) -> np.ndarray:
    """Returns the images of latents [N, L] of the model: uint8 [N, H, W, C]."""
    return np.concatenate(list(_decode_blocks(model, z)))


def _decode_blocks(model: Trained, z: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the images of latents [N, L] of the model in blocks: uint8 [n, H, W, C]."""
    import jax.numpy as jnp

    from vaegan_jax.data import preprocessing

    for first in range(0, len(z), _BLOCK):
        images = model.decode(z[first : first + _BLOCK])
        yield np.asarray(preprocessing.to_uint8(jnp.asarray(images)))


def require_new(path: pathlib.Path, force: bool = False) -> None:
    """Checks that writing replaces no file unless `force` is set, and creates the parent folder.

    Raises:
      UserError: if it would.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file with --out.")
    if path.exists() and not force:
        raise UserError(f"{path} already exists: name another file with --out, or use --force.")
    path.parent.mkdir(parents=True, exist_ok=True)


def require_picture(
    arguments: argparse.Namespace, rows: int, columns: int, image_shape: Sequence[int]
) -> None:
    """Checks that a grid of images [H, W, C] or an animation can be written to --out.

    Raises:
      UserError: for another suffix, an existing file, and more pixels than `MAX_PIXELS` or the
        format allows.
    """
    from vaegan_jax.report.pictures import GAP

    path, scale, frames = arguments.out, arguments.scale, 1
    if is_animation(path):
        rows, columns, frames = 1, 1, 1 + rows * (columns - 1)
    elif path.suffix.lower() != ".png":
        raise UserError(f"{path} must end in .png.")
    height, width = (
        scale * (count * (side + GAP) - GAP)
        for count, side in zip((rows, columns), image_shape, strict=False)
    )
    _require_pixels(path, height, width, frames)
    require_new(path, arguments.force)


def _require_pixels(path: pathlib.Path, height: int, width: int, frames: int = 1) -> None:
    if frames * height * width > MAX_PIXELS or (
        is_animation(path) and max(height, width) > _MAX_SIDE
    ):
        raise UserError(
            f"{path} would have {frames * height * width:,} pixels, {width} x {height} a frame, "
            f"above the limits of {MAX_PIXELS:,} and of {_MAX_SIDE} per side of an animation: use "
            "fewer images, a smaller --scale, or one file per image."
        )


def save_grid(arguments: argparse.Namespace, pictures: np.ndarray, columns: int) -> None:
    """Writes uint8 [N, H, W, C] as a grid, row by row."""
    from vaegan_jax.report.pictures import grid

    _picture(grid(pictures, columns), arguments.scale).save(arguments.out)
    print(f"result: {arguments.out}")


def save_files(arguments: argparse.Namespace, model: Trained, z: np.ndarray) -> None:
    """Decodes latents in blocks, and writes one PNG per image to a new or empty folder.

    Raises:
      UserError: if the folder is not empty, or an image has more pixels than `MAX_PIXELS`.
    """
    folder, (height, width, _) = arguments.out, model.image_shape
    _require_pixels(folder, arguments.scale * height, arguments.scale * width)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty: name another with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(5, len(str(len(z) - 1)))
    for index, picture in enumerate(itertools.chain.from_iterable(_decode_blocks(model, z))):
        path = folder / f"sample_{index:0{digits}d}.png"
        _picture(picture, arguments.scale).save(path)
    print(f"result: {folder}, {len(z)} files")


def is_animation(path: pathlib.Path) -> bool:
    """Whether a path names an animation and not a grid."""
    return path.suffix.lower() in (".gif", ".webp")


def save_animation(arguments: argparse.Namespace, segments: np.ndarray) -> None:
    """Writes an animation, or a grid with one row per segment, as the suffix of --out says.

    Args:
      arguments: of the command line.
      segments: uint8 [segments, frames, H, W, C]; each begins with the last frame of the previous.
    """
    path = arguments.out
    if not is_animation(path):
        save_grid(arguments, segments.reshape(-1, *segments.shape[2:]), segments.shape[1])
        return
    rest = segments[:, 1:].reshape(-1, *segments.shape[2:])
    frames = [_picture(frame, arguments.scale) for frame in (segments[0, 0], *rest)]
    options: dict[str, Any] = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    buffer = io.BytesIO()  # an error while encoding leaves an existing file as it is
    frames[0].save(
        buffer, path.suffix[1:], save_all=True, append_images=frames[1:],
        duration=_MILLISECONDS, loop=0, **options,
    )  # fmt: skip
    path.write_bytes(buffer.getvalue())
    print(f"result: {path}, {len(frames)} frames")


def _picture(picture: np.ndarray, scale: int) -> Image.Image:
    enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(enlarged.squeeze(-1) if enlarged.shape[-1] == 1 else enlarged)
