import re

import pytest

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
