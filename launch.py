"""The front door: ``python launch.py --config configs/quickstart.py --workdir runs/quickstart``."""

from absl import app

from vaegan_jax import cli

cli.define_flags()

if __name__ == "__main__":
    app.run(cli.main, flags_parser=cli.parse_flags)
