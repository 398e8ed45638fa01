"""A run of random networks over the comic faces, opened as a session."""

import io
import json

from PIL import Image

from tests import made_runs
from vaegan_jax.data import images
from vaegan_jax.explorer.session import Session


def run(path, data=True, **others):
    """Writes the folder of a run; with `data` its images are the ones that are there."""
    config = made_runs.tiny()
    made_runs.write(path, config, **others)
    if data:
        facts = images.facts(images.load(config.data))
        (path / "data.json").write_text(json.dumps(facts))
    return path


def session(path, **others):
    """Returns a session that has read its data."""
    opened = Session(run(path, **others))
    opened.prepare()
    return opened


def png(width, height, colour=(200, 30, 60), **options):
    """Returns a picture file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG", **options)
    return file.getvalue()
