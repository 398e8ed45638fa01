"""The subcommand that exports."""

import argparse
import json
import pathlib

from vaegan_jax import trained, weights
from vaegan_jax.cli import common
from vaegan_jax.errors import UserError
from vaegan_jax.export import formats as exporting
from vaegan_jax.runtime.files import write_atomic

_SUFFIXES = {"safetensors": weights.SUFFIX, "stablehlo": ".stablehlo"}


def export(arguments: argparse.Namespace) -> None:
    """Writes verified exports, and the model card beside them."""
    formats = list(dict.fromkeys(arguments.format))
    if arguments.dtype and "safetensors" not in formats:
        raise UserError("--dtype is of the parameters in safetensors: add that to --format.")
    model = exporting.with_decoder(common.load(arguments, encoder=True))
    out = _without_suffix(arguments.out or pathlib.Path(_name(model)))
    paths = {name: out.with_name(out.name + _SUFFIXES[name]) for name in formats}
    card_path = out.with_name(f"{out.name}.json")
    for path in (*paths.values(), card_path):
        common.require_new(path, arguments.force)
    card = exporting.card(model, arguments.licence, arguments.made_by)
    card["verified"] = {}
    made = {}
    for name, path in paths.items():
        if name == "safetensors":
            dtype = arguments.dtype or model.facts["dtype"] or "float32"
            scratch = path.with_name(f".{path.name}.partial")
            made[name] = exporting.to_safetensors(model, card, dtype, scratch)
        else:
            made[name] = exporting.to_stablehlo(model)
    for name, export in made.items():
        partial = paths[name].with_name(f".{paths[name].name}.partial")
        partial.write_bytes(export.data)
        partial.replace(paths[name])
        print(f"result: {paths[name]}, {len(export.data) / 1e6:.2f} MB; {export.verified}")
    if "safetensors" in made:
        card = weights.read_card(paths["safetensors"])  # with the hash of what is stored
    card["verified"] = {name: export.verified for name, export in made.items()}
    write_atomic(card_path, json.dumps(card, indent=1, allow_nan=False) + "\n")
    print(f"card: {card_path}")


def _name(model: trained.Trained) -> str:
    return f"{pathlib.Path(model.facts['source']).resolve().stem}_{model.model}"


def _without_suffix(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix("") if path.suffix in (*_SUFFIXES.values(), ".json") else path
