import dataclasses
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation.number import Number
from vaegan_jax.report import tables


def row(subject, against, embedding, metric, value, error, floor, count=50, reference_count=0):
    """A number as read from JSON."""
    made = Number(subject, against, embedding, metric, value, error, floor, count, reference_count)
    read = json.loads(json.dumps(dataclasses.asdict(made)))
    return read | {"informative": made.is_informative}


def evaluation(*rows):
    return {
        "embeddings": [{"name": "x_64"}, {"name": "y_32"}],
        "data": {"train": 900, "is_test_unseen": True},
        "numbers": list(rows),
    }


EVALUATION = evaluation(
    row("gan_samples", "test", "x_64", "fd_n50", 3.21, 0.12, 1.5, 50, 60),
    row("gan_samples", "test", "x_64", "recall", 0.75, 0.031, 0.8, 50, 60),
    row("vae_samples", "test", "x_64", "fd_n50", 12.345, 0.2, 1.5, 50, 60),
    row("vae_samples", "test", "x_64", "recall", 0.0, 0.0, 0.8, 50, 60),
    row("vae_samples", "test", "x_64", "precision", 0.01, 0.0, 0.85, 50, 60),
    row("gan_samples", "test", "x_64", "precision", 0.03, 0.04, 0.85, 50, 60),
    row("gan_samples", "train", "x_64", "authenticity", 0.625, 0.031, None, 50, 300),
    row("vae_reconstructions", "test", "y_32", "fd_n40", 7.0, None, 1.25, 40, 60),
    row("gan_samples", "test", "y_32", "fd_n50", 2.5, 0.5, None, 50, 60),
    row("gan_samples", "", "y_32", "vendi", 11.0, 0.5, 12.0, 50),
    row("vae_reconstructions", "", "", "psnr", float("inf"), None, None, 40),
    row("vae", "", "", "active_units", 4, 0.5, None, 40),
)


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (12.3456, 0.1234, "12.35 ± 0.12"),
        (-0.25, 0.031, "-0.250 ± 0.031"),
        (1234.6, 123.4, "1235 ± 123"),
        (-0.0001, 0.1, "0.00 ± 0.10"),
        (5.0, 9.96, "5 ± 10"),
        (1e-9, 2e-7, "0.00000000 ± 0.00000020"),
        (0.123456, None, "0.123"),
        (3.0, 0.0, "3 ± 0"),
        (None, 0.5, "not finite"),
    ],
)
def test_digits_of_a_value_follow_from_its_error(value, error, expected):
    assert tables.with_error({"value": value, "error": error}) == expected


@given(value=st.floats(-1e6, 1e6), error=st.floats(1e-4, 10, exclude_max=True))
def test_value_and_error_are_rounded_to_the_same_digit(value, error):
    texts = tables.with_error({"value": value, "error": error}).split(" ± ")
    units = set()
    for written, exact in zip(map(Decimal, texts), (value, error), strict=True):
        unit = Decimal(10) ** written.as_tuple().exponent
        assert abs(written - Decimal(exact)) <= unit / 2
        units.add(unit)
    (unit,) = units
    assert Decimal(texts[1]) / 100 <= unit <= Decimal(texts[1]) / 10


def test_tables_have_a_column_per_set_and_one_for_the_floor():
    first, second, of_pixels, vae = tables.make(EVALUATION)
    assert first.columns == ["", "VAE samples", "GAN, EMA", "floor"]
    assert first.rows == [
        ["fd_n50", "12.35 ± 0.20", "3.21 ± 0.12", "1.5"],
        ["recall", "≈ 0", "0.750 ± 0.031", "0.8"],
        ["authenticity", "", "0.625 ± 0.031", "none at this count"],
    ]
    assert "precision" in first.note  # not informative for any set
    assert second.columns == ["", "VAE reconstructions", "GAN, EMA", "floor"]
    assert second.rows == [
        ["fd_n40", "7", "", "1.25"],
        ["fd_n50", "", "2.50 ± 0.50", "none at this count"],
        ["vendi", "", "11.00 ± 0.50", "12"],
    ]
    assert of_pixels.rows == [["psnr", "not finite", ""]]
    assert vae.columns == ["", "value", "count"]
    assert vae.rows == [["active_units", "4.00 ± 0.50", "40"]]
    for table, numbers in ((first, ("60", "300", "900", "50")), (second, ("60", "40", "50"))):
        words = table.title.replace(",", "").split()
        assert [word for word in words if word.isdigit()] == list(numbers)
    assert tables.make(evaluation()) == []


def test_different_floors_are_shown_in_each_cell():
    made = evaluation(
        row("vae_samples", "test", "x_64", "recall", 0.5, 0.031, 0.8, 50, 60),
        row("vae_reconstructions", "test", "x_64", "recall", 0.625, 0.031, 0.85, 40, 60),
    )
    cells = ["recall", "0.500 ± 0.031 (floor: 0.8)", "0.625 ± 0.031 (floor: 0.85)", "see each"]
    assert tables.make(made)[0].rows == [cells]


def test_remarks_depend_on_whether_the_test_images_are_unseen():
    seen = EVALUATION | {"data": {"train": 900, "is_test_unseen": False}}
    assert tables.remarks(seen) != tables.remarks(EVALUATION)
    assert tables.remarks(seen) in tables.as_text(seen)
