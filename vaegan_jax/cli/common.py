"""What the subcommands share: which model, which images in, and where results go."""

import argparse
import io
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from PIL import Image

from vaegan_jax import randomness, trained
from vaegan_jax.data import decoding, images, preprocessing, sources
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.report.pictures import GAP, grid

MAX_PIXELS = 80_000_000
"""Of one file, all frames of an animation together."""

MAX_LATENT_NUMBERS = 2**27
"""Of all latents of one command: half a gigabyte."""

_MAX_SIDES = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383, ".gif": 65_535}
"""In pixels, by the file formats."""

_BLOCK = 256
"""Images that are decoded at a time."""


def load(
    arguments: argparse.Namespace, encoder: bool = False, default: str = "gan"
) -> trained.Trained:
    """Loads the model that a command line names.

    Args:
      arguments: with `run`, `model` and `step`.
      encoder: whether one is needed.
      default: the model where none is named and there is one.
    """
    model = arguments.model
    if model is None:
        other = "vae" if default == "gan" else "gan"
        model = default if trained.steps(arguments.run, default) or default == "vae" else other
    return trained.load(arguments.run, model, arguments.step, encoder)


def draw(model: trained.Trained, count: int, seed: int | None, truncation: float) -> np.ndarray:
    """Draws latents of a model's own: float32 [count, L].

    The first few are the same whatever the count; with the run's own seed they are those of the
    pictures of its folder. They are scaled by the truncation psi towards the mean, which is 0.

    Raises:
      UserError: for more latents than `MAX_LATENT_NUMBERS` allows.
    """
    _require_latents(count, model.latent_size)
    seed = model.config.seed if seed is None else seed
    noise = model.config.gan.noise if model.model == "gan" else "normal"
    shape = (count, model.latent_size)
    drawn = randomness.picture_latents(seed, shape, noise)
    return truncation * np.asarray(drawn)


def _require_latents(count: int, size: int) -> None:
    most = MAX_LATENT_NUMBERS // size
    if count > most:
        raise UserError(
            f"{count} latents of {size} dimensions are too many for one command: give at most "
            f"{most}, and make the others in further commands."
        )


def latents(arguments: argparse.Namespace, model: trained.Trained, count: int) -> np.ndarray:
    """Returns those of --latents, or `count` drawn ones; scaled by --truncation."""
    if arguments.latents is None:
        return draw(model, count, arguments.seed, arguments.truncation)
    return np.float32(arguments.truncation) * read_latents(arguments.latents, model.latent_size)


def read_latents(path: pathlib.Path, size: int) -> np.ndarray:
    """Reads latents, float32 [N, L], from .npy or .csv.

    Raises:
      UserError: where the file holds none of this size, or numbers that are not finite.
    """
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
        elif path.suffix == ".csv":
            found = np.loadtxt(path, delimiter=",", ndmin=2)
        else:
            raise UserError(f"{path} is neither .npy nor .csv: latents are read from these.")
        if found.dtype.kind not in "fiu":
            raise ValueError(f"they are {found.dtype}")
        found = np.atleast_2d(found).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The latents in {path} cannot be read ({one_line(error)}).") from error
    if found.ndim != 2 or found.shape[1] != size or not len(found):
        shape = " x ".join(map(str, found.shape))
        raise UserError(f"{path} holds {shape} numbers, and this model takes rows of {size}.")
    _require_latents(*found.shape)
    if not np.isfinite(found).all():
        raise UserError(f"The latents in {path} hold numbers that are not finite.")
    return found


def write_latents(path: pathlib.Path, found: np.ndarray, force: bool) -> None:
    """Writes latents so that they read back exactly, as .npy or .csv."""
    if path.suffix not in (".npy", ".csv"):
        raise UserError(f"{path} is neither .npy nor .csv: latents are written as these.")
    require_new(path, force)
    if path.suffix == ".npy":
        np.save(path, found)
    else:
        np.savetxt(path, found, delimiter=",", fmt="%.9g")
    print(f"latents: {path}")


def read_images(
    paths: Sequence[pathlib.Path], model: trained.Trained
) -> tuple[np.ndarray, list[str]]:
    """Reads images as the model's config prepares them.

    What cannot be used in a folder or a zip is left out, with a line on why.

    Args:
      paths: of images, folders and zips.
      model: whose data settings count.

    Returns:
      uint8 [N, H, W, C], and their names.

    Raises:
      UserError: for a file that is named and cannot be used, or where none is left.
    """
    wanted = images.settings(model.config.data)
    found: list[np.ndarray] = []
    names: list[str] = []
    for path in paths:
        path = path.expanduser()
        if path.is_dir() or path.suffix.lower() == ".zip":
            listed = sources.open_path(path)
            skipped = [f"{name}: {reason}" for name, reason in listed.skipped]
            for position, name in enumerate(listed.names):
                try:
                    image = decoding.decode(listed.read(position))
                    found.append(preprocessing.prepare(image, wanted))
                    names.append(name)
                except (decoding.BadImage, ValueError) as reason:
                    skipped.append(f"{name}: {reason}")
            for line in skipped:
                print(f"left out {line}")
            continue
        try:
            if path.stat().st_size > decoding.MAX_BYTES:
                raise ValueError("too large")
            image = decoding.decode(path.read_bytes())
            found.append(preprocessing.prepare(image, wanted))
            names.append(path.name)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        except (decoding.BadImage, ValueError) as reason:
            raise UserError(f"{path} cannot be used: {reason}.") from reason
    if not found:
        raise UserError("None of these images can be used.")
    return np.stack(found), names


def to_network(pictures: np.ndarray) -> np.ndarray:
    """Scales uint8 to float32 in [-1, 1]."""
    return np.asarray(preprocessing.to_network(jnp.asarray(pictures)))


def to_uint8(pictures: np.ndarray) -> np.ndarray:
    """Scales float in [-1, 1] to uint8."""
    return np.asarray(preprocessing.to_uint8(jnp.asarray(pictures)))


def decode(model: trained.Trained, z: np.ndarray) -> np.ndarray:
    """Returns the images of the model's own latents [N, L]: uint8 [N, H, W, C]."""
    return np.concatenate(list(decode_blocks(model, z)))


def decode_blocks(model: trained.Trained, z: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the images of the model's own latents [N, L], uint8 [n, H, W, C] at a time."""
    for first in range(0, len(z), _BLOCK):
        yield to_uint8(model.decode(z[first : first + _BLOCK]))


def psnr(originals: np.ndarray, others: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio over all pixels of uint8 images, in decibels."""
    difference = originals.astype(np.float64) - others.astype(np.float64)
    error = float(np.mean(difference * difference))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def require_new(path: pathlib.Path, force: bool = False) -> None:
    """Checks that a result can be written and replaces nothing, making its folder.

    Raises:
      UserError: where it would, unless `force`.
    """
    if path.is_dir() or (path.exists() and not force):
        hint = "" if path.is_dir() else ", or give --force to replace it"
        raise UserError(f"{path} is there already: name another with --out{hint}.")
    path.parent.mkdir(parents=True, exist_ok=True)


def require_grid(
    path: pathlib.Path,
    count: int,
    columns: int,
    image_shape: tuple[int, ...],
    scale: int,
    instead: str = "",
) -> None:
    """Checks that `save_grid` can write a grid of `count` images [H, W, C].

    Raises:
      UserError: for more pixels than `MAX_PIXELS` or than the format allows; `instead` says what
        else can be done.
    """
    columns = min(columns, count)
    sides = -(-count // columns) * (image_shape[0] + GAP), columns * (image_shape[1] + GAP)
    height, width = (scale * (side - GAP) for side in sides)
    _require_pixels(path, height, width, instead=instead)


def _require_pixels(
    path: pathlib.Path, height: int, width: int, frames: int = 1, instead: str = ""
) -> None:
    most = _MAX_SIDES.get(path.suffix.lower())
    if most and max(height, width) > most:
        raise UserError(
            f"{path} would be {width} x {height} pixels, and {path.suffix} allows {most}: let "
            f"--out end in .png, or ask for fewer images or a smaller --scale{instead}."
        )
    if frames * height * width > MAX_PIXELS:
        raise UserError(
            f"{path} would have {frames * height * width:,} pixels, and a file may have "
            f"{MAX_PIXELS:,}: ask for fewer images or a smaller --scale{instead}."
        )


def save_grid(
    path: pathlib.Path, pictures: np.ndarray, columns: int, scale: int, force: bool
) -> None:
    """Writes uint8 [N, H, W, C] as one picture, row by row."""
    if path.suffix.lower() not in (".png", ".webp", ".jpg", ".jpeg"):
        raise UserError(f"{path} is no picture: let it end in .png.")
    require_new(path, force)
    _picture(grid(pictures, min(columns, len(pictures))), scale).save(path)
    print(f"result: {path}")


def save_files(
    folder: pathlib.Path, blocks: Iterable[np.ndarray], count: int, prefix: str = "", scale: int = 1
) -> None:
    """Writes one PNG for each image into a folder that is new or empty.

    Args:
      folder: where to.
      blocks: uint8 [n, H, W, C] each; they are written as they come.
      count: of the images in all of them.
      prefix: of the names, before the number of the image.
      scale: by which pixels are enlarged.

    Raises:
      UserError: where something is in the folder, or an image has more pixels than `MAX_PIXELS`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty: name another with --out.")
    digits = max(5, len(str(count - 1)))
    for index, picture in enumerate(itertools.chain.from_iterable(blocks)):
        path = folder / f"{prefix}{index:0{digits}d}.png"
        _require_pixels(path, scale * picture.shape[0], scale * picture.shape[1])
        folder.mkdir(parents=True, exist_ok=True)
        _picture(picture, scale).save(path)
    print(f"result: {folder}, {count} files")


def require_way(
    arguments: argparse.Namespace,
    path: pathlib.Path,
    legs: int,
    frames: int,
    image_shape: tuple[int, ...],
) -> None:
    """Checks that `save_way` can write so many legs of so many frames [H, W, C].

    Raises:
      UserError: for more pixels than `MAX_PIXELS` or than the format allows, and for durations that
        a GIF cannot hold.
    """
    if path.suffix.lower() not in (".gif", ".webp"):
        require_grid(path, legs * frames, frames, image_shape, arguments.scale)
        return
    if path.suffix.lower() == ".gif" and arguments.milliseconds % 10:
        raise UserError(
            f"--milliseconds ({arguments.milliseconds}) must be a multiple of 10 for a GIF, whose "
            "unit that is: give another, or let --out end in .webp."
        )
    height, width = (arguments.scale * side for side in image_shape[:2])
    _require_pixels(path, height, width, 1 + legs * (frames - 1))


def save_way(arguments: argparse.Namespace, path: pathlib.Path, legs: np.ndarray) -> None:
    """Writes a way through images as a strip, a leg a row, or as an animation, by its suffix.

    Args:
      arguments: with `frames`, `milliseconds`, `scale` and `force`.
      path: a .png, .gif or .webp.
      legs: uint8 [legs, frames, H, W, C]; each begins with the last image of the one before.
    """
    if path.suffix.lower() not in (".gif", ".webp"):
        save_grid(
            path, legs.reshape(-1, *legs.shape[2:]), legs.shape[1], arguments.scale, arguments.force
        )
        return
    require_new(path, arguments.force)
    rest = legs[:, 1:].reshape(-1, *legs.shape[2:])
    frames = [_picture(frame, arguments.scale) for frame in (legs[0, 0], *rest)]
    options = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    held = io.BytesIO()
    frames[0].save(
        held, path.suffix[1:], save_all=True, append_images=frames[1:],
        duration=arguments.milliseconds, loop=0, **options,
    )  # fmt: skip
    path.write_bytes(held.getvalue())
    print(f"result: {path}, {len(frames)} frames")


def _picture(picture: np.ndarray, scale: int) -> Image.Image:
    enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(enlarged.squeeze(-1) if enlarged.shape[-1] == 1 else enlarged)
