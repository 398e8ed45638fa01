"""The report of runs at several stages, as text and in a browser."""

import collections
import html
import json
import re
import shutil

import numpy as np
import pytest

from tests.experiments.compare import made
from vaegan_jax import config as configuration
from vaegan_jax import workdir
from vaegan_jax.evaluation import latents
from vaegan_jax.evaluation.number import SHARES
from vaegan_jax.report import page
from vaegan_jax.training import monitor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "link", "img"}


def images(text):
    """Returns the (source, alternative text) of the images of a page, which must be well-formed.

    It may need no other file.
    """
    assert text.startswith("<!doctype html>")
    tags = re.findall(r"<(/?)(\w+)[^>]*?(/?)>", text)
    opened = [name for end, name, empty in tags if not end and not empty and name not in VOID]
    closed = [name for end, name, _ in tags if end]
    assert collections.Counter(opened) == collections.Counter(closed)
    references = re.findall(r'\s(?:src|srcset|href|xlink:href|action)="(.*?)"', text)
    assert all(re.match(r"data:|#", reference) for reference in references)
    assert not re.search(r"<script|@import|url\((?!#)|\son\w+=", text)
    found = re.findall(r'<img src="(.*?)" alt="(.+?)">', text)
    assert len(found) == text.count("<img")
    return found


def sections(text):
    return re.findall("<h2>(.*?)</h2>", text)


def report(path):
    return page.make(workdir.Workdir(path))


@pytest.fixture
def run(tmp_path):
    """The folder of an evaluated run with pictures of two steps."""
    path = made.run(tmp_path / "<b>bold & co")
    made.edit(path / "run.json", cpu="a <chip>")
    made.write_lines(path / "events.jsonl", [{"time": "0T1", "event": "vae: began"}])
    made.edit(path / "evaluation/numbers.json", findings=[{"name": "Blur", "text": "Less < more."}])
    for step in (12, 20):
        for name in ("vae/samples", "vae/reconstructions", "gan/samples"):
            made.picture(path / f"images/{name}_{step:06d}.png", step)
    for name in ("side_by_side", "nearest", "traversals_vae"):
        made.picture(path / f"evaluation/{name}.png", 50)
    return path


def test_page_before_training_has_the_configuration_only(tmp_path):
    path = made.run(tmp_path / "run")
    made.keep_only(path, "config.json")
    text = report(path)
    assert images(text) == []
    assert sections(text) == ["Configuration and environment"]
    assert re.search(r"gan\.steps</th><td>6</td><td>0", text)


def test_page_during_training_shows_the_latest_pictures(run):
    made.keep_only(run, "config.json", "metrics.jsonl", *(x.name for x in run.glob("images/*/*")))
    made.write_lines(run / "metrics.jsonl", made.metrics()[:3])
    text = report(run)
    assert sections(text) == [
        "Samples",
        "Reconstructions, interpolations, traversals",
        "Learning curves",
        "Configuration and environment",
    ]
    assert "VAE: 6 of 6 steps in 6 s, 4 images/s" in text
    assert "Loss of the VAE" in text
    assert "Losses of the GAN" not in text
    assert [source for source, _ in images(text)] == [
        page.as_uri(run / f"images/{name}_000020.png")
        for name in ("vae/samples", "gan/samples", "vae/reconstructions")
    ]


def test_page_after_the_evaluation_shows_numbers_and_samples_side_by_side(run):
    text = report(run)
    assert report(run) == text  # it is deterministic
    assert [source for source, _ in images(text)] == [
        page.as_uri(run / f"{name}.png")
        for name in ("evaluation/side_by_side", "images/vae/reconstructions_000020",
                     "evaluation/traversals_vae", "evaluation/nearest")
    ]  # fmt: skip
    assert not re.search("<b>bold|<chip>", text)
    words = " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())
    for expected in (
        "<b>bold & co",
        "a <chip>",
        "21.00 ± 0.25 20.00 ± 0.25 2",
        "vendi not finite 2",
        "pixels (to 8x8; weights ffffffffffff…), of the checkpoints vae 6, gan 6.",
        "fd_pixels to validation images",
        "Blur Less < more.",
        "900 training, 50 validation and 100 test images, 8x8; 1 duplicates; 2 skipped",
        "vae: began",
        *SHARES,
    ):
        assert expected in words
    numbers = run / workdir.NUMBERS  # of an earlier format are not shown
    numbers.write_text(json.dumps(json.loads(numbers.read_text()) | {"format": 1}))
    assert "Numbers" in sections(text)
    assert "Numbers" not in sections(report(run))


def test_training_failures_and_latent_use_are_reported(tmp_path):
    use = latents.use_facts(np.array([2.0, 0, 0]), np.array([1.0, 0, 0]))
    trouble = monitor.Trouble(
        "mode_collapse", {"diversity": 0.1}, "They are <alike>.", "more of it"
    )
    with workdir.open_workdir(tmp_path / "other", configuration.default_config()) as folder:
        folder.rewind("gan", 0)
        folder.write_json(workdir.LATENT, use)
        assert folder.write_trouble("gan", 40, trouble)
        assert not folder.write_trouble("gan", 50, trouble)
        text = page.make(folder)
    assert "<dt>Mode collapse, GAN, step 40</dt>" in text
    assert re.search("They are &lt;alike&gt;.*more of it", text)
    assert "1 of 3 latent dimensions" in text


LAYOUT = """() => ({
  needed: document.documentElement.scrollWidth,
  images: [...document.images].map((image) => image.naturalWidth),
  plots: [...document.querySelectorAll("svg")].map((x) => x.getBoundingClientRect().width),
  ground: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector("svg text")).fill,
})"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("width", "scheme", "ground", "ink"),
    [(1200, "light", "253, 252, 250", "34, 36, 42"), (500, "dark", "23, 24, 28", "230, 228, 223")],
)
def test_page_layout_in_browser(run, width, scheme, ground, ink):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    (run / "report.html").write_text(report(run))
    requests = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.on("request", lambda request: requests.append(request.url))
        opened.goto((run / "report.html").as_uri())
        seen = opened.evaluate(LAYOUT)
        browser.close()
    assert [url for url in requests[1:] if not url.startswith("data:")] == []
    assert min(seen["images"]) > 0
    assert seen["needed"] <= width
    assert min(seen["plots"]) >= 200
    assert (seen["ground"], seen["ink"]) == (f"rgb({ground})", f"rgb({ink})")
