"""The bundled pretrained model of comic faces: a long run, two hours on one CPU core."""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.flip = True
    config.vae.reconstruction = "gaussian"
    config.vae.steps = 16_000
    config.gan.steps = 60_000
    config.gan.augmentations = ""
    config.gan.ema_half_life_images = 20_000.0
    config.training.log_every = 250
    config.training.picture_every = 5_000
    config.training.checkpoint_every = 2_500
    config.evaluation.curve_every = 15_000
    return config
