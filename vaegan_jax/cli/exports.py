"""The command export."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import TYPE_CHECKING

from vaegan_jax.cli import common, options
from vaegan_jax.errors import UserError

if TYPE_CHECKING:
    from vaegan_jax.trained import Trained

_SUFFIXES = {"safetensors": ".safetensors", "stablehlo": ".stablehlo"}


def add_parsers(commands: options.Commands) -> None:
    """Adds the command of this module."""
    parser = options.add_command(
        commands,
        export,
        "export a model, and verify the export",
        "runs/quickstart --format safetensors stablehlo",
    )
    options.add_model(parser)
    parser.add_argument(
        "--format", nargs="+", choices=tuple(_SUFFIXES), default=["safetensors"], help="formats"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype of the parameters in safetensors (default: the stored one)",
    )
    parser.add_argument("--licence", default="", help="licence of the data, for the model card")
    parser.add_argument("--made-by", default="", help="origin of the model, for the model card")
    options.add_out(parser, None, " without suffix (default: RUN_MODEL)")


def export(arguments: argparse.Namespace) -> None:
    """Writes verified exports and the model card."""
    from vaegan_jax import weights
    from vaegan_jax.export import formats as exporting
    from vaegan_jax.runtime.files import write_atomic

    formats = list(dict.fromkeys(arguments.format))
    if arguments.dtype and "safetensors" not in formats:
        raise UserError("--dtype applies to safetensors: add it to --format.")
    model = exporting.with_decoder(common.load(arguments, encoder=True))
    out = _without_suffix(arguments.out or pathlib.Path(_name(model)))
    paths = {name: out.with_name(out.name + _SUFFIXES[name]) for name in formats}
    card_path = out.with_name(f"{out.name}.json")
    for path in (*paths.values(), card_path):
        common.require_new(path, arguments.force)
    card = exporting.card(model, arguments.licence, arguments.made_by)
    card["verified"] = {}
    exports = {}
    for name, path in paths.items():
        if name == "safetensors":
            dtype = arguments.dtype or model.facts["dtype"] or "float32"
            exports[name] = exporting.to_safetensors(model, card, dtype, _partial(path))
        else:
            exports[name] = exporting.to_stablehlo(model)
    for name, result in exports.items():
        partial = _partial(paths[name])
        partial.write_bytes(result.data)
        partial.replace(paths[name])
        print(f"result: {paths[name]}, {len(result.data) / 1e6:.2f} MB; {result.verified}")
    if "safetensors" in exports:
        card = weights.read_card(paths["safetensors"])  # with the hash of the stored parameters
    card["verified"] = {name: result.verified for name, result in exports.items()}
    write_atomic(card_path, json.dumps(card, indent=1, allow_nan=False) + "\n")
    print(f"card: {card_path}")


def _partial(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.partial")


def _name(model: Trained) -> str:
    return f"{pathlib.Path(model.facts['source']).resolve().stem}_{model.model}"


def _without_suffix(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix("") if path.suffix in (*_SUFFIXES.values(), ".json") else path
