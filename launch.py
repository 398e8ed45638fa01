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
flags.DEFINE_bool(
    "distributed", False, "one of several processes that SLURM, Kubernetes or the like started"
)
flags.DEFINE_string("coordinator", None, "of several processes: HOST:PORT of the first")
flags.DEFINE_integer("process_id", None, "of several processes: which this is, from 0")
flags.DEFINE_integer("num_processes", None, "of several processes: how many there are")

if __name__ == "__main__":
    app.run(cli.main, flags_parser=cli.parse_flags)
