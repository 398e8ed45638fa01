"""The subcommands, but for those that train and judge, on a run that nobody trained."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import made_runs
from vaegan_jax import trained
from vaegan_jax.cli import common, compress, main, show


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
        code = main.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def pictures(folder, count=3):
    folder.mkdir()
    rng = np.random.default_rng(2)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 32, 3), np.uint8)).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def read(path):
    return np.asarray(Image.open(path))


def cell(picture, row, column):
    return picture[row * 18 : row * 18 + 16, column * 34 : column * 34 + 32]


def test_every_subcommand_explains_itself(capsys):
    with pytest.raises(SystemExit):
        main.main(["--help"])
    listed = capsys.readouterr().out
    for name in ("sample", "interpolate", "traverse", "reconstruct", "morph", "encode", "decode",
                 "export", "evaluate", "report"):  # fmt: skip
        assert name in listed
        with pytest.raises(SystemExit) as stop:
            main.main([name, "--help"])
        assert stop.value.code == 0
        assert f"usage: vaegan {name}" in capsys.readouterr().out


def test_sample_decodes_what_it_saves(vaegan, run):
    code, out, _ = vaegan("sample", run, "--count", 5, "--columns", 3, "--save-latents", "z.csv")
    assert code == 0
    assert "result: sample.png" in out
    z = np.loadtxt("z.csv", delimiter=",")
    assert z.shape == (5, 5)
    images = np.round((trained.load(run).decode(z) + 1) * 127.5)
    np.testing.assert_array_equal(cell(read("sample.png"), 1, 1), images[4])
    assert (cell(read("sample.png"), 1, 2) == 255).all()


def test_sample_is_keyed_by_its_seed_and_not_by_the_count(vaegan, run):
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
    """Has every model decode white images at once; returns how many latents each call had."""
    calls = []

    def decode(model, latents):
        calls.append(len(latents))
        return np.ones((len(latents), *model.image_shape), np.float32)

    monkeypatch.setattr(trained.Trained, "decode", decode)
    return calls


def test_sample_draws_as_many_as_asked_a_block_at_a_time(vaegan, run, white):
    assert vaegan("sample", run, "--count", 10_001, "--columns", 100)[0] == 0
    assert sum(white) == 10_001
    assert read("sample.png").shape == (101 * 18 - 2, 100 * 34 - 2, 3)
    white.clear()
    assert vaegan("sample", run, "--count", 10_001, "--files", "--save-latents", "z.npy")[0] == 0
    assert sum(white) == 10_001
    assert max(white) < 1_000  # so that not all of the images are held at once
    assert len(list(pathlib.Path("sample").glob("*.png"))) == 10_001
    assert np.load("z.npy").shape == (10_001, 5)


def test_interpolate_passes_as_many_stops_as_asked(vaegan, run, white):
    assert vaegan("interpolate", run, "--stops", 10_001, "--frames", 2)[0] == 0
    assert sum(white) == 2 * 10_000
    assert read("interpolate.png").shape == (10_000 * 18 - 2, 2 * 34 - 2, 3)


LARGE = {
    "a grid": ("sample RUN --count 200000", "--files"),
    "enlarged pixels": ("sample RUN --count 2 --scale 1000", "--scale"),
    "an enlarged file": ("sample RUN --count 2 --files --scale 1000", "--scale"),
    "latents": ("sample RUN --count 2000000000 --files", "2000000000"),
    "a strip": ("interpolate RUN --stops 300 --frames 1000", "80,000,000"),
    "an animation": ("interpolate RUN --stops 300 --frames 1000 --out a.gif", "80,000,000"),
    "a wide WebP": ("sample RUN --count 500 --columns 500 --out a.webp", "16383"),
    "a wide JPEG": ("sample RUN --count 2000 --columns 2000 --out a.jpg", "65500"),
    "dimensions": ("traverse RUN --count 6", "--count"),
    "a traversal": ("traverse RUN --columns 100000", "80,000,000"),
    "a morph": ("morph RUN own/0.png own/1.png --frames 200000 --out a.webp", "80,000,000"),
    "pairs": ("reconstruct RUN own --scale 500", "--scale"),
    "durations": ("interpolate RUN --milliseconds 15 --out a.gif", "--milliseconds"),
    "long durations": ("interpolate RUN --milliseconds 655360 --out a.gif", "--milliseconds"),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_too_much_is_refused_before_anything_is_decoded(vaegan, run, tmp_path, white, name):
    pictures(tmp_path / "own")
    before = sorted(tmp_path.rglob("*"))
    words, named = LARGE[name]
    code, _, error = vaegan(*(run if word == "RUN" else word for word in words.split()))
    assert code in (main.EXIT_ERROR, main.EXIT_USAGE)
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert named in error
    assert not white or name == "an enlarged file"  # whose first block tells its size
    assert sorted(tmp_path.rglob("*")) == before


def test_the_largest_grid_is_written(vaegan, run, white, monkeypatch):
    monkeypatch.setattr(common, "MAX_PIXELS", 34 * 66)
    assert vaegan("sample", run, "--count", 4, "--columns", 2)[0] == 0
    monkeypatch.setattr(common, "MAX_PIXELS", 34 * 66 - 1)
    assert vaegan("sample", run, "--count", 4, "--columns", 2, "--force")[0] == main.EXIT_ERROR


def test_a_file_of_too_many_latents_is_refused(vaegan, run, white, monkeypatch):
    np.save("z.npy", np.zeros((3, 5)))
    monkeypatch.setattr(common, "MAX_LATENT_NUMBERS", 15)
    assert vaegan("sample", run, "--latents", "z.npy")[0] == 0
    monkeypatch.setattr(common, "MAX_LATENT_NUMBERS", 14)
    assert vaegan("sample", run, "--latents", "z.npy", "--force")[0] == main.EXIT_ERROR


def test_a_comparison_that_is_left_out_is_named(vaegan, run, tmp_path, monkeypatch):
    pictures(tmp_path / "own")
    monkeypatch.setattr(compress, "_MAX_COMPARED", 2)
    code, out, _ = vaegan("encode", run, "own")
    assert code == 0
    assert "PSNR" in out
    assert out.count("JPEG") == out.count("WebP") == 1


def test_latents_come_from_files_and_are_truncated(vaegan, run):
    z = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    np.save("z.npy", z)
    np.save("half.npy", z / 2)
    vaegan("sample", run, "--latents", "z.npy", "--truncation", "0.5", "--out", "a.png")
    vaegan("sample", run, "--latents", "half.npy", "--out", "b.png")
    np.testing.assert_array_equal(read("a.png"), read("b.png"))


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_interpolate_passes_its_stops_and_returns(vaegan, run, suffix):
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
            assert suffix == "gif" or min(errors) == 0  # a GIF has 256 colours


def test_interpolate_as_a_strip(vaegan, run):
    assert vaegan("sample", run, "--count", 3)[0] == 0
    assert vaegan("interpolate", run, "--stops", 3, "--frames", 4)[0] == 0
    stops, strip = read("sample.png"), read("interpolate.png")
    assert strip.shape == (2 * 18 - 2, 4 * 34 - 2, 3)
    np.testing.assert_array_equal(cell(strip, 0, 3), cell(stops, 0, 1))
    np.testing.assert_array_equal(cell(strip, 1, 0), cell(stops, 0, 1))


def test_traverse_by_units_moves_the_most_active_of_the_encoders_latents(vaegan, run):
    code, out, _ = vaegan("traverse", run, "--count", 2, "--columns", 3, "--reach", 2)
    assert code == 0
    assert "1, 3" in out  # of the variances 0.1, 0.9, 0, 0.4, 0.2
    model = trained.load(run)
    z = model.to_encoder_latents(np.zeros((1, 5)))
    z[0, 1] += 2 * np.sqrt(0.9)
    wanted = np.round((model.decode(model.to_generator_latents(z)) + 1) * 127.5)[0]
    np.testing.assert_array_equal(cell(read("traverse.png"), 0, 2), wanted)


def test_principal_directions_are_those_of_the_first_layers_output(run):
    model = trained.load(run)
    kernel = np.asarray(model.params["dense"]["kernel"], np.float64)
    values, vectors = np.linalg.eigh(kernel @ kernel.T)
    wanted = vectors[:, np.argsort(-values)].T
    found = show.principal_directions(model)
    np.testing.assert_allclose(np.abs(np.sum(found * wanted, axis=1)), 1, atol=1e-5)


def test_reconstruct_shows_originals_above_what_comes_back(vaegan, run, tmp_path):
    files = pictures(tmp_path / "own")
    (tmp_path / "own" / "notes.txt").write_text("no image")
    (tmp_path / "own" / "broken.png").write_bytes(b"\x89PNG")
    code, out, _ = vaegan("reconstruct", run, "own", "--columns", 3)
    assert code == 0
    assert "left out broken.png" in out
    shown = read("reconstruct.png")
    np.testing.assert_array_equal(cell(shown, 0, 1), read(files[1]))
    model = trained.load(run, "vae")
    mean, _ = model.encode(read(files[1])[None] / 127.5 - 1)
    back = (model.decode(mean)[0] + 1) * 127.5
    assert np.abs(cell(shown, 1, 1) - back).max() < 0.51
    assert "PSNR" in out


def test_morph_begins_and_ends_with_the_pictures(vaegan, run, tmp_path):
    files = pictures(tmp_path / "own")
    assert vaegan("morph", run, files[0], files[2], "--frames", 3)[0] == 0
    strip = read("morph.png")
    assert strip.shape == (16, 5 * 34 - 2, 3)
    np.testing.assert_array_equal(cell(strip, 0, 0), read(files[0]))
    np.testing.assert_array_equal(cell(strip, 0, 4), read(files[2]))
    assert vaegan("morph", run, *files[:2], "--out", "morph.webp")[0] == 0


def test_what_is_encoded_is_decoded_by_the_same_model_alone(vaegan, run, tmp_path):
    pictures(tmp_path / "own")
    code, out, _ = vaegan("encode", run, "own", "--out", "own.vgl")
    assert code == 0
    size = (tmp_path / "own.vgl").stat().st_size
    assert f"this model: {8 * size / (3 * 16 * 32):.4f} bits per pixel" in out
    assert out.count("JPEG") == out.count("WEBP") == 2
    assert vaegan("decode", run, "own.vgl", "--out", "back")[0] == 0
    assert len(list((tmp_path / "back").iterdir())) == 3
    code, _, error = vaegan("decode", run, "own.vgl", "--out", "other", "--model", "gan")
    assert code == 1
    assert "encoded by another model" in error
    code, _, error = vaegan("decode", run, "own.vgl", "--out", "other", "--step", 3)
    assert code == 1
    assert not (tmp_path / "other").exists()


def test_jpeg_gets_the_highest_quality_that_fits():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 16, 32, 3), np.uint8)
    size = len(compress._coded(images, "JPEG", 40)) + 1
    quality, coded = compress.best([images], "JPEG", size)
    assert len(coded[0][0]) <= size < len(compress._coded(images, "JPEG", quality + 1))
    assert coded[0][1].shape == images.shape
    plain = np.arange(0, 250, 50, np.uint8)[:, None, None, None] * np.ones((16, 32, 3), np.uint8)
    for name in ("JPEG", "WEBP"):
        _, coded = compress.best([plain], name, 10**6)
        assert np.abs(coded[0][1].astype(int) - plain).mean() < 2
    assert "even its quality 1 is larger" in compress.comparison(images, 30)[0]


def test_export_writes_files_that_load_and_a_card(vaegan, run, tmp_path):
    code, out, _ = vaegan("export", run, "--format", "safetensors", "stablehlo", "--out", "m/face")
    assert code == 0
    assert out.count("bit-identical") == 2
    card = json.loads((tmp_path / "m/face.json").read_text())
    assert set(card["verified"]) == {"safetensors", "stablehlo"}
    assert vaegan("sample", "m/face.safetensors", "--count", 2)[0] == 0
    assert vaegan("traverse", "m/face.safetensors", "--count", 2)[0] == 0
    # An export of an export says the same.
    assert vaegan("export", "m/face.safetensors", "--out", "again")[0] == 0
    again = (tmp_path / "again.safetensors").read_bytes()
    assert len(again) == len((tmp_path / "m/face.safetensors").read_bytes())


BAD = {
    "no run": (["sample", "nowhere"], "no run in nowhere"),
    "nothing named": (["sample"], "RUN"),
    "a removed flag": (["sample", "--pretrained"], "vaegan sample pretrained"),
    "no such step": (["sample", "RUN", "--step", "9"], "gan [2, 5]"),
    "unknown model": (["sample", "RUN", "--model", "flow"], "invalid choice"),
    "unknown command": (["paint", "RUN"], "invalid choice"),
    "no command": ([], "required"),
    "count of none": (["sample", "RUN", "--count", "0"], "at least 1"),
    "a seed too large": (["sample", "RUN", "--seed", "4294967296"], "from 0 to 2^32 - 1"),
    "truncation": (["sample", "RUN", "--truncation", "1.5"], "from 0 to 1"),
    "no picture": (["sample", "RUN", "--out", "a.txt"], "is no picture"),
    "result is there": (["sample", "RUN", "--out", "there.png"], "is there already"),
    "folder is there": (["sample", "RUN", "--files", "--out", "full"], "not empty"),
    "latents missing": (["sample", "RUN", "--latents", "no.npy"], "cannot be read"),
    "latents of another size": (["sample", "RUN", "--latents", "wide.npy"], "rows of 5"),
    "latents not finite": (["sample", "RUN", "--latents", "nan.npy"], "not finite"),
    "latents of text": (["sample", "RUN", "--latents", "text.csv"], "cannot be read"),
    "latents pickled": (["sample", "RUN", "--latents", "pickle.npy"], "cannot be read"),
    "latents and count": (["sample", "RUN", "--latents", "a.npy", "--count", "2"], "leave out"),
    "one stop": (["interpolate", "RUN", "--latents", "one.npy"], "needs two"),
    "image missing": (["reconstruct", "RUN", "no.png"], "cannot be read"),
    "image broken": (["reconstruct", "RUN", "text.csv"], "cannot be used"),
    "folder without images": (["encode", "RUN", "empty"], "no usable image"),
    "morph of a folder": (["morph", "RUN", "own", "own"], "two images"),
    "no file to decode": (["decode", "RUN", "no.vgl"], "cannot be read"),
    "no such file to decode": (["decode", "RUN", "text.csv"], "a file of `vaegan encode`"),
    "step size": (["encode", "RUN", "own", "--step-size", "0"], "above 0"),
    "step size too small": (["encode", "RUN", "own", "--step-size", "1e-9"], "too small"),
    "no export": (["sample", "text.csv"], "cannot be read as an export"),
    "dtype alone": (["export", "RUN", "--format", "stablehlo", "--dtype", "bfloat16"], "--dtype"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(vaegan, run, tmp_path, name):
    pictures(tmp_path / "own")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "there.png").touch()
    (tmp_path / "text.csv").write_text("a, b\n")
    for file, array in (("wide", np.zeros((2, 6))), ("nan", np.full((1, 5), np.nan)),
                        ("one", np.zeros((1, 5))), ("a", np.zeros((3, 5)))):  # fmt: skip
        np.save(tmp_path / f"{file}.npy", array)
    np.save(tmp_path / "pickle.npy", np.asarray([{}], object), allow_pickle=True)
    before = sorted(tmp_path.rglob("*"))
    arguments, said = BAD[name]
    code, _, error = vaegan(*(run if argument == "RUN" else argument for argument in arguments))
    assert code in (main.EXIT_ERROR, main.EXIT_USAGE)
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert said in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_without_an_encoder_says_so(vaegan, tmp_path):
    made_runs.write(tmp_path / "scratch", made_runs.tiny(), vae_steps=(), scratch=True)
    (tmp_path / "scratch" / "latent.json").unlink()
    files = pictures(tmp_path / "own")
    assert vaegan("sample", tmp_path / "scratch", "--count", 2)[0] == 0
    assert vaegan("traverse", tmp_path / "scratch")[0] == 0  # by directions
    assert vaegan("export", tmp_path / "scratch", "--out", "it")[0] == 0
    code, _, error = vaegan("morph", tmp_path / "scratch", *files[:2])
    assert code == 1
    assert "no encoder" in error
    code, _, error = vaegan("traverse", tmp_path / "scratch", "--by", "units", "--force")
    assert code == 1
    assert "--by directions" in error


def test_a_run_is_used_while_it_is_locked(vaegan, run, tmp_path):
    import fcntl

    copy = tmp_path / "locked"
    shutil.copytree(run, copy)
    with (copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert vaegan("sample", copy, "--count", 1)[0] == 0
