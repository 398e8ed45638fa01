"""Commands on trained models: sample, interpolate, reconstruct, export."""

import argparse
import json
import pathlib

import numpy as np

from vaegan_jax.cli import common, options
from vaegan_jax.cli.options import option, switch
from vaegan_jax.errors import UserError

_MAX_COUNT = 1_000_000
_SUFFIXES = {"safetensors": ".safetensors", "stablehlo": ".stablehlo"}


@options.command(
    "runs/quickstart --count 36 --seed 7 --out faces.png",
    *options.MODEL,
    *options.LATENTS,
    option("--count", type=options.integer(1, _MAX_COUNT), default=64, help="images (default: 64)"),
    switch("--files", "write one file per image to a folder, not a grid"),
    options.out("output path (default: sample.png, or with --files the folder sample)"),
)
def sample(arguments: argparse.Namespace) -> None:
    """Draws new images."""
    from vaegan_jax.report.pictures import COLUMNS

    model = common.load(arguments)
    path = arguments.out or pathlib.Path("sample" if arguments.files else "sample.png")
    if not arguments.files:
        common.require_picture(path, arguments.force, arguments.count, model.image_shape)
    z = common.latents(arguments, model, arguments.count)
    if arguments.files:
        common.save_files(path, model, z)
    else:
        common.save_grid(path, common.decode(model, z), min(COLUMNS, len(z)))


@options.command(
    "runs/quickstart --stops 5 --out walk.webp",
    *options.MODEL,
    *options.LATENTS,
    option("--stops", type=options.integer(2, _MAX_COUNT), help="number of samples (default: 4)"),
    option(
        "--images", nargs="+", type=pathlib.Path, metavar="IMAGE", help="image files, not samples"
    ),
    switch("--loop", "return to the beginning"),
    option(
        "--frames",
        type=options.integer(2),
        default=9,
        help="frames from one sample to the next, both included (default: 9)",
    ),
    options.out("a strip (.png) or an animation (.gif, .webp)", "interpolate.png"),
)
def interpolate(arguments: argparse.Namespace) -> None:
    """Interpolates between samples, or between images (slerp)."""
    import jax.numpy as jnp

    from vaegan_jax.report.pictures import between

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
    count = (len(z) - 1) * arguments.frames
    common.require_picture(
        arguments.out, arguments.force, count, model.image_shape, common.ANIMATIONS
    )
    z = np.asarray(between(jnp.asarray(z[:-1]), jnp.asarray(z[1:]), arguments.frames))
    images = common.decode(model, z)
    save = common.save_grid if arguments.out.suffix == ".png" else common.save_animation
    save(arguments.out, images, arguments.frames)


@options.command(
    "runs/quickstart ~/Pictures/me.png",
    *options.MODEL,
    option("images", nargs="+", type=pathlib.Path, metavar="IMAGE", help="image files"),
    options.out("output path", "reconstruct.png"),
)
def reconstruct(arguments: argparse.Namespace) -> None:
    """Encodes images, decodes them with the VAE and the GAN's generator, and prints the PSNR."""
    from vaegan_jax import trained
    from vaegan_jax.report.pictures import COLUMNS

    if arguments.step is not None and not arguments.model:
        raise UserError("--step needs --model, the model whose step it is.")
    available = [name for name in trained.MODELS if trained.steps(arguments.run, name)]
    names = [arguments.model] if arguments.model else available or ["vae"]  # which is refused
    models = {name: trained.load(arguments.run, name, arguments.step) for name in names}
    originals = common.read_images(arguments.images, models[names[0]])
    count = len(originals) * (1 + len(models))
    common.require_picture(arguments.out, arguments.force, count, originals.shape[1:])
    shown = [originals]
    for name, model in models.items():
        shown.append(common.decode(model, common.encode(model, originals)))
        difference = originals.astype(np.float64) - shown[-1]
        with np.errstate(divide="ignore"):
            psnr = 10 * np.log10(255**2 / np.mean(difference * difference))
        print(f"{name}: PSNR {psnr:.2f} dB over {len(originals)} images")
    common.save_grid(arguments.out, np.stack(shown), min(COLUMNS, len(originals)))


@options.command(
    "runs/quickstart --format safetensors stablehlo",
    *options.MODEL,
    option(
        "--format",
        nargs="+",
        choices=(*_SUFFIXES,),
        default=["safetensors"],
        help="formats (default: safetensors)",
    ),
    option(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype of the parameters in safetensors (default: the stored one)",
    ),
    option("--licence", default="", help="licence of the data, for the model card"),
    option("--made-by", default="", help="origin of the model, for the model card"),
    options.out("output path without suffix (default: RUN_MODEL)"),
)
def export(arguments: argparse.Namespace) -> None:
    """Writes verified exports of a model, and the model card."""
    from vaegan_jax.export import formats as exporting
    from vaegan_jax.runtime.files import write_atomic
    from vaegan_jax.trained import weights

    if arguments.dtype and "safetensors" not in arguments.format:
        raise UserError("--dtype applies to safetensors: add it to --format.")
    model = exporting.with_decoder(common.load(arguments, encoder=True))
    source = pathlib.Path(model.facts["source"]).resolve()
    out = arguments.out or pathlib.Path(f"{source.stem}_{model.model}")
    out = out.with_suffix("") if out.suffix in (*_SUFFIXES.values(), ".json") else out
    card_path = out.with_name(f"{out.name}.json")
    paths = {name: out.with_name(out.name + _SUFFIXES[name]) for name in arguments.format}
    partial = out.with_name(f".{out.name}.partial")
    for path in (*paths.values(), card_path):
        common.require_new(path, arguments.force)
    card = exporting.card(model, arguments.licence, arguments.made_by) | {"verified": {}}
    exports = {}
    if "safetensors" in paths:
        dtype = arguments.dtype or model.facts["dtype"] or "float32"
        exports["safetensors"] = exporting.to_safetensors(model, card, dtype, partial)
    if "stablehlo" in paths:
        exports["stablehlo"] = exporting.to_stablehlo(model)
    for name, result in exports.items():
        partial.write_bytes(result.data)
        partial.replace(paths[name])
        print(f"result: {paths[name]}, {len(result.data) / 1e6:.2f} MB; {result.verified}")
    if "safetensors" in exports:
        card = weights.read_card(paths["safetensors"])  # with the hash of the stored parameters
    card["verified"] = {name: result.verified for name, result in exports.items()}
    write_atomic(card_path, json.dumps(card, indent=1, allow_nan=False) + "\n")
    print(f"card: {card_path}")
