"""Two runs: the first difference, and the verdict, on runs made by hand."""

import copy
import dataclasses
import pathlib

import numpy as np
import pytest

from tests.comparing import made
from vaegan_jax.comparing import two
from vaegan_jax.comparing.runs import Run
from vaegan_jax.errors import UserError

CONFIG = {"seed": 0, "vae.steps": 6, "gan.steps": 6, "evaluation.samples": 100}


def run(name="a", **changes):
    whole = Run(
        path=pathlib.Path(name),
        config=dict(CONFIG),
        data={"digest": "d", "train": 900, "shape": [8, 8]},
        environment={"python": "3.11", "packages": {"jax": "0.10", "numpy": "2"}},
        metrics=made.metrics(),
        curve=[made.curve_line("vae", 3, 1.0, 9.0), made.curve_line("gan", 3, 1.0, 7.0)],
        evaluation=made.evaluation(20.0),
        checkpoints={"vae": [3, 6], "gan": [6]},
    )
    return dataclasses.replace(whole, **changes)


def states(changed=()):
    """A function that loads the same state everywhere, but in B at some places."""

    def load(of_run, stage, step):
        bias = np.array([1.0, 2.0], np.float32)
        if of_run.path.name == "b" and (stage, step) in changed:
            bias[1] = 2.5
        return {"bias": bias, "step": np.array(step)}

    return load


def compare(a=None, b=None, changed=()):
    return two.compare(a or run("a"), b or run("b"), states(changed))


def change(lines, index, **scalars):
    lines = copy.deepcopy(lines)
    lines[index] |= scalars
    return lines


def test_runs_that_differ_in_times_alone_are_identical():
    slower = run("b", metrics=made.metrics(seconds=2.5))
    slower.curve[0]["seconds"] = 99.0
    slower.evaluation["seconds"] = 77.0
    found = compare(b=slower)
    assert found.verdict.kind == two.IDENTICAL
    assert found.verdict.text == (
        "identical: the same config, and 6 lines of metrics, 2 lines of the curve, 3 checkpoints "
        "and 4 numbers of the evaluation are the same to the last bit."
    )


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("more", [0.0, 1.0])
def test_the_first_line_that_differs_is_found_by_its_last_bit(index, more):
    lines = made.metrics()
    stage, step = lines[index]["stage"], lines[index]["step"]
    name = {"vae": "kl", "gan": "generator_loss"}[stage]
    old = lines[index][name]
    new = float(np.nextafter(old, 9)) + more
    changed = change(change(lines, index, **{name: new}), 5, discriminator_loss=5.0)
    first = two.compare_lines(lines, changed).first
    assert (first.stage, first.step, first.only_in) == (stage, step, "")
    assert (name, old, new) in first.scalars
    assert len(first.scalars) == (2 if index == 5 else 1)


def test_a_line_that_one_run_lacks_in_between_is_a_difference():
    lines = made.metrics()
    found = two.compare_lines(lines, lines[:1] + lines[2:])
    assert found.first == ("vae", 4, [], "A")
    found = two.compare_lines(lines[:3] + lines[4:], lines)
    assert found.first == ("gan", 2, [], "B")
    assert found.compared == 5


def test_lines_beyond_the_end_of_one_run_are_no_difference():
    lines = made.metrics()
    found = two.compare_lines(lines, lines[:2])
    assert found.first is None
    assert found.ends == {"vae": (6, 4), "gan": (6, None)}
    assert found.compared == 2


def test_the_vae_comes_before_the_gan():
    lines = made.metrics()
    changed = change(change(lines, 3, generator_loss=9.0), 2, loss=9.0)
    assert two.compare_lines(lines, changed).first[:2] == ("vae", 6)


def test_a_scalar_that_one_run_never_logs_is_no_difference_and_is_told():
    lines = made.metrics()
    older = [{k: v for k, v in line.items() if k != "sharpness"} for line in lines]
    found = two.compare_lines(older, lines)
    assert found.first is None
    assert found.unshared == {"A": [], "B": ["vae/sharpness"]}
    # One that it logs elsewhere is.
    partly = [*older[:2], *lines[2:]]
    assert two.compare_lines(lines, partly).first == ("vae", 2, [("sharpness", 0.5, None)], "")


def test_nan_is_the_same_as_nan_and_minus_zero_is_not_zero():
    nan, zero = ([made.line("vae", 2, loss=x)] for x in (float("nan"), 0.0))
    assert two.compare_lines(nan, copy.deepcopy(nan)).first is None
    assert two.compare_lines(zero, [made.line("vae", 2, loss=-0.0)]).first is not None
    assert two.compare_lines(zero, [made.line("vae", 2, loss=0)]).first is None


def test_the_first_checkpoint_that_differs_is_looked_into():
    found = compare(changed={("vae", 6), ("gan", 6)}).checkpoints
    assert [(c.stage, c.step, c.a == c.b) for c in found.compared] == [
        ("vae", 3, True),
        ("vae", 6, False),
        ("gan", 6, False),
    ]
    assert found.first == ("vae", 6)
    (leaf,) = found.leaves
    assert (leaf.name, leaf.differing, leaf.absolute, leaf.ulps) == ("bias", 1, 0.5, 2**21)


def test_only_steps_that_both_saved_are_compared():
    found = compare(b=run("b", checkpoints={"vae": [5, 6, 7]})).checkpoints
    assert [(c.stage, c.step) for c in found.compared] == [("vae", 6)]
    # A checkpoint more or less, as one that was stopped has, makes no other run.
    assert compare(b=run("b", checkpoints={"vae": [6]})).verdict.kind == two.IDENTICAL


def text(**changes):
    changed = changes.pop("changed", ())
    return compare(b=run("b", **changes), changed=changed).verdict


def test_the_verdict_names_the_earliest_place():
    later = change(made.metrics(), 4, generator_loss=9.0)
    assert text(metrics=later) == (
        two.DIFFERENT_BITS,
        "same config, different bits from step 4 (gan, generator_loss): nothing recorded differs.",
    )
    # A checkpoint before that line.
    assert (
        "from step 6 (vae, 1 leaf of the checkpoint)"
        in text(metrics=later, changed={("vae", 6)}).text
    )
    # A line of the curve before that.
    curve = [made.curve_line("vae", 3, 1.0, 9.5), made.curve_line("gan", 3, 1.0, 7.0)]
    found = text(metrics=later, changed={("vae", 6)}, curve=curve).text
    assert "from step 3 (vae, fd_pixels)" in found


def test_the_verdict_names_what_may_be_the_reason():
    bits = {"metrics": change(made.metrics(), 0, loss=1.0)}
    environment = {"python": "3.11", "packages": {"jax": "0.11", "numpy": "2"}}
    found = text(environment=environment, **bits).text
    assert found.endswith(": the environment differs (packages.jax 0.10 and 0.11).")
    found = text(data={"digest": "e", "train": 901, "shape": [8, 8]}, **bits).text
    assert found.endswith(": the data differs (digest and train).")
    # Neither makes a difference alone, but other images do.
    assert text(environment=environment).kind == two.IDENTICAL
    assert text(data={"digest": "e", "train": 900, "shape": [8, 8]}).kind == two.DIFFERENT_BITS


def test_another_config_is_told_by_its_fields():
    found = compare(b=run("b", config=CONFIG | {"seed": 1, "gan.old": "hinge"}))
    assert found.config == [("gan.old", None, "hinge"), ("seed", 0, 1)]
    assert found.verdict.kind == two.DIFFERENT_CONFIG
    assert found.verdict.text == (
        "different config (gan.old absent and hinge and seed 0 and 1), and yet no recorded bit "
        "differs."
    )


def test_a_field_that_nothing_trained_depends_on_makes_no_other_config():
    found = compare(b=run("b", config=CONFIG | {"evaluation.samples": 200}))
    assert found.config == []
    assert found.free == [("evaluation.samples", 100, 200)]
    assert found.verdict.kind == two.IDENTICAL


def test_numbers_stand_side_by_side():
    other = made.evaluation(21.5, samples=200)
    other["numbers"] = [*other["numbers"][1:], made.number("vae", "", "kl_nats", 3.0)]
    found = compare(b=run("b", evaluation=other))
    assert found.evaluation.conditions == [("settings.evaluation.samples", 100, 200)]
    assert found.evaluation.numbers == [
        ("gan_samples", "held_out", "fd_pixels", 20.0, 0.25, 21.5, 0.25, False),
        ("gan_samples", "held_out", "precision", 0.5, 0.25, 0.5, 0.25, True),
        ("gan_samples", "", "vendi", None, 0.25, None, 0.25, True),
    ]
    assert found.evaluation.unshared == {
        "A": ["fd_pixels of vae_samples against held_out"],
        "B": ["kl_nats of vae"],
    }
    assert found.verdict.text == (
        "same config, different bits from the evaluation (fd_pixels of gan_samples against "
        "held_out): the evaluations were made with other settings.evaluation.samples 100 and 200."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": made.metrics()[:2]}, "metrics of the vae (A to step 6, B to step 4)"),
        ({"curve": []}, "the curve of the vae (A to step 3, B has none)"),
        ({"evaluation": None}, "only A is evaluated"),
    ],
)
def test_a_run_that_came_less_far_is_not_identical(changes, said):
    found = text(**changes)
    assert found.kind == two.UNEQUALLY_FAR
    assert said in found.text
    # Nor does another difference hide it.
    found = compare(b=run("b", config=CONFIG | {"seed": 1}, **changes))
    assert any(said in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data", "b: no images are noted (data.json)."),
        ("environment", "b: no environment is noted (run.json)."),
        ("checkpoints", "b: no checkpoint is saved (checkpoints/)."),
    ],
)
def test_old_runs_compare_as_far_as_they_go(name, said):
    lacking = run("b", **{name: {} if name == "checkpoints" else None}, notes=["b: cut off."])
    found = compare(b=lacking)
    assert found.verdict.kind == two.IDENTICAL
    assert found.notes == ["b: cut off.", said]


def test_troubles_of_one_run_are_told():
    seen = {"stage": "gan", "step": 4, "trouble": "blur", "text": "x", "remedy": "y"}
    found = compare(a=run("a", troubles=[seen]), b=run("b"))
    assert found.troubles == [("blur (gan, step 4)", "seen", None)]


def test_runs_with_nothing_in_common_cannot_be_compared():
    bare = {"curve": [], "evaluation": None, "checkpoints": {}}
    a, b = (
        run("a", metrics=made.metrics()[:3], **bare),
        run("b", metrics=made.metrics()[3:], **bare),
    )
    with pytest.raises(UserError, match="nothing in common"):
        compare(a, b)
