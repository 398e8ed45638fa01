"""TFDS builder of the comic faces; it reads the zip beside it and needs no TensorFlow."""

import hashlib
import io
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

ARCHIVE = pathlib.Path(__file__).with_name("comic_faces_64.zip")
HELD_OUT_SHARE = 8


def is_held_out(image: Image.Image) -> bool:
    """Whether an RGB image belongs to the eighth held out: decided by its pixels alone.

    So the split does not depend on names or order, and no image can stand on both sides.
    """
    digest = hashlib.sha256(image.tobytes()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """Comic faces: ``image`` uint8 [64, 64, 3] and the file's ``name``; splits train and test."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS reads a class attribute

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="png"),
                    "name": tfds.features.Text(),
                }
            ),
            homepage="https://github.com/zengm-games/facesjs",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # there is nothing to download
        return {
            "train": self._generate_examples(held_out=False),
            "test": self._generate_examples(held_out=True),
        }

    def _generate_examples(self, held_out: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        with zipfile.ZipFile(ARCHIVE) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            for index, name in enumerate(names):
                # The files are palette images, which TFDS would decode to palette indices.
                image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                if is_held_out(image) == held_out:
                    encoded = io.BytesIO()
                    image.save(encoded, "PNG", compress_level=1)
                    encoded.seek(0)
                    yield index, {"image": encoded, "name": name}
