"""Exports of trained models: safetensors and StableHLO, each verified before it is written."""

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
from vaegan_jax.trained import weights

PLATFORMS = ("cpu", "cuda", "tpu")

_PRIVATE = ("data.path", "data.directory", "evaluation.weights")
"""Fields with paths of the machine that trained; they are left out of the card."""

_BATCH_SIZES = (1, 3, 8)
_COMIC_FACES_LICENCE = "Apache-2.0: drawn by faces.js, https://github.com/zengm-games/facesjs"


class Export(NamedTuple):
    """The content of a verified export's file, and the result of the verification as text."""

    data: bytes
    verified: str


def card(model: trained.Trained, licence: str = "", made_by: str = "") -> dict[str, Any]:
    """Returns the model card: a JSON-compatible description of a model and its evaluation.

    Args:
      model: of a run or an export.
      licence: of the data; empty to keep that of an export, or of the comic faces.
      made_by: how the model was made; empty to keep that of an export.
    """
    facts, previous = model.facts, model.facts["card"] or {}
    if not licence and model.config.data.name == "comic_faces":
        licence = _COMIC_FACES_LICENCE
    evaluation = facts["evaluation"]
    if evaluation is not None:
        kept = ("embeddings", "seed", "checkpoints", "numbers")
        evaluation = {name: evaluation.get(name) for name in kept}
    flat = configuration.flatten(model.config)
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
            for name in ("encoder", "decoder", "generator")
            if name in model.parts
        },
        "config": {name: value for name, value in flat.items() if name not in _PRIVATE},
        "data": facts["data"],
        "data_licence": licence or previous.get("data_licence", "") or "not stated",
        "made_by": made_by or previous.get("made_by", "") or "not stated",
        "environment": facts["environment"],
        "latent": facts["latent"],
        "evaluation": evaluation,
    }


def with_decoder(model: trained.Trained) -> trained.Trained:
    """Returns a GAN with the decoder of its VAE as well, if its source has one."""
    source, parts = model.facts["source"], dict(model.parts)
    if model.model == "gan" and trained.steps(source, "vae"):
        step = model.facts["steps"].get("vae")
        parts["decoder"] = trained.load(source, "vae", step, encoder=False).parts["decoder"]
    return dataclasses.replace(model, parts=parts)


def to_safetensors(
    model: trained.Trained, card: dict[str, Any], dtype: str, scratch: pathlib.Path
) -> Export:
    """Exports all parameters of a model to one file, which `trained.load` reads.

    Verified by loading it from `scratch`, a temporary file: images and posteriors must equal those
    of the model with its parameters rounded to `dtype` of `weights.DTYPES`, bit for bit.

    Raises:
      UserError: if the results differ.
    """
    rounded = dataclasses.replace(model, parts=weights.rounded(model.parts, dtype))
    names = trained.DECODING_PARTS[model.model]
    sha256 = weights.digest({name: rounded.parts[name] for name in names})
    data = weights.pack(model.parts, card | {"dtype": dtype, "sha256": sha256}, dtype)
    try:
        scratch.write_bytes(data)
        loaded = trained.load(scratch, model.model)
    finally:
        scratch.unlink(missing_ok=True)
    z = _latents(model, max(_BATCH_SIZES))
    expected, result = rounded.decode(z), loaded.decode(z)
    equal = np.array_equal(result, expected) and loaded.facts["sha256"] == sha256
    if model.has_encoder:
        pairs = zip(rounded.encode(expected), loaded.encode(expected), strict=True)
        equal = equal and all(np.array_equal(a, b) for a, b in pairs)
    if not equal:
        raise _differs("safetensors", result, expected)
    verified = f"{len(z)} images of the file are bit-identical to the model's"
    if dtype != model.facts["dtype"]:
        error = np.abs(expected - model.decode(z)) * 127.5
        verified += (
            f"; rounding to {dtype} changes the pixels by {error.mean():.3f} of 255 grey values on "
            f"average and by at most {error.max():.2f}"
        )
    return Export(data, verified)


def to_stablehlo(model: trained.Trained) -> Export:
    """Exports decoding, with the parameters, as StableHLO in `jax.export`'s format.

    It is valid for any batch size and all `PLATFORMS`. Verified on this device: images must equal
    the model's bit for bit.

    Raises:
      UserError: if the images differ.
    """
    params = jax.tree.map(jnp.asarray, model.params)
    decode = jax.jit(
        functools.partial(networks.make_decode(model.config.model, model.image_shape), params)
    )
    (batch,) = jax.export.symbolic_shape("b")
    latents = jax.ShapeDtypeStruct((batch, model.latent_size), jnp.float32)
    data = bytes(jax.export.export(decode, platforms=PLATFORMS)(latents).serialize())
    loaded = jax.jit(jax.export.deserialize(bytearray(data)).call)
    for count in _BATCH_SIZES:
        z = _latents(model, count)
        expected, result = np.asarray(decode(z)), np.asarray(loaded(z))
        if not np.array_equal(expected, result):
            raise _differs("StableHLO", result, expected)
    sizes, device = ", ".join(map(str, _BATCH_SIZES)), jax.devices()[0].platform
    return Export(data, f"batches of {sizes} images are bit-identical on {device}")


def _latents(model: trained.Trained, count: int) -> np.ndarray:
    latents = np.random.default_rng(0).normal(size=(count, model.latent_size))
    return latents.astype(np.float32)


def _differs(name: str, result: np.ndarray, expected: np.ndarray) -> UserError:
    error = np.abs(result - expected).max()
    return UserError(
        f"The {name} export is not written: its images deviate from the model's by {error:.2e}."
    )
