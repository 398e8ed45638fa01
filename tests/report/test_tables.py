import dataclasses
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation import comparison
from vaegan_jax.evaluation.number import number
from vaegan_jax.report import tables


def row(subject, against, metric, value, error=None, floor=None, count=50, reference_count=0):
    """A number as read from JSON."""
    made = number(subject, against, metric, value, error, floor, count, reference_count)
    return json.loads(json.dumps(dataclasses.asdict(made)))


def evaluation(*rows):
    return {"embedding": {"name": "efflite0_64"}, "numbers": list(rows)}


EVALUATION = evaluation(
    row("gan_samples", "held_out", "fd_efflite0", 3.21, 0.12, 1.5, 50, 60),
    row("gan_samples", "held_out", "recall", 0.75, 0.031, 0.8, 50, 60),
    row("vae_samples", "held_out", "fd_efflite0", 12.345, 0.2, 1.5, 50, 60),
    row("vae_samples", "held_out", "recall", 0.5, 0.031, 0.8, 50, 60),
    row("vae_reconstructions", "held_out", "fd_efflite0", 7.0, 0.1, 1.25, 40, 60),
    row("vae_reconstructions", "held_out", "recall", 0.625, 0.031, 0.85, 40, 60),
    row("gan_samples", "train", "fd_efflite0", 2.5, 0.5, None, 50, 300),
    row("gan_samples", "statistics", "fd_efflite0", 9.5, 0.25, None, 50),
    row("gan_samples", "", "vendi", 11.0, 0.5, 12.0, 50),
    row("vae_reconstructions", "", "psnr", float("inf"), None, None, 40),
    row("gan_samples", "", "path_length", 5.5, 0.25, None, 1000),
    row("vae", "", "active_units", 4, 0.5, None, 40),
    row("vae", "", "posterior_prior_mmd", 0.021, 0.0021, 0.0004, 40),
)


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (12.3456, 0.1234, "12.35 ± 0.12"),
        (12.3456, 1.234, "12.3 ± 1.2"),
        (-0.25, 0.031, "-0.250 ± 0.031"),
        (1234.6, 123.4, "1235 ± 123"),
        (0.0001, 0.02, "0.000 ± 0.020"),
        (-0.0001, 0.1, "0.00 ± 0.10"),
        (5.0, 0.0996, "5.00 ± 0.10"),
        (5.0, 9.96, "5 ± 10"),
        (0.987654, 5e-5, "0.987654 ± 0.000050"),
        (1.234e-6, 2.34e-7, "1.23e-06 ± 2.3e-07"),
        (1e-9, 2e-7, "1e-09 ± 2.0e-07"),
        (0.123456, None, "0.123"),
        (3.0, 0.0, "3 ± 0"),
        (None, 0.5, "not finite"),
    ],
)
def test_digits_of_a_value_follow_from_its_error(value, error, expected):
    assert tables.with_error({"value": value, "error": error}) == expected


def last_digit(written):
    """The value of a unit in the last decimal place."""
    return Decimal(10) ** written.as_tuple().exponent


@given(value=st.floats(-1e6, 1e6), error=st.floats(1e-9, 1e6))
def test_value_and_error_are_rounded_correctly(value, error):
    texts = tables.with_error({"value": value, "error": error}).split(" ± ")
    for written, exact in zip(map(Decimal, texts), (value, error), strict=True):
        assert abs(written - Decimal(exact)) <= last_digit(written) / 2


@given(value=st.floats(-1e6, 1e6), error=st.floats(1e-4, 10, exclude_max=True))
def test_value_and_error_have_the_same_last_digit(value, error):
    texts = tables.with_error({"value": value, "error": error}).split(" ± ")
    written, written_error = map(Decimal, texts)
    assert last_digit(written) == last_digit(written_error)
    assert written_error / 100 <= last_digit(written) <= written_error / 10


def test_tables_have_a_column_per_set_and_one_for_the_floor():
    held_out, train, statistics, alone, vae = tables.make(EVALUATION)
    sets = ["VAE samples", "VAE reconstructions", "GAN samples"]
    # The floors differ because the reconstructions are fewer.
    assert held_out.columns == ["", *sets, "floor"]
    assert held_out.rows[0] == [
        "fd_efflite0",
        "12.35 ± 0.20 (floor: 1.5)",
        "7.00 ± 0.10 (floor: 1.25)",
        "3.21 ± 0.12 (floor: 1.5)",
        "see each",
    ]
    assert train.columns == statistics.columns == ["", "GAN samples", "floor"]
    assert train.rows == [["fd_efflite0", "2.50 ± 0.50", "none at this count"]]
    assert statistics.rows == [["fd_efflite0", "9.50 ± 0.25", ""]]
    assert alone.columns == ["", *sets[1:], "floor"]
    assert alone.rows == [
        ["vendi", "", "11.00 ± 0.50", "12"],
        ["psnr", "not finite", "", ""],
        ["path_length", "", "5.50 ± 0.25", ""],
    ]
    assert vae.columns == ["", "value", "floor", "count"]
    assert vae.rows == [
        ["active_units", "4.00 ± 0.50", "", "40"],
        ["posterior_prior_mmd", "0.0210 ± 0.0021", "0.0004", "40"],
    ]
    for table, numbers in ((held_out, ("40", "50", "60")), (train, ("50", "300"))):
        assert [word for word in table.title.split() if word.isdigit()] == list(numbers)
    assert tables.make(evaluation()) == []


def test_equal_floors_have_one_column():
    made = evaluation(*(n for n in EVALUATION["numbers"] if n["subject"] != "vae_reconstructions"))
    assert tables.make(made)[0].rows == [
        ["fd_efflite0", "12.35 ± 0.20", "3.21 ± 0.12", "1.5"],
        ["recall", "0.500 ± 0.031", "0.750 ± 0.031", "0.8"],
    ]


def test_terminal_columns_are_aligned():
    for table in tables.make(EVALUATION):
        title, *lines = tables.lay_out(table)
        assert title.strip() == table.title
        widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
        for line, cells in zip(lines, [table.columns, *table.rows], strict=True):
            start = 4
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
                part = line[start : start + width]
                assert part.strip() == cell
                assert part.startswith(cell) if i == 0 else part.endswith(cell)
                start += width + 2


def test_metrics_of_a_comparison_are_explained():
    explained = {name.strip() for names in tables.MEANINGS for name in names.split(",")}
    assert set(comparison.METRICS) - {"frechet", "kernel"} <= explained
