import importlib

import pytest

from vaegan_jax import config as configuration
from vaegan_jax import registry
from vaegan_jax.errors import UserError
from vaegan_jax.losses import gan

HERE = "tests.test_registry"
NUMBER = 7
OBJECTIVE = gan.Objective(lambda real, fake: real.mean(), lambda real, fake: fake.mean())


def penalty(discriminate, real, fake, key):
    del real, key
    return discriminate(fake) ** 2


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in registry.BUILT_IN.items() for name in names]
)
def test_built_in_names_resolve_to_the_listed_attribute(kind, name):
    module, _, attribute = registry.BUILT_IN[kind][name].partition(":")
    value = registry.load(kind, name)
    assert value is getattr(importlib.import_module(module), attribute)
    assert callable(value) or isinstance(value, gan.Objective)


def test_user_paths_resolve():
    assert registry.load("penalty", f"{HERE}:penalty") is penalty
    assert registry.load("objective", f"{HERE}:OBJECTIVE") is OBJECTIVE


@pytest.mark.parametrize(
    ("kind", "name", "detail"),
    [
        ("penalty", "r3", "gradient_penalty"),
        ("penalty", "", "r1"),
        ("penalty", HERE, "r1"),
        ("penalty", "tests/test_registry.py:penalty", "r1"),
        ("penalty", ":penalty", "r1"),
        ("penalty", f"{HERE}:", "r1"),
        ("penalty", "no_such.module:penalty", "ModuleNotFoundError"),
        ("penalty", f"{HERE}:missing", "AttributeError"),
        ("penalty", "module_that_ends:penalty", "SystemExit"),
        ("penalty", "module_that_fails:penalty", "ValueError"),
        ("penalty", f"{HERE}:NUMBER", "7"),
        ("objective", f"{HERE}:penalty", "Objective"),
    ],
)
def test_unusable_names_are_refused_in_one_line(kind, name, detail, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_that_ends.py").write_text("import sys\nsys.exit('not now')\n")
    (tmp_path / "module_that_fails.py").write_text("raise ValueError('two\\nlines')\n")
    with pytest.raises(UserError) as caught:
        registry.load(kind, name)
    message = str(caught.value)
    assert repr(name) in message
    assert detail in message
    assert "\n" not in message


@pytest.mark.parametrize("value", ["own:penalty", "a.b_2.c:Name"])
def test_paths(value):
    assert registry.is_path(value)


@pytest.mark.parametrize("value", ["", "r1", "a:", ":b", "a.:b", "a b:c", "a:b:c", "a:b.c"])
def test_other_strings_are_no_paths(value):
    assert not registry.is_path(value)


def test_user_fields_are_those_that_allow_a_path():
    named = {
        name
        for name, field in configuration.FIELDS.items()
        if field.rule.allows("package.module:name") and not field.rule.allows("no such name")
    }
    assert named - {"data.name"} == set(registry.USER_FIELDS)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("efflite0", ("efflite0", None)),
        ("efflite0_32", ("efflite0", 32)),
        ("alexnet_512", ("alexnet", 512)),
        ("a.b:alexnet_64", ("a.b:alexnet_64", None)),
    ],
)
def test_names_of_embeddings_are_split_into_network_and_size(name, parts):
    assert registry.split_embedding(name) == parts
    assert registry.is_embedding(name)


@pytest.mark.parametrize("size", ["31", "513", "064", "+64", "64.0", "\u0666\u0664", ""])
def test_other_sizes_are_no_embeddings(size):
    assert not registry.is_embedding(f"efflite0_{size}")
