"""The command `vaegan compare`: exit codes, groups, tables, conclusions, refusals."""

import fcntl
import os
import re
import signal
import subprocess
import sys

import pytest
import scipy.stats

from tests.conftest import ROOT
from tests.experiments.compare import made
from vaegan_jax.cli import main
from vaegan_jax.experiments.compare import identity

BASE = 20.0, 21.0, 22.0


@pytest.fixture
def call(capsys):
    """Runs `vaegan compare`: (exit code, stdout with single spaces, stderr)."""

    def run(*arguments):
        try:
            code = main.main(["compare", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, re.sub(" +", " ", out), err

    return run


@pytest.fixture
def compare(call):
    """Compares more than two runs: the output."""

    def run(*paths):
        code, out, err = call(*paths)
        assert (code, err) == (0, "")
        return out

    return run


def saved(path, change=0.0, **config):
    made.run(path, **config)
    made.save(path, "vae", 6, made.state())
    made.save(path, "gan", 6, made.state(change))
    return path


def runs(folder, distances=BASE, seconds=1.0, **config):
    """Makes a run per seed."""
    paths = [folder.with_name(f"{folder.name}{seed}") for seed in range(len(distances))]
    for seed, path in enumerate(paths):
        made.run(path, seconds, distances[seed], seed=seed, **config)
    return paths


def test_identical_runs(tmp_path, call):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", seconds=2.0)
    made.edit(b / "run.json", cpu="other")
    code, out, err = call(a, b)
    assert (code, err) == (0, "")
    assert f"Verdict: {identity.IDENTICAL}; " in out
    assert "8 of 8 leaves" in out
    assert "chip (A); other (B)" in out
    assert "fd_pixels" not in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gan.old": 1}, ["config.json gan.old absent (A); 1 (B)"]),
        ({"change": 2.0**-23}, ["gan step 6, checkpoint/params.bias", "7 of 8 leaves", "unknown"]),
    ],
)
def test_a_difference_and_its_cause_are_shown(tmp_path, call, options, expected):
    code, out, err = call(saved(tmp_path / "a"), saved(tmp_path / "b", **options))
    assert (code, err) == (1, "")
    assert [text for text in expected if text not in out] == []


def test_a_damaged_checkpoint_is_an_error(tmp_path, call):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b")
    for path in (b / "checkpoints/gan/6/state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    code, out, err = call(a, b)
    assert (code, out) == (2, "")
    assert "checkpoints/gan/6" in err
    assert err.count("\n") == 1


def test_groups_have_intervals_and_paired_differences(tmp_path, compare):
    paths = runs(tmp_path / "a")
    paths += runs(tmp_path / "b", (25.0, 26.5, 27.0), **{"gan.old": "x"})
    paths += runs(tmp_path / "c", (19.0, 22.0, 22.0), **{"gan.old": "y"})
    text = compare(*paths)
    assert f"C/2 {paths[8]} seed=2, gan.old=y\n" in text
    # 21 ± 4.303 / sqrt(3)
    assert "fd_n100 21.0 [18.5, 23.5] 26.2 [23.6, 28.8] 21.0 [16.7, 25.3]" in text
    # Both tests of the primary comparison: t = 31 and 0; the second is at a level of 0.05:
    # (4.303 + 1.061) / sqrt(3).
    assert "+5.17 [4.45, 5.88] p=0.0021 +0.0 [-2.5, 2.5] p=1 not resolved (could show 3.1)" in text
    assert "B - A: A is better than B (p=0.0021)." in text
    assert "C - A: not resolved (p=1)." in text
    assert "Warning" not in text


@pytest.mark.parametrize(
    ("second", "result"),
    [
        ((15.0, 16.6, 17.0), "B is better than A, in all embeddings"),
        ((25.0, 26.6, 27.0), "neither is called better, since the embeddings disagree"),
        ((20.5, 20.5, 22.0), "not resolved"),
    ],
)
def test_better_needs_all_embeddings(tmp_path, compare, second, result):
    lower = 15.0, 16.5, 17.0
    paths = [*runs(tmp_path / "a"), *runs(tmp_path / "b", lower, **{"gan.old": "x"})]
    for path, distance, value in zip(paths, (*BASE, *lower), (*BASE, *second), strict=True):
        added = made.number("gan_samples", "test", "fd_n100", value, embedding="dino")
        made.edit(path / "evaluation/numbers.json", numbers=[*made.numbers(distance), added])
    p = max(scipy.stats.ttest_rel(values, BASE).pvalue for values in (lower, second))
    assert f"B - A: {result} (p={p:.2g})." in compare(*paths)


@pytest.mark.parametrize(
    ("file", "changes", "field"),
    [
        ("config.json", {"gan.old": "x"}, "gan.old=x"),
        ("config.json", {"evaluation.samples": 500}, "evaluation.samples=500"),
        ("data.json", {"digest": "e" * 64}, f"images={'e' * 12}"),
        ("data.json", {"train": 950}, "training images=950"),
        ("config.json", {"data.workers": 9, "evaluation.weights": "/x"}, ""),
        ("run.json", {"cpu": "other"}, ""),
    ],
)
def test_groups_differ_in_config_and_images_not_in_seed(tmp_path, compare, file, changes, field):
    paths = runs(tmp_path / "a")
    made.edit(paths[2] / file, **changes)
    text = compare(*paths)
    label = "B" if field else "A/2"
    assert re.search(f"{label} {paths[2]} seed=2(, )?{field}\n", text)
    assert ("fewer than 3 seeds: A (2), B (1)" in text) == bool(field)


def test_missing_and_non_finite_numbers_are_counted_and_failed_runs_are_noted(tmp_path, compare):
    paths = runs(tmp_path / "a", (20.0, 21.0, 22.0, 23.0))
    paths += runs(tmp_path / "b", (20.0, 20.0, 20.0), **{"gan.old": "x"})
    trouble = {"stage": "gan", "step": 4, "trouble": "not_finite", "text": "x", "remedy": "y"}
    made.write_lines(paths[3] / "metrics.jsonl", [*made.metrics()[:4], trouble])
    (paths[3] / "evaluation/numbers.json").unlink()
    finding = {"name": "Mode collapse", "text": "x"}
    made.edit(paths[1] / "evaluation/numbers.json", findings=[finding])
    made.edit_number(paths[2], 2, value=None)
    made.edit_number(paths[5], 1, value=None)
    text = compare(*paths)
    assert "A, n=4, 1 collapsed, 1 not finite B, n=3 B - A, n=3" in text
    assert "fd_n100 3 of 4 finite 2 of 3 finite 2 of 3 finite" in text
    assert "precision 2 of 4 finite 0.5 [0.5, 0.5] 2 of 3 finite" in text
    assert "B - A: no test" in text
    assert f"{paths[3]}: not finite (gan step 4).\n" in text
    assert f"{paths[1]}: collapsed (mode collapse).\n" in text


def sweep(tmp_path, scratch_seconds=2.0):
    """Two variants: one with a VAE, and one without, whose GAN is trained for twice as long."""
    distances = 25.0, 26.0, 27.0
    warm = runs(tmp_path / "warm", (20.0, 20.1, 20.4))
    scratch = runs(
        tmp_path / "scratch", distances, scratch_seconds, **{"transfer.generator": "scratch"}
    )
    for path, distance in zip(scratch, distances, strict=True):
        made.write_lines(path / "metrics.jsonl", made.metrics(scratch_seconds)[3:])
        made.edit(path / "evaluation/numbers.json", numbers=made.numbers(distance)[1:])
        made.write_lines(path / "curve.jsonl", made.read_lines(path / "curve.jsonl")[2:])
    for path in (*warm, *scratch):
        made.edit(path / "run.json", variant=path.name[:-1])
    return [*warm, *scratch]


@pytest.mark.parametrize(("seconds", "equal"), [(2.0, True), (2.09, True), (2.12, False)])
def test_variants_are_named_and_their_cost_is_shown(tmp_path, compare, seconds, equal):
    paths = sweep(tmp_path, seconds)
    text = compare(*paths)
    assert f"warm/2 {paths[2]}" in text
    assert "warm, n=3 12 1.00" in text
    assert f"scratch, n=3 {6 * seconds:.0f} {seconds / 2:.2f}" in text
    assert ("unequal" in text) is not equal
    assert "scratch - warm: warm is better than scratch" in text
    assert re.search(r"fd_n100 21\.17 .* - -\n", text)  # of the VAE, which scratch lacks
    made.write_lines(paths[0] / "metrics.jsonl", made.metrics()[3:])  # the cost is unknown
    assert "unequal" not in compare(*paths)


@pytest.mark.parametrize("variant", ["", "warm"])
def test_groups_have_letters_unless_all_have_different_variants(tmp_path, compare, variant):
    paths = sweep(tmp_path)
    for path in paths[3:]:
        made.edit(path / "run.json", variant=variant or None)
    assert f"A/2 {paths[2]}" in compare(*paths)


def test_a_repeated_run_is_refused(tmp_path, call):
    again = made.run(tmp_path / "again", seed=1, distance=40.0)
    code, out, err = call(*runs(tmp_path / "a"), again)
    assert (code, out) == (2, "")
    assert f"{again} has" in err


def test_nothing_to_compare_is_an_error(tmp_path, call):
    paths = runs(tmp_path / "a")
    for index, path in enumerate(paths):
        made.keep_only(path, "config.json")
        made.write_lines(path / "metrics.jsonl", made.metrics()[3 * index : 3 * index + 3])
    for compared in (paths, paths[:2]):
        code, out, err = call(*compared)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1


def test_errors_are_one_line_and_exit_code_2(tmp_path, call):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    for arguments, named in (
        ((a,), "RUN"),
        ((a, tmp_path / "none"), str(tmp_path / "none")),
        ((a, b, "--html", tmp_path / "none" / "page.html"), "page.html"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), arguments
        assert named in err
        assert err.count("\n") == 1


def test_a_locked_run_can_be_compared(tmp_path, call):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    with (a / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert call(a, b, "--html", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_closed_pipe_prints_no_traceback(tmp_path):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "vaegan_jax.cli.main", "compare", a, b],
            cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")
