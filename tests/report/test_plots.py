"""Plots, as SVG and as the axes that Matplotlib drew."""

import math
import re
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

from vaegan_jax.report import plots
from vaegan_jax.report.plots import Line

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    Line("VAE samples", [0, 10, 20], [5.0, 3.0, 2.5]),
    Line("real images", [0, 20], [1.5, 1.5], True),
]


def draw(lines=LINES, log=False):
    return plots.svg(lines, 'Distance & <"more">', "images seen", 'kernel "distance"', log)


def texts(element):
    return ["".join(text.itertext()) for text in ET.fromstring(element).iter(f"{SVG}text")]


@pytest.fixture
def axes(monkeypatch):
    """The axes of all plots, in order."""
    drawn, save = [], Figure.savefig

    def recorded(figure, *arguments, **options):
        drawn.extend(figure.axes)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", recorded)
    return drawn


def test_svg_is_self_contained():
    element = draw()
    root = ET.fromstring(element)
    assert root.tag == f"{SVG}svg"
    names = {node.tag.lower() for node in root.iter()}
    assert not [name for name in names if re.search("script|image|foreignobject|metadata", name)]
    assert not re.search(r"http|@import|<!DOCTYPE", re.sub(r'xmlns(:\w+)?="[^"]*"', "", element))
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"(?:href=\"|url\()#([\w-]+)", element)) <= set(ids)


def test_svg_has_texts_title_colours_and_size_of_the_page():
    element = draw()
    root = ET.fromstring(element)
    words = ['Distance & <"more">', "images seen", 'kernel "distance"', *(x.label for x in LINES)]
    assert set(words) <= set(texts(element))
    assert "VAE samples" not in texts(draw(LINES[:1]))  # one line needs no legend
    assert texts(draw([LINES[0]] * 2)).count("VAE samples") == 1
    assert (root.get("role"), root.get("aria-label")) == ("img", words[0])
    fills = {re.search(r"fill: (\w+)", t.get("style"))[1] for t in root.iter(f"{SVG}text")}
    assert fills == {"currentColor"}
    assert not re.search(r"#123456|#(000|fff|000000|ffffff)\b|black|white", element)
    assert (root.get("width"), root.get("height")) == (None, None)


def test_lines_have_their_values_colours_and_styles(axes):
    draw()
    draw([Line("A", [1, 2], [5.0, 6.0], colour=1), Line("", [1, 2], [4.0, 3.0], True, colour=7)])
    automatic, fixed = (plot.get_lines() for plot in axes)
    for line, shown in zip(LINES, automatic, strict=True):
        np.testing.assert_array_equal(shown.get_xydata().T, (line.x, line.y))
        assert shown.is_dashed() == line.dashed
    assert automatic[0].get_color() != automatic[1].get_color()
    assert [line.get_color() for line in fixed] == [plots.COLOURS[1]] * 2
    assert [line.is_dashed() for line in fixed] == [False, True]


@pytest.mark.parametrize(
    ("other", "scale"), [([5.0, 3.0], "log"), ([5.0, 0.0], "linear"), ([5.0, -3.0], "linear")]
)
def test_log_axis_requires_positive_values(axes, other, scale):
    draw([Line("loss", [0, 1, 2], [1.0, 10.0, 100.0]), Line("kl", [0, 1], other)], log=True)
    assert axes[0].get_yscale() == scale


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", [[math.nan] * 3, [1.0, math.nan, 2.0], [2.0, 2.0, 2.0]])
def test_missing_and_constant_values_are_drawn_without_warnings(y, log):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ET.fromstring(draw([Line("loss", [1, 2, 3], y)], log))
        ET.fromstring(draw([Line("loss", [1], y[:1])], log))


CURVE = [
    {"stage": stage, "step": step, "images": images, "seconds": seconds, "fd_pixels": distance,
     "kd_pixels": 0.5, "fd_pixels_floor": 2.0}
    for stage, step, images, seconds, distance in (
        ("vae", 1, 10, 2.0, 9.0), ("vae", 2, 20, 4.0, 7.0),
        ("gan", 1, 5, 3.0, 6.0), ("gan", 2, 15, 6.0, 4.0),
    )
]  # fmt: skip


def test_distances_are_plotted_against_images_and_seconds_of_both_stages(axes):
    for cost, vae, gan in (("images", [10, 20], [25, 35]), ("seconds", [2, 4], [7, 10])):
        found = list(plots.distances(CURVE, "fd_pixels", cost))
        assert found == [("vae", vae, [9, 7]), ("gan", gan, [6, 4])]
    for element in plots.distance_plots(CURVE):
        assert {"VAE samples", "GAN samples", "real images"} <= set(texts(element))
    assert [plot.get_title() for plot in axes] == ["fd_pixels to validation images"] * 2
    for plot, end in zip(axes, (35, 10), strict=True):
        assert [line.is_dashed() for line in plot.get_lines()] == [False, False, True]
        np.testing.assert_array_equal(plot.get_lines()[2].get_xydata(), [(0, 2), (end, 2)])
    plots.distance_plots([{k: v for k, v in line.items() if "floor" not in k} for line in CURVE])
    assert len(axes[2].get_lines()) == 2
    assert plots.distance_plots([]) == []


METRICS = [
    {"stage": "vae", "step": s, "loss": 90.0 / s, "kl": 10.0 / s, "gradient_norm": 3.0}
    for s in (2, 4, 6)
] + [
    {"stage": "gan", "step": s, "discriminator_auc": 0.5, "real_logit": 1.0, "fake_logit": -1.0 * s}
    | ({"r1": 0.125 * s} if s > 2 else {})
    for s in (2, 4, 6)
]  # fmt: skip


def test_learning_curves_show_the_scalars_of_their_stage(axes):
    loss, gradient = plots.learning_plots(METRICS, "vae")
    assert {"loss", "kl", "steps", "nats per image"} <= set(texts(loss))
    assert "gradient norm" not in texts(gradient)  # one line needs no legend
    plots.learning_plots(METRICS, "gan")
    titles = ["Discriminator's AUC", "Discriminator's logits", "Term r1"]
    assert [plot.get_title() for plot in axes[2:]] == titles
    fake, term = axes[3].get_lines()[1], axes[4].get_lines()[0]
    np.testing.assert_array_equal(fake.get_xydata(), [(2, -2), (4, -4), (6, -6)])
    np.testing.assert_array_equal(term.get_xydata(), [(4, 0.5), (6, 0.75)])
    assert plots.learning_plots(METRICS[3:], "vae") == []
