import hashlib
import re
import sys

import pytest

from vaegan_jax import config as configuration
from vaegan_jax import registry
from vaegan_jax.errors import UserError
from vaegan_jax.losses import augmentation, gan, penalties, vae

REGISTRIES = {
    "objective": gan.OBJECTIVES,
    "penalty": penalties.PENALTIES,
    "augmentation": augmentation.AUGMENTATIONS,
    "reconstruction": vae.RECONSTRUCTIONS,
    "sampler": vae.SAMPLERS,
    "KL schedule": vae.KL_SCHEDULES,
}
HERE = "tests.test_registry"
NUMBER = 7
OBJECTIVE = gan.Objective(lambda real, fake: real.mean(), lambda real, fake: fake.mean())


def penalty(discriminate, real, fake, key):
    del real, key
    return discriminate(fake) ** 2


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_projects_own_are_found_by_name(kind):
    for name, loss in REGISTRIES[kind].items():
        assert registry.find(kind, name, REGISTRIES[kind]) is loss
        assert registry.allowed(REGISTRIES[kind])[0](name)
        assert not registry.is_path(name)


def test_a_users_are_found_by_path():
    assert registry.find("penalty", f"{HERE}:penalty", penalties.PENALTIES) is penalty
    assert registry.find("objective", f"{HERE}:OBJECTIVE", gan.OBJECTIVES) is OBJECTIVE


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("r3", "use one of r1, r2, gradient_penalty, or one of your own as package.module:name"),
        ("", "is unknown"),
        (HERE, "is unknown"),
        ("tests/test_registry.py:penalty", "is unknown"),
        (":penalty", "is unknown"),
        (f"{HERE}:", "is unknown"),
        ("no_such.module:penalty", "ModuleNotFoundError"),
        (f"{HERE}:missing", "AttributeError"),
        ("module_that_ends:penalty", "SystemExit"),
        ("module_that_fails:penalty", "ValueError"),
        (f"{HERE}:NUMBER", "must be a function, and is 7"),
    ],
)
def test_every_failure_is_one_sentence_that_names_what_is_wrong(name, why, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_that_ends.py").write_text("import sys\nsys.exit('not now')\n")
    (tmp_path / "module_that_fails.py").write_text("raise ValueError('two\\nlines')\n")
    with pytest.raises(UserError, match=re.escape(f"The penalty {name!r} ")) as caught:
        registry.find("penalty", name, penalties.PENALTIES)
    message = str(caught.value)
    assert why in message
    assert "\n" not in message
    assert message.endswith(".")


def test_an_objective_is_a_pair():
    with pytest.raises(UserError, match=f"The objective '{HERE}:penalty' must be of Objective,"):
        registry.find("objective", f"{HERE}:penalty", gan.OBJECTIVES)


def test_a_config_may_name_only_what_looks_like_one():
    check, wanted = registry.allowed(penalties.PENALTIES)
    for value in ("r1", "own:penalty", "a.b_2.c:Name"):
        assert check(value)
    for value in ("r3", "", "a:", ":b", "a.:b", "a b:c", "a:b:c", "a:b.c", 1, None, ("r1",)):
        assert not check(value)
    assert wanted.startswith("one of r1, r2, gradient_penalty, or")


def test_every_field_that_may_name_a_users_function_is_listed():
    named = {
        name
        for name, field in configuration.FIELDS.items()
        if field.allowed("package.module:name") and not field.allowed("no such name")
    }
    assert named - {"data.name"} == set(registry.FIELDS)


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
    """Writes `FILES` where Python finds them; what was imported of them is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = set(sys.modules)
    yield tmp_path
    registry._digests.cache_clear()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mine", "late", "late_too", "helper_outside"):
            del sys.modules[name]


def test_the_source_is_that_of_all_the_users_modules_that_are_imported(files):
    expected = {
        "mine" if "__init__" in name else name.removesuffix(".py").replace("/", "."): digest(text)
        for name, text in FILES.items()
        if "unused" not in name
    }
    assert registry.source_digests("mine.losses") == expected
    before = registry.sources(
        {"vae.reconstruction": "mine.losses:pinball", "gan.objective": "hinge", "gan.penalty": "",
         "gan.augmentations": "colour,helper_outside:a, late:b"}
    )  # fmt: skip
    late = {name: expected[name] for name in ("late", "late_too")}
    assert before == {"vae.reconstruction": expected, "gan.augmentations": expected | late}

    (files / "mine" / "helper.py").write_text("one = 1.5\n")
    assert registry.source_digests("mine.losses") == expected, "the imported source still runs"
    registry._digests.cache_clear()
    changed = expected | {"mine.helper": digest("one = 1.5\n")}
    assert registry.source_digests("mine.losses") == changed


def test_what_cannot_be_imported_and_what_is_built_in_has_no_source(files):
    (files / "broken.py").write_text("raise SystemExit\n")
    for module in ("broken", "no_such", "mine.no_such", "vaegan_jax.losses.gan", "sys"):
        assert registry.source_digests(module) == {}


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
