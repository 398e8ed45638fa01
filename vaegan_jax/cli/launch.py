"""The flags of launch.py and of `vaegan train`, and the run that they describe."""

import os
import pathlib
import re
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vaegan_jax import config as configuration
from vaegan_jax.cli import program
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.pipeline import STAGES

_text, _switch, _number = flags.DEFINE_string, flags.DEFINE_bool, flags.DEFINE_integer
_FLAGS: tuple[tuple[Any, str, Any, str], ...] = (
    (_text, "config", None, "config file, such as configs/quickstart.py"),
    (_text, "workdir", None, "the run's folder (default: runs/CONFIG); a stopped run resumes"),
    (flags.DEFINE_list, "stages", list(STAGES), "comma-separated stages to run"),
    (_switch, "deterministic", True, "bit-identical results on GPUs, at some cost in speed"),
    (_text, "compilation_cache", "auto", "compilation cache: auto, off or a directory"),
    (_switch, "profile", False, "write a trace of some steps of each stage to WORKDIR/profile"),
    (_switch, "distributed", False, "one of several processes, started by SLURM or Open MPI"),
    (_text, "coordinator", None, "HOST:PORT of process 0"),
    (_number, "process_id", None, "index of this process, from 0"),
    (_number, "num_processes", None, "number of processes"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and evaluates a run, or all runs of a sweep, and returns the exit code.

    The command line has the program's name first; by default it is `sys.argv`.
    """
    command_line = list(sys.argv if argv is None else argv)
    return program.run(lambda: _main(command_line))


def _main(argv: list[str]) -> None:
    values = flags.FlagValues()
    for define, name, default, meaning in _FLAGS:
        define(name, default, meaning, flag_values=values)
    if any(re.fullmatch(r"--?help(short|full)?", argument) for argument in argv):
        print(f"usage: {argv[0]} --config FILE [--workdir FOLDER] [--config.FIELD=VALUE ...]")
        print(values.get_help(include_special_flags=False))
        return
    config = _parse(values, argv)
    program.set_up()

    from vaegan_jax.experiments import sweep
    from vaegan_jax.pipeline import run
    from vaegan_jax.runtime import compilation, environment, parallel

    if values.deterministic:
        environment.make_deterministic()
    sys.path.append(str(pathlib.Path.cwd()))  # for the user's modules
    explicit = values.coordinator, values.process_id, values.num_processes
    if values.distributed or any(value is not None for value in explicit):
        parallel.join(*explicit)
        if not parallel.is_primary():
            sys.stdout = pathlib.Path(os.devnull).open("w")  # noqa: SIM115
    compilation.enable_cache(values.compilation_cache)
    train = sweep.run_all if sweep.is_sweep(config) else run.train_and_evaluate
    workdir = values.workdir or f"runs/{pathlib.Path(values.config).stem}"
    train(config, pathlib.Path(workdir), values.stages, values.profile)


def _parse(values: flags.FlagValues, argv: list[str]) -> ConfigDict:
    """Parses the command line and returns the config.

    Raises:
      UserError: for an invalid flag, value or config file.
    """
    prefix = "--config."
    try:
        rest = values([argument for argument in argv if not argument.startswith(prefix)])
    except flags.Error as error:
        raise UserError(f"{one_line(error)} (--help lists the flags.)") from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag: flags begin with --.")
    if not values.stages or not {*values.stages} <= {*STAGES}:
        given = ",".join(values.stages)
        raise UserError(f"--stages={given} is invalid: give one or more of {','.join(STAGES)}.")
    if not values.config:
        raise UserError("--config is missing: name a file, such as --config configs/quickstart.py.")
    config = _load_config(pathlib.Path(values.config))
    for argument in argv:
        if argument.startswith(prefix):
            configuration.set_field(config, argument.removeprefix(prefix))
    return config


def _load_config(path: pathlib.Path) -> ConfigDict:
    # Configs import each other as `configs.NAME`.
    sys.path.append(str(path.resolve().parent.parent))
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except Exception as error:
        unknown = re.search(r'Key \\?"(\w+)\\?" does not exist', str(error))
        reason = configuration.unknown_field(unknown[1]) if unknown else one_line(repr(error))
        raise UserError(f"The config {path} cannot be loaded: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"The config {path} must define get_config(), returning a ConfigDict.")
    return config
