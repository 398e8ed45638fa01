import io
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError
from vaegan_jax.training import monitor
from vaegan_jax.workdir import (
    open_workdir,
    pictures_by_step,
    reader,
    require_same_sources,
    require_usable,
)


@pytest.fixture
def config():
    return configuration.default_config()


@pytest.fixture
def workdir(tmp_path, config):
    with open_workdir(tmp_path, config) as opened:
        yield opened


def test_different_config_is_refused_before_writing(tmp_path, config):
    with open_workdir(tmp_path, config):
        pass
    fields = json.loads((tmp_path / "config.json").read_text())
    removed = {"evaluation.paths": 1, "training.picture_columns": 8}
    (tmp_path / "config.json").write_text(json.dumps(fields | removed))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    config.gan.steps, config.seed, config.vae.b1 = 5000, 3, 0.5
    with pytest.raises(UserError) as caught, open_workdir(tmp_path, config):
        pass
    _, *rows = str(caught.value).splitlines()
    assert [row.split()[:5] for row in rows] == [
        ["seed:", "was", "0,", "is", "3;"], ["training.picture_columns:", "was", "8,", "is",
        "'absent';"], ["vae.b1:", "was", "0.9,", "is", "0.5;"],
    ]  # fmt: skip
    assert "run.json" in rows[1]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_changed_future_fields_are_recorded_as_events(tmp_path, config):
    with open_workdir(tmp_path, config):
        pass
    config.gan.steps, config.training.log_every = 5000, 7
    with open_workdir(tmp_path, config) as workdir:
        assert workdir.config()["gan.steps"] == 5000
        events = [line["event"] for line in workdir.events()]
    assert events == ["config: gan.steps 0 -> 5000", "config: training.log_every 100 -> 7"]
    (tmp_path / "checkpoints" / "gan" / "600").mkdir(parents=True)
    (tmp_path / "checkpoints" / "gan" / "600" / "checksums.json").write_text("{}")
    config.gan.steps = 599
    with pytest.raises(UserError, match="600"):
        require_usable(tmp_path, config)


def test_run_on_other_images_is_refused(workdir):
    recorded = {"digest": "d" * 64, "train": 811, "validation": 63, "test": 126}
    for _ in range(2):
        workdir.require_data(recorded)
    with pytest.raises(UserError, match="have changed"):
        workdir.require_data(recorded | {"digest": "e" * 64})
    assert workdir.read_json("data.json") == recorded


UNUSABLE = {
    "no run": ("holiday.jpg", "...", ["holds no run"]),
    "unreadable config": ("config.json", '{"seed": ', ["config.json cannot be read"]),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_folder_is_refused(tmp_path, config, name):
    file, text, parts = UNUSABLE[name]
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError) as caught, open_workdir(tmp_path, config):
        pass
    assert all(part in str(caught.value) for part in parts)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_lock_refuses_second_process_and_survives_sigkill(tmp_path, config):
    program = (
        "import sys, pathlib; from vaegan_jax.workdir import open_workdir;"
        "from vaegan_jax.config import default_config;"
        "context = open_workdir(pathlib.Path(sys.argv[1]), default_config()); context.__enter__();"
        "print('open', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert owner.stdout.readline() == b"open\n"
    with (
        pytest.raises(UserError, match="in use"),
        open_workdir(tmp_path, config),
    ):
        pass
    owner.kill()
    owner.communicate()
    with open_workdir(tmp_path, config):
        pass


def test_metrics_are_read_back_exactly(workdir):
    numbers = (0.1 + 0.2, float(np.float32(1 / 3)), 5e-324, -1.7976931348623157e308)
    values = dict(zip("abcd", numbers, strict=True))
    workdir.rewind("vae", 0)
    workdir.write_metrics("vae", 3, values)
    assert workdir.metrics() == [{"stage": "vae", "step": 3} | values]


def test_rewind_removes_later_records_of_one_stage(workdir, tmp_path):
    assert (workdir.metrics(), workdir.curve(), workdir.events()) == ([], [], [])
    for stage in ("vae", "gan"):
        workdir.rewind(stage, 0)
        workdir.write_event(f"{stage}: began")
        for step in (2, 4, 6):
            workdir.write_metrics(stage, step, {"loss": 1.0})
            workdir.write_curve(stage, step, {"fd_x": 0.1 + 0.2})
            workdir.write_picture(stage, "samples", step, np.zeros((2, 3, 3), np.uint8))
    for name in ("metrics.jsonl", "curve.jsonl", "events.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"stage": "gan", "step": 8, "lo')  # killed while writing
    workdir.rewind("gan", 4)
    kept = {"vae": [2, 4, 6], "gan": [2, 4]}
    steps = [(stage, step) for stage in kept for step in kept[stage]]
    assert [(line["stage"], line["step"]) for line in workdir.metrics()] == steps
    assert workdir.curve() == [
        {"stage": stage, "step": step, "fd_x": 0.1 + 0.2} for stage, step in steps
    ]
    for stage in kept:
        names = sorted(path.name for path in (tmp_path / "images" / stage).iterdir())
        assert names == [f"samples_{step:06d}.png" for step in kept[stage]]
    workdir.write_metrics("gan", 6, {"loss": 2.0})
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {"stage": "gan", "step": 6, "loss": 2.0}
    workdir.write_event("gan: continued")
    events = ["vae: began", "gan: began", "gan: continued"]
    assert [line["event"] for line in workdir.events()] == events
    assert all(line["time"].endswith("+00:00") for line in workdir.events())


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_round_trip(workdir, tmp_path, channels):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    workdir.rewind("gan", 0)
    workdir.write_picture("gan", "samples", 12, picture)
    workdir.close()
    path = tmp_path / "images/gan/samples_000012.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)).reshape(picture.shape), picture)
    (event_file,) = (tmp_path / "tensorboard" / "gan").iterdir()
    (event,) = [each for each in tensorboard_events(event_file) if each.summary.value]
    (value,) = event.summary.value
    assert (event.step, value.tag) == (12, "samples")
    shown = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
    np.testing.assert_array_equal(shown, np.broadcast_to(picture, shown.shape))  # always RGB


def tensorboard_events(path):
    """Yields the events of a file of TensorBoard's: each has its length before, and checksums."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_environment_changes_are_recorded(workdir, config):
    assert workdir.read_json("run.json") is None
    began = {"jax": "1", "cores": 2, "settings": {"a": 1, "b": None}, "git": None}
    later = began | {"settings": {"a": 1, "b": "c"}, "git": {"commit": "e", "dirty": True}}
    last = began | {"jax": "2", "settings": {"a": 1}, "git": {"commit": "e", "dirty": False}}
    for seed, facts in enumerate((began, began, later, later, last, last, began)):
        workdir.record_environment(facts, {"seed": seed})
    assert workdir.read_json("run.json") == began | {
        "seed": 0,
        "resumed_with": [
            {"settings": {"a": 1, "b": "c"}, "git": {"commit": "e", "dirty": True}},
            {"jax": "2", "settings": {"a": 1}, "git": {"commit": "e", "dirty": False}},
            {"jax": "1", "settings": {"a": 1, "b": None}, "git": None},
        ],
    }
    events = [line["event"] for line in workdir.events()]
    changed = ("settings, git", "jax, settings, git", "jax, settings, git")
    assert events == [f"resumed in another environment: {names}" for names in changed]
    assert workdir.config() == configuration.flatten(config)


SOURCES = {"gan.penalties": {"helper": "a", "mine": "b"}, "evaluation.embeddings": {"mine": "b"}}


def test_changed_source_of_trained_function_is_refused(tmp_path, config):
    config.gan.penalties = "mine:penalty"
    require_same_sources(tmp_path / "new", config, SOURCES)
    (tmp_path / "run.json").write_text(json.dumps({"sources": SOURCES}))
    for same in (SOURCES, {}, SOURCES | {"evaluation.embeddings": {"mine": "c"}}):
        require_same_sources(tmp_path, config, same)
    for changed in ({"helper": "c", "mine": "b"}, {"mine": "b"}):
        with pytest.raises(UserError) as caught:
            require_same_sources(tmp_path, config, {"gan.penalties": changed})
        for part in ("gan.penalties=mine:penalty", "(helper)", str(tmp_path), "--workdir"):
            assert part in str(caught.value)


def test_evaluation_replaces_previous_one(workdir, tmp_path):
    black, white = (np.full((2, 3, 3), grey, np.uint8) for grey in (0, 255))
    assert workdir.evaluation() is None
    workdir.write_evaluation({"numbers": [0.1 + 0.2]}, {"a": black, "b": black})
    workdir.write_evaluation({"numbers": [5e-324, None]}, {"a": white})
    assert workdir.read_json("evaluation/numbers.json") == {"numbers": [5e-324, None]}
    names = sorted(path.name for path in (tmp_path / "evaluation").iterdir())
    assert names == ["a.png", "numbers.json"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "evaluation/a.png")), white)
    # Numbers that JSON has no word for are a fault of the caller, not a file others choke on.
    with pytest.raises(ValueError, match="JSON"):
        workdir.write_evaluation({"numbers": [float("nan")]}, {})
    (tmp_path / "evaluation/numbers.json").write_text("{")
    with pytest.raises(UserError, match=r"numbers\.json cannot be read"):
        workdir.evaluation()


def test_troubles_are_recorded_once(workdir):
    trouble = monitor.Trouble("blur", {"sharpness": 0.1}, "It blurs.", "patience")
    for stage in ("vae", "gan"):
        workdir.rewind(stage, 0)
    workdir.write_metrics("vae", 4, {"loss": 1.0})
    assert workdir.write_trouble("vae", 4, trouble)
    assert not workdir.write_trouble("vae", 8, trouble)
    assert workdir.write_trouble("gan", 8, trouble)
    seen = [(line["stage"], line["trouble"], line["step"]) for line in workdir.troubles()]
    assert seen == [("vae", "blur", 4), ("gan", "blur", 8)]
    assert workdir.troubles()[0]["sharpness"] == 0.1
    assert [line["step"] for line in workdir.metrics()] == [4]
    assert workdir.metrics("gan") == []
    workdir.rewind("vae", 3)  # what follows a restored checkpoint is seen again
    assert [line["stage"] for line in workdir.troubles()] == ["gan"]
    assert workdir.write_trouble("vae", 4, trouble)


def test_read_lines_skips_incomplete_lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert reader.read_lines(path) == []
    path.write_bytes(b'{"a": 1}\n{"b": \xff}\n3\n{"c": 2}\n{"d": ')
    assert reader.read_lines(path) == [{"a": 1}, {"c": 2}]


def test_pictures_by_step(tmp_path):
    folder = tmp_path / "images" / "vae"
    folder.mkdir(parents=True)
    for name in ("samples_000010", "samples_1234567", "my_samples_000020", "samples_x", "samples"):
        (folder / f"{name}.png").touch()
    expected = {10: folder / "samples_000010.png", 1234567: folder / "samples_1234567.png"}
    assert pictures_by_step(tmp_path, "vae", "samples") == expected
    assert pictures_by_step(tmp_path, "gan", "samples") == {}
