"""The page of a comparison, as text and as a browser shows it."""

import re

import pytest

from tests.comparing import made
from tests.report.test_page import CHROMIUM, in_browser, parsed
from vaegan_jax.comparing import many, page, runs, two
from vaegan_jax.report.page import as_uri


def whole(path, **more):
    path = made.run(path, **more)
    colour = more.get("seed", 0) + 10
    for step in (6, 12):
        made.picture(path / f"images/vae/samples_{step:06d}.png", colour + step)
        made.picture(path / f"images/gan/samples_{step:06d}.png", colour + step + 50)
    return path


def page_of_two(a, b):
    a, b = runs.read(a), runs.read(b)
    return page.of_two(a, b, two.compare(a, b, runs.load_state))


def page_of_many(*paths):
    return page.of_many(many.compare([runs.read(path) for path in paths]))


@pytest.fixture(params=["two", "bare two", "many"])
def text(request, tmp_path):
    a = whole(tmp_path / "a")
    if request.param == "many":
        return page_of_many(a, *(made.run(tmp_path / f"{s}", seed=s, distance=20.0 + s)
                                 for s in (1, 2)))  # fmt: skip
    b = whole(tmp_path / "b", seed=1, distance=22.0)
    if request.param == "bare two":
        for run in (a, b):
            for name in ("curve.jsonl", "evaluation/numbers.json", "run.json", "data.json"):
                (run / name).unlink()
    return page_of_two(a, b)


def test_it_is_whole_and_asks_for_nothing_from_outside(text):
    checker = parsed(text)
    assert text.startswith("<!doctype html>")
    assert all(re.match(r"data:|#", reference) for reference in checker.references)
    assert not re.search(r"<script|@import|url\((?!#)|\son\w+=", text)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert all(image["alt"] for image in checker.images)


def test_it_has_the_look_of_the_report(text):
    assert "prefers-color-scheme: dark" in text
    assert "--ground: #17181c" in text


def test_the_newest_pictures_stand_side_by_side(tmp_path):
    a, b = whole(tmp_path / "a"), whole(tmp_path / "b", seed=1)
    (b / "images/vae/samples_000012.png").unlink()
    text = page_of_two(a, b)
    shown = [image["src"] for image in parsed(text).images]
    assert shown == [
        as_uri(run / f"images/{stage}/samples_{step:06d}.png")
        for stage, step in (("vae", 6), ("gan", 12))
        for run in (a, b)
    ]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("seed", 1, "other latents, since the runs differ in seed"),
        ("model.latent_size", 9, "other latents, since the runs differ in model.latent_size"),
        ("vae.learning_rate", 9.0, "the same latents"),
    ],
)
def test_latents_are_called_the_same_only_where_they_are(tmp_path, field, value, said):
    text = page_of_two(whole(tmp_path / "a"), whole(tmp_path / "b", **{field: value}))
    assert f"Samples of the VAE&#39;s decoder, step 12; {said}." in text


def test_the_verdict_and_what_it_rests_on_are_there(tmp_path):
    a, b = whole(tmp_path / "a"), whole(tmp_path / "b", distance=22.0)
    made.save(a, "vae", 6, made.state())
    made.save(b, "vae", 6, made.state(0.5))
    (b / "run.json").unlink()
    words = " ".join(" ".join(parsed(page_of_two(a, b)).text).split())
    assert "Same config, different bits from step 3 (vae, fd_pixels)" in words
    assert "params.bias float32[3] 1 3 0.5 4194304" in words  # 1.5 is half a binade above 1
    assert "fd_pixels 20.00 ± 0.25 22.00 ± 0.25 +2" in words
    assert "no environment is noted (run.json)" in words
    assert "fd_pixels to held-out images" in words
    assert "generator loss, GAN" in words


def test_groups_and_noise_are_there(tmp_path):
    paths = [made.run(tmp_path / f"a{s}", seed=s, distance=20.0 + s) for s in range(3)]
    paths += [
        made.run(tmp_path / f"b{s}", seed=s, distance=20.5 + s**2, **{"gan.old": "hinge"})
        for s in range(3)
    ]
    words = " ".join(" ".join(parsed(page_of_many(*paths)).text).split())
    assert "B gan.old=hinge 3 0 1 2" in words
    assert "1. A 21.0 [18.5, 23.5]" in words
    assert "within noise of A" in words
    assert "B less A, seed by seed" in words


def test_what_runs_hold_cannot_write_markup(tmp_path):
    a = whole(tmp_path / "<b>a & $x$", **{"gan.old": "<i>sly</i>"})
    b = whole(tmp_path / "b", seed=1)
    made.edit(b / "run.json", cpu="<u>chip</u>")
    lines = [line | {"<s>loss": 1.0 + (path == b)} for path in (a,) for line in made.metrics()]
    for path in (a, b):
        made.write_lines(path / "metrics.jsonl", [x | {"<s>loss": len(str(path))} for x in lines])
    for text in (page_of_two(a, b), page_of_many(a, b)):
        parsed(text)
        assert not re.search(r"<(b|i|u|s)>", text)
        assert "&lt;b&gt;a &amp; $x$" in text
        assert "&lt;i&gt;sly" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_all_of_it(tmp_path, dark):
    a, b = whole(tmp_path / "a"), whole(tmp_path / "b", seed=1)
    seen = in_browser(page_of_two(a, b), tmp_path, 700, dark)
    assert (seen["images"], seen["broken"], seen["requests"], seen["plots"]) == (4, 0, [], 0)
    assert seen["needed"] <= seen["width"] <= 700
    assert seen["ground"] == ("rgb(23, 24, 28)" if dark else "rgb(253, 252, 250)")
