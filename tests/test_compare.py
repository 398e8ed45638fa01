"""The command line of a comparison: exit codes, what it prints, what it refuses."""

import json
import os
import subprocess
import sys
import tomllib

import pytest

from tests.comparing import made
from tests.conftest import ROOT
from vaegan_jax import compare
from vaegan_jax.comparing import two


def command(*arguments):
    """Runs the real command line; returns exit code, output and errors."""
    result = subprocess.run(
        [sys.executable, "-m", "vaegan_jax.compare", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.returncode, result.stdout, result.stderr


def call(capsys, *arguments):
    """The same within this process."""
    code = compare.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def saved(path, change=0.0, **config):
    made.run(path, **config)
    made.save(path, "vae", 6, made.state())
    made.save(path, "gan", 6, made.state(change))
    return path


def test_equal_runs_are_identical(tmp_path):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", seconds=2.0)
    code, out, err = command(a, b)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [f"A: {a}", f"B: {b}"]
    assert out.splitlines()[2].startswith("identical: the same config, and 6 lines of metrics")


def test_a_seed_apart_is_different(tmp_path):
    code, out, err = command(saved(tmp_path / "a"), saved(tmp_path / "b", seed=1))
    assert (code, err) == (1, "")
    assert "different config (seed 0 and 1)" in out


def test_no_run_cannot_be_compared(tmp_path):
    code, out, err = command(made.run(tmp_path / "a"), tmp_path / "none")
    assert (code, out) == (2, "")
    assert err == (
        f"Error: {tmp_path / 'none'} holds no run: name the folder of one, which has a "
        "config.json.\n"
    )


def test_truncated_json_cannot_be_compared(tmp_path):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    text = (b / "evaluation/numbers.json").read_text()
    (b / "evaluation/numbers.json").write_text(text[:100])
    code, out, err = command(a, b)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {b / 'evaluation/numbers.json'} cannot be read (")
    assert err.count("\n") == 1


def test_a_field_apart_is_different(tmp_path, capsys):
    a, b = (
        made.run(tmp_path / name, **{"gan.b2": beta}) for name, beta in (("a", 0.99), ("b", 0.5))
    )
    code, out, _ = call(capsys, a, b)
    assert code == 1
    assert "different config (gan.b2 0.99 and 0.5)" in out


def test_a_weight_apart_is_different(tmp_path, capsys):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", change=2.0**-23)
    code, out, _ = call(capsys, a, b)
    assert code == 1
    assert "different bits from step 6 (gan, 1 leaf of the checkpoint): nothing recorded" in out
    row = next(line.split() for line in out.splitlines() if "params.bias" in line)
    assert row == ["params.bias", "float32[3]", "1", "3", "1.19e-07", "1"]


def test_a_damaged_checkpoint_cannot_be_compared(tmp_path, capsys):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b")
    for path in (b / "checkpoints/gan/6/state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    code, out, err = call(capsys, a, b)
    assert (code, out) == (2, "")
    assert "checkpoints/gan/6 cannot be read" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("differing", [False, True])
def test_json_says_the_same_as_the_text(tmp_path, capsys, differing):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", change=0.5 * differing)
    code, text, _ = call(capsys, a, b)
    json_code, out, _ = call(capsys, a, b, "--json")
    found = json.loads(out)
    assert code == json_code == int(differing)
    assert found["mode"] == "two"
    assert found["verdict"]["text"] == text.splitlines()[2]
    assert found["verdict"]["kind"] == (two.DIFFERENT_BITS if differing else two.IDENTICAL)
    assert found["metrics"]["ends"] == {"vae": [6, 6], "gan": [6, 6]}
    assert [c["stage"] for c in found["checkpoints"]["compared"]] == ["vae", "gan"]
    leaves = found["checkpoints"]["leaves"]
    assert [(leaf["name"], leaf["absolute"]) for leaf in leaves] == (
        [("params.bias", 0.5)] if differing else []
    )
    assert found["evaluation"]["numbers"][1]["a"] == 20.0


def test_json_of_many_runs(tmp_path, capsys):
    paths = [made.run(tmp_path / f"{s}", seed=s, distance=20.0 + s) for s in range(3)]
    code, out, _ = call(capsys, *paths, "--json")
    found = json.loads(out)
    assert (code, found["mode"]) == (0, "many")
    assert found["groups"][0]["seeds"] == [0, 1, 2]
    assert found["ranking"][0]["mean"]["mean"] == 21.0
    assert found["main"]["metric"] == "fd_pixels"


def test_what_is_not_finite_is_text_in_json(tmp_path, capsys):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    for path, loss in ((a, float("nan")), (b, float("inf"))):
        made.write_lines(path / "metrics.jsonl", [made.line("vae", 2, loss=loss)])
    code, out, _ = call(capsys, a, b, "--json", "--html", tmp_path / "page.html")
    assert code == 1
    (scalar,) = json.loads(out, parse_constant=pytest.fail)["metrics"]["first"]["scalars"]
    assert (scalar["a"], scalar["b"]) == ("nan", "inf")


def test_many_runs_are_told_as_text(tmp_path, capsys):
    paths = [made.run(tmp_path / f"{s}", seed=s, distance=20.0 + s) for s in range(3)]
    paths.append(made.run(tmp_path / "other", distance=5.0, **{"gan.objective": "hinge"}))
    code, out, _ = call(capsys, *paths)
    assert code == 0
    assert "B is one run, so that it has no interval." in out
    words = " ".join(out.split())
    assert "1. B 5 the nearest on average 2. A 21.0 [18.5, 23.5] fewer than two seeds" in words
    assert "no telling from noise" in out


def test_two_runs_are_replicates_where_asked(tmp_path, capsys):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b", seed=1, distance=21.0)
    code, out, _ = call(capsys, a, b, "--replicates")
    assert code == 0
    assert "all runs 2 0 1" in " ".join(out.split())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"seed": 1, "gan.objective": "hinge"}, "differ in gan.objective"),
        ({}, "differ not even in the seed"),
    ],
)
def test_replicates_differ_in_the_seed_alone(tmp_path, capsys, config, said):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b", **config)
    code, out, err = call(capsys, a, b, "--replicates")
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("many", [False, True])
def test_a_page_is_written(tmp_path, capsys, many):
    paths = [made.run(tmp_path / f"{s}", seed=s) for s in range(3 if many else 2)]
    call(capsys, *paths, "--html", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_said(tmp_path, capsys):
    paths = [made.run(tmp_path / f"{s}", seed=s) for s in range(2)]
    code, out, err = call(capsys, *paths, "--html", tmp_path / "none" / "page.html")
    assert (code, out) == (2, "")
    assert "name another file with --html" in err


@pytest.mark.parametrize("arguments", [[], ["one"], ["a", "b", "--colour"]])
def test_an_unusable_command_line_is_refused_in_a_sentence(capsys, arguments):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_a_run_that_is_in_use_can_be_compared(tmp_path, capsys):
    import fcntl

    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    with (a / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert call(capsys, a, b)[0] == 0


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    a, b = made.run(tmp_path / "a"), made.run(tmp_path / "b")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "vaegan_jax.compare", a, b],
            cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


def test_the_console_command_exists():
    with (ROOT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    assert scripts["vaegan-compare"] == "vaegan_jax.compare:main"
