"""The page of a comparison, as text and in a browser."""

import re

from tests.experiments.compare import made
from tests.report.test_page import images
from vaegan_jax.experiments.compare import page, records, summary
from vaegan_jax.report.page import as_uri


def drawn(path, **more):
    """Writes a run with pictures."""
    path = made.run(path, **more)
    colour = more.get("seed", 0) + 10
    for step in (6, 12):
        made.picture(path / f"images/vae/samples_{step:06d}.png", colour + step)
        made.picture(path / f"images/gan/samples_{step:06d}.png", colour + step + 50)
    made.picture(path / "images/vae/samples_of_another_000099.png", 0)
    return path


def render(*paths):
    return page.render(summary.compare([records.read(path) for path in paths]))


def test_runs_without_evaluation_have_a_page(tmp_path):
    paths = [made.run(tmp_path / f"{seed}", seed=seed) for seed in range(2)]
    for path in paths:
        made.keep_only(path, "config.json", "metrics.jsonl")
    text = render(*paths)
    assert images(text) == []
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_the_newest_pictures_are_shown(tmp_path):
    paths = [drawn(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    (paths[1] / "images/vae/samples_000012.png").unlink()
    paths.append(made.run(tmp_path / "d", seed=9))  # no pictures
    for runs in (paths[:2], paths):
        shown = images(render(*runs))
        assert [source for source, _ in shown] == [
            as_uri(run / f"images/{stage}/samples_{step:06d}.png")
            for stage in ("gan", "vae")
            for run, step in zip(runs[:3], (12, 12 if stage == "gan" else 6, 12), strict=False)
        ]
        assert [text[-3:-1] for _, text in shown].count("12") == len(shown) - 1


def test_every_run_has_a_line_in_every_plot(tmp_path):
    paths = [made.run(tmp_path / f"{n}", seed=n % 2, **{"vae.steps": 6 + n // 2}) for n in range(4)]
    made.write_lines(paths[3] / "metrics.jsonl", made.metrics()[:2])
    text = render(*paths)
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    titles = [re.search(r'aria-label="(.*?)"', plot)[1] for plot in plots]
    assert titles == [
        "fd_pixels to validation images", "loss, VAE", "kl, VAE", "sharpness, VAE",
        "discriminator loss, GAN", "generator loss, GAN"
    ]  # fmt: skip
    for title, plot in zip(titles, plots, strict=True):
        lines = re.findall(r'clip-path="[^"]*" style="fill: none;[^"]*#(2f88d0|e0742f)', plot)
        expected = 3 if title.endswith("GAN") else 4 if title.endswith("VAE") else 8
        assert len(lines) == expected, title


def test_text_of_runs_is_escaped(tmp_path):
    a = drawn(tmp_path / "<b>a & $x$", **{"gan.old": "<i>sly</i>"})
    b = drawn(tmp_path / "b", seed=1)
    c = drawn(tmp_path / "c", seed=2)
    for index, path in enumerate((a, b, c)):
        made.edit(path / "run.json", cpu=f"<u>chip {index}</u>")
        lines = [line | {"<s>loss": index} for line in made.metrics()]
        made.write_lines(path / "metrics.jsonl", lines)
    text = render(a, b, c)
    assert not re.search(r"<(b|i|u|s)>", text)
    assert "&lt;b&gt;a &amp; $x$" in text
    assert "&lt;i&gt;sly" in text
    assert "&lt;u&gt;chip" in text
