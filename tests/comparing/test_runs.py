"""Folders of runs, whole, old and damaged, as they are read."""

import re

import numpy as np
import pytest

from tests.comparing import made
from vaegan_jax import checkpoints
from vaegan_jax import config as configuration
from vaegan_jax.comparing import runs
from vaegan_jax.errors import UserError


def test_all_that_a_folder_holds_is_read(tmp_path):
    path = made.run(tmp_path / "run", seed=7)
    made.save(path, "vae", 4, made.state())
    made.save(path, "vae", 12, made.state())
    trouble = {"stage": "gan", "step": 4, "trouble": "blur", "text": "x", "remedy": "y"}
    made.write_lines(path / "metrics.jsonl", [*made.metrics(), trouble])
    found = runs.read(path)
    assert found.seed == 7
    assert found.metrics == made.metrics()
    assert found.troubles == [trouble]
    assert [line["step"] for line in found.curve] == [3, 6, 3, 6]
    assert found.digest == "d" * 64
    assert found.environment["packages"] == {"jax": "0.10"}
    assert found.evaluation == made.evaluation(20.0)
    assert found.checkpoints == {"vae": [4, 12]}
    assert found.notes == runs.missing(found) == []


def test_a_field_that_is_newer_than_the_run_has_its_default(tmp_path):
    path = made.run(tmp_path / "run", **{"of.the.past": 3, "monitor.kl": 1.0})
    config = runs.read(path).config
    assert config["of.the.past"] == 3  # and nothing asks whether it still exists
    assert "monitor.kl" not in config  # on which nothing that is trained depended
    assert config["vae.steps"] == 6
    assert config["gan.batch_size"] == configuration.FIELDS["gan.batch_size"].default


def test_what_an_old_run_lacks_is_said(tmp_path):
    path = tmp_path / "old"
    path.mkdir()
    (path / "config.json").write_text("{}")
    said = runs.missing(runs.read(path))
    assert len(said) == 6
    for name in ("data", "run", "metrics", "curve", "numbers", "checkpoints"):
        assert any(name in note and str(path) in note for note in said), name


def test_a_folder_is_only_read(tmp_path):
    path = made.run(tmp_path / "run")
    made.save(path, "gan", 6, made.state())

    def listing():
        return {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")}

    before = listing()
    found = runs.read(path)
    runs.load_state(found, "gan", 6)
    assert listing() == before


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "data.json",
        "run.json",
        "evaluation/numbers.json",
        "metrics.jsonl",
        "curve.jsonl",
    ],
)
@pytest.mark.parametrize("damage", ["cut", "list", "bytes"])
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, name, damage):
    path = made.run(tmp_path / "run")
    text = (path / name).read_bytes()
    cut = text[: len(text) // 2]
    if name.endswith("jsonl"):  # in the middle of the file, not at its end
        cut += b"\n{}\n"
    (path / name).write_bytes({"cut": cut, "list": b"[1]\n", "bytes": b"\xff\xfe{"}[damage])
    with pytest.raises(UserError) as caught:
        runs.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    if damage != "bytes":
        assert name in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evaluation/numbers.json", '{"numbers": [{"metric": "x"}]}'),
        ("evaluation/numbers.json", "{}"),
        ("evaluation/numbers.json", '{"numbers": [], "settings": []}'),
        ("metrics.jsonl", '{"stage": "vae", "step": 1, "loss": "low"}\n'),
        ("metrics.jsonl", '{"stage": "vae", "loss": 1.0}\n'),
        ("curve.jsonl", '{"stage": "other", "step": 1}\n'),
        ("metrics.jsonl", '{"stage": "vae", "step": 1, "lo\n'),  # no line that was cut off
    ],
)
def test_json_of_something_else_is_damage(tmp_path, name, text):
    path = made.run(tmp_path / "run")
    (path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{re.escape(name)} is damaged"):
        runs.read(path)


def test_a_line_cut_off_at_the_end_is_left_out_and_said(tmp_path):
    path = made.run(tmp_path / "run")
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(text[:-20])
    found = runs.read(path)
    assert found.metrics == made.metrics()[:-1]
    (note,) = found.notes
    assert "metrics.jsonl: the last line is cut off" in note


@pytest.mark.parametrize("kind", ["absent", "empty", "file"])
def test_what_is_no_run_is_refused(tmp_path, kind):
    path = tmp_path / "none"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(UserError, match=r"holds no run|cannot be read"):
        runs.read(path)


def test_a_saved_state_is_loaded_bit_for_bit_without_a_template(tmp_path):
    tree = made.state(0.25)
    made.save(tmp_path, "vae", 3, tree)
    found = checkpoints.load(tmp_path / "checkpoints" / "vae", 3)
    expected = {
        "step": tree["step"],
        "params.kernel": tree["params"]["kernel"],
        "params.bias": tree["params"]["bias"],
        "optimizer.0": tree["optimizer"][0],
    }
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        assert (found[name].dtype, found[name].shape) == (leaf.dtype, leaf.shape)
        np.testing.assert_array_equal(found[name], leaf)


def test_steps_are_those_that_are_saved_whole(tmp_path):
    folder = tmp_path / "checkpoints" / "vae"
    assert checkpoints.steps(folder) == []
    assert not folder.exists()
    for step in (9, 10):
        made.save(tmp_path, "vae", step, made.state())
    (folder / "11.orbax-checkpoint-tmp-1").mkdir()
    (folder / "notes").mkdir()
    assert checkpoints.steps(folder) == [9, 10]


def test_a_damaged_checkpoint_is_named(tmp_path):
    made.save(tmp_path, "vae", 3, made.state())
    folder = tmp_path / "checkpoints" / "vae"
    for path in (folder / "3" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UserError, match=r"The checkpoint .*3 cannot be read"):
        checkpoints.load(folder, 3)


def test_the_newest_picture_that_both_drew(tmp_path):
    a, b = (runs.read(made.run(tmp_path / name)) for name in "ab")
    assert runs.newest_pictures(a, b, "vae", "samples") is None
    for run, steps in ((a, (2, 10, 12)), (b, (2, 10, 11))):
        for step in steps:
            made.picture(run.path / f"images/vae/samples_{step:06d}.png", 0)
        made.picture(run.path / "images/vae/samples_of_another_000099.png", 0)
    step, paths = runs.newest_pictures(a, b, "vae", "samples")
    assert step == 10
    assert paths == [run.path / "images/vae/samples_000010.png" for run in (a, b)]
