"""What stands between the command line and the pipeline: flags, settings, exit codes."""

import logging as python_logging
import os
import pathlib
import re
import runpy
import sys
from collections.abc import Sequence

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from vaegan_jax import config as configuration
from vaegan_jax.errors import Stopped, UserError, one_line
from vaegan_jax.experiments import sweep
from vaegan_jax.pipeline import run
from vaegan_jax.runtime import compilation, environment, parallel

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 130

flags.disclaim_key_flags()  # the flags are those of the program that asks for them


def define_flags() -> None:
    """Defines the flags of a program that trains."""
    config_flags.DEFINE_config_file("config", None, "the run's config, a file in configs/")
    flags.DEFINE_string(
        "workdir",
        None,
        "the run's folder, runs/CONFIG by default; a stopped run resumes there",
    )
    flags.DEFINE_list(
        "stages", list(run.STAGES), "which stages to go through, with commas; all if not named"
    )
    flags.DEFINE_bool(
        "deterministic", True, "on a GPU, the same bits from run to run, at some cost in speed"
    )
    flags.DEFINE_string(
        "compilation_cache", "auto", "the compilation cache: auto, off or a directory"
    )
    flags.DEFINE_bool(
        "profile", False, "leave a trace of some steps of each stage in WORKDIR/profile"
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "one of several processes, which JAX finds, as under SLURM or Open MPI",
    )
    flags.DEFINE_string("coordinator", None, "of several processes: HOST:PORT of the first")
    flags.DEFINE_integer("process_id", None, "of several processes: which this is, from 0")
    flags.DEFINE_integer("num_processes", None, "of several processes: how many there are")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags for `app.run`; an unusable one ends the program with one sentence.

    Args:
      argv: the command line, the program's name first.

    Returns:
      What was not a flag, the program's name first.
    """
    try:
        config_path = _require_config(argv)
        try:
            rest = list(flags.FLAGS(argv))
        except flags.Error as error:
            # absl names the flag and what is wrong with it, sometimes over several lines.
            raise UserError(f"{one_line(error)} (--help lists the flags.)") from error
        except (AttributeError, KeyError) as error:
            raise _unknown_override(argv, error) from error
        if len(rest) > 1:
            raise UserError(f"{rest[1]!r} is no flag: flags begin with --.")
        unknown = [stage for stage in flags.FLAGS.stages if stage not in run.STAGES]
        if unknown or not flags.FLAGS.stages:
            raise UserError(
                f"--stages has no stage {', '.join(unknown) or 'at all'}: name one or more of "
                f"{', '.join(run.STAGES)}, with commas."
            )
        if not flags.FLAGS.workdir:
            flags.FLAGS["workdir"].value = f"runs/{config_path.stem}"
    except UserError as error:
        _fail(error)
    return rest


def main(argv: Sequence[str]) -> None:
    """Runs the config in the workdir, both from the flags."""
    del argv
    # Orbax and TFDS say much that is of no use here; what matters is raised. Where a save fails,
    # asyncio prints the traceback of every file that was under way.
    logging.set_verbosity(logging.ERROR)
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    environment.pin()
    if flags.FLAGS.deterministic:
        environment.make_deterministic()
    sys.path.append(str(pathlib.Path.cwd()))  # where a person keeps losses of their own
    try:
        _join_processes()
        config, path = flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir)
        compilation.enable_cache(flags.FLAGS.compilation_cache)
        train = sweep.run_all if sweep.is_sweep(config) else run.train_and_evaluate
        train(config, path, flags.FLAGS.stages, flags.FLAGS.profile)
    except UserError as error:
        _fail(error)
    except OSError as error:
        _fail(
            UserError(
                f"A file could not be read or written ({error}): put that right and run the same "
                "command again; what was saved is kept."
            )
        )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            reason = (
                f"The device's memory is full ({one_line(error)}): lower data.max_resident_mb, "
                "or the stage's batch_size or model.base_width in another --workdir; what was "
                "saved is kept."
            )
        elif jax.process_count() > 1:
            reason = (
                f"Another process of this run is gone ({one_line(error)}): start all of them again "
                "to go on from what is saved."
            )
        else:
            raise
        if jax.process_count() == 1:
            _fail(UserError(reason))
        sys.stderr.write(f"Error: {reason}\n")
        os._exit(_EXIT_ERROR)  # waiting for the others, as an orderly end does, would be in vain
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted before training began; nothing is lost.\n")
        sys.exit(_EXIT_INTERRUPTED)


def _join_processes() -> None:
    """Makes this process one of several, where the flags ask for it; the first alone speaks."""
    wanted = flags.FLAGS
    by_hand = wanted.coordinator, wanted.process_id, wanted.num_processes
    if wanted.distributed or any(value is not None for value in by_hand):
        parallel.join(*by_hand)
        if not parallel.is_primary():
            sys.stdout = pathlib.Path(os.devnull).open("w")  # noqa: SIM115


def _require_config(argv: Sequence[str]) -> pathlib.Path:
    """Loads the config file once by itself, since a fault in it is lost among the flags.

    Returns:
      Its path.
    """
    match = re.search(r"(?:^|\0)--?config(?:=|\0)([^\0]+)", "\0".join(argv))
    if not match:
        if any(re.match(r"--?help", argument) for argument in argv):
            return pathlib.Path()
        raise UserError("--config is missing: name a file, such as --config configs/quickstart.py.")
    path = match[1].partition(":")[0]
    try:
        config = runpy.run_path(path)["get_config"]()
    except Exception as error:
        unknown = re.search(r'Key \\?"(\w+)\\?" does not exist', str(error))
        reason = configuration.unknown_field(unknown[1]) if unknown else one_line(repr(error))
        raise UserError(f"The config {path} cannot be loaded: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"The config {path} must define get_config(), returning a ConfigDict.")
    return pathlib.Path(path)


def _unknown_override(argv: Sequence[str], error: Exception) -> UserError:
    for argument in argv:
        match = re.match(r"--config\.([\w.]+)", argument)
        if match and match[1] not in configuration.FIELDS:
            return configuration.unknown_field(match[1])
    return UserError(one_line(error))


def _fail(error: UserError) -> None:
    sys.stderr.write(f"Error: {error}\n")
    sys.exit(_EXIT_ERROR)
