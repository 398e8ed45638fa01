"""What commands share: loading models, drawing latents, reading images, writing results."""

from __future__ import annotations

import argparse
import io
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vaegan_jax.errors import UserError, one_line

if TYPE_CHECKING:
    from vaegan_jax.trained import Trained

MAX_PIXELS = 80_000_000
"""Maximum of one file, over all frames of an animation."""

ANIMATIONS = (".gif", ".webp")
"""Suffixes of animations; the WebP files are lossless."""

_MILLISECONDS = 80
"""Duration of a frame."""

BLOCK = 256
"""Images decoded and written to files at a time."""


def load(arguments: argparse.Namespace, encoder: bool = False) -> Trained:
    """Loads the model given by RUN, --model (by default the GAN, if there is one) and --step."""
    from vaegan_jax import trained

    model = arguments.model or ("gan" if trained.steps(arguments.run, "gan") else "vae")
    return trained.load(arguments.run, model, arguments.step, encoder)


def latents(arguments: argparse.Namespace, model: Trained, count: int) -> np.ndarray:
    """Draws latents by --seed, multiplied by --truncation: float32 [count, L].

    The first ones are the same for every count. With the run's seed, they are the latents of the
    run's own pictures.
    """
    from vaegan_jax import randomness

    seed = model.config.seed if arguments.seed is None else arguments.seed
    z = randomness.picture_latents(seed, (count, model.latent_size), model.noise)
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
    import jax.numpy as jnp

    from vaegan_jax.data import preprocessing

    return np.asarray(preprocessing.to_uint8(jnp.asarray(model.decode(z))))


def require_new(path: pathlib.Path, force: bool) -> None:
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
    path: pathlib.Path,
    force: bool,
    count: int,
    image_shape: Sequence[int],
    suffixes: Sequence[str] = (),
) -> None:
    """Checks that `count` images [H, W, C] can be written to a PNG, or a file with other suffixes.

    Raises:
      UserError: for another suffix, an existing file, and more pixels than `MAX_PIXELS`.
    """
    allowed = (".png", *suffixes)
    if path.suffix not in allowed:
        raise UserError(f"{path} must end in {' or '.join(allowed)}.")
    pixels = count * image_shape[0] * image_shape[1]
    if pixels > MAX_PIXELS:
        raise UserError(
            f"{path} would have {pixels:,} pixels, above the limit of {MAX_PIXELS:,}: use fewer "
            "images, or one file per image."
        )
    require_new(path, force)


def save_grid(path: pathlib.Path, pictures: np.ndarray, columns: int) -> None:
    """Writes a grid, see `pictures.grid`."""
    from vaegan_jax.report.pictures import grid

    _as_image(grid(pictures, columns)).save(path)
    print(f"result: {path}")


def save_files(folder: pathlib.Path, model: Trained, z: np.ndarray) -> None:
    """Decodes latents in blocks, and writes one PNG per image to a new or empty folder.

    Raises:
      UserError: if the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty: name another with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(5, len(str(len(z) - 1)))
    for first in range(0, len(z), BLOCK):
        for index, picture in enumerate(decode(model, z[first : first + BLOCK]), first):
            _as_image(picture).save(folder / f"sample_{index:0{digits}d}.png")
    print(f"result: {folder}, {len(z)} files")


def save_animation(path: pathlib.Path, pictures: np.ndarray, frames: int) -> None:
    """Writes an animation of uint8 [segments * frames, H, W, C].

    Each segment begins with the last frame of the previous one, which is written once.
    """
    kept = [picture for index, picture in enumerate(pictures) if index % frames or not index]
    first, *others = map(_as_image, kept)
    buffer = io.BytesIO()  # an error while encoding leaves an existing file as it is
    first.save(
        buffer, path.suffix[1:], save_all=True, append_images=others,
        duration=_MILLISECONDS, loop=0, lossless=True,
    )  # fmt: skip
    path.write_bytes(buffer.getvalue())
    print(f"result: {path}, {1 + len(others)} frames")


def _as_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
