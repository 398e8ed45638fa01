"""The command `vaegan compare`: exit codes, text, JSON, refusals."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.experiments.compare import made
from vaegan_jax.cli import main
from vaegan_jax.experiments.compare import identity


@pytest.fixture
def call(capsys):
    """Runs `vaegan compare`: (exit code, stdout, stderr)."""

    def run(*arguments):
        try:
            code = main.main(["compare", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def saved(path, change=0.0, **config):
    made.run(path, **config)
    made.save(path, "vae", 6, made.state())
    made.save(path, "gan", 6, made.state(change))
    return path


def words(text):
    return " ".join(text.split())


def test_identical_runs(tmp_path, call):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", seconds=2.0)
    code, out, err = call(a, b)
    assert (code, err) == (0, "")
    assert identity.IDENTICAL in out
    assert words(out).count("4 of 4 leaves") == 2
    assert "fd_pixels" not in out


@pytest.mark.parametrize("config", [{"seed": 1}, {"gan.b2": 0.25}])
def test_the_field_that_differs_is_listed(tmp_path, call, config):
    code, out, err = call(saved(tmp_path / "a"), saved(tmp_path / "b", **config))
    assert (code, err) == (1, "")
    ((name, value),) = config.items()
    assert any(
        {"config.json", name, str(value), "(B)"} <= {*line.split()} for line in out.splitlines()
    )


def test_a_leaf_that_differs_in_one_bit(tmp_path, call):
    code, out, _ = call(saved(tmp_path / "a"), saved(tmp_path / "b", change=2.0**-23))
    assert code == 1
    assert "gan step 6, checkpoint/params.bias" in out
    assert "gan 6: 3 of 4 leaves" in out


def test_a_damaged_checkpoint_is_an_error(tmp_path, call):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b")
    for path in (b / "checkpoints/gan/6/state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    code, out, err = call(a, b)
    assert (code, out) == (2, "")
    assert "checkpoints/gan/6" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("differing", [False, True])
def test_json_of_two_runs(tmp_path, call, differing):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", change=0.5 * differing)
    made.edit(b / "run.json", cpu="other")
    code, out, _ = call(a, b, "--json")
    found = json.loads(out)
    assert code == int(differing)
    assert found["identity"]["verdict"] == (identity.DIFFERENT if differing else identity.IDENTICAL)
    assert [c["equal"] for c in found["identity"]["checkpoints"]] == [4, 4 - differing]
    assert len(found["identity"]["first"]) == differing
    assert found["facts"] == [{"file": "run.json", "name": "cpu", "values": ["chip", "other"]}]
    assert [group["runs"] for group in found["groups"]] == [[str(a)], [str(b)]]
    row = next(row for row in found["rows"] if row["name"] == "gan_samples/test/pixels fd_n100")
    assert [mean["mean"] for mean in row["means"]] == [20.0, 20.0]


def test_json_of_many_runs(tmp_path, call):
    paths = [made.run(tmp_path / f"{s}", seed=s, distance=20.0 + s) for s in range(3)]
    code, out, _ = call(*paths, "--json")
    found = json.loads(out)
    assert (code, found["identity"]) == (0, None)
    assert found["groups"][0]["seeds"] == [0, 1, 2]
    row = next(row for row in found["rows"] if row["name"] == "gan_samples/test/pixels fd_n100")
    assert (row["means"][0]["n"], row["means"][0]["mean"]) == (3, 21.0)


def test_non_finite_values_are_strings_in_json(tmp_path, call):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    for path, loss in ((a, float("nan")), (b, float("inf"))):
        made.write_lines(path / "metrics.jsonl", [made.line("vae", 2, loss=loss)])
    code, out, _ = call(a, b, "--json", "--html", tmp_path / "page.html")
    assert code == 1
    (value,) = json.loads(out, parse_constant=pytest.fail)["identity"]["first"]
    assert value["values"] == ["NaN", "Infinity"]


def test_groups_have_intervals_and_paired_differences(tmp_path, call):
    paths = [made.run(tmp_path / f"a{s}", seed=s, distance=20.0 + s) for s in range(3)]
    for s, distance in enumerate((25.0, 26.5, 27.0)):
        paths.append(made.run(tmp_path / f"b{s}", seed=s, distance=distance, **{"gan.old": "x"}))
    for s, distance in enumerate((19.0, 22.0, 22.0)):
        paths.append(made.run(tmp_path / f"c{s}", seed=s, distance=distance, **{"gan.old": "y"}))
    code, out, _ = call(*paths)
    assert code == 0
    assert f"C/2 {paths[8]} seed=2, gan.old=y" in words(out)
    # 21 ± 4.303 / sqrt(3)
    assert "fd_n100 21.0 [18.5, 23.5] 26.2 [23.6, 28.8] 21.0 [16.7, 25.3]" in words(out)
    # Both tests of the primary comparison: t = 31 and 0; the second is at a level of 0.05:
    # (4.303 + 1.061) / sqrt(3).
    assert (
        "+5.17 [4.45, 5.88] p=0.0021 +0.0 [-2.5, 2.5] p=1 not resolved (could show 3.1)"
        in words(out)
    )


def test_missing_and_non_finite_numbers_are_counted_and_noted(tmp_path, call):
    paths = [made.run(tmp_path / f"{s}", seed=s, distance=20.0 + s) for s in range(4)]
    paths += [made.run(tmp_path / f"b{s}", seed=s, **{"gan.old": "x"}) for s in range(3)]
    trouble = {"stage": "gan", "step": 4, "trouble": "not_finite", "text": "x", "remedy": "y"}
    made.write_lines(paths[3] / "metrics.jsonl", [*made.metrics()[:4], trouble])
    (paths[3] / "evaluation/numbers.json").unlink()
    finding = {"name": "Mode collapse", "text": "x"}
    made.edit(paths[1] / "evaluation/numbers.json", findings=[finding])
    made.edit_number(paths[2], 2, value=None)
    made.edit_number(paths[5], 1, value=None)
    code, out, _ = call(*paths)
    assert code == 0
    assert "A, n=4, 1 not finite, 1 collapsed B, n=3 B - A, n=3" in words(out)
    assert "fd_n100 3 of 4 finite 2 of 3 finite 2 of 3 finite" in words(out)
    assert "precision 2 of 4 finite 0.5 [0.5, 0.5] 2 of 3 finite" in words(out)
    assert "vendi 0 of 4 finite 0 of 3 finite 0 of 3 finite" in words(out)
    for path, named in ((paths[3], "not finite"), (paths[2], "precision"), (paths[1], "collapse")):
        assert any(str(path) in line and named in line for line in out.splitlines()), named


def sweep(tmp_path, seeds=3, scratch_seconds=2.0):
    """Two variants: one with a VAE, and one without, whose GAN is trained for twice as long."""
    paths = []
    for s in range(seeds):
        paths.append(made.run(tmp_path / f"warm{s}", seed=s, distance=20.0 + 0.1 * s * s))
        scratch = made.run(
            tmp_path / f"scratch{s}", scratch_seconds, 25.0 + s, seed=s,
            **{"transfer.generator": "scratch"},
        )  # fmt: skip
        made.write_lines(scratch / "metrics.jsonl", made.metrics(scratch_seconds)[3:])
        numbers = made.evaluation(25.0 + s)["numbers"][1:]
        made.edit(scratch / "evaluation/numbers.json", numbers=numbers)
        made.write_lines(scratch / "curve.jsonl", made.read_lines(scratch / "curve.jsonl")[2:])
        paths.append(scratch)
    for path in paths:
        made.edit(path / "run.json", variant=path.name[:-1])
    return paths


@pytest.mark.parametrize(("seconds", "equal"), [(2.0, True), (2.09, True), (2.12, False)])
def test_variants_without_a_vae_are_named_and_their_cost_is_shown(tmp_path, call, seconds, equal):
    paths = sweep(tmp_path, scratch_seconds=seconds)
    code, out, _ = call(*paths)
    assert code == 0
    assert f"warm/2 {paths[4]}" in words(out)
    assert "warm, n=3 6 6 12 1.00" in words(out)
    assert f"scratch, n=3 - {6 * seconds:.0f} {6 * seconds:.0f} {seconds / 2:.2f}" in words(out)
    assert ("unequal" in out) is not equal
    assert "warm is better than scratch" in out
    rows = [line for line in out.splitlines() if "21.1" in line]  # the VAE's samples
    assert rows
    assert all(line.split()[-2:] == ["-", "-"] for line in rows)
    found = json.loads(call(*paths, "--json")[1])
    assert [group["label"] for group in found["groups"]] == ["warm", "scratch"]
    assert found["groups"][1]["seconds"] == {"gan": 6 * seconds, "total": 6 * seconds}
    assert found["groups"][1]["cost_ratio"] == pytest.approx(seconds / 2)
    assert found["better"] == ["warm"]
    assert len(found["warnings"]) == (not equal)
    primary, *others = found["rows"]
    assert (primary["name"], primary["is_primary"]) == ("gan_samples/test/pixels fd_n100", True)
    (test,) = primary["differences"]
    assert test["p"] == test["adjusted_p"] <= 0.05
    assert test["resolved"] is True
    assert {"n", "of", "mean", "half_width", "detectable"} <= test.keys()
    assert not any(row["is_primary"] for row in others)


def test_the_primary_comparison_is_the_first_table_of_numbers(tmp_path, call):
    _, out, _ = call(*sweep(tmp_path))
    first = next(line for line in out.splitlines() if "fd_n100" in line)
    assert "20.17" in first


def test_few_seeds_are_a_warning(tmp_path, call):
    found = json.loads(call(*sweep(tmp_path, seeds=2), "--json")[1])
    assert len(found["warnings"]) == 1
    assert [len(group["seeds"]) for group in found["groups"]] == [2, 2]


def test_a_repeated_run_is_omitted_and_noted(tmp_path, call):
    paths = [made.run(tmp_path / f"{s}", seed=s, distance=20.0 + s) for s in range(3)]
    paths.append(made.run(tmp_path / "again", seed=1, distance=40.0))
    code, out, _ = call(*paths)
    assert code == 0
    assert "fd_pixels 21.0 [18.5, 23.5]" in words(out)
    (note,) = (line for line in out.splitlines() if str(paths[3]) in line and str(paths[1]) in line)
    assert identity.DIFFERENT in note


def test_nothing_to_compare_is_an_error(tmp_path, call):
    paths = [made.run(tmp_path / f"{s}", seed=s) for s in range(3)]
    for index, path in enumerate(paths):
        (path / "curve.jsonl").unlink()
        (path / "evaluation/numbers.json").unlink()
        made.write_lines(path / "metrics.jsonl", made.metrics()[3 * index : 3 * index + 3])
    for runs in (paths, paths[:2]):
        code, out, err = call(*runs)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1


def test_a_page_is_written(tmp_path, call):
    paths = [made.run(tmp_path / f"{s}", seed=s) for s in range(3)]
    assert call(*paths, "--html", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_errors_are_one_line_and_exit_code_2(tmp_path, call):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    numbers = b / "evaluation/numbers.json"
    for arguments, named in (
        ((), "RUN"),
        ((a,), "RUN"),
        ((a, b, "--colour"), "--colour"),
        ((a, tmp_path / "none"), str(tmp_path / "none")),
        ((a, b, "--html", tmp_path / "none" / "page.html"), "page.html"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), arguments
        assert named in err
        assert err.count("\n") == 1
    numbers.write_text(numbers.read_text()[:100])
    code, out, err = call(a, b)
    assert (code, out) == (2, "")
    assert str(numbers) in err


def test_a_locked_run_can_be_compared(tmp_path, call):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    with (a / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert call(a, b)[0] == 0


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
