"""The VAE of another run, or of an export, that a run takes instead of training its own.

Its parameters and the fields of its section `vae` are copied into the run, which is complete
without the source from then on.
"""

import copy
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, trained, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.pipeline import starts
from vaegan_jax.runtime import parallel
from vaegan_jax.trained import weights


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
        params = jax.tree.map(jnp.asarray, dict(model.parts))
        saved.save(model.step, parallel.put_state({"params": params}), {})
        source = model.facts["source"]
        folder.write_event(f"vae: finished at step {model.step}, copied from {source}")


def share(folder: workdir.Workdir, steps: int, siblings: Iterable[pathlib.Path]) -> bool:
    """Copies the VAE stage from the first run that has finished the same one, if there is any.

    The same means the same environment, sources and images, and config but for `gan` and
    `transfer`, so every bit is the one that training would give. The siblings need not exist.
    Returns whether a VAE was copied.
    """
    same = None
    if parallel.is_primary() and not folder.checkpoints("vae").exists():
        needed = _vae_facts(folder)
        others = map(workdir.Reader, siblings if needed is not None else ())
        found = (
            other
            for other in others
            if other.finished("vae")
            and _vae_facts(other) == needed
            and checkpoints.latest(other.checkpoints("vae")) == steps
        )
        same = next(found, None)  # the others are not read
    if same is not None:
        folder.copy_stage("vae", same, steps)
    return bool(parallel.broadcast_from_primary(int(same is not None)))


def _vae_facts(folder: workdir.Reader) -> list[Any] | None:
    """Returns all that the bits of a run's VAE stage depend on, if one environment has run it."""
    environment, data = folder.read_json(workdir.ENVIRONMENT), folder.read_json(workdir.DATA)
    if environment is None or data is None or "resumed_with" in environment:
        return None

    def of_vae(fields: Mapping[str, Any]) -> dict[str, Any]:
        other = ("gan.", "transfer.generator", "transfer.discriminator", "transfer.match_posterior")
        return {name: value for name, value in fields.items() if not name.startswith(other)}

    sources = of_vae(environment.pop("sources", {}))
    for name in ("variant", "config_sha256"):
        environment.pop(name, None)
    return [environment, sources, of_vae(folder.config()), data["digest"], data["train"]]
