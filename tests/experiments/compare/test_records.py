"""Reading complete, old and damaged folders of runs."""

import re

import numpy as np
import pytest

from tests.experiments.compare import made
from vaegan_jax import checkpoints
from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError
from vaegan_jax.experiments.compare import records

FILES = ("data.json", "run.json", "metrics.jsonl", "curve.jsonl", "evaluation/numbers.json")


def test_all_files_are_read(tmp_path):
    path = made.run(tmp_path / "run", seed=7)
    made.save(path, "vae", 4, made.state())
    made.save(path, "vae", 12, made.state())
    trouble = {"stage": "gan", "step": 4, "trouble": "blur", "text": "x", "remedy": "y"}
    made.write_lines(path / "metrics.jsonl", [*made.metrics(), trouble])
    found = records.read(path)
    assert found.config["seed"] == 7
    assert found.facts["data.json"]["digest"] == "d" * 64
    assert found.facts["run.json"]["packages.jax"] == "0.10"
    assert found.facts["evaluation/numbers.json"]["settings.evaluation.samples"] == 100
    assert found.checkpoints == {"vae": [4, 12], "gan": []}
    assert found.notes == []
    values = records.series(found.records)
    assert values["vae", "loss"] == {s: 90.1 / s for s in (2, 4, 6)}
    assert values["gan", "curve/fd_pixels"] == {3: 21.0, 6: 20.0}
    assert values["evaluation", "gan_samples/test/pixels fd_n100"] == {6: 20.0}
    assert np.isnan(values["evaluation", "gan_samples/alone/pixels vendi"][6])
    assert {record.run for record in found.records} == {str(path)}


def test_fields_newer_than_the_run_have_defaults(tmp_path):
    path = made.run(tmp_path / "run", **{"of.the.past": 3})
    config = records.read(path).config
    assert config["of.the.past"] == 3
    assert config["vae.steps"] == 6
    assert config["gan.batch_size"] == configuration.FIELDS["gan.batch_size"].default


def test_missing_files_are_noted(tmp_path):
    path = tmp_path / "old"
    path.mkdir()
    (path / "config.json").write_text("{}")
    notes = records.read(path).notes
    assert len(notes) == 6
    for name in (*FILES, "checkpoints"):
        assert any(name in note and str(path) in note for note in notes), name


def test_evaluations_of_older_versions_are_read(tmp_path):
    path = made.run(tmp_path / "run")
    old = made.number("gan_samples", "held_out", "fd_pixels", 3.0)
    del old["embedding"]
    dubious = made.number("gan_samples", "test", "recall", 1.0, informative=False)
    made.edit(path / "evaluation/numbers.json", numbers=[old, dubious])
    found = [(r.name, r.informative) for r in records.read(path).records if r.stage == "evaluation"]
    assert found == [
        ("gan_samples/held_out/fd_pixels", True),
        ("gan_samples/test/pixels recall", False),
    ]


def trouble(name, stage="gan", step=5):
    return {"stage": stage, "step": step, "trouble": name, "text": "x", "remedy": "y"}


@pytest.mark.parametrize(
    ("lines", "checkpoint", "not_finite", "problems"),
    [
        (6, 6, None, []),
        (5, 4, None, ["ended early"]),
        (3, None, None, ["ended early"]),  # before the GAN
        (0, None, None, []),  # no metrics
        (5, 4, 5, ["not finite"]),
        (6, 4, 6, ["not finite"]),  # at the last step, found when it was saved
        (6, 6, 5, []),  # it resumed and finished
        (6, 6, 6, []),
    ],
)
def test_ends_of_runs(tmp_path, lines, checkpoint, not_finite, problems):
    path = made.run(tmp_path / "run")
    if checkpoint:
        made.save(path, "gan", checkpoint, made.state())
    kept = made.metrics()[:lines]
    kept += [trouble("not_finite", step=not_finite)] if not_finite else []
    made.write_lines(path / "metrics.jsonl", kept)
    assert records.read(path).problems == problems


def test_collapses_are_read_from_troubles_and_findings(tmp_path):
    paths = [made.run(tmp_path / name) for name in "abcd"]
    made.write_lines(paths[0] / "metrics.jsonl", [*made.metrics(), trouble("mode_collapse")])
    lines = [*made.metrics(), trouble("posterior_collapse", "vae"), trouble("blur")]
    made.write_lines(paths[1] / "metrics.jsonl", lines)
    finding = {"name": "Mode collapse", "text": "x"}
    made.edit(paths[2] / "evaluation/numbers.json", findings=[finding])
    made.edit(paths[3] / "evaluation/numbers.json", findings=[finding | {"name": "Blur"}])
    problems = [records.read(path).problems for path in paths]
    assert problems == [["collapsed"], ["collapsed"], ["collapsed"], []]


def test_seconds_of_training_are_those_of_the_last_lines(tmp_path):
    warm = records.read(made.run(tmp_path / "warm", seconds=2.0))
    assert warm.seconds == {"vae": 12.0, "gan": 12.0, "total": 24.0}
    scratch = made.run(tmp_path / "scratch", **{"transfer.generator": "scratch"})
    made.write_lines(scratch / "metrics.jsonl", made.metrics()[3:])
    assert records.read(scratch).seconds == {"gan": 6.0, "total": 6.0}
    copied = made.run(tmp_path / "copied")  # its VAE was trained elsewhere
    made.write_lines(copied / "metrics.jsonl", made.metrics()[3:])
    seconds = records.read(copied).seconds
    assert seconds["gan"] == 6.0
    assert np.isnan([seconds["vae"], seconds["total"]]).all()


def test_reading_does_not_change_the_folder(tmp_path):
    path = made.run(tmp_path / "run")
    made.save(path, "gan", 6, made.state())

    def listing():
        return {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")}

    before = listing()
    records.read(path)
    checkpoints.load(path / "checkpoints" / "gan", 6)
    assert listing() == before


@pytest.mark.parametrize("name", ["config.json", *FILES])
@pytest.mark.parametrize("damage", ["cut", "list", "bytes"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    path = made.run(tmp_path / "run")
    text = (path / name).read_bytes()
    cut = text[: len(text) // 2]
    if name.endswith("jsonl"):
        cut += b"\n{}\n"
    (path / name).write_bytes({"cut": cut, "list": b"[1]\n", "bytes": b"\xff\xfe{"}[damage])
    with pytest.raises(UserError) as caught:
        records.read(path)
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
        ("evaluation/numbers.json", '{"numbers": 3}'),
        ("metrics.jsonl", '{"stage": "vae", "step": 1, "loss": "low"}\n'),
        ("metrics.jsonl", '{"stage": "vae", "loss": 1.0}\n'),
        ("curve.jsonl", '{"stage": "other", "step": 1}\n'),
        ("metrics.jsonl", '{"stage": "vae", "step": 1, "lo\n'),
    ],
)
def test_unexpected_json_is_refused(tmp_path, name, text):
    path = made.run(tmp_path / "run")
    (path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(name)):
        records.read(path)


@pytest.mark.parametrize("name", ["metrics.jsonl", "curve.jsonl"])
def test_an_incomplete_last_line_is_skipped_and_noted(tmp_path, name):
    path = made.run(tmp_path / "run")
    complete = len(records.read(path).records)
    text = (path / name).read_text()
    last = text.splitlines()[-1]
    (path / name).write_text(text[:-20])
    found = records.read(path)
    assert len(found.records) == complete - last.count(":") + 2
    assert any(name in note for note in found.notes)


def test_differing_facts(tmp_path):
    a, b, c = (made.run(tmp_path / name) for name in "abc")
    made.edit(b / "run.json", cpu=None, settings={"jax": {"x64": True}})
    copies = {"cpu": "chip"}, {"settings": {"jax": {"x64": True}}}, {}
    for path, copy in zip((a, b, c), copies, strict=True):
        made.edit(path / "evaluation/numbers.json", environment=copy)
    (c / "run.json").unlink()
    found = records.differing_facts([records.read(path) for path in (a, b, c)])
    assert {(fact.file, fact.name): fact.values for fact in found} == {
        ("run.json", "cpu"): ["chip", None, None],
        ("run.json", "settings.jax.x64"): [None, True, None],
    }
