"""The flags of launch.py and of `vaegan train`, and the run that they describe."""

import os
import pathlib
import re
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from vaegan_jax import config as configuration
from vaegan_jax.cli import program
from vaegan_jax.errors import UserError, one_line
from vaegan_jax.pipeline import STAGES

_text, _switch, _number = flags.DEFINE_string, flags.DEFINE_bool, flags.DEFINE_integer
_FLAGS: tuple[tuple[Any, str, Any, str], ...] = (
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
    values = _define_flags(argv)
    if any(re.fullmatch(r"--?help(short|full)?", argument) for argument in argv):
        print(f"usage: {argv[0]} --config FILE [--workdir FOLDER] [--config.FIELD=VALUE ...]")
        print(values.get_help(include_special_flags=False))
        return
    _parse_flags(values, argv)
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
    train = sweep.run_all if sweep.is_sweep(values.config) else run.train_and_evaluate
    train(values.config, pathlib.Path(values.workdir), values.stages, values.profile)


def _define_flags(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "config file, such as configs/quickstart.py", values, sys_argv=argv
    )
    for define, name, default, meaning in _FLAGS:
        define(name, default, meaning, flag_values=values)
    return values


def _parse_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Parses the command line.

    Raises:
      UserError: for an invalid flag, value or config file.
    """
    config_path = _require_config(argv)
    for argument in argv:
        field = re.match(r"--config\.([\w.]+)", argument)
        if field and field[1] not in configuration.FIELDS:
            raise configuration.unknown_field(field[1])
    try:
        rest = values(argv)
    except (flags.Error, AttributeError, KeyError) as error:
        raise UserError(f"{one_line(error)} (--help lists the flags.)") from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag: flags begin with --.")
    if not values.stages or not {*values.stages} <= {*STAGES}:
        given = ",".join(values.stages)
        raise UserError(f"--stages={given} is invalid: give one or more of {','.join(STAGES)}.")
    if not values.workdir:
        values["workdir"].value = f"runs/{config_path.stem}"


def _require_config(argv: Sequence[str]) -> pathlib.Path:
    """Loads the config file once, since errors in it are hard to recognise among flag errors.

    Returns:
      Its path.
    """
    match = re.search(r"(?:^|\0)--?config(?:=|\0)([^\0]+)", "\0".join(argv))
    if not match:
        raise UserError("--config is missing: name a file, such as --config configs/quickstart.py.")
    path = match[1].partition(":")[0]
    # Configs import each other as `configs.NAME`.
    sys.path.append(str(pathlib.Path(path).resolve().parent.parent))
    try:
        config = runpy.run_path(path)["get_config"]()
    except Exception as error:
        unknown = re.search(r'Key \\?"(\w+)\\?" does not exist', str(error))
        reason = configuration.unknown_field(unknown[1]) if unknown else one_line(repr(error))
        raise UserError(f"The config {path} cannot be loaded: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"The config {path} must define get_config(), returning a ConfigDict.")
    return pathlib.Path(path)
