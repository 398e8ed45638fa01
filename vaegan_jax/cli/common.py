"""What commands share: loading models, reading latents and images, writing results."""

from __future__ import annotations

import argparse
import io
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
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

_MAX_SIDES = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383, ".gif": 65_535}
"""Limits of the file formats, in pixels."""

_BLOCK = 256
"""Images decoded at a time."""


def load(arguments: argparse.Namespace, encoder: bool = False, default: str = "gan") -> Trained:
    """Loads the model given by RUN, --model and --step.

    Args:
      arguments: of the command line.
      encoder: whether the command needs one.
      default: the model without --model; if the run has no GAN, the VAE.
    """
    from vaegan_jax import trained

    model = arguments.model or (default if trained.steps(arguments.run, default) else "vae")
    return trained.load(arguments.run, model, arguments.step, encoder)


def draw(model: Trained, count: int, seed: int | None, truncation: float) -> np.ndarray:
    """Draws latents of a model, multiplied by the truncation: float32 [count, L].

    The first n are the same for every count. With the run's seed, they are the latents of the
    run's own pictures.

    Raises:
      UserError: for more numbers than `MAX_LATENT_NUMBERS`.
    """
    from vaegan_jax import randomness

    _require_latents(count, model.latent_size)
    seed = model.config.seed if seed is None else seed
    noise = model.config.gan.noise if model.model == "gan" else "normal"
    drawn = randomness.picture_latents(seed, (count, model.latent_size), noise)
    return truncation * np.asarray(drawn)


def _require_latents(count: int, size: int) -> None:
    maximum = MAX_LATENT_NUMBERS // size
    if count > maximum:
        raise UserError(
            f"{count} latents of {size} dimensions are too many for one command: give at most "
            f"{maximum}, and draw the others with other commands."
        )


def latents(
    arguments: argparse.Namespace, model: Trained, count: int | None, option: str, default: int
) -> np.ndarray:
    """Returns the latents of --latents, or `count` drawn ones, multiplied by --truncation.

    `option` sets the count, which is `default` without it, and excludes --latents.
    """
    if arguments.latents is None:
        return draw(model, count or default, arguments.seed, arguments.truncation)
    if count or arguments.seed is not None:
        raise UserError(f"--latents cannot be combined with {option} or --seed.")
    return np.float32(arguments.truncation) * read_latents(arguments.latents, model.latent_size)


def read_latents(path: pathlib.Path, size: int) -> np.ndarray:
    """Reads latents, float32 [N, size], from .npy or .csv.

    Raises:
      UserError: if the file has none, another size, or numbers that are not finite.
    """
    _require_suffix(path, (".npy", ".csv"))
    try:
        if path.suffix == ".npy":
            z = np.load(path, allow_pickle=False)
        else:
            z = np.loadtxt(path, delimiter=",", ndmin=2)
        if z.dtype.kind not in "fiu":
            raise ValueError(f"dtype {z.dtype}")
        z = np.atleast_2d(z).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The latents in {path} cannot be read ({one_line(error)}).") from error
    if z.ndim != 2 or z.shape[1] != size or not len(z):
        shape = " x ".join(map(str, z.shape))
        raise UserError(f"{path} has {shape} numbers, but this model takes rows of {size}.")
    _require_latents(*z.shape)
    if not np.isfinite(z).all():
        raise UserError(f"The latents in {path} are not all finite.")
    return z


def write_latents(path: pathlib.Path, z: np.ndarray, force: bool) -> None:
    """Writes latents as .npy or .csv, without loss."""
    _require_suffix(path, (".npy", ".csv"))
    require_new(path, force)
    if path.suffix == ".npy":
        np.save(path, z)
    else:
        np.savetxt(path, z, delimiter=",", fmt="%.9g")
    print(f"latents: {path}")


def read_images(paths: Sequence[pathlib.Path], model: Trained) -> np.ndarray:
    """Reads images, prepared as the model's config says: uint8 [N, H, W, C].

    Unusable files in folders and zips are skipped and listed on stdout.

    Args:
      paths: images, folders and zips.
      model: whose `config.data` is used.

    Raises:
      UserError: if a named file is unusable, or no image is left.
    """
    from vaegan_jax.data import decoding, images, preprocessing, sources

    settings = images.settings(model.config.data)
    result: list[np.ndarray] = []
    for path in map(pathlib.Path.expanduser, paths):
        if path.is_dir() or path.suffix.lower() == ".zip":
            source = sources.open_path(path)
            skipped = [f"{name}: {reason}" for name, reason in source.skipped]
            for position, name in enumerate(source.names):
                try:
                    image = decoding.decode(source.read(position))
                    result.append(preprocessing.prepare(image, settings))
                except (decoding.BadImage, ValueError) as reason:
                    skipped.append(f"{name}: {reason}")
            for line in skipped:
                print(f"skipped {line}")
            continue
        try:
            if path.stat().st_size > decoding.MAX_BYTES:
                raise ValueError("too large")
            image = decoding.decode(path.read_bytes())
            result.append(preprocessing.prepare(image, settings))
        except (OSError, decoding.BadImage, ValueError) as error:
            raise UserError(f"{path} cannot be used ({one_line(error)}).") from error
    if not result:
        raise UserError("None of these images can be used.")
    return np.stack(result)


def to_network(pictures: np.ndarray) -> np.ndarray:
    """Scales uint8 to float32 in [-1, 1]."""
    import jax.numpy as jnp

    from vaegan_jax.data import preprocessing

    return np.asarray(preprocessing.to_network(jnp.asarray(pictures)))


def decode(model: Trained, z: np.ndarray) -> np.ndarray:
    """Returns the images of latents [N, L] of the model: uint8 [N, H, W, C]."""
    return np.concatenate(list(decode_blocks(model, z)))


def decode_blocks(model: Trained, z: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the images of latents [N, L] of the model in blocks: uint8 [n, H, W, C]."""
    import jax.numpy as jnp

    from vaegan_jax.data import preprocessing

    for first in range(0, len(z), _BLOCK):
        images = model.decode(z[first : first + _BLOCK])
        yield np.asarray(preprocessing.to_uint8(jnp.asarray(images)))


def psnr(originals: np.ndarray, others: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio over all pixels of uint8 images, in dB."""
    difference = originals.astype(np.float64) - others.astype(np.float64)
    error = float(np.mean(difference * difference))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


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


def _require_suffix(path: pathlib.Path, suffixes: Sequence[str]) -> None:
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path} must end in {' or '.join(suffixes)}.")


def require_grid(
    path: pathlib.Path, count: int, columns: int, image_shape: tuple[int, ...], scale: int
) -> None:
    """Checks that `save_grid` can write a grid of `count` images [H, W, C].

    Raises:
      UserError: for more pixels than `MAX_PIXELS` or the format allows.
    """
    from vaegan_jax.report.pictures import GAP

    columns = min(columns, count)
    sides = -(-count // columns) * (image_shape[0] + GAP), columns * (image_shape[1] + GAP)
    height, width = (scale * (side - GAP) for side in sides)
    _require_pixels(path, height, width)


def _require_pixels(path: pathlib.Path, height: int, width: int, frames: int = 1) -> None:
    maximum = _MAX_SIDES.get(path.suffix.lower())
    if maximum and max(height, width) > maximum:
        raise UserError(
            f"{path} would have {width} x {height} pixels, but {path.suffix} allows {maximum} per "
            "side: use .png, fewer images or a smaller --scale."
        )
    if frames * height * width > MAX_PIXELS:
        raise UserError(
            f"{path} would have {frames * height * width:,} pixels, above the limit of "
            f"{MAX_PIXELS:,}: use fewer images, a smaller --scale, or one file per image."
        )


def save_grid(
    path: pathlib.Path, pictures: np.ndarray, columns: int, scale: int, force: bool
) -> None:
    """Writes uint8 [N, H, W, C] as a grid, row by row."""
    from vaegan_jax.report.pictures import grid

    _require_suffix(path, (".png", ".webp", ".jpg", ".jpeg"))
    require_new(path, force)
    _picture(grid(pictures, min(columns, len(pictures))), scale).save(path)
    print(f"result: {path}")


def save_files(
    folder: pathlib.Path, blocks: Iterable[np.ndarray], count: int, prefix: str = "", scale: int = 1
) -> None:
    """Writes one PNG per image to a new or empty folder.

    Args:
      folder: to write to.
      blocks: uint8 [n, H, W, C] each, written as they arrive.
      count: total number of images.
      prefix: of the file names.
      scale: factor by which pixels are enlarged.

    Raises:
      UserError: if the folder is not empty, or an image has more pixels than `MAX_PIXELS`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty: name another with --out.")
    digits = max(5, len(str(count - 1)))
    for index, picture in enumerate(itertools.chain.from_iterable(blocks)):
        path = folder / f"{prefix}{index:0{digits}d}.png"
        _require_pixels(path, scale * picture.shape[0], scale * picture.shape[1])
        folder.mkdir(parents=True, exist_ok=True)
        _picture(picture, scale).save(path)
    print(f"result: {folder}, {count} files")


def is_animation(path: pathlib.Path) -> bool:
    """Whether a path names an animation and not a strip."""
    return path.suffix.lower() in (".gif", ".webp")


def require_animation(
    arguments: argparse.Namespace, segments: int, frames: int, image_shape: tuple[int, ...]
) -> None:
    """Checks that `save_animation` can write segments of a number of frames [H, W, C].

    Raises:
      UserError: for more pixels than `MAX_PIXELS` or the format allows, and for a duration that a
        GIF cannot represent.
    """
    path, scale = arguments.out, arguments.scale
    if path.suffix.lower() == ".gif" and arguments.milliseconds % 10:
        raise UserError(
            f"--milliseconds ({arguments.milliseconds}) must be a multiple of 10 for a GIF: change "
            "it, or use .webp."
        )
    if is_animation(path):
        count = 1 + segments * (frames - 1)
        _require_pixels(path, scale * image_shape[0], scale * image_shape[1], count)
    else:
        require_grid(path, segments * frames, frames, image_shape, scale)


def save_animation(arguments: argparse.Namespace, segments: np.ndarray) -> None:
    """Writes an animation (.gif, .webp), or a strip with one row per segment (.png).

    Args:
      arguments: with `out`, `milliseconds`, `scale` and `force`.
      segments: uint8 [segments, frames, H, W, C]; each begins with the last frame of the previous.
    """
    path, force = arguments.out, arguments.force
    if not is_animation(path):
        images = segments.reshape(-1, *segments.shape[2:])
        save_grid(path, images, segments.shape[1], arguments.scale, force)
        return
    require_new(path, force)
    rest = segments[:, 1:].reshape(-1, *segments.shape[2:])
    frames = [_picture(frame, arguments.scale) for frame in (segments[0, 0], *rest)]
    options: dict[str, Any] = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    buffer = io.BytesIO()  # an error while encoding leaves an existing file as it is
    frames[0].save(
        buffer, path.suffix[1:], save_all=True, append_images=frames[1:],
        duration=arguments.milliseconds, loop=0, **options,
    )  # fmt: skip
    path.write_bytes(buffer.getvalue())
    print(f"result: {path}, {len(frames)} frames")


def _picture(picture: np.ndarray, scale: int) -> Image.Image:
    enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(enlarged.squeeze(-1) if enlarged.shape[-1] == 1 else enlarged)
