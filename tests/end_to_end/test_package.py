"""The built wheel, and the commands of the README."""

import os
import re
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

PROGRAM = """
import pathlib, sys
import jax, jax.numpy as jnp
import vaegan_jax
assert pathlib.Path(vaegan_jax.__file__).is_relative_to(sys.argv[1]), vaegan_jax.__file__
from vaegan_jax import config, vae
from vaegan_jax.data import images
config = config.default_config()
config.model.base_width, config.data.directory = 4, sys.argv[2]
data = images.load(config.data)
assert len(data.train) > 6000
state = vae.init(config, data.shape)
step = jax.jit(vae.make_train_step(config, data.shape))
images = jnp.asarray(data.train[:4] / 127.5 - 1, jnp.float32)
state, scalars = step(state, images, jax.random.key(0))
assert int(state.step) == 1 and jnp.isfinite(scalars["loss"])
from vaegan_jax import trained
model = trained.load("pretrained")
assert model.decode(jnp.zeros((2, model.latent_size))).shape == (2, 64, 64, 3)
assert model.encode(images)[0].shape == (4, model.latent_size)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "-q", "-w", folder)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True, timeout=300)
    (path,) = folder.glob("vaegan_jax-*.whl")
    return path


def test_the_wheel_contains_data_and_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in (
        "vaegan_jax/data/comic_faces/comic_faces_64.zip",
        "vaegan_jax/data/comic_faces/LICENSE.txt",
        "vaegan_jax/data/comic_faces/NOTICE.txt",
        "vaegan_jax/data/comic_faces/recipe/render.py",
        "vaegan_jax/explorer/static/index.html",
        "vaegan_jax/explorer/static/explorer.js",
        "vaegan_jax/explorer/static/style.css",
        "vaegan_jax/export/pretrained/comic_faces.json",
        "vaegan_jax/export/pretrained/comic_faces.safetensors",
        "vaegan_jax/report/comparison.html.jinja",
        "vaegan_jax/report/report.html.jinja",
        "vaegan_jax/report/style.css.jinja",
        "vaegan_jax/py.typed",
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]


def test_the_wheel_trains_a_step(wheel, tmp_path):
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, target, tmp_path / "data"],
        cwd=tmp_path,  # away from the checkout
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


def test_the_readme_begins_with_the_main_and_the_test_command():
    readme = (ROOT / "README.md").read_text()
    main, tests = re.findall(r"^```sh\n(.+?)\n```$", readme, re.MULTILINE | re.DOTALL)[:2]
    assert "\n" not in main + tests
    assert "python launch.py --config configs/quickstart.py --workdir runs/quickstart" in main
    assert tests.endswith("python -m pytest")
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", readme):
        assert (ROOT / path).exists(), path


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script
