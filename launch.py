"""Entry point: ``python launch.py --config configs/quickstart.py --workdir runs/quickstart``."""

from absl import app

from vaegan_jax.cli import launch

launch.define_flags()

if __name__ == "__main__":
    app.run(launch.main, flags_parser=launch.parse_flags)
