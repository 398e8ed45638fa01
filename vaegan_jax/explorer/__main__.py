"""``python -m vaegan_jax.explorer SOURCE``."""

import sys

from vaegan_jax.explorer.command import main

sys.exit(main())
