"""What was trained, taken elsewhere: safetensors and StableHLO, each verified as it is made.

An export that does not give what the model gives here is refused, and nothing is written.
"""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from vaegan_jax import config as configuration
from vaegan_jax import networks, trained
from vaegan_jax.errors import UserError
from vaegan_jax.export import weights

PLATFORMS = ("cpu", "cuda", "tpu")

_PRIVATE = ("data.path", "data.directory", "evaluation.weights", "evaluation.statistics")
"""Fields that name places on the machine that trained, of no use elsewhere."""

_BATCHES = (1, 3, 8)
_COMIC_FACES_LICENCE = "Apache-2.0: drawn by faces.js, https://github.com/zengm-games/facesjs"


class Export(NamedTuple):
    """A verified export.

    Attributes:
      data: the file's bytes.
      verified: what was compared and found, a sentence.
    """

    data: bytes
    verified: str


def card(model: trained.Trained, licence: str = "", made_by: str = "") -> dict[str, Any]:
    """Returns the model card: what a model is, of what it was made, and how good it is.

    Args:
      model: from a run or an export; what the latter says is kept.
      licence: of the data; that of the comic faces is known.
      made_by: how the model was made.
    """
    facts, before = model.facts, model.facts["card"] or {}
    if not licence and model.config.data.name == "comic_faces":
        licence = _COMIC_FACES_LICENCE
    evaluation = facts["evaluation"]
    if evaluation is not None:
        kept = ("embedding", "seed", "checkpoints", "numbers")
        evaluation = {name: evaluation.get(name) for name in kept}
    names = ("encoder", "decoder", "generator")
    return {
        "architecture": "vaegan_jax: Encoder, Decoder (Flax linen); a generator is a Decoder",
        "takes": f"latents float32 [B, {model.latent_size}]",
        "gives": f"images float32 [B, {', '.join(map(str, model.image_shape))}] in [-1, 1]",
        "image_shape": list(model.image_shape),
        "latent_size": model.latent_size,
        "model": model.model,
        "steps": facts["steps"],
        "sha256": facts["sha256"],
        "parameters": {
            name: sum(leaf.size for leaf in jax.tree.leaves(model.parts[name]))
            for name in names
            if model.parts.get(name) is not None
        },
        "config": {
            name: value
            for name, value in configuration.flatten(model.config).items()
            if name not in _PRIVATE
        },
        "data": facts["data"],
        "data_licence": licence or before.get("data_licence", "") or "not stated",
        "made_by": made_by or before.get("made_by", "") or "not stated",
        "environment": facts["environment"],
        "latent": facts["latent"],
        "evaluation": evaluation,
    }


def whole(model: trained.Trained) -> trained.Trained:
    """Returns a model that holds all that its source has of it: for a GAN the decoder as well."""
    source, parts = model.facts["source"], dict(model.parts)
    if model.model == "gan" and trained.steps(source, "vae"):
        step = model.facts["steps"].get("vae")
        parts["decoder"] = trained.load(source, "vae", step, encoder=False).parts["decoder"]
    return dataclasses.replace(model, parts=parts)


def to_safetensors(
    model: trained.Trained, card: dict[str, Any], dtype: str, scratch: pathlib.Path
) -> Export:
    """Returns all parameters of a model as one file, which `trained.load` reads.

    It is read back, and has to give the very bits of the model, its parameters rounded to `dtype`.

    Args:
      model: see `whole`.
      card: of the model.
      dtype: one of `weights.DTYPES`.
      scratch: a file that may be written and is removed again.

    Raises:
      UserError: where it does not.
    """
    parts = {name: part for name, part in model.parts.items() if part is not None}
    rounded = dataclasses.replace(model, parts=weights.rounded(parts, dtype))
    names = trained.decoder_parts(model.model)
    card = card | {
        "dtype": dtype,
        "sha256": weights.digest({name: rounded.parts[name] for name in names}),
    }
    data = weights.pack(parts, card, dtype)
    try:
        scratch.write_bytes(data)
        again = trained.load(scratch, model.model)
    finally:
        scratch.unlink(missing_ok=True)
    z = _latents(model, max(_BATCHES))
    wanted, found = rounded.decode(z), again.decode(z)
    same = np.array_equal(found, wanted) and again.facts["sha256"] == card["sha256"]
    if model.has_encoder:
        pairs = zip(rounded.encode(wanted), again.encode(wanted), strict=True)
        same = same and all(np.array_equal(a, b) for a, b in pairs)
    if not same:
        raise _differs("safetensors", float(np.abs(found - wanted).max()))
    verified = f"read back, {len(z)} images are equal to the last bit"
    if dtype != model.facts["dtype"]:
        cost = np.abs(wanted - model.decode(z)) * 127.5
        verified += (
            f"; rounding to {dtype} moves their pixels by {cost.mean():.3f} grey values of 255 on "
            f"average and {cost.max():.2f} at most"
        )
    return Export(data, verified)


def to_stablehlo(model: trained.Trained) -> Export:
    """Returns the model as StableHLO in `jax.export`'s form, for any batch size and `PLATFORMS`.

    The parameters are part of it. It has to give the model's bits on this device.

    Raises:
      UserError: where it does not.
    """
    decode = jax.jit(_decoder(model))
    (batch,) = jax.export.symbolic_shape("b")
    latents = jax.ShapeDtypeStruct((batch, model.latent_size), jnp.float32)
    data = bytes(jax.export.export(decode, platforms=PLATFORMS)(latents).serialize())
    again = jax.jit(jax.export.deserialize(bytearray(data)).call)
    for count in _BATCHES:
        z = _latents(model, count)
        wanted, found = np.asarray(decode(z)), np.asarray(again(z))
        if not np.array_equal(wanted, found):
            raise _differs("StableHLO", float(np.abs(found - wanted).max()))
    device = jax.devices()[0].platform
    counts = ", ".join(map(str, _BATCHES))
    return Export(data, f"batches of {counts} are equal to the last bit on this {device}")


def _decoder(model: trained.Trained) -> Any:
    decoder = networks.make_decoder(model.config.model, model.image_shape)
    apply = functools.partial(networks.apply, decoder, jax.tree.map(jnp.asarray, model.params))
    return lambda latents: jnp.tanh(apply(latents))


def _latents(model: trained.Trained, count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(count, model.latent_size))
    return drawn.astype(np.float32)


def _differs(name: str, largest: float) -> UserError:
    return UserError(
        f"The {name} export is not written, since its images differ from the model's by up to "
        f"{largest:.2e}."
    )
