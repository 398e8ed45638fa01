"""The explorer's page in headless Chromium."""

import functools
import shutil

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)
pytest.importorskip("starlette", reason="needs the extra explore")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

from tests.explorer import served, sessions  # noqa: E402 - they need the extra

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PIXELS = """(canvas) => Array.from(
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)"""


@pytest.fixture(scope="module")
def address(session):
    with served.serve(session) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page; fails if there was an error or a request to another host."""
    contexts, errors, urls = [], [], []

    def opened(fragment="", prepare=lambda page: None, **options):
        options = {"viewport": {"width": 1200, "height": 860}} | options
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        count_requests(page)
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        prepare(page)
        page.goto(f"{address}/{fragment}")
        page.wait_for_selector("[data-ready=yes]")
        page.wait_for_selector("#nearest-list img")
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in urls if not url.startswith((address, "blob:", "data:"))] == []


def settle(page):
    """Waits until all requests have finished and the state is shown."""
    page.wait_for_timeout(300)  # the link is updated after 250 ms
    while page.under_way:
        page.wait_for_timeout(20)
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(resolve))")


def count_requests(page):
    """Counts the unanswered requests in `page.under_way`."""
    page.under_way = 0

    def counted(by):
        def count(_):
            page.under_way += by

        return count

    page.on("request", counted(1))
    page.on("requestfinished", counted(-1))
    page.on("requestfailed", counted(-1))


def pixels(page, selector):
    result = page.locator(f"{selector} canvas").evaluate(PIXELS)
    return np.array(result, np.uint8)


vae = functools.partial(pixels, selector="[data-model=vae]")
gan = functools.partial(pixels, selector="[data-model=gan]")


def latent(page):
    module = """async (text) => (await import("/latent.js")).fromText(
        new URLSearchParams(text.slice(1)).get("z"), 5)"""
    settle(page)
    return np.array(page.evaluate(module, page.evaluate("() => location.hash")))


def assert_both_change(page, act):
    """Asserts that an action changes both pictures; returns the new ones."""
    before = vae(page), gan(page)
    act()
    settle(page)
    after = vae(page), gan(page)
    assert (before[0] != after[0]).any()
    assert (before[1] != after[1]).any()
    return after


def set_range(page, selector, value):
    page.locator(selector).evaluate(
        """(input, value) => { input.value = value;
        input.dispatchEvent(new Event("input", { bubbles: true }));
        input.dispatchEvent(new Event("change", { bubbles: true })); }""",
        value,
    )


def test_pictures_are_the_networks_outputs(open_page, session):
    page = open_page()
    page.click("#random")
    z = latent(page).astype(np.float32)
    expected = session.pair(z, {"vae": 7, "gan": 5})
    for result, model in ((vae(page), "vae"), (gan(page), "gan")):
        np.testing.assert_array_equal(result.reshape(16, 32, 4)[..., :3], expected[model])


def test_random_reset_undo_and_redo(open_page, session):
    page = open_page()
    first = vae(page)
    assert page.locator("#undo").is_disabled()
    assert_both_change(page, lambda: page.click("#random"))
    second = assert_both_change(page, lambda: page.keyboard.press("r"))
    page.click("#undo")
    page.click("#undo")
    settle(page)
    np.testing.assert_array_equal(vae(page), first)
    page.keyboard.press("Shift+U")
    page.click("#redo")
    settle(page)
    np.testing.assert_array_equal(vae(page), second[0])
    page.click("#reset")
    np.testing.assert_allclose(latent(page), session.facts()["space"]["middle"], atol=1e-6)
    page.keyboard.press("Control+z")
    settle(page)
    np.testing.assert_array_equal(vae(page), second[0])


def test_sliders_move_only_along_their_axes(open_page, session):
    page = open_page()
    page.click("#tab-sliders")
    space = session.facts()["space"]
    before = latent(page)
    box = page.locator("#directions-0").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for i in range(20):
        page.mouse.move(box["x"] + box["width"] * (0.5 + i / 60), box["y"] + box["height"] / 2)
    page.mouse.up()
    moved = latent(page) - before
    direction = np.array(space["directions"][0])
    assert moved @ direction > 0.5
    np.testing.assert_allclose(moved - moved @ direction * direction, 0, atol=1e-5)
    page.keyboard.press("u")  # one drag is one step
    np.testing.assert_allclose(latent(page), before, atol=1e-6)

    def by_keys():
        page.focus("#units-1")
        for _ in range(60):
            page.keyboard.press("ArrowRight")

    assert_both_change(page, by_keys)
    moved = latent(page) - before
    unit = space["units"][1]
    assert moved[unit] == pytest.approx(0.6 * space["deviations"][1], abs=0.02)
    np.testing.assert_allclose(np.delete(moved, unit), 0, atol=1e-5)
    assert "standard deviations" in page.get_attribute("#units-1", "aria-valuetext")


def test_map_by_mouse_and_keys(open_page, session):
    page = open_page()
    page.click("#random")
    before = latent(page)
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 40)
    assert page.locator("#map-thumb").is_visible()  # the nearest training image

    def drag():
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"], steps=5)
        page.mouse.up()

    assert_both_change(page, drag)
    space = session.facts()["space"]
    directions, spreads = np.array(space["directions"]), np.array(space["spreads"])
    at = directions @ (latent(page) - space["middle"]) / spreads
    np.testing.assert_allclose(at[:2], 1.8, atol=0.05)
    np.testing.assert_allclose(at[2:], (directions @ (before - space["middle"]) / spreads)[2:],
                               atol=1e-4)  # fmt: skip
    page.focus("#map")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    at = directions @ (latent(page) - space["middle"]) / spreads
    np.testing.assert_allclose(at[:2], [1.7, 1.3], atol=0.05)
    page.keyboard.press("Enter")
    nearest = np.linalg.norm(session.points()[:2].T - [1.7, 1.3], axis=1).argmin()
    np.testing.assert_allclose(latent(page), session.example(nearest)[0], atol=1e-5)
    page.select_option("#map-axes", "units")
    assert_both_change(page, lambda: page.mouse.dblclick(box["x"] + 60, box["y"] + 200))


def test_checkpoint_timelines(open_page):
    page = open_page()
    first_vae, first_gan = vae(page), gan(page)
    set_range(page, "[data-model=gan] input", 0)
    settle(page)
    np.testing.assert_array_equal(vae(page), first_vae)
    assert (gan(page) != first_gan).any()
    assert page.inner_text("[data-model=gan] output") == "2"
    assert "gan=2" in page.evaluate("() => location.hash")
    page.focus("[data-model=vae] input")
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert (vae(page) != first_vae).any()
    page.click("[data-model=gan] .play")
    page.wait_for_selector("[data-model=gan] .play[aria-pressed=false]")
    settle(page)
    np.testing.assert_array_equal(gan(page), first_gan)


def refresh(page):
    """Advances the page's clock by 20 seconds, after which it requests the facts again."""
    with page.expect_response("**/api/facts"):
        page.clock.fast_forward(20_000)
    settle(page)


def with_checkpoints(page, **checkpoints):
    """Replaces the checkpoints in the facts that the page receives."""

    def fulfil(route):
        response = route.fetch()
        facts = response.json()
        facts["checkpoints"] |= checkpoints
        route.fulfill(response=response, json=facts)

    page.unroute_all()
    page.route("**/api/facts", fulfil)


def test_deleted_and_first_checkpoints_after_refresh(open_page):
    def prepare(page):
        page.clock.install()
        with_checkpoints(page, vae=[3, 7], gan=[])

    page = open_page(prepare=prepare)
    set_range(page, "[data-model=vae] input", 0)
    settle(page)
    old = vae(page)
    with_checkpoints(page, vae=[7], gan=[2])
    refresh(page)
    assert page.locator("#panes .timeline output").all_inner_texts() == ["7", "2"]
    result = vae(page), gan(page)
    assert (result[0] != old).any()
    other = open_page(page.evaluate("() => location.hash"))  # of the same checkpoints
    assert (vae(other) == result[0]).all()
    assert (gan(other) == result[1]).all()


def test_upload_crop_encode_and_morph(open_page, session, tmp_path):
    page = open_page()
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize((320, 240))
    noise.save(tmp_path / "own.png")

    def upload():
        page.set_input_files("#file", tmp_path / "own.png")
        page.wait_for_selector("#crop-encode:visible")
        set_range(page, "#crop-size", 50)
        page.focus("#crop-frame")
        page.keyboard.press("ArrowLeft")
        page.click("#crop-encode")
        page.wait_for_selector("#own:visible")

    assert_both_change(page, upload)
    # Half the width, centred, and moved by 0.02 to the left; the aspect ratio is 2.
    crop = (0.25 - 0.02, 1 / 3, 0.5, 1 / 3)
    expected, seen = session.encode((tmp_path / "own.png").read_bytes(), crop)
    np.testing.assert_allclose(latent(page), expected, atol=1e-5)
    np.testing.assert_array_equal(pixels(page, "#own").reshape(16, 32, 4)[..., :3], seen)
    beginning = gan(page)

    # Drop another one on the page.
    data = list(sessions.png(64, 64))
    drop = """([data]) => { const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(data)], "own.png", { type: "image/png" }));
        document.body.dispatchEvent(new DragEvent("drop",
            { dataTransfer: files, bubbles: true, cancelable: true })); }"""
    page.evaluate(drop, [data])
    page.wait_for_selector("#crop-encode:visible")
    page.click("#crop-encode")
    settle(page)
    end = gan(page)
    assert (end != beginning).any()
    page.click("#tab-morph")
    set_range(page, "#morph", 0)
    settle(page)
    np.testing.assert_array_equal(gan(page), beginning)
    assert_both_change(page, lambda: set_range(page, "#morph", 0.5))
    set_range(page, "#seconds", 1)
    page.click("#play")
    seen = []
    for _ in range(6):
        page.wait_for_timeout(120)
        seen.append(gan(page).tobytes())
    assert len(set(seen)) > 2  # it moves
    page.keyboard.press("Escape")
    page.click("#play")
    settle(page)
    still = gan(page)
    settle(page)
    np.testing.assert_array_equal(gan(page), still)
    page.click("#random")
    settle(page)
    page.click("#set-a")
    set_range(page, "#morph", 1)
    settle(page)
    np.testing.assert_array_equal(gan(page), end)
    page.click("#own-remove")
    assert page.locator("#own").is_hidden()


def test_nearest_images_lead_to_their_latents(open_page, session):
    page = open_page()
    page.click("#random")
    z = latent(page).astype(np.float32)
    shown = page.locator("#nearest-list img").evaluate_all("(all) => all.map((i) => i.src)")
    expected = session.nearest(z, "pixels", "gan", 5, 8)
    assert [int(src.rpartition("/")[2][:-4]) for src in shown] == [row for row, _ in expected]
    page.select_option("#nearest-by", "latents")
    settle(page)
    index = session.nearest(z, "latents", "vae", 7, 1)[0][0]
    page.locator("#nearest-list button").first.click()
    np.testing.assert_allclose(latent(page), session.example(index)[0], atol=1e-5)


def test_difference_of_the_pictures(open_page):
    page = open_page()
    page.keyboard.press("d")
    a, b = (result.reshape(16, 32, 4)[..., :3].astype(int) for result in (vae(page), gan(page)))
    shown = pixels(page, "#difference").reshape(16, 32, 4)[..., :3]
    np.testing.assert_array_equal(shown, np.minimum(255, 2 * np.abs(a - b)))
    root = np.sqrt(((a - b) ** 2).mean())
    assert page.inner_text("#difference-size").startswith(f"{root:.1f} of 255")


def test_dragging_does_not_queue_requests(open_page, session):
    page = open_page()
    page.click("#tab-sliders")
    under_way, maximum, count = 0, 0, 0

    def began(request):
        nonlocal under_way, maximum, count
        if request.url.endswith("/api/decode"):
            under_way, count = under_way + 1, count + 1
            maximum = max(maximum, under_way)

    def ended(request):
        nonlocal under_way
        under_way -= request.url.endswith("/api/decode")

    page.on("request", began)
    page.on("requestfinished", ended)
    page.locator("#directions-0").evaluate(
        """async (input) => { for (let i = 0; i < 300; i++) {
        input.value = i / 100; input.dispatchEvent(new Event("input"));
        if (i % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 1)); } }"""
    )
    z = latent(page).astype(np.float32)
    assert maximum == 1
    assert 1 < count < 300
    expected = session.pair(z, {"vae": 7})["vae"]
    np.testing.assert_array_equal(vae(page).reshape(16, 32, 4)[..., :3], expected)
