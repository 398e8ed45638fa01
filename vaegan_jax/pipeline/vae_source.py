"""The VAE of another run, or of an export, that a run takes instead of training its own.

Its parameters and the fields of its section `vae` are copied into the run, which is complete
without the source from then on.
"""

import copy
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, trained, weights, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import starts
from vaegan_jax.runtime import parallel


def load(config: ConfigDict) -> trained.Trained | None:
    """Returns the VAE that ``transfer.vae`` names, or None for a run that trains its own.

    Raises:
      UserError: if it cannot be read or is not finished.
    """
    name = config.transfer.vae
    if not name:
        return None
    model = trained.load(name, "vae")
    steps = model.config.vae.steps
    if model.facts["card"] is None and model.step != steps:
        raise UserError(
            f"transfer.vae={name}: its VAE is not finished (step {model.step} of {steps}): train "
            "it first."
        )
    return model


def with_fields(
    config: ConfigDict, saved: Mapping[str, Any], model: trained.Trained | None
) -> ConfigDict:
    """Returns a copy of a config with the fields `vae.*` of the source, and prints which change.

    They are read from `saved`, the flattened config of the run's folder, or if that is empty from
    the VAE.

    Raises:
      UserError: if the VAE does not fit the config; leaves of other shapes are listed.
    """
    config = copy.deepcopy(config)
    name = config.transfer.vae
    if name and model is not None and not saved:
        saved = configuration.flatten(model.config) | {"vae.steps": model.step}
    if name and saved:
        changed = {
            field: saved[field]
            for field, value in configuration.flatten(config).items()
            if field.startswith("vae.") and saved.get(field, value) != value
        }
        config.update_from_flattened_dict(changed)
        if changed:
            sets = ", ".join(f"{field}={value}" for field, value in changed.items())
            print(f"transfer.vae={name} sets {sets}.", flush=True)
    if model is not None:
        starts.require_fit(f"transfer.vae={name}", model, config)
    return config


def facts(model: trained.Trained, data: images.Images) -> dict[str, Any]:
    """Returns what run.json records of the source: where it is, and its parameters' hash."""
    recorded = model.facts["data"] or {}
    same = recorded.get("digest") == data.digest and recorded.get("train") == len(data.train)
    return {
        "source": model.facts["source"],
        "step": model.step,
        "sha256": weights.digest(model.parts),
        "same_images": same,
    }


def require_same(path: pathlib.Path, model: trained.Trained | None) -> None:
    """Checks that the run in a folder began with the parameters of this VAE, or with its own.

    Raises:
      UserError: if it did not.
    """
    run = workdir.Reader(path).read_json(workdir.ENVIRONMENT)
    before = (run or {}).get("vae", {}).get("sha256")
    if run is not None and before != (model and weights.digest(model.parts)):
        raise UserError(
            f"The run in {path} began with another VAE "
            f"({run['vae']['source'] if before else 'trained by itself'}): set transfer.vae as it "
            "was and restore that VAE, or name another --workdir to start a new run."
        )


def copy_to(folder: workdir.Workdir, model: trained.Trained) -> None:
    """Saves the VAE as that of the run in a folder, unless it is already there."""
    saved = checkpoints.Checkpoints(folder.checkpoints("vae"), keep=1)
    if saved.latest() is None:
        sharding = parallel.replicated(parallel.make_mesh())
        params = jax.tree.map(jnp.asarray, dict(model.parts))
        saved.save(model.step, parallel.put_state({"params": params}, sharding), {})
        source = model.facts["source"]
        folder.write_event(f"vae: finished at step {model.step}, copied from {source}")
