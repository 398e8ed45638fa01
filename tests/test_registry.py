import numpy as np
import pytest

from vaegan_jax import config as configuration
from vaegan_jax import registry
from vaegan_jax.errors import UserError
from vaegan_jax.losses import gan

HERE = "tests.test_registry"
NUMBER = 7
OBJECTIVE = gan.Objective(lambda real, fake: real.mean(), lambda real, fake: fake.mean())


def penalty(batch):
    return batch.fake_logits**2


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in registry.BUILT_IN.items() for name in names]
)
def test_built_in_names_can_be_loaded(kind, name):
    value = registry.load(kind, name)
    assert callable(value) or isinstance(value, gan.Objective)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("", []),
        (" hinge ", [("hinge", {})]),
        ("r1, r2", [("r1", {}), ("r2", {})]),
        ("r1()", [("r1", {})]),
        ("r1(weight=3, every = 4) ,a.b:c", [("r1", {"weight": 3, "every": 4}), ("a.b:c", {})]),
        (
            "a:b(c='x), y(', d=(1, (2.5,)), e=-1e-3, f=[None, True])",
            [("a:b", {"c": "x), y(", "d": (1, (2.5,)), "e": -1e-3, "f": [None, True]})],
        ),
    ],
)
def test_losses_with_options_are_parsed(text, calls):
    assert registry.parse(text) == calls


@pytest.mark.parametrize(
    "text",
    [
        "r1(", "r1)", "r1(weight)", "r1(3)", "r1(**{'weight': 3})", "r1(weight=3, weight=4)",
        "r1(weight=f(3))", "r1(weight=__import__('os'))", "r1(weight=x)", "r1 r2", "r1(a=1) r2",
        "r1(a=1)(b=2)", "r1,", ",r1", "r1,,r2", "r1(a=1).b", "r1(a=1) if x else y", "r1(\0)",
        "(a=1)", "r1" + 299 * "(", "r1(a=" + 299 * "(" + 299 * ")" + ")",
    ],
)  # fmt: skip
def test_other_text_is_refused_in_one_line(text):
    with pytest.raises(UserError) as caught:
        registry.parse(text)
    assert "\n" not in str(caught.value)


def with_options(images, logits, power, *, scale=1.0):
    return scale * (images - logits).sum((1, 2, 3)) ** power


def test_options_are_bound_by_keyword():
    images, logits = np.ones((2, 1, 1, 3)), np.zeros((2, 1, 1, 3))
    for text, expected in (("power=2", 9), ("scale=0.5, power=3", 13.5)):
        (call,) = registry.parse(f"{HERE}:with_options({text})")
        assert registry.bind("reconstruction", call)(images, logits).tolist() == 2 * [expected]


@pytest.mark.parametrize(
    ("kind", "text", "details"),
    [
        ("reconstruction", "squared_error(scale=2)", ["'scale'", "has none"]),
        ("reconstruction", f"{HERE}:with_options(powr=2)", ["'powr'", "power"]),
        ("reconstruction", f"{HERE}:with_options(scale=2)", ["'power'"]),
        ("reconstruction", f"{HERE}:with_options(images=2, power=1)", ["'images'"]),
        ("penalty", "r1(weigth=2)", ["'weigth'", "use weight"]),
        ("objective", "hinge(margin=2)", ["'margin'"]),
        ("augmentation", "translation(shares=2)", ["use share"]),
    ],
)
def test_unknown_and_missing_options_are_refused_by_name(kind, text, details):
    (call,) = registry.parse(text)
    with pytest.raises(UserError) as caught:
        registry.bind(kind, call)
    assert all(detail in str(caught.value) for detail in [repr(call.name), *details])


def soft_hinge(margin, slope=1.0):
    return OBJECTIVE._replace(generator=lambda real, fake: slope * margin * fake.mean())


def test_an_objective_may_be_made_from_options():
    fake = np.array([1.0, 3.0])
    assert gan.make_objective(f"{HERE}:OBJECTIVE") is OBJECTIVE
    assert gan.make_objective(f"{HERE}:soft_hinge(margin=3)").generator(fake, fake) == 6
    for name in ("penalty(batch=1)", "NUMBER"):
        with pytest.raises(UserError, match="objective"):
            gan.make_objective(f"{HERE}:{name}")


@pytest.mark.parametrize(
    ("kind", "name", "detail"),
    [
        ("penalty", "r3", "gradient_penalty"),
        ("penalty", "no_such.module:penalty", "ModuleNotFoundError"),
        ("penalty", f"{HERE}:missing", "AttributeError"),
        ("penalty", "module_that_ends:penalty", "SystemExit"),
        ("penalty", "module_that_fails:penalty", "ValueError"),
        ("penalty", f"{HERE}:NUMBER", "7"),
        ("objective", f"{HERE}:NUMBER", "Objective"),
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


@pytest.mark.parametrize("name", ["own:penalty", "a.b_2.c:Name"])
def test_paths(name):
    assert registry.is_path(name)


@pytest.mark.parametrize(
    "name", ["", "r1", "a:", ":b", "a.:b", "a b:c", "a:b:c", "a:b.c", "a/b.py:c"]
)
def test_other_names_are_no_paths(name):
    assert not registry.is_path(name)


def test_user_fields_are_those_that_allow_a_path():
    named = {
        name
        for name, field in configuration.FIELDS.items()
        if field.rule.allows("package.module:name") and not field.rule.allows("no such name")
    }
    assert named - {"data.name"} == set(registry.USER_FIELDS)


def test_names_of_embeddings_are_split_into_network_and_size():
    assert registry.split_embedding("efflite0") == ("efflite0", None)
    assert registry.split_embedding("efflite0_32") == ("efflite0", 32)
    assert registry.split_embedding("alexnet_512") == ("alexnet", 512)
    assert registry.split_embedding("a.b:alexnet_64") == ("a.b:alexnet_64", None)


@pytest.mark.parametrize("size", ["31", "513", "064", "+64", "64.0", "\u0666\u0664", ""])
def test_other_sizes_are_no_embeddings(size):
    assert not registry.is_embedding(f"efflite0_{size}")
