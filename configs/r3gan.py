"""The relativistic loss with R1 and R2 of Huang et al. 2024, arXiv 2501.05441.

It uses their loss and penalties, but this project's networks, at quickstart size.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.gan.objective = "relativistic"
    config.gan.penalties = "r1, r2"
    config.gan.b1 = 0.0
    return config
