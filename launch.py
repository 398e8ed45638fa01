"""Entry point: ``python launch.py --config configs/quickstart.py --workdir runs/quickstart``."""

import sys

from vaegan_jax.cli import launch

if __name__ == "__main__":
    sys.exit(launch.main())
