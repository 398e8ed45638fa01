"""Plots as parsed from their SVG: texts, and line coordinates relative to the axes."""

import math
import re
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from vaegan_jax.report import plots
from vaegan_jax.report.plots import Line

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    Line("VAE samples", [0, 10, 20], [5.0, 3.0, 2.5]),
    Line("real images", [0, 20], [1.5, 1.5], True),
]


def draw(lines=LINES, title='Distance & <"more">', log=False):
    return plots.svg(lines, title, "images seen", 'kernel "distance"', log)


def texts(element):
    return ["".join(text.itertext()) for text in ET.fromstring(element).iter(f"{SVG}text")]


def scale(root, axis):
    """Returns the function from coordinates of the page to values, fitted to the tick labels."""
    ticks = [
        (float(text.get(axis)), float("".join(text.itertext()).replace("\N{MINUS SIGN}", "-")))
        for group in root.iter(f"{SVG}g")
        if re.fullmatch(rf"{axis}tick_\d+", group.get("id", ""))
        for text in group.iter(f"{SVG}text")
    ]
    slope, offset = np.polyfit(*zip(*ticks, strict=True), 1)
    return lambda coordinate: slope * coordinate + offset


def points(path):
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML] (\S+) (\S+)", path)])


def drawn(element):
    """Returns the lines on linear axes in order: (x, y, colour, whether dashed)."""
    root = ET.fromstring(element)
    to_x, to_y = scale(root, "x"), scale(root, "y")
    # The baseline of a label is below its grid line.
    tick = next(g for g in root.iter(f"{SVG}g") if g.get("id") == "ytick_1")
    grid = points(next(tick.iter(f"{SVG}path")).get("d"))[0, 1]
    label = float(next(tick.iter(f"{SVG}text")).get("y"))
    lines = []
    for path in root.iter(f"{SVG}path"):
        style = path.get("style", "")
        colour = re.search(r"stroke: (#\w+)", style)
        if path.get("clip-path") and colour:
            x, y = points(path.get("d")).T
            lines.append((to_x(x), to_y(y + label - grid), colour[1], "stroke-dasharray" in style))
    return lines


def heights(element):
    """The heights on the page of the points of the first line."""
    paths = [
        path
        for path in ET.fromstring(element).iter(f"{SVG}path")
        if path.get("clip-path") and "currentColor" not in path.get("style")
    ]
    return -points(paths[0].get("d"))[:, 1]


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


def test_lines_have_their_values_colours_and_styles():
    lines = drawn(draw())
    for line, (x, y, _, dashed) in zip(LINES, lines, strict=True):
        np.testing.assert_allclose(x, line.x, atol=0.05)
        np.testing.assert_allclose(y, line.y, atol=0.01)
        assert dashed == line.dashed
    assert lines[0][2] != lines[1][2]
    fixed = [Line("A", [1, 2], [5.0, 6.0], colour=1), Line("", [1, 2], [4.0, 3.0], True, colour=7)]
    assert [line[2:] for line in drawn(draw(fixed))] == [("#e0742f", False), ("#e0742f", True)]


@pytest.mark.parametrize(
    ("other", "logarithmic"), [([5.0, 3.0], True), ([5.0, 0.0], False), ([5.0, -3.0], False)]
)
def test_log_axis_requires_positive_values(other, logarithmic):
    lines = [Line("loss", [0, 1, 2], [1.0, 10.0, 100.0]), Line("kl", [0, 1], other)]
    steps = np.diff(heights(draw(lines, log=True)))
    np.testing.assert_allclose(steps[1], (1 if logarithmic else 10) * steps[0], rtol=1e-4)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", [[math.nan] * 3, [1.0, math.nan, 2.0], [2.0, 2.0, 2.0]])
def test_missing_and_constant_values_are_drawn_without_warnings(y, log):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ET.fromstring(draw([Line("loss", [1, 2, 3], y)], log=log))
        ET.fromstring(draw([Line("loss", [1], y[:1])], log=log))


def curve_line(stage, step, images, seconds, **numbers):
    return {"stage": stage, "step": step, "images": images, "seconds": seconds} | numbers


CURVE = [
    curve_line("vae", 1, 10, 2.0, fd_pixels=9.0, kd_pixels=0.5, fd_pixels_floor=2.0),
    curve_line("vae", 2, 20, 4.0, fd_pixels=7.0, kd_pixels=-0.25, fd_pixels_floor=2.0),
    curve_line("gan", 1, 5, 3.0, fd_pixels=6.0, kd_pixels=0.25, fd_pixels_floor=2.0),
    curve_line("gan", 2, 15, 6.0, fd_pixels=4.0, kd_pixels=0.0, fd_pixels_floor=2.0),
]


def titles(elements):
    return [ET.fromstring(element).get("aria-label") for element in elements]


def test_distances_are_plotted_against_images_and_seconds_of_both_stages():
    for cost, vae, gan in (("images", [10, 20], [25, 35]), ("seconds", [2, 4], [7, 10])):
        found = list(plots.distances(CURVE, "fd_pixels", cost))
        assert found == [("vae", vae, [9, 7]), ("gan", gan, [6, 4])]
    elements = plots.distance_plots(CURVE)
    assert titles(elements) == ["fd_pixels to validation images"] * 2
    for element in elements:
        assert [line[3] for line in drawn(element)] == [False, False, True]
        assert {"VAE samples", "GAN samples", "real images"} <= set(texts(element))
    x, y, *_ = drawn(elements[1])[2]  # the floor
    np.testing.assert_allclose((*x, *y), (0, 10, 2, 2), atol=0.05)
    without_floor = [{k: v for k, v in line.items() if "floor" not in k} for line in CURVE]
    assert len(drawn(plots.distance_plots(without_floor)[0])) == 2
    assert plots.distance_plots([]) == []


METRICS = [
    {"stage": "vae", "step": s, "loss": 90.0 / s, "kl": 10.0 / s, "gradient_norm": 3.0}
    for s in (2, 4, 6)
] + [
    {"stage": "gan", "step": s, "discriminator_auc": 0.5, "real_logit": 1.0, "fake_logit": -1.0 * s}
    | ({"r1": 0.125 * s} if s > 2 else {})
    for s in (2, 4, 6)
]  # fmt: skip


def test_learning_curves_show_the_scalars_of_their_stage():
    loss, gradient = plots.learning_plots(METRICS, "vae")
    assert {"loss", "kl", "steps", "nats per image"} <= set(texts(loss))
    assert "gradient norm" not in texts(gradient)  # one line needs no legend
    elements = plots.learning_plots(METRICS, "gan")
    assert titles(elements) == ["Discriminator's AUC", "Discriminator's logits", "Term r1"]
    assert len(drawn(elements[1])) == 2
    assert plots.points(METRICS, "gan", "fake_logit") == ([2, 4, 6], [-2, -4, -6])
    assert plots.points(METRICS, "gan", "r1") == ([4, 6], [0.5, 0.75])
    assert plots.learning_plots(METRICS[3:], "vae") == []
