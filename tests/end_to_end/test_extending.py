"""The example of docs/extending.md as it stands on the page, and faults in one's own losses."""

import os
import re
import shlex
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.end_to_end.launched import NOT_EVALUATED, command, launch_each, metrics, refused
from vaegan_jax.losses.gan import Objective

PAGE = (ROOT / "docs" / "extending.md").read_text()


def fenced(language):
    return re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


def test_the_pages_example_runs_as_it_stands(tmp_path):
    (tmp_path / "my_losses.py").write_text(fenced("python"))
    program, *arguments = shlex.split(fenced("sh").replace("\\\n", " "))
    assert program == "python"
    # The page's paths are those of a checkout.
    there = {name: str(ROOT / name) for name in ("launch.py", "configs/smoke.py")}
    result = subprocess.run(
        [sys.executable, *(there.get(part, part) for part in arguments), NOT_EVALUATED],
        cwd=tmp_path,  # where the module lies, away from the checkout
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
    # Two hundred to a thousand pixels of 0.3 to 0.7 each, where squared errors would be others.
    assert 0 < lines[0]["reconstruction"] < 0.7 * 2 * 16 * 16 * 3
    # exp(-real) + exp(fake) is 2 where nothing is known yet; the usual loss is 1.39.
    assert lines[3]["discriminator_loss"] == pytest.approx(2, rel=0.2)
    assert lines[3]["penalty"] >= 0


def too_many(real, fake, key):
    return jnp.mean(real)


def not_a_mean(real, fake):
    return fake


def per_image(images, logits):
    return jnp.mean((images - logits) ** 2)


def grey(images, key):
    return jnp.mean(images, axis=-1, keepdims=True)


def broken(discriminate, real, fake, key):
    raise RuntimeError("out of luck")


SIGNATURE = Objective(too_many, too_many)
VECTOR = Objective(not_a_mean, not_a_mean)
HERE = "tests.end_to_end.test_extending"

REFUSED = {
    "no module": ("gan.objective=nowhere:f", r"objective 'nowhere:f' cannot be loaded .*nowhere"),
    "no such name": (f"gan.objective={HERE}:none", r"objective .*:none' cannot be loaded"),
    "no objective": (f"gan.objective={HERE}:grey", r"objective .*:grey' must be of Objective"),
    "signature": (f"gan.objective={HERE}:SIGNATURE", r"cannot be called as one \(TypeError"),
    "vector": (f"gan.objective={HERE}:VECTOR", r"must return float32\[\] where .* float32\[2\]"),
    "term": (f"vae.reconstruction={HERE}:per_image", r"must return float32\[2\] .* float32\[\]"),
    "augmentation": (f"gan.augmentations={HERE}:grey", r"must return float32\[2, 16, 16, 3\]"),
    "penalty": (f"gan.penalty={HERE}:broken", r"cannot be called as one .*out of luck"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What became of each, and where."""
    base = tmp_path_factory.mktemp("refused")
    commands = [command(base / name, f"--config.{field}") for name, (field, _) in REFUSED.items()]
    return base, dict(zip(REFUSED, launch_each(base / "said", commands), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_loss_is_one_sentence_before_anything_is_compiled(name, results):
    base, found = results
    message = refused(found[name])
    assert re.search(REFUSED[name][1], message), message
    assert not (base / name).exists()
