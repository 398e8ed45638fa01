"""The curves as a reader of the SVG sees them: its texts, and its lines against its axes."""

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
    Line("as many real images", [0, 20], [1.5, 1.5], True),
]


def draw(lines=LINES, title="Distance & <more>", log=False):
    return plots.svg(lines, title, "images seen", 'kernel "distance"', log)


def texts(element):
    return ["".join(text.itertext()) for text in ET.fromstring(element).iter(f"{SVG}text")]


def numeric(text):
    try:
        return float(text.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return None


def scale(root, axis):
    """Returns what makes values of an axis out of places on the page, from its labelled ticks."""
    ticks = [
        (float(text.get(axis)), numeric("".join(text.itertext())))
        for group in root.iter(f"{SVG}g")
        if re.fullmatch(rf"{axis}tick_\d+", group.get("id", ""))
        for text in group.iter(f"{SVG}text")
    ]
    slope, start = np.polyfit(*zip(*ticks, strict=True), 1)
    return lambda place: slope * place + start


def points(path):
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML] (\S+) (\S+)", path)])


def drawn(element):
    """Returns the lines on linear axes in their order: (x, y, colour, whether dashed)."""
    root = ET.fromstring(element)
    to_x, to_y = scale(root, "x"), scale(root, "y")
    # A label's baseline lies below the line across the page that it names.
    tick = next(g for g in root.iter(f"{SVG}g") if g.get("id") == "ytick_1")
    grid = points(next(tick.iter(f"{SVG}path")).get("d"))[0, 1]
    label = float(next(tick.iter(f"{SVG}text")).get("y"))
    found = []
    for path in root.iter(f"{SVG}path"):
        style = path.get("style", "")
        colour = re.search(r"stroke: (#\w+)", style)
        if not path.get("clip-path") or not colour:
            continue
        x, y = points(path.get("d")).T
        found.append((to_x(x), to_y(y + label - grid), colour[1], "stroke-dasharray" in style))
    return found


def test_it_is_one_element_that_needs_nothing_else():
    element = draw()
    root = ET.fromstring(element)
    assert root.tag == f"{SVG}svg"
    names = {node.tag.lower() for node in root.iter()}
    assert not [name for name in names if re.search("script|image|foreignobject|metadata", name)]
    for node in root.iter():
        for name, value in node.attrib.items():
            assert not name.lower().startswith("on")
            if name.endswith("href"):
                assert value.startswith("#")
            assert not re.search(r"url\((?!#)|https?:|data:", value)
        assert "http" not in (node.text or "") + (node.tail or "")
    assert not re.search("http", re.sub(r'xmlns(:\w+)?="[^"]*"', "", element))
    assert "@import" not in element
    assert "<!DOCTYPE" not in element


def test_every_reference_is_to_a_part_of_it():
    element = draw()
    ids = [node.get("id") for node in ET.fromstring(element).iter() if node.get("id")]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"(?:href=\"|url\()#([\w-]+)", element)) <= set(ids)


def test_plots_of_one_page_mean_the_same_by_the_same_name():
    described = {}
    for element in (draw(), draw(LINES[:1]), *plots.learning_plots(METRICS, "gan")):
        root = ET.fromstring(element)
        for node in root.iter():
            if node.tag in (f"{SVG}clipPath", f"{SVG}path") and node.get("id"):
                description = ET.tostring(node).split()
                assert described.setdefault(node.get("id"), description) == description
    assert len(described) > 5


def test_its_words_are_text():
    found = texts(draw())
    words = ["Distance & <more>", "images seen", 'kernel "distance"', *(x.label for x in LINES)]
    assert set(words) <= set(found)


def test_one_line_needs_no_legend():
    assert "VAE samples" not in texts(draw(LINES[:1]))


def test_a_screen_reader_reads_the_title():
    root = ET.fromstring(draw())
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Distance & <more>"


def test_its_ink_is_that_of_the_page():
    element = draw()
    assert "#123456" not in element
    colours = [re.search(r"fill: (\w+)", node.get("style"))[1]
               for node in ET.fromstring(element).iter(f"{SVG}text")]  # fmt: skip
    assert set(colours) == {"currentColor"}
    assert not re.search(r"#(000|fff|000000|ffffff)\b|black|white", element)


def test_the_page_gives_it_its_size():
    root = ET.fromstring(draw())
    assert root.get("width") is None
    assert root.get("height") is None
    assert len(root.get("viewBox").split()) == 4


def test_the_same_numbers_give_the_same_text():
    first = draw()
    draw(title="another one between")
    assert draw() == first
    assert draw(title="another") != first
    assert draw([LINES[0]._replace(y=[5.0, 3.0, 2.6]), LINES[1]]) != first


def test_lines_of_one_colour_are_one_entry_of_the_legend():
    lines = [Line("A", [1], [5.0], colour=1), Line("", [1, 2], [4.0, 3.0], True, colour=7)]
    element = draw(lines)
    assert [found[3] for found in drawn(element)] == [False, True]
    assert len(re.findall(r'<use [^>]*style="fill: #e0742f', element)) == 1 + 2 + 1  # each point
    assert "#2f88d0" not in element


def test_the_settings_of_others_stay_as_they_are():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw()
    assert dict(mpl.rcParams) == before


def test_the_lines_go_through_their_numbers():
    found = drawn(draw())
    assert len(found) == len(LINES)
    for line, (x, y, _, dashed) in zip(LINES, found, strict=True):
        np.testing.assert_allclose(x, line.x, atol=0.05)
        np.testing.assert_allclose(y, line.y, atol=0.01)
        assert dashed == line.dashed
    assert found[0][2] != found[1][2]


def heights(element):
    """The places on the page, from the bottom, of the points of the first line."""
    root = ET.fromstring(element)
    paths = [p for p in root.iter(f"{SVG}path")
             if p.get("clip-path") and "currentColor" not in p.get("style")]  # fmt: skip
    return -points(paths[0].get("d"))[:, 1]


def test_on_a_logarithmic_axis_tenfold_is_one_step():
    line = Line("loss", [0, 1, 2], [1.0, 10.0, 100.0])
    steps = np.diff(heights(draw([line], log=True)))
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-4)
    steps = np.diff(heights(draw([line])))
    np.testing.assert_allclose(steps[1], 10 * steps[0], rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_what_is_not_above_zero_stands_on_a_linear_axis(value):
    lines = [
        Line("loss", [0, 1, 2], [1.0, 10.0, 100.0]),
        Line("kl", [0, 1], [5.0, value]),
    ]
    steps = np.diff(heights(draw(lines, log=True)))
    np.testing.assert_allclose(steps[1], 10 * steps[0], rtol=1e-4)
    assert "kl" in texts(draw(lines, log=True))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", [[math.nan] * 3, [1.0, math.nan, 2.0], [2.0, 2.0, 2.0]])
def test_numbers_that_make_no_curve_are_drawn_without_a_complaint(y, log):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = ET.fromstring(draw([Line("loss", [1, 2, 3], y)], log=log))
        ET.fromstring(draw([Line("loss", [1], y[:1])], log=log))
    assert root.tag == f"{SVG}svg"


def curve_line(stage, step, images, seconds, **numbers):
    return {"stage": stage, "step": step, "images": images, "seconds": seconds} | numbers


CURVE = [
    curve_line("vae", 1, 10, 2.0, fd_pixels=9.0, kd_pixels=0.5, fd_pixels_floor=2.0),
    curve_line("vae", 2, 20, 4.0, fd_pixels=7.0, kd_pixels=-0.25, fd_pixels_floor=2.0),
    curve_line("gan", 1, 5, 3.0, fd_pixels=6.0, kd_pixels=0.25, fd_pixels_floor=2.0),
    curve_line("gan", 2, 15, 6.0, fd_pixels=4.0, kd_pixels=0.0, fd_pixels_floor=2.0),
]


def by_labels(elements):
    """The plots by title and label of the x axis."""
    found = {}
    for element in elements:
        words = [text for text in texts(element) if numeric(text) is None]
        x_label = next(word for word in words if "both stages" in word)
        found[ET.fromstring(element).get("aria-label"), x_label.split()[0]] = element
    return found


def test_there_is_a_plot_of_each_distance_for_each_cost():
    assert list(by_labels(plots.distance_plots(CURVE))) == [
        ("fd_pixels to held-out images", "images"),
        ("fd_pixels to held-out images", "seconds"),
        ("kd_pixels to held-out images", "images"),
        ("kd_pixels to held-out images", "seconds"),
    ]
    assert plots.distance_plots([]) == []


@pytest.mark.parametrize(
    ("cost", "vae", "gan"),
    [("images", [10, 20], [25, 35]), ("seconds", [2, 4], [7, 10])],
)
def test_the_gan_begins_where_the_vae_ended(cost, vae, gan):
    element = by_labels(plots.distance_plots(CURVE))["fd_pixels to held-out images", cost]
    found = drawn(element)
    expected = [(vae, [9, 7], False), (gan, [6, 4], False), ([0, gan[-1]], [2, 2], True)]
    assert len(found) == len(expected)
    for (x, y, _, is_dashed), (to_x, to_y, dashed) in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, to_x, atol=0.05)
        np.testing.assert_allclose(y, to_y, atol=0.02)
        assert is_dashed == dashed
    assert {"VAE samples", "GAN samples", "as many real images"} <= set(texts(element))


def test_a_gan_by_itself_begins_at_nothing():
    element = by_labels(plots.distance_plots(CURVE[2:]))["fd_pixels to held-out images", "images"]
    np.testing.assert_allclose(drawn(element)[0][0], [5, 15], atol=0.05)


def test_a_distance_without_a_floor_has_no_dashed_line():
    curve = [curve_line("vae", s, 10 * s, 1.0 * s, kid_clean=0.1 * s) for s in (1, 2, 3)]
    elements = by_labels(plots.distance_plots(curve))
    assert [title for title, _ in elements] == ["kid_clean to held-out images"] * 2
    for element in elements.values():
        assert [dashed for *_, dashed in drawn(element)] == [False]


METRICS = [
    {"stage": "vae", "step": s, "seconds": 1.0 * s, "images_per_second": 5.0, "loss": 90.0 / s,
     "reconstruction": 80.0 / s, "kl": 10.0 / s, "gradient_norm": 3.0}
    for s in (2, 4, 6)
] + [
    {"stage": "gan", "step": s, "seconds": 1.0 * s, "images_per_second": 5.0,
     "discriminator_loss": 1.5, "generator_loss": 0.5 * s, "discriminator_accuracy": 0.5,
     "real_logit": 1.0, "fake_logit": -1.0 * s} | ({"r1": 0.125 * s} if s > 2 else {})
    for s in (2, 4, 6)
]  # fmt: skip


def titles(elements):
    return [ET.fromstring(element).get("aria-label") for element in elements]


def test_the_learning_curves_are_those_of_the_stage():
    assert titles(plots.learning_plots(METRICS, "vae")) == [
        "Loss of the VAE",
        "Gradient of the VAE",
    ]
    loss, _ = plots.learning_plots(METRICS, "vae")
    assert {"loss", "reconstruction", "kl", "steps", "nats per image"} <= set(texts(loss))
    assert "discriminator loss" in texts(plots.learning_plots(METRICS, "gan")[0])


def test_a_stage_without_lines_has_no_curves():
    assert plots.learning_plots([], "vae") == []
    assert plots.learning_plots(METRICS[:3], "gan") == []
    assert plots.learning_plots(METRICS[3:], "vae") == []


def test_what_only_some_lines_have_is_drawn_where_it_is():
    elements = plots.learning_plots(METRICS, "gan")
    assert titles(elements) == [
        "Losses of the GAN",
        "Discriminator's accuracy",
        "Discriminator's logits",
        "R1 penalty",  # and no gradients, which no line has
    ]
    logits = drawn(elements[2])
    np.testing.assert_allclose([y for _, y, *_ in logits], [[1, 1, 1], [-2, -4, -6]], atol=0.02)
    for x, *_ in logits:
        np.testing.assert_allclose(x, [2, 4, 6], atol=0.02)
    assert len(heights(elements[3])) == 2


def test_a_distance_without_a_floor_is_drawn_too():
    curve = [
        {"stage": "vae", "step": step, "images": 4 * step, "seconds": 2.0, "fd_x": 3.0, "mine": 1.0}
        for step in (1, 2)
    ]
    drawn = plots.distance_plots(curve)
    assert len(drawn) == 4
    assert "as many real images" not in "".join(drawn)
