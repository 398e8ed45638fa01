"""The report of runs at several stages, parsed and in a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vaegan_jax import config as configuration
from vaegan_jax import workdir
from vaegan_jax.evaluation import latent_use
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
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


def picture(path, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = len(list(path.parent.iterdir()))  # a different picture each time
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)


def metrics_line(stage, step, **more):
    rates = {"seconds": step / 2, "images": 16 * step, "steps_per_second": 2.0}
    return {"stage": stage, "step": step, **rates, "images_per_second": 32.0, **more}


def write_lines(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def number(subject, against, metric, value, floor=None):
    return {"subject": subject, "against": against, "embedding": "" if subject == "vae" else "x",
            "metric": metric, "value": value, "error": 0.25, "floor": floor, "count": 100,
            "reference_count": 200 if against else 0, "informative": True}  # fmt: skip


@pytest.fixture
def run(tmp_path, config):
    """A function from the progress of a run to its report and its folder."""

    def make(progress, name="my run"):
        path = tmp_path / name
        config.gan.steps = 60
        with workdir.open_workdir(path, config) as folder:
            if progress >= 1:
                loss = {"loss": 40.0, "reconstruction": 30.0, "kl": 10.0, "gradient_norm": 1.0}
                lines = [metrics_line("vae", step, **loss) for step in (10, 20)]
                write_lines(path / "metrics.jsonl", lines)
                picture(path / "images/vae/samples_000010.png")
                picture(path / "images/vae/samples_000020.png", (80, 60))
                picture(path / "images/vae/reconstructions_000020.png")
                folder.write_event("vae: began")
            if progress >= 2:
                losses = {"discriminator_loss": 1.4, "generator_loss": 0.7,
                          "discriminator_auc": 0.5, "r1": 0.1}  # fmt: skip
                lines += [metrics_line("gan", step, **losses) for step in (30, 60)]
                write_lines(path / "metrics.jsonl", lines)
                curve = [
                    {"stage": stage, "step": step, "seconds": 5.0, "images": 160,
                     "fd_x": 9.0, "kd_x": 0.5, "fd_x_floor": 2.0}
                    for stage, step in (("vae", 20), ("gan", 60))
                ]  # fmt: skip
                write_lines(path / "curve.jsonl", curve)
                picture(path / "images/gan/samples_000060.png")
                folder.record_environment({"python": "3.11", "packages": {"jax": "0.10"},
                                         "platform": "Linux", "cpu": "a <chip>", "cores": 2,
                                         "device": "cpu", "devices": 1}, {})  # fmt: skip
                facts = {"digest": "d" * 64, "train": 900, "validation": 50, "test": 100,
                         "is_test_unseen": True, "duplicates": 1, "skipped": 2,
                         "shape": [16, 32, 3]}  # fmt: skip
                folder.require_data(facts)
            if progress >= 3:
                written = {
                    "format": workdir.EVALUATION_FORMAT,
                    "embeddings": [{"name": "x", "sha256": "f" * 64, "resize": "to 8x8"}],
                    "data": {"train": 900, "is_test_unseen": True},
                    "checkpoints": {"vae": 20, "gan": 60},
                    "numbers": [
                        number("vae_samples", "test", "fd_n100", 31.5, 2.5),
                        number("gan_samples", "test", "fd_n100", 21.25, 2.5),
                        number("gan_samples", "train", "authenticity", 0.75),
                        number("gan_samples", "", "vendi", None, 3.0),
                        number("vae", "", "active_units", 5.0),
                    ],
                    "findings": [{"name": "Blur", "text": "Less < more."}],
                    "seconds": 3.0,
                }
                some = np.zeros((8, 8, 3), np.uint8)
                names = ("side_by_side", "nearest", "traversals_vae")
                folder.write_evaluation(written, dict.fromkeys(names, some))
            text = page.make(folder)
            folder.write_report(text)
        return text, path

    return make


@pytest.mark.parametrize("progress", range(4))
def test_page_is_well_formed_and_self_contained(run, progress):
    text, path = run(progress)
    checker = parsed(text)
    assert text.startswith("<!doctype html>")
    assert all(re.match(r"data:|#", reference) for reference in checker.references)
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert all(image["alt"] for image in checker.images)
    assert page.make(workdir.Workdir(path)) == text  # it is deterministic


def sections(text):
    return re.findall("<h2>(.*?)</h2>", text)


def test_page_before_training_has_the_configuration_only(run):
    text, _ = run(0)
    assert sections(text) == ["Configuration and environment"]
    assert re.search(r"gan\.steps</th><td>60</td><td>0", text)


def test_page_during_training_shows_the_latest_pictures(run):
    text, path = run(1)
    assert sections(text) == [
        "Samples",
        "Reconstructions, interpolations, traversals",
        "Learning curves",
        "Configuration and environment",
    ]
    assert "VAE: 20 of 7 steps in 10 s, 32 images/s" in text
    assert "Loss of the VAE" in text
    assert "Losses of the GAN" not in text
    latest = page.as_uri(path / "images/vae/samples_000020.png")
    assert [image["src"] for image in parsed(text).images].count(latest) == 1
    assert page.as_uri(path / "images/vae/samples_000010.png") not in text


def test_training_failures_and_latent_use_are_reported(tmp_path):
    use = latent_use.facts(np.array([2.0, 0, 0]), np.array([1.0, 0, 0]))
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


def test_samples_are_side_by_side_after_the_evaluation(run):
    text, path = run(2)
    for stage, step in (("vae", 20), ("gan", 60)):
        assert page.as_uri(path / f"images/{stage}/samples_{step:06d}.png") in text
    evaluated, path = run(3, "another")
    assert page.as_uri(path / "evaluation/side_by_side.png") in evaluated
    assert page.as_uri(path / "images/gan/samples_000060.png") not in evaluated


def test_evaluation_of_an_earlier_format_is_not_shown(run):
    text, path = run(3)
    assert "Numbers" in sections(text)
    numbers = path / workdir.NUMBERS
    numbers.write_text(json.dumps(json.loads(numbers.read_text()) | {"format": 1}))
    assert "Numbers" not in sections(page.make(workdir.Workdir(path)))


def test_numbers_show_errors_floors_and_provenance(run):
    text, _ = run(3)
    words = " ".join(" ".join(parsed(text).text).split())
    for expected in (
        "31.50 ± 0.25 21.25 ± 0.25 2.5",
        "0.75 ± 0.25 none at this count",
        "vendi not finite 3",
        "x (to 8x8; weights ffffffffffff…), of the checkpoints vae 20, gan 60.",
        "fd_x to validation images",
        "Blur Less < more.",
        "900 training, 50 validation and 100 test images, 16x32; 1 duplicates; 2 skipped",
        "a <chip>",
        "vae: began",
    ):
        assert expected in words


def test_names_are_escaped(run):
    text, _ = run(2, "<b>bold & co")
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold &amp; co" in text
    assert "a &lt;chip&gt;" in text


PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  document.title = JSON.stringify({
    width: document.documentElement.clientWidth,
    needed: document.documentElement.scrollWidth,
    images: images.length,
    broken: images.filter((image) => !image.naturalWidth).length,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => !name.startsWith("data:")),
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.querySelector("svg text")).fill,
    plots: [...document.querySelectorAll("svg")].filter(
      (plot) => plot.getBoundingClientRect().width < 200).length,
  });
});
</script>"""


def in_browser(text, tmp_path, width, dark):
    """Properties of a page as rendered in a window of the given width."""
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("</body>", PROBE + "</body>"))
    result = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update"),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900",
            *(["--force-dark-mode"] if dark else []),
            "--dump-dom",
            probed.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(re.search(r"<title>(.*?)</title>", result.stdout)[1].replace("&quot;", '"'))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 500])
def test_page_layout_in_browser(run, tmp_path, dark, width):
    _, path = run(3)
    seen = in_browser((path / "report.html").read_text(), tmp_path, width, dark)
    assert seen["images"] >= 4
    assert seen["broken"] == 0
    assert seen["requests"] == []
    assert seen["needed"] <= seen["width"] <= width
    assert seen["plots"] == 0
    assert seen["ground"] == ("rgb(23, 24, 28)" if dark else "rgb(253, 252, 250)")
    assert seen["ink"] == ("rgb(230, 228, 223)" if dark else "rgb(34, 36, 42)")
