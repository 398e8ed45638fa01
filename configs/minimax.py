"""The original GAN of 2014, to show its failures: minimax loss, no penalty, no pre-training."""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.transfer.generator = "scratch"
    config.gan.objective = "minimax"
    config.gan.penalties = ""
    config.gan.discriminator_warmup_steps = 0
    return config
