"""Sessions over runs of random networks and the comic faces."""

import io
import json

from PIL import Image

from tests import made_runs
from vaegan_jax.data import images
from vaegan_jax.explorer import session as module

COUNT = 500
module._MAX_IMAGES = COUNT  # of 7,255, to save time


def make_run(path, data=True, **options):
    """Writes the folder of a run; with `data` its digest is that of the images."""
    config = made_runs.tiny()
    made_runs.write(path, config, **options)
    if data:
        facts = images.facts(images.load(config.data))
        (path / "data.json").write_text(json.dumps(facts))
    return path


def make_session(path, write=True, **options):
    """Returns a session over a run, written first by default, that has read its data."""
    session = module.Session(make_run(path, **options) if write else path)
    session.prepare()
    return session


def png(width, height, colour=(200, 30, 60)):
    """Returns an image file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()
