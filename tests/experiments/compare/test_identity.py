"""The verdict on two runs, and their first difference."""

import numpy as np
import pytest

from tests.experiments.compare import made
from vaegan_jax.experiments.compare import identity, records


def compare(a, b):
    return identity.compare_bits(records.read(a), records.read(b))


@pytest.fixture
def pair(tmp_path):
    """Two folders of the same run with different times."""
    return made.run(tmp_path / "a"), made.run(tmp_path / "b", seconds=2.5)


def change(path, index, **scalars):
    """Changes a line of metrics.jsonl; None removes a scalar."""
    lines = made.read_lines(path / "metrics.jsonl")
    lines[index] |= scalars
    lines[index] = {name: value for name, value in lines[index].items() if value is not None}
    made.write_lines(path / "metrics.jsonl", lines)


def save(pair, *places):
    """Saves the same states in both runs, except in the second at some places."""
    for path in pair:
        for stage, step in (("vae", 3), ("vae", 6), ("gan", 6)):
            differs = path == pair[1] and (stage, step) in places
            made.save(path, stage, step, made.state(2.0**-23 if differs else 0.0))


def test_runs_that_differ_in_times_are_identical(pair):
    save(pair)
    made.edit(pair[1] / "evaluation/numbers.json", seconds=77.0)
    made.save(pair[1], "vae", 9, made.state(5.0))  # only common checkpoints are compared
    found = compare(*pair)
    # Lines times scalars of the VAE, the GAN and the curve, and the evaluation.
    numbers = 3 * 3 + 3 * 2 + 4 * 2 + 5
    assert found == (identity.IDENTICAL, (numbers, numbers), (12, 12), [], [[], []])


def test_numbers_of_one_run_are_no_difference(pair):
    change(pair[0], 0, sharpness=None)
    found = compare(*pair)
    assert (found.verdict, found.only) == (identity.PARTLY_IDENTICAL, [[], ["vae/sharpness"]])
    made.write_lines(pair[1] / "metrics.jsonl", made.metrics()[1:2])
    found = compare(*pair)
    assert (found.verdict, found.first, found.only[1]) == (identity.PARTLY_IDENTICAL, [], [])
    assert {"vae/loss", "gan/generator_loss"} <= set(found.only[0])


def test_nan_equals_nan_and_minus_zero_differs_from_zero(pair):
    for path in pair:
        change(path, 0, loss=float("nan"))
    assert compare(*pair).verdict == identity.IDENTICAL
    change(pair[0], 0, loss=0.0)
    change(pair[1], 0, loss=0)
    assert compare(*pair).verdict == identity.IDENTICAL
    change(pair[1], 0, loss=-0.0)
    assert compare(*pair).verdict == identity.DIFFERENT


@pytest.mark.parametrize("other", [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float16)])
def test_leaves_of_other_shapes_and_dtypes_differ(pair, other):
    made.save(pair[0], "vae", 6, {"w": np.zeros((2, 3), np.float32)})
    made.save(pair[1], "vae", 6, {"w": other})
    found = compare(*pair)
    assert (found.verdict, found.leaves) == (identity.DIFFERENT, (0, 1))


def test_all_differences_of_the_earliest_step_are_first(pair):
    def first():
        found = compare(*pair)
        assert found.verdict == identity.DIFFERENT
        return [(value.stage, value.step, value.name) for value in found.first]

    made.edit_number(pair[1], 1, value=21.5)
    assert first() == [("evaluation", 6, "gan_samples/test/pixels fd_n100")]
    change(pair[1], 5, discriminator_loss=5.0, generator_loss=float(np.nextafter(0.1 * 6, 9)))
    assert first() == [("gan", 6, "discriminator_loss"), ("gan", 6, "generator_loss")]
    found = compare(*pair)
    assert found.first[1].values == ("0.6000000000000001", "0.6000000000000002")
    assert found.numbers[1] - found.numbers[0] == 3
    save(pair, ("vae", 6), ("gan", 6))
    assert first() == [("vae", 6, "checkpoint/params.bias")]
    assert compare(*pair).leaves == (10, 12)
    curve = made.read_lines(pair[1] / "curve.jsonl")
    made.write_lines(pair[1] / "curve.jsonl", [curve[0] | {"fd_pixels": 1.0}, *curve[1:]])
    assert first() == [("vae", 3, "curve/fd_pixels")]


@pytest.mark.parametrize(
    ("file", "changes", "verdict"),
    [
        ("config.json", {"gan.old": "hinge"}, identity.DIFFERENT),
        ("config.json", {"evaluation.samples": 200}, identity.IDENTICAL),
        ("data.json", {"digest": "e" * 64}, identity.DIFFERENT),
        ("data.json", {"train": 950}, identity.DIFFERENT),
        ("run.json", {"cpu": "other"}, identity.IDENTICAL),
    ],
)
def test_config_and_images_determine_the_verdict(pair, file, changes, verdict):
    made.edit(pair[1] / file, **changes)
    assert compare(*pair).verdict == verdict
