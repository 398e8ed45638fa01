"""The VAE of another run, or of an export, that a run takes instead of training its own.

Its parameters and the fields of its section `vae` are copied into the run, which is complete
without the source from then on.
"""

import contextlib
import copy
import functools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, trained, vae, weights, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.runtime import parallel


def load(config: ConfigDict) -> trained.Trained | None:
    """Returns the VAE that ``transfer.vae`` names, or None for a run that trains its own.

    Raises:
      UserError: if it cannot be read, is not finished, or does not fit the config; leaves of other
        shapes are listed.
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
    shape = images.settings(config.data).image_shape
    # These do not show in the parameters' shapes.
    for field, before, now in (
        ("the image shape", model.image_shape, shape),
        ("model.norm", model.config.model.norm, config.model.norm),
    ):
        if before != now:
            raise UserError(
                f"transfer.vae={name}: {field} is {before} there and {now} here, and must be equal."
            )
    expected = jax.eval_shape(functools.partial(vae.init, config, shape)).params
    checkpoints.require_equal_leaves(
        checkpoints.leaves({name: model.parts.get(name) or {} for name in expected}),
        checkpoints.leaves(expected),
        f"The VAE of transfer.vae={name}",
        "the networks of this config",
    )
    return model


def with_fields(config: ConfigDict, saved: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of a config with the fields of the VAE's source in its section `vae`.

    Args:
      config: with or without ``transfer.vae``.
      saved: the config of the run's folder, flattened, which has them already; or empty.
    """
    if not config.transfer.vae:
        return config
    if not saved:
        model = trained.load(config.transfer.vae, "vae", encoder=False)
        saved = configuration.flatten(model.config) | {"vae.steps": model.step}
    config = copy.deepcopy(config)
    names = [name for name in configuration.flatten(config) if name.startswith("vae.")]
    config.update_from_flattened_dict({name: saved[name] for name in names if name in saved})
    return config


def facts(model: trained.Trained, data: images.Images) -> dict[str, Any]:
    """Returns what run.json records of the source: where it is, and its parameters' hash."""
    recorded = model.facts["data"] or {}
    same = recorded.get("digest") == data.digest and recorded.get("train") == len(data.train)
    return {
        "source": model.facts["source"],
        "step": model.step,
        "sha256": weights.digest(_params(model)),
        "same_images": same,
    }


def require_same(path: pathlib.Path, model: trained.Trained | None) -> None:
    """Checks that the run in a folder began with the parameters of this VAE, or with its own.

    Raises:
      UserError: if it did not.
    """
    run = workdir.Reader(path).read_json(workdir.ENVIRONMENT)
    before = (run or {}).get("vae", {}).get("sha256")
    if run is not None and before != (model and weights.digest(_params(model))):
        raise UserError(
            f"The run in {path} began with another VAE "
            f"({run['vae']['source'] if before else 'trained by itself'}): set transfer.vae as it "
            "was and restore that VAE, or name another --workdir to start a new run."
        )


def copy_to(folder: workdir.Workdir, model: trained.Trained) -> None:
    """Saves the VAE as that of the run in a folder, unless it is already there."""
    with contextlib.closing(checkpoints.Checkpoints(folder.checkpoints("vae"), keep=1)) as saved:
        if saved.latest() is None:
            sharding = parallel.replicated(parallel.make_mesh())
            params = jax.tree.map(jnp.asarray, _params(model))
            saved.save(model.step, parallel.put_state({"params": params}, sharding), {})
            saved.finish()
            source = model.facts["source"]
            folder.write_event(f"vae: finished at step {model.step}, copied from {source}")


def share(
    config: ConfigDict,
    folder: workdir.Workdir,
    facts: Mapping[str, Any],
    siblings: Iterable[pathlib.Path],
) -> None:
    """Copies the VAE stage from the first run that has finished the same one, if there is any.

    The same means the same environment, sources and images, and config but for `gan` and
    `transfer`, so every bit is the one that training would give.

    Args:
      config: without automatic fields.
      folder: of the run.
      facts: of the run's environment, as run.json records them.
      siblings: folders of runs, which need not exist.
    """
    flat, data = configuration.flatten(config), folder.read_json(workdir.DATA)
    needed = _vae_facts(flat, facts, data, facts)
    if parallel.is_primary() and not folder.checkpoints("vae").exists():
        for other in map(workdir.Reader, siblings):
            saved, environment = other.config(), other.read_json(workdir.ENVIRONMENT)
            if (
                saved
                and environment
                and "resumed_with" not in environment
                and other.finished("vae")
                and _vae_facts(saved, environment, other.read_json(workdir.DATA), facts) == needed
                and checkpoints.latest(other.checkpoints("vae")) == config.vae.steps
            ):
                folder.copy_stage("vae", other, config.vae.steps)
                break
    parallel.barrier("vae shared")


def _vae_facts(
    flat: Mapping[str, Any],
    environment: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    names: Iterable[str],
) -> dict[str, Any]:
    """Returns all that the bits of a VAE stage depend on."""

    def of_vae(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in fields.items()
            if name == "transfer.vae" or not name.startswith(("gan.", "transfer."))
        }

    return {name: environment.get(name) for name in names} | {
        "config": of_vae(flat),
        "sources": of_vae(environment.get("sources", {})),
        "data": data and (data["digest"], data["train"]),
    }


def _params(model: trained.Trained) -> dict[str, Any]:
    parts = {name: model.parts.get(name) for name in ("decoder", "encoder", "likelihood")}
    return {name: part for name, part in parts.items() if part is not None}
