import io
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from vaegan_jax import config as configuration
from vaegan_jax import migrations
from vaegan_jax.errors import UserError
from vaegan_jax.training import monitor
from vaegan_jax.workdir import (
    open_workdir,
    pictures_by_step,
    read_lines,
    require_run,
    require_same_sources,
    require_usable,
)


@pytest.fixture
def config():
    return configuration.default_config()


def test_config_is_written_once(tmp_path, config):
    path = tmp_path / "new" / "run"
    with open_workdir(path, config):
        assert json.loads((path / "config.json").read_text()) == configuration.flatten(config)
    before = (path / "config.json").stat().st_mtime_ns
    with open_workdir(path, config):
        pass
    assert (path / "config.json").stat().st_mtime_ns == before


def test_different_config_is_refused_before_writing(tmp_path, config):
    with open_workdir(tmp_path, config):
        pass
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    config.gan.steps, config.seed, config.vae.b1 = 5000, 3, 0.5
    with pytest.raises(UserError) as caught, open_workdir(tmp_path, config):
        pass
    _, *rows = str(caught.value).splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["field", "was", "is"], ["seed", "0", "3"], ["vae.b1", "0.9", "0.5"],
    ]  # fmt: skip
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_changed_future_fields_are_recorded_as_events(tmp_path, config):
    with open_workdir(tmp_path, config):
        pass
    config.gan.steps, config.training.log_every = 5000, 7
    with open_workdir(tmp_path, config) as workdir:
        assert workdir.config()["gan.steps"] == 5000
        events = [line["event"] for line in workdir.events()]
    assert events == ["config: gan.steps 20000 -> 5000", "config: training.log_every 100 -> 7"]
    (tmp_path / "checkpoints" / "gan" / "600").mkdir(parents=True)
    (tmp_path / "checkpoints" / "gan" / "600" / "checksums.json").write_text("{}")
    config.gan.steps = 599
    with pytest.raises(UserError, match="600"):
        require_usable(tmp_path, config)


DATA = {"digest": "d" * 64, "train": 811, "validation": 63, "test": 126}


@pytest.mark.parametrize(
    ("recorded", "trains", "pattern"),
    [
        (DATA, True, None),
        (DATA | {"digest": "e" * 64}, False, "have changed"),
        ({"digest": "d" * 64, "train": 874, "held_out": 126}, True, "874 .*811 .*version"),
        ({"digest": "d" * 64, "train": 874, "held_out": 126}, False, None),
        ({"digest": "d" * 64, "train": 811, "held_out": 126}, True, None),
    ],
)
def test_run_on_other_images_is_refused(tmp_path, config, recorded, trains, pattern):
    with open_workdir(tmp_path, config) as workdir:
        workdir.require_data(recorded, True)
        written = (tmp_path / "data.json").read_bytes()
        assert json.loads(written) == recorded
        if pattern is None:
            workdir.require_data(DATA, trains)
        else:
            with pytest.raises(UserError, match=pattern) as caught:
                workdir.require_data(DATA, trains)
            assert "\n" not in str(caught.value)
    assert (tmp_path / "data.json").read_bytes() == written


def test_run_with_removed_field_is_refused(tmp_path, config):
    names = list(migrations.REMOVED)[:2]
    old = configuration.flatten(config) | dict.fromkeys(names, 1)
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(UserError) as caught, open_workdir(tmp_path, config):
        pass
    assert all(name in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_folder_without_run_is_refused(tmp_path, config):
    (tmp_path / "holiday.jpg").write_bytes(b"...")
    with pytest.raises(UserError, match="holds no run"), open_workdir(tmp_path, config):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_unreadable_config_is_named(tmp_path, config):
    (tmp_path / "config.json").write_text('{"seed": ')
    with (
        pytest.raises(UserError, match=r"config\.json cannot be read"),
        open_workdir(tmp_path, config),
    ):
        pass


def test_unwritable_workdir_is_named(tmp_path, config):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", tmp_path / "file", pathlib.Path("/proc/run")):
        with (
            pytest.raises(UserError, match=f"{path} cannot be written"),
            open_workdir(path, config),
        ):
            pass


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
        pytest.raises(UserError, match=rf"in use by process {owner.pid} on \S"),
        open_workdir(tmp_path, config),
    ):
        pass
    owner.kill()
    owner.communicate()
    with open_workdir(tmp_path, config):
        pass


def test_metrics_are_read_back_exactly(tmp_path, config):
    values = {
        "a": 0.1 + 0.2,
        "b": float(np.float32(1 / 3)),
        "c": 5e-324,
        "d": -1.7976931348623157e308,
    }
    with open_workdir(tmp_path, config) as workdir:
        workdir.rewind("vae", 0)
        workdir.write_metrics("vae", 3, values)
        assert workdir.metrics() == [{"stage": "vae", "step": 3} | values]


def test_rewind_removes_later_records_of_one_stage(tmp_path, config):
    picture = np.zeros((2, 3, 3), np.uint8)
    with open_workdir(tmp_path, config) as workdir:
        for stage in ("vae", "gan"):
            workdir.rewind(stage, 0)
            for step in (2, 4, 6):
                workdir.write_metrics(stage, step, {"loss": 1.0})
                workdir.write_picture(stage, "samples", step, picture)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"stage": "gan", "step": 8, "lo')  # killed while writing
        workdir.rewind("gan", 4)
        kept = [(line["stage"], line["step"]) for line in workdir.metrics()]
        workdir.write_metrics("gan", 6, {"loss": 2.0})
        text = (tmp_path / "metrics.jsonl").read_text()
    assert kept == [("vae", 2), ("vae", 4), ("vae", 6), ("gan", 2), ("gan", 4)]
    assert json.loads(text.splitlines()[-1]) == {"stage": "gan", "step": 6, "loss": 2.0}
    names = {
        stage: sorted(p.name for p in (tmp_path / "images" / stage).iterdir())
        for stage in ("vae", "gan")
    }
    assert names == {
        "vae": [f"samples_{step:06d}.png" for step in (2, 4, 6)],
        "gan": [f"samples_{step:06d}.png" for step in (2, 4)],
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_round_trip(tmp_path, config, channels):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    with open_workdir(tmp_path, config) as workdir:
        workdir.rewind("gan", 0)
        path = workdir.write_picture("gan", "samples", 12, picture)
    assert path == tmp_path / "images/gan/samples_000012.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)).reshape(picture.shape), picture)
    (event_file,) = (tmp_path / "tensorboard" / "gan").iterdir()
    (event,) = [each for each in tensorboard_events(event_file) if each.summary.value]
    (value,) = event.summary.value
    assert (event.step, value.tag) == (12, "samples")
    assert (value.image.height, value.image.width, value.image.colorspace) == picture.shape
    shown = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
    np.testing.assert_array_equal(shown.reshape(picture.shape), picture)


def tensorboard_events(path):
    """Yields the events of a file of TensorBoard's: each has its length before, and checksums."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_rewind_cuts_curve_and_keeps_events(tmp_path, config):
    with open_workdir(tmp_path, config) as workdir:
        assert (workdir.curve(), workdir.events()) == ([], [])
        for stage in ("vae", "gan"):
            workdir.rewind(stage, 0)
            for step in (2, 4):
                workdir.write_curve(stage, step, {"fd_x": 0.1 + 0.2})
            workdir.write_event(f"{stage}: began")
        with (tmp_path / "events.jsonl").open("a") as file:
            file.write('{"time": "20')  # killed while writing
        workdir.rewind("vae", 3)
        workdir.write_event("vae: went on")
        assert workdir.curve() == [
            {"stage": stage, "step": step, "fd_x": 0.1 + 0.2}
            for stage, step in (("vae", 2), ("gan", 2), ("gan", 4))
        ]
        events = [line["event"] for line in workdir.events()]
        assert events == ["vae: began", "gan: began", "vae: went on"]
        assert all(line["time"].endswith("+00:00") for line in workdir.events())


def test_environment_changes_are_recorded(tmp_path, config):
    with open_workdir(tmp_path, config) as workdir:
        assert workdir.read_json("run.json") is None
        for version in ("1", "1", "2", "2", "1"):
            workdir.record_environment({"jax": version, "cores": 2}, {"seed": version})
        changed = [{"jax": "2"}, {"jax": "1"}]
        assert workdir.read_json("run.json") == {
            "seed": "1", "jax": "1", "cores": 2, "resumed_with": changed,
        }  # fmt: skip

        events = [line["event"] for line in workdir.events()]
        assert events == ["resumed in another environment: jax"] * 2
        assert workdir.config() == configuration.flatten(config)


def test_nested_environment_changes_are_recorded(tmp_path, config):
    began = {"settings": {"a": 1, "b": None}, "git": None}
    later = {"settings": {"a": 1, "b": "c"}, "git": {"commit": "e", "dirty": True}}
    last = {"settings": {"a": 1}, "git": {"commit": "e", "dirty": False}}
    with open_workdir(tmp_path, config) as workdir:
        for facts in (began, later, later, last, last):
            workdir.record_environment(facts, {})
        assert workdir.read_json("run.json") == began | {
            "resumed_with": [
                {"settings": {"b": "c"}, "git": {"commit": "e", "dirty": True}},
                {"settings": {"b": None}, "git": {"dirty": False}},
            ]
        }


SOURCES = {"gan.penalty": {"helper": "a", "mine": "b"}, "evaluation.embeddings": {"mine": "b"}}


@pytest.mark.parametrize(
    "noted",
    [
        {"sources": SOURCES},
        {"resumed_with": [{"jax": "2"}, {"sources": SOURCES}, {"sources": {}}]},
    ],
)
def test_changed_source_of_trained_function_is_refused(tmp_path, config, noted):
    config.gan.penalty = "mine:penalty"
    (tmp_path / "run.json").write_text(json.dumps(noted))
    for same in (SOURCES, {}, SOURCES | {"evaluation.embeddings": {"mine": "c"}}):
        require_same_sources(tmp_path, config, same)
    for changed in ({"helper": "c", "mine": "b"}, {"mine": "b"}):
        with pytest.raises(UserError) as caught:
            require_same_sources(tmp_path, config, {"gan.penalty": changed})
        for part in ("gan.penalty=mine:penalty", "(helper)", str(tmp_path), "--workdir"):
            assert part in str(caught.value)


def test_run_without_recorded_sources_is_accepted(tmp_path, config):
    require_same_sources(tmp_path / "new", config, SOURCES)
    (tmp_path / "run.json").write_text('{"jax": "1"}')
    require_same_sources(tmp_path, config, SOURCES)


def test_evaluation_replaces_previous_one(tmp_path, config):
    black, white = (np.full((2, 3, 3), grey, np.uint8) for grey in (0, 255))
    with open_workdir(tmp_path, config) as workdir:
        assert workdir.evaluation() is None
        workdir.write_evaluation({"numbers": [0.1 + 0.2]}, {"a": black, "b": black})
        workdir.write_evaluation({"numbers": [5e-324, None]}, {"a": white})
        assert workdir.evaluation() == {"numbers": [5e-324, None]}
        names = sorted(path.name for path in (tmp_path / "evaluation").iterdir())
        assert names == ["a.png", "numbers.json"]
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "evaluation/a.png")), white)
        # Numbers that JSON has no word for are a fault of the caller, not a file others choke on.
        with pytest.raises(ValueError, match="JSON"):
            workdir.write_evaluation({"numbers": [float("nan")]}, {})
        (tmp_path / "evaluation/numbers.json").write_text("{")
        with pytest.raises(UserError, match=r"numbers\.json cannot be read"):
            workdir.evaluation()


def test_require_run(tmp_path, config):
    with pytest.raises(UserError, match="There is no run in"):
        require_run(tmp_path / "none")
    with open_workdir(tmp_path / "run", config):
        pass
    require_run(tmp_path / "run")


def test_troubles_are_recorded_once(tmp_path, config):
    trouble = monitor.Trouble("blur", {"sharpness": 0.1}, "It blurs.", "patience")
    with open_workdir(tmp_path, config) as workdir:
        for stage in ("vae", "gan"):
            workdir.rewind(stage, 0)
        workdir.write_metrics("vae", 4, {"loss": 1.0})
        assert workdir.write_trouble("vae", 4, trouble)
        assert not workdir.write_trouble("vae", 8, trouble)
        assert workdir.write_trouble("gan", 8, trouble)
        for step, new in ((7, True), (7, False), (9, True)):
            assert workdir.write_trouble("vae", step, monitor.not_finite("kl", step, "vae")) == new
        seen = [(line["stage"], line["trouble"], line["step"]) for line in workdir.troubles()]
        assert seen == [
            ("vae", "blur", 4), ("gan", "blur", 8),
            ("vae", "not_finite", 7), ("vae", "not_finite", 9),
        ]  # fmt: skip
        assert workdir.troubles()[0]["sharpness"] == 0.1
        assert [line["step"] for line in workdir.metrics()] == [4]
        assert workdir.metrics("gan") == []
        # What follows a restored checkpoint is seen again; what was not finite stays on record.
        workdir.rewind("vae", 3)
        seen = [(line["stage"], line["trouble"], line["step"]) for line in workdir.troubles()]
        assert seen == [("gan", "blur", 8), ("vae", "not_finite", 7), ("vae", "not_finite", 9)]
        assert workdir.write_trouble("vae", 4, trouble)


def test_read_lines_skips_incomplete_lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert read_lines(path) == []
    path.write_bytes(b'{"a": 1}\n{"b": \xff}\n3\n{"c": 2}\n{"d": ')
    assert read_lines(path) == [{"a": 1}, {"c": 2}]
    with pytest.raises(UserError, match="line 2"):
        read_lines(path, notes=[])
    path.write_bytes(b'{"a": 1}\n{"d": ')
    notes = []
    assert read_lines(path, notes) == [{"a": 1}]
    assert len(notes) == 1


def test_pictures_by_step(tmp_path):
    folder = tmp_path / "images" / "vae"
    folder.mkdir(parents=True)
    for name in ("samples_000010", "samples_1234567", "my_samples_000020", "samples_x", "samples"):
        (folder / f"{name}.png").touch()
    expected = {10: folder / "samples_000010.png", 1234567: folder / "samples_1234567.png"}
    assert pictures_by_step(tmp_path, "vae", "samples") == expected
    assert pictures_by_step(tmp_path, "gan", "samples") == {}
