"""Reading complete, old and damaged folders of runs."""

import math

import numpy as np
import pytest

from tests.experiments.compare import made
from vaegan_jax import checkpoints
from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError
from vaegan_jax.experiments.compare import records


def trouble(name, stage="gan", step=5):
    return {"stage": stage, "step": step, "trouble": name, "text": "x", "remedy": "y"}


def test_all_files_are_read_and_not_changed(tmp_path):
    path = made.run(tmp_path / "run", seed=7, **{"of.the.past": 3})
    made.save(path, "vae", 4, made.state())
    made.save(path, "vae", 12, made.state())
    made.write_lines(path / "metrics.jsonl", [*made.metrics(), trouble("blur")])

    def listing():
        return {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")}

    before = listing()
    found = records.read(path)
    checkpoints.load(path / "checkpoints" / "vae", 12)
    assert listing() == before
    assert (found.config["seed"], found.config["of.the.past"]) == (7, 3)
    assert found.config["gan.batch_size"] == configuration.FIELDS["gan.batch_size"].default
    assert found.facts["data.json", "digest"] == "d" * 64
    assert found.facts["run.json", "packages.jax"] == "0.10"
    assert found.facts["evaluation/numbers.json", "evaluation.samples"] == 100
    assert found.checkpoints == {"vae": [4, 12], "gan": []}
    assert found.problems == {}
    values = {record[:3]: record.value for record in found.records}
    for step in (2, 4, 6):
        assert values["vae", step, "loss"] == 90.1 / step
    assert values["gan", 3, "curve/fd_pixels"] == 21.0
    assert values["evaluation", 6, "gan_samples/test/pixels fd_n100"] == 20.0
    assert np.isnan(values["evaluation", 6, "gan_samples/alone/pixels vendi"])


@pytest.mark.parametrize(
    ("lines", "checkpoint", "not_finite", "problems"),
    [
        (6, 6, None, {}),
        (5, 4, None, {"ended early": "gan step 4 of 6"}),
        (3, None, None, {"ended early": "gan step 0 of 6"}),
        (2, None, None, {"ended early": "vae step 4 of 6"}),
        (5, 4, 5, {"not finite": "gan step 5"}),
        (6, 4, 6, {"not finite": "gan step 6"}),  # at the last step, found when it was saved
        (6, 6, 5, {}),  # it resumed and finished
        (6, 6, 6, {}),
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
    paths = [made.run(tmp_path / name) for name in "abc"]
    lines = [*made.metrics(), trouble("posterior_collapse", "vae"), trouble("blur")]
    made.write_lines(paths[0] / "metrics.jsonl", lines)
    for path, name in zip(paths[1:], ("Mode collapse", "Blur"), strict=True):
        made.edit(path / "evaluation/numbers.json", findings=[{"name": name, "text": "x"}])
    problems = [records.read(path).problems for path in paths]
    assert problems == [{"collapsed": "posterior collapse"}, {"collapsed": "mode collapse"}, {}]


def test_seconds_of_training_are_those_of_the_last_lines(tmp_path):
    assert records.read(made.run(tmp_path / "warm", seconds=2.0)).seconds == 24.0
    scratch = made.run(tmp_path / "scratch", **{"transfer.generator": "scratch"})
    copied = made.run(tmp_path / "copied")  # its VAE was trained elsewhere
    for path in (scratch, copied):
        made.write_lines(path / "metrics.jsonl", made.metrics()[3:])
    assert records.read(scratch).seconds == 6.0
    assert math.isnan(records.read(copied).seconds)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "{}"),
        ("config.json", '{"seed": 0, '),
        ("data.json", "\xff"),
        ("evaluation/numbers.json", '{"format": 2, "numbers": [{"metric": "x"}]}'),
        ("metrics.jsonl", '{"stage": "vae", "step": 1, "loss": "low"}\n'),
        ("metrics.jsonl", '{"stage": "vae", "loss": 1.0}\n'),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, name, text):
    path = made.run(tmp_path / "run")
    (path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        records.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_an_incomplete_last_line_are_allowed(tmp_path):
    path = made.run(tmp_path / "run")
    complete = len(records.read(path).records)
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(text[:-20])
    assert len(records.read(path).records) == complete - text.splitlines()[-1].count(":") + 2
    made.keep_only(path, "config.json")
    assert records.read(path).records == []


def test_differing_facts(tmp_path):
    a, b, c = (made.run(tmp_path / name) for name in "abc")
    made.edit(b / "run.json", cpu=None, settings={"jax": {"x64": True}}, config_sha256="x")
    made.edit(c / "data.json", train=950)
    found = records.differing_facts([records.read(path) for path in (a, b, c)])
    assert {(fact.file, fact.name): (fact.values, fact.is_cause) for fact in found} == {
        ("run.json", "cpu"): (["chip", "absent", "chip"], False),
        ("run.json", "settings.jax.x64"): (["absent", True, "absent"], False),
        ("data.json", "train"): ([900, 900, 950], True),
    }
