"""Small custom TFDS builders, used by tests."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

COUNT = 30


def pixels(number: int) -> np.ndarray:
    """The picture of a number: uint8 [28, 28], unique."""
    y, x = np.mgrid[:28, :28]
    return ((x * 7 + y * 3 + number * 11) % 256).astype(np.uint8)


class OwnDigits(tfds.core.GeneratorBasedBuilder):
    """Grey 28x28 Pillow images, with a mask and a label that are not used."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "mask": tfds.features.LabeledImage(labels=2, shape=(28, 28, 1)),
                    "picture": tfds.features.Image(shape=(28, 28, 1)),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples(0), "test": self._generate_examples(COUNT)}

    def _generate_examples(self, first):
        for number in range(first, first + COUNT):
            image = Image.fromarray(pixels(number))
            yield number, {"label": number % 10, "mask": image, "picture": image}


class OwnTexts(OwnDigits):
    """One without images."""

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, first):
        yield first, {"text": "a"}


class OwnPairs(OwnDigits):
    """One with two image features."""

    def _info(self):
        image = tfds.features.Image(shape=(16, 16, 3))
        features = tfds.features.FeaturesDict({"left": image, "right": image})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, first):
        for number in range(first, first + 20):
            left, right = (Image.new("RGB", (16, 16), (number, 0, side)) for side in (1, 2))
            yield number, {"left": left, "right": right}


def prepare(builder, directory):
    """Prepares a set as array_record."""
    builder(data_dir=directory, file_format="array_record").download_and_prepare()
