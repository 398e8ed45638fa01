import hashlib
import sys

import pytest

from vaegan_jax import registry
from vaegan_jax.runtime import sources

FILES = {
    "mine/__init__.py": "from . import scale\n",
    "mine/losses.py": "import numpy, jax.numpy as jnp\nfrom vaegan_jax import gan\n"
    "from .helper import one\nfrom helper_outside import *\n\n"
    "def pinball(images, logits):\n    import late\n    return one\n",
    "mine/helper.py": "one = 1\n",
    "mine/scale.py": "two = 2\n",
    "mine/unused.py": "",
    "helper_outside.py": "import mine.losses\n",
    "late.py": "from late_too import x\n",
    "late_too.py": "x = 1\n",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes `FILES` to a folder on Python's path."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = set(sys.modules)
    yield tmp_path
    sources.digests.cache_clear()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mine", "late", "late_too", "helper_outside"):
            del sys.modules[name]


def test_digests_cover_every_imported_module_of_the_user(files):
    expected = {
        "mine" if "__init__" in name else name.removesuffix(".py").replace("/", "."): digest(text)
        for name, text in FILES.items()
        if "unused" not in name
    }
    assert sources.digests("mine.losses") == expected
    by_field = registry.source_digests(
        {"vae.reconstruction": "mine.losses:pinball", "gan.objective": "hinge", "gan.penalties": "",
         "gan.augmentations": "colour,helper_outside:a(b='os:c'), late:b"}
    )  # fmt: skip
    late = {name: expected[name] for name in ("late", "late_too")}
    assert by_field == {"vae.reconstruction": expected, "gan.augmentations": expected | late}


def test_edit_of_an_imported_file_counts_in_the_next_process_only(files):
    before = sources.digests("mine.losses")
    (files / "mine" / "helper.py").write_text("one = 1.5\n")
    assert sources.digests("mine.losses") == before
    sources.digests.cache_clear()  # as in another process
    assert sources.digests("mine.losses") == before | {"mine.helper": digest("one = 1.5\n")}


@pytest.mark.parametrize(
    "module", ["broken", "no_such", "mine.no_such", "vaegan_jax.losses.gan", "sys"]
)
def test_modules_without_a_user_source_have_no_digests(files, module):
    (files / "broken.py").write_text("raise SystemExit\n")
    assert sources.digests(module) == {}


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
