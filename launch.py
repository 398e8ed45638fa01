"""The front door: ``python launch.py --config configs/quickstart.py --workdir runs/quickstart``."""

from absl import app, flags
from ml_collections import config_flags

from vaegan_jax import cli, pipeline

config_flags.DEFINE_config_file("config", None, "the run's config, a file in configs/")
flags.DEFINE_string(
    "workdir", None, "the run's folder, runs/CONFIG if not named; a run that stopped goes on there"
)
flags.DEFINE_list(
    "stages", list(pipeline.STAGES), "which stages to go through, with commas; all if not named"
)
flags.DEFINE_bool(
    "deterministic", True, "on a GPU, the same bits from run to run, at some cost in speed"
)
flags.DEFINE_string(
    "compilation_cache", "auto", "where compiled programs are kept: auto, off or a folder"
)
flags.DEFINE_bool("profile", False, "leave a trace of some steps of each stage in WORKDIR/profile")

if __name__ == "__main__":
    app.run(cli.main, flags_parser=cli.parse_flags)
