import dataclasses
import json
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation import comparison
from vaegan_jax.evaluation.number import number
from vaegan_jax.report import tables


def row(subject, against, metric, value, error=None, floor=None, count=50, reference_count=0):
    """A number as it comes back from JSON."""
    made = number(subject, against, metric, value, error, floor, count, reference_count)
    return json.loads(json.dumps(dataclasses.asdict(made)))


def evaluation(*rows):
    return {"embedding": {"name": "efflite0 at 64"}, "numbers": list(rows)}


EVALUATION = evaluation(
    row("gan_samples", "held_out", "fd_efflite0", 3.21, 0.12, 1.5, 50, 60),
    row("gan_samples", "held_out", "recall", 0.75, 0.031, 0.8, 50, 60),
    row("vae_samples", "held_out", "fd_efflite0", 12.345, 0.2, 1.5, 50, 60),
    row("vae_samples", "held_out", "recall", 0.5, 0.031, 0.8, 50, 60),
    row("vae_reconstructions", "held_out", "fd_efflite0", 7.0, 0.1, 1.25, 40, 60),
    row("vae_reconstructions", "held_out", "recall", 0.625, 0.031, 0.85, 40, 60),
    row("gan_samples", "train", "fd_efflite0", 2.5, 0.5, None, 50, 300),
    row("gan_samples", "", "vendi", 11.0, 0.5, 12.0, 50),
    row("vae_reconstructions", "", "psnr", float("inf"), None, None, 40),
    row("gan_samples", "", "path_length", 5.5, 0.25, None, 1000),
    row("vae", "", "active_units", 4, 0.5, None, 40),
    row("vae", "", "posterior_prior_mmd", 0.021, 0.0021, 0.0004, 40),
)


def cells(table, metric):
    """A row of a table by its column's name."""
    (found,) = [line for line in table.rows if line[0] == metric]
    return dict(zip(table.columns[1:], found[1:], strict=True))


def by_title(made):
    return {table.title.partition(",")[0]: table for table in tables.make(made)}


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (12.3456, 0.1234, "12.35 ± 0.12"),
        (12.3456, 1.234, "12.3 ± 1.2"),
        (0.5, 0.00123, "0.5000 ± 0.0012"),
        (-0.25, 0.031, "-0.250 ± 0.031"),
        (1234.6, 12.3, "1235 ± 12"),
        (1234.6, 123.4, "1235 ± 123"),
        (0.0001, 0.02, "0.000 ± 0.020"),
        (1.234e-6, 2.34e-7, "1.23e-06 ± 2.3e-07"),
        (0.123456, None, "0.123"),
        (0.0, 0.0, "0 ± 0"),
        (3.0, 0.0, "3 ± 0"),
        (None, None, "not finite"),
        (None, 0.5, "not finite"),
    ],
)
def test_a_value_has_the_digits_that_its_error_leaves_it(value, error, expected):
    made = {"value": value, "error": error}
    assert tables.with_error(made) == expected


def last_digit(written):
    """What a step of the last digit of a decimal number is worth."""
    return Decimal(10) ** written.as_tuple().exponent


@given(value=st.floats(-1e6, 1e6), error=st.floats(1e-9, 1e6))
def test_what_is_written_is_the_number_to_the_last_digit(value, error):
    texts = tables.with_error({"value": value, "error": error}).split(" ± ")
    for written, exact in zip(map(Decimal, texts), (value, error), strict=True):
        assert abs(written - Decimal(exact)) <= last_digit(written) / 2


@given(value=st.floats(-1e6, 1e6), error=st.floats(1e-4, 1e6))
def test_value_and_error_end_with_the_same_digit_the_errors_second(value, error):
    texts = tables.with_error({"value": value, "error": error}).split(" ± ")
    written, written_error = map(Decimal, texts)
    assert last_digit(written) == last_digit(written_error)
    if error < 10:
        assert written_error / 100 <= last_digit(written) <= written_error / 10
    else:
        assert last_digit(written) == 1  # no digits before the point are left out


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (0, "0"),
        (0.123456, "0.123"),
        (-12.3456, "-12.3"),
        (998.7, "999"),
        (1000, "1000"),
        (1234.5678, "1235"),
        (-1234.5678, "-1235"),
        (0.0000123456, "1.23e-05"),
    ],
)
def test_a_number_has_three_or_four_digits(value, expected):
    assert tables.text(value) == expected


@given(st.floats(-9999, 9999))
def test_a_number_is_written_to_a_two_hundredth(value):
    assert abs(float(tables.text(value)) - value) <= abs(value) / 200


def test_the_tables_follow_what_is_compared_with():
    assert [table.title for table in tables.make(EVALUATION)] == [
        "Against held-out images, 40 and 50 of each and 60 real ones",
        "Against training images, 50 of each and 300 real ones",
        "By themselves, 40 and 50 of each",
        "The VAE as a density",
    ]
    assert tables.make(evaluation()) == []


def test_every_row_is_as_wide_as_the_heading():
    for table in tables.make(EVALUATION):
        assert {len(line) for line in table.rows} == {len(table.columns)}
        assert all(isinstance(cell, str) for line in table.rows for cell in line)


def test_the_sets_stand_beside_one_another_in_one_order():
    assert by_title(EVALUATION)["Against held-out images"].columns == [
        "",
        "VAE samples",
        "VAE reconstructions",
        "GAN samples",
        "floor",
    ]
    assert by_title(EVALUATION)["Against training images"].columns == ["", "GAN samples", "floor"]


def test_a_shared_floor_has_its_own_column():
    made = evaluation(*(n for n in EVALUATION["numbers"] if n["subject"] != "vae_reconstructions"))
    table = by_title(made)["Against held-out images"]
    assert table.rows == [
        ["fd_efflite0", "12.35 ± 0.20", "3.21 ± 0.12", "1.5"],
        ["recall", "0.500 ± 0.031", "0.750 ± 0.031", "0.8"],
    ]


def test_floors_that_differ_stand_beside_their_numbers():
    assert cells(by_title(EVALUATION)["Against held-out images"], "fd_efflite0") == {
        "VAE samples": "12.35 ± 0.20 (floor: 1.5)",
        "VAE reconstructions": "7.00 ± 0.10 (floor: 1.25)",
        "GAN samples": "3.21 ± 0.12 (floor: 1.5)",
        "floor": "see each",
    }


@pytest.mark.parametrize("against", ["train", "held_out"])
def test_a_floor_that_is_missing_is_told_to_be_missing(against):
    made = evaluation(
        row("vae_samples", against, "recall", 0.5, 0.031, None, 90, 60),
        row("gan_samples", against, "recall", 0.5, 0.031, None, 90, 60),
    )
    (table,) = tables.make(made)
    assert table.rows == [["recall", "0.500 ± 0.031", "0.500 ± 0.031", "none at this count"]]
    made["numbers"][0]["floor"] = 0.75
    (table,) = tables.make(made)
    one, other = "0.500 ± 0.031 (floor: 0.75)", "0.500 ± 0.031 (floor: none at this count)"
    assert table.rows == [["recall", one, other, "see each"]]


def test_what_has_no_floor_at_all_has_an_empty_cell():
    table = by_title(EVALUATION)["By themselves"]
    assert cells(table, "path_length")["floor"] == ""
    made = evaluation(row("gan_samples", "statistics", "fid_clean", 9.5, 0.25, None, 50))
    (table,) = tables.make(made)
    assert table.title == "Against the statistics file, 50 of each"
    assert table.rows == [["fid_clean", "9.50 ± 0.25", ""]]


def test_what_a_set_does_not_have_is_an_empty_cell():
    table = by_title(EVALUATION)["By themselves"]
    assert cells(table, "vendi") == {
        "VAE reconstructions": "",
        "GAN samples": "11.00 ± 0.50",
        "floor": "12",
    }
    assert cells(table, "psnr")["VAE reconstructions"] == "not finite"


def test_the_vae_has_a_table_of_its_own():
    table = by_title(EVALUATION)["The VAE as a density"]
    assert table.columns == ["", "value", "floor", "count"]
    assert table.rows == [
        ["active_units", "4.00 ± 0.50", "", "40"],
        ["posterior_prior_mmd", "0.0210 ± 0.0021", "0.0004", "40"],
    ]


def spans(line):
    """Where the cells of a line begin and end; two spaces or more part them."""
    return [match.span() for match in re.finditer(r"\S+(?: \S+)*", line)]


def test_on_a_terminal_the_columns_stand_below_one_another():
    lines = tables.as_text(EVALUATION).split("\n")
    assert "efflite0 at 64" in lines[0]
    assert all(line == line.rstrip() for line in lines)
    place = 1
    for table in tables.make(EVALUATION):
        assert lines[place] == f"  {table.title}"
        heading, *body = lines[place + 1 : place + 2 + len(table.rows)]
        assert [heading[slice(*span)] for span in spans(heading)] == table.columns[1:]
        ends = [end for _, end in spans(heading)]
        for line, written in zip(table.rows, body, strict=True):
            (first, _), *others = spans(written)
            assert first == 4
            assert [written[slice(*span)] for span in spans(written)] == [c for c in line if c]
            filled = [end for end, cell in zip(ends, line[1:], strict=True) if cell]
            assert [end for _, end in others] == filled
        place += 2 + len(table.rows)
    assert place == len(lines)


def test_every_metric_of_a_comparison_has_a_meaning():
    named = {name.strip() for names in tables.MEANINGS for name in names.split(",")}
    assert set(comparison.METRICS) - {"frechet", "kernel"} <= named
    assert all(meaning.endswith(".") for meaning in tables.MEANINGS.values())


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.987654, 5e-5, "0.987654 ± 0.000050"),
        (5.0, 0.0996, "5.00 ± 0.10"),
        (5.0, 9.96, "5 ± 10"),
        (-0.0001, 0.1, "0.00 ± 0.10"),
        (1.2345e-4, 2e-7, "1.2345e-04 ± 2.0e-07"),
        (1e-9, 2e-7, "1e-09 ± 2.0e-07"),
    ],
)
def test_the_digits_are_those_that_the_error_leaves(value, error, expected):
    assert tables.with_error({"value": value, "error": error}) == expected


@pytest.mark.parametrize(("value", "expected"), [(999.7, "1000"), (-1234.4, "-1234"), (0.5, "0.5")])
def test_a_number_alone_is_never_written_with_a_power_of_ten_that_it_need_not(value, expected):
    assert tables.text(value) == expected
