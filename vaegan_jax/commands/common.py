"""What the subcommands share: which model, which images in, and where results go."""

import argparse
import io
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from PIL import Image

from vaegan_jax import randomness, trained
from vaegan_jax.data import decoding, images, preprocessing, sources
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.randomness import Purpose, Stage
from vaegan_jax.report.pictures import grid

_MOST_LATENTS = 1_000_000


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
    """
    key = randomness.step_key(model.config.seed if seed is None else seed, Stage.PICTURES, 0, 0)
    noise = model.config.gan.noise if model.model == "gan" else "normal"
    shape = (count, model.latent_size)
    drawn = randomness.latents(randomness.draw_key(key, Purpose.LATENT), shape, noise)
    return truncation * np.asarray(drawn)


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
    if found.ndim != 2 or found.shape[1] != size or not 0 < len(found) <= _MOST_LATENTS:
        shape = " x ".join(map(str, found.shape))
        raise UserError(f"{path} holds {shape} numbers, and this model takes rows of {size}.")
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
            if path.stat().st_size > decoding.MOST_BYTES:
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
    folder: pathlib.Path, pictures: np.ndarray, names: Sequence[str], scale: int = 1
) -> None:
    """Writes uint8 [N, H, W, C] as PNGs of these names into a folder that is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty: name another with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name in zip(pictures, names, strict=True):
        _picture(picture, scale).save(folder / name)
    print(f"result: {folder}, {len(pictures)} files")


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
