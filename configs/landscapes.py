"""Landscape images at 64x96, such as the landscape-pictures of Kaggle, read from their zip.

python launch.py --config configs/landscapes.py --config.data.path=archive.zip --workdir ...
"""

from ml_collections import ConfigDict

from configs import folder


def get_config() -> ConfigDict:
    config = folder.get_config()
    config.data.image_size = (64, 96)
    return config
