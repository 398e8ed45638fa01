"""The commands that use a model, on a run with random networks."""

import csv
import fcntl
import io
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import made_runs
from tests.experiments.compare import made
from vaegan_jax import randomness, registry, trained
from vaegan_jax.cli import common, main, program


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    made_runs.write(path, made_runs.tiny())
    return path


@pytest.fixture
def vaegan(run, tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            code = main.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture
def files(tmp_path):
    """Three image files in the folder images."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{index}.png" for index in range(3)]
    for path, pixels in zip(paths, random_images(3), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def random_images(count):
    return np.random.default_rng(2).integers(0, 256, (count, 16, 32, 3), np.uint8)


def read(path):
    return np.asarray(Image.open(path))


def cell(picture, row, column):
    return picture[row * 18 : row * 18 + 16, column * 34 : column * 34 + 32]


def test_sample_decodes_the_latents_of_the_seed(vaegan, run):
    assert vaegan("sample", run, "--count", 10, "--truncation", "0.5")[0] == 0
    z = 0.5 * randomness.picture_latents(made_runs.tiny().seed, (10, 5), "normal")
    images = np.round((trained.load(run).decode(z) + 1) * 127.5)
    np.testing.assert_array_equal(cell(read("sample.png"), 1, 1), images[9])
    assert (cell(read("sample.png"), 1, 2) == 255).all()


def test_sample_depends_on_seed_and_model_not_on_count(vaegan, run):
    for name, arguments in {
        "a": ("--count", 3, "--seed", 4),
        "b": ("--count", 9, "--seed", 4),
        "c": ("--count", 3, "--seed", 5),
        "d": ("--count", 3, "--seed", 4, "--model", "vae"),
    }.items():
        assert vaegan("sample", run, "--files", "--out", name, *arguments)[0] == 0
    a, b, c, d = (read(f"{name}/sample_00002.png") for name in "abcd")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert (a != d).any()


@pytest.fixture
def white(monkeypatch):
    """Makes every model decode white images; returns the number of latents of each call."""
    calls = []

    def decode(model, latents):
        calls.append(len(latents))
        return np.ones((len(latents), *model.image_shape), np.float32)

    monkeypatch.setattr(trained.Trained, "decode", decode)
    return calls


def test_sample_writes_files_block_by_block(vaegan, run, white, monkeypatch):
    monkeypatch.setattr(common, "BLOCK", 8)
    assert vaegan("sample", run, "--count", 101, "--files")[0] == 0
    assert sum(white) == len(list(pathlib.Path("sample").glob("*.png"))) == 101
    assert max(white) == 8


def test_the_largest_grid_is_accepted(vaegan, run, white, monkeypatch):
    for limit, code in ((4 * 16 * 32, 0), (4 * 16 * 32 - 1, program.EXIT_ERROR)):
        monkeypatch.setattr(common, "MAX_PIXELS", limit)
        assert vaegan("sample", run, "--count", 4, "--force")[0] == code


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_interpolation_with_loop_passes_every_stop(vaegan, run, suffix):
    assert vaegan("sample", run, "--count", 3, "--seed", 1)[0] == 0
    stops = read("sample.png")
    name = f"walk.{suffix}"
    arguments = ("--stops", 3, "--frames", 4, "--loop", "--seed", 1, "--out", name)
    assert vaegan("interpolate", run, *arguments)[0] == 0
    with Image.open(name) as moving:
        assert moving.n_frames == 1 + 3 * 3
        for stop, frame in enumerate((0, 3, 6, 9)):
            moving.seek(frame)
            shown = np.asarray(moving.convert("RGB")).astype(int)
            errors = [np.abs(shown - cell(stops, 0, which)).mean() for which in range(3)]
            assert np.argmin(errors) == stop % 3
            assert suffix == "gif" or min(errors) == 0  # GIF has 256 colours


def test_interpolation_as_strip(vaegan, run):
    assert vaegan("sample", run, "--count", 3)[0] == 0
    assert vaegan("interpolate", run, "--stops", 3, "--frames", 4)[0] == 0
    stops, strip = read("sample.png"), read("interpolate.png")
    assert strip.shape == (2 * 18 - 2, 4 * 34 - 2, 3)
    np.testing.assert_array_equal(cell(strip, 0, 3), cell(stops, 0, 1))
    np.testing.assert_array_equal(cell(strip, 1, 0), cell(stops, 0, 1))


def test_reconstruct_shows_images_above_both_models_at_the_same_latents(vaegan, run, files):
    assert vaegan("reconstruct", run, *files)[0] == 0
    shown = read("reconstruct.png")
    np.testing.assert_array_equal(cell(shown, 0, 1), read(files[1]))
    vae, gan = trained.load(run, "vae"), trained.load(run, "gan")
    mean, _ = vae.encode(read(files[1])[None] / 127.5 - 1)
    for row, images in enumerate((vae.decode(mean), gan.decode(gan.to_generator_latents(mean)))):
        assert np.abs(cell(shown, 1 + row, 1) - (images[0] + 1) * 127.5).max() < 0.51
    assert vaegan("reconstruct", run, *files, "--model", "gan", "--force")[0] == 0
    np.testing.assert_array_equal(cell(read("reconstruct.png"), 1, 1), cell(shown, 2, 1))


def test_interpolation_between_images_begins_and_ends_with_their_reconstructions(
    vaegan, run, files
):
    arguments = ("--images", files[0], files[2], "--model", "vae", "--frames", 3)
    assert vaegan("interpolate", run, *arguments)[0] == 0
    strip = read("interpolate.png")
    assert strip.shape == (16, 3 * 34 - 2, 3)
    model = trained.load(run, "vae")
    for column, file in ((0, files[0]), (2, files[2])):
        back = (model.decode(model.encode(read(file)[None] / 127.5 - 1)[0])[0] + 1) * 127.5
        assert np.abs(cell(strip, 0, column) - back).max() < 0.51


def test_export_writes_loadable_files_and_a_card(vaegan, run, tmp_path):
    formats = ("safetensors", "stablehlo")
    assert vaegan("export", run, "--format", *formats, "--out", "m/face")[0] == 0
    card = json.loads((tmp_path / "m/face.json").read_text())
    assert set(card["verified"]) == {"safetensors", "stablehlo"}
    assert vaegan("sample", "m/face.safetensors", "--count", 2)[0] == 0
    assert vaegan("export", "m/face.safetensors", "--out", "again")[0] == 0
    again = (tmp_path / "again.safetensors").read_bytes()
    assert len(again) == len((tmp_path / "m/face.safetensors").read_bytes())


BAD = {
    "no run": ("sample nowhere", "nowhere"),
    "RUN missing": ("sample", "RUN"),
    "unknown flag": ("sample RUN --pretrained", "--pretrained"),
    "no such step": ("sample RUN --step 9", "2, 5"),
    "unknown model": ("sample RUN --model flow", "--model"),
    "unknown command": ("paint RUN", "paint"),
    "no command": ("", "COMMAND"),
    "count": ("sample RUN --count 0", "--count"),
    "seed": ("sample RUN --seed 4294967296", "--seed"),
    "truncation": ("sample RUN --truncation 1.5", "--truncation"),
    "suffix": ("sample RUN --out a.txt", "a.txt"),
    "existing result": ("sample RUN --out existing.png", "--force"),
    "existing folder": ("sample RUN --files --out full", "full"),
    "one stop": ("interpolate RUN --stops 1", "--stops"),
    "step of which model": ("reconstruct RUN images/0.png --step 1", "--model"),
    "image missing": ("reconstruct RUN no.png", "no.png"),
    "image broken": ("reconstruct RUN text.csv", "text.csv"),
    "folder": ("reconstruct RUN images", "images"),
    "one image": ("interpolate RUN --images images/0.png", "two images"),
    "images and stops": ("interpolate RUN --images images/0.png --stops 2", "--stops"),
    "no export": ("sample text.csv", "text.csv"),
    "grid": ("sample RUN --count 200000", "80,000,000"),
    "number of files": ("sample RUN --count 1000001 --files", "1000001"),
    "removed option": ("sample RUN --scale 2", "--scale"),
    "strip": ("interpolate RUN --stops 300 --frames 1000", "80,000,000"),
    "animation": ("interpolate RUN --stops 300 --frames 1000 --out a.gif", "80,000,000"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_command_lines_are_refused_in_one_line(vaegan, run, files, tmp_path, white, name):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "existing.png").touch()
    (tmp_path / "text.csv").write_text("a, b\n")
    before = sorted(tmp_path.rglob("*"))
    words, named = BAD[name]
    code, _, error = vaegan(*(run if word == "RUN" else word for word in words.split()))
    assert code in (program.EXIT_ERROR, program.EXIT_USAGE)
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert named in error
    assert not white
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_without_encoder_can_sample_but_not_encode(vaegan, files, tmp_path):
    made_runs.write(tmp_path / "scratch", made_runs.tiny(), vae_steps=(), scratch=True)
    for command, *arguments in (("sample", "--count", 2), ("export", "--out", "it")):
        assert vaegan(command, "scratch", *arguments)[0] == 0
    code, _, error = vaegan("interpolate", "scratch", "--images", *files)
    assert code == 1
    assert "encoder" in error


def test_a_locked_run_can_be_sampled(vaegan, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "locked")
    with (copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert vaegan("sample", copy, "--count", 1)[0] == 0


def test_losses_are_listed_with_options(vaegan):
    code, output, _ = vaegan("losses")
    assert code == 0
    assert {"  r1(weight=1, every=1)", "  mmd(deviation=None, weight=1)", "  hinge()"} <= {
        *output.splitlines()
    }
    for field, kind in registry.USER_FIELDS.items():
        assert (field in output.splitlines()) == (kind in registry.INPUTS)


def test_metrics_are_one_flat_table(vaegan, tmp_path):
    paths = [made.run(tmp_path / name) for name in ("first", "second")]
    line = {"stage": "gan", "step": 9, "loss": 0.1, "r1": float("nan")}
    made.write_lines(paths[1] / "metrics.jsonl", [*made.metrics(), line])
    code, out, _ = vaegan("metrics", *paths, "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["run", "stage", "step", "name", "value"]
    assert {row["run"] for row in rows} == set(map(str, paths))
    added = [row for row in rows if row["step"] == "9"]
    assert [(row["name"], row["value"]) for row in added] == [("loss", "0.1"), ("r1", "nan")]
    of_first = [row for row in rows if row["run"] == str(paths[0])]
    losses = [line["loss"] for line in made.metrics() if "loss" in line]
    assert [float(row["value"]) for row in of_first if row["name"] == "loss"] == losses
    numbers = [row["value"] for row in of_first if row["stage"] == "evaluation"]
    assert numbers == ["21.0", "20.0", "0.5", "nan", "4.0"]
    code, out, error = vaegan("metrics", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert "nowhere" in error
