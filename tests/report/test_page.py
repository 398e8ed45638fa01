"""The report of runs at several stages, parsed and in a browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.experiments.compare import made
from vaegan_jax import config as configuration
from vaegan_jax import workdir
from vaegan_jax.evaluation import latents
from vaegan_jax.report import page
from vaegan_jax.training import monitor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Void elements of HTML and self-closing ones of SVG.
VOID = {"meta", "link", "img", "br", "path", "use", "rect", "stop", "circle"}


class Checker(HTMLParser):
    """Collects the references of a page and checks that elements are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.references, self.images, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            if name in attributes:
                self.references.append(attributes[name])
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(text):
    """Parses a page, which must be well-formed and need no other file."""
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert text.startswith("<!doctype html>")
    assert all(re.match(r"data:|#", reference) for reference in checker.references)
    assert not re.search(r"<script|@import|url\((?!#)|\son\w+=", text)
    assert all(image["alt"] for image in checker.images)
    return checker


@pytest.fixture
def run(tmp_path):
    """A function from the progress of a run, 0 to 3, to its report and its folder."""

    def make(progress, name="my run"):
        path = made.run(tmp_path / name)
        made.edit(path / "run.json", cpu="a <chip>")
        made.write_lines(path / "events.jsonl", [{"time": "0T1", "event": "vae: began"}])
        shown = [
            *(f"images/vae/{name}_0000{step}.png" for name in ("samples", "reconstructions")
              for step in (12, 20)),
            "images/gan/samples_000060.png",
            *(f"evaluation/{name}.png" for name in ("side_by_side", "nearest", "traversals_vae")),
        ]  # fmt: skip
        for index, picture in enumerate(shown[: (0, 4, 5, 8)[progress]]):
            made.picture(path / picture, 9 * index)
        finding = {"name": "Blur", "text": "Less < more."}
        made.edit(path / "evaluation/numbers.json", findings=[finding])
        for file in ("curve.jsonl", "run.json", "data.json") if progress < 2 else ():
            (path / file).unlink()
        if progress < 3:
            (path / "evaluation/numbers.json").unlink()
        if progress < 2:
            made.write_lines(path / "metrics.jsonl", made.metrics()[: 3 * progress])
        text = page.make(workdir.Workdir(path))
        (path / "report.html").write_text(text)
        return text, path

    return make


def sections(text):
    return re.findall("<h2>(.*?)</h2>", text)


def test_page_before_training_has_the_configuration_only(run):
    text, _ = run(0)
    parsed(text)
    assert sections(text) == ["Configuration and environment"]
    assert re.search(r"gan\.steps</th><td>6</td><td>0", text)


def test_page_during_training_shows_the_latest_pictures(run):
    text, path = run(1)
    assert sections(text) == [
        "Samples",
        "Reconstructions, interpolations, traversals",
        "Learning curves",
        "Configuration and environment",
    ]
    assert "VAE: 6 of 6 steps in 6 s, 4 images/s" in text
    assert "Loss of the VAE" in text
    assert "Losses of the GAN" not in text
    latest = page.as_uri(path / "images/vae/samples_000020.png")
    assert [image["src"] for image in parsed(text).images].count(latest) == 1
    assert page.as_uri(path / "images/vae/samples_000012.png") not in text


def test_page_after_training_shows_both_models_and_escapes_names(run):
    text, path = run(2, "<b>bold & co")
    parsed(text)
    for stage, step in (("vae", 20), ("gan", 60)):
        assert page.as_uri(path / f"images/{stage}/samples_{step:06d}.png") in text
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold &amp; co" in text
    assert "a &lt;chip&gt;" in text


def test_page_after_the_evaluation_shows_numbers_and_samples_side_by_side(run):
    text, path = run(3)
    assert page.make(workdir.Workdir(path)) == text  # it is deterministic
    assert page.as_uri(path / "evaluation/side_by_side.png") in text
    assert page.as_uri(path / "images/gan/samples_000060.png") not in text
    words = " ".join(" ".join(parsed(text).text).split())
    for expected in (
        "21.00 ± 0.25 20.00 ± 0.25 2",
        "vendi not finite 2",
        "pixels (to 8x8; weights ffffffffffff…), of the checkpoints vae 6, gan 6.",
        "fd_pixels to validation images",
        "Blur Less < more.",
        "900 training, 50 validation and 100 test images, 8x8; 1 duplicates; 2 skipped",
        "vae: began",
    ):
        assert expected in words
    assert "Numbers" in sections(text)
    numbers = path / workdir.NUMBERS  # of an earlier format are not shown
    numbers.write_text(json.dumps(json.loads(numbers.read_text()) | {"format": 1}))
    assert "Numbers" not in sections(page.make(workdir.Workdir(path)))


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
    parsed(text)
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
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (500, "dark")])
def test_page_layout_in_browser(run, width, scheme):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    _, path = run(3)
    requests = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.on("request", lambda request: requests.append(request.url))
        opened.goto((path / "report.html").as_uri())
        seen = opened.evaluate(LAYOUT)
        browser.close()
    assert [url for url in requests[1:] if not url.startswith("data:")] == []
    assert len(seen["images"]) >= 4
    assert min(seen["images"]) > 0
    assert seen["needed"] <= width
    assert min(seen["plots"]) >= 200
    dark = scheme == "dark"
    assert seen["ground"] == ("rgb(23, 24, 28)" if dark else "rgb(253, 252, 250)")
    assert seen["ink"] == ("rgb(230, 228, 223)" if dark else "rgb(34, 36, 42)")
