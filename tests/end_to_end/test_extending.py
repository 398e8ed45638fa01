"""The example of docs/extending.md, and errors in losses of the user."""

import os
import re
import shlex
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.end_to_end.launched import NOT_EVALUATED, metrics
from vaegan_jax.data import images
from vaegan_jax.losses.gan import Objective

PAGE = (ROOT / "docs" / "extending.md").read_text()


def fenced(language):
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return "\n\n".join(blocks)


def test_the_examples_of_the_page_run(tmp_path):
    (tmp_path / "my_losses.py").write_text(fenced("python"))
    program, *arguments = shlex.split(fenced("sh").replace("\\\n", " "))
    assert program == "python"
    paths = {name: str(ROOT / name) for name in ("launch.py", "configs/smoke.py")}
    result = subprocess.run(
        [sys.executable, *(paths.get(part, part) for part in arguments), NOT_EVALUATED],
        cwd=tmp_path,  # where the module is
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    lines = metrics(tmp_path / "runs" / "mine")
    assert [line["step"] for line in lines] == [4, 8, 12] * 2
    for line in lines:
        assert all(np.isfinite(value) for value in line.values() if isinstance(value, float))
    assert 0 < lines[0]["reconstruction"] < 0.7 * 2 * 16 * 16 * 3
    assert all(line["my_losses:perceptual"] > 0 for line in lines[:3])
    # softplus(2 - real) + softplus(2 + fake) is 4.25 for logits of 0.
    assert lines[3]["discriminator_loss"] == pytest.approx(2 * np.log1p(np.exp(2)), rel=0.2)
    for name in ("r1", "my_losses:small_logits", "my_losses:path_length"):
        assert all(line[name] > 0 for line in lines[3:]), name


def too_many(real, fake, key):
    return jnp.mean(real)


def not_a_mean(real, fake):
    return fake


def per_image(images, logits):
    return jnp.mean((images - logits) ** 2)


def grey(images, key):
    return jnp.mean(images, axis=-1, keepdims=True)


def broken(batch):
    raise RuntimeError("out of luck")


SIGNATURE = Objective(too_many, too_many)
VECTOR = Objective(not_a_mean, not_a_mean)
HERE = "tests.end_to_end.test_extending"

REFUSED = {
    "no module": ("gan.objective=nowhere:f", "nowhere:f"),
    "no such name": (f"gan.objective={HERE}:none", ":none"),
    "no objective": (f"gan.objective={HERE}:grey", "'images'"),
    "signature": (f"gan.objective={HERE}:SIGNATURE", "TypeError"),
    "vector": (f"gan.objective={HERE}:VECTOR", r"float32\[2\]"),
    "no arrays": ("vae.reconstruction=builtins:repr", "signature"),
    "arguments": (f"gan.generator_terms={HERE}:per_image", "'logits'"),
    "term": (f"vae.reconstruction={HERE}:per_image", r"float32\[2\].* float32\[\]"),
    "augmentation": (f"gan.augmentations={HERE}:grey", r"float32\[2, 16, 16, 3\]"),
    "penalty": (f"gan.penalties={HERE}:broken", "out of luck"),
    "option": ("gan.augmentations=cutout(shares=1)", "share"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_losses_are_refused_before_images_are_read(name, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(images, "load", None)
    field, pattern = REFUSED[name]
    message = refused(tmp_path / "run", f"--config.{field}")
    assert re.search(pattern, message), message
    assert not (tmp_path / "run").exists()
