"""The explorer's page in headless Chromium."""

import json
import shutil

import numpy as np
import pytest

from tests.explorer.conftest import png, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def page(session):
    """The page at the first sample; fails after an error or a request to another host."""
    errors, urls = [], []
    with serve(session) as port, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda m: errors.append(m.text) if is_error(m) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        wait_for_pictures(page, session, samples(session)[0])
        yield page
        browser.close()
    assert errors == []
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:")) for url in urls)


def is_error(message):
    return message.type == "error" and "status of 400" not in message.text  # which the page shows


def samples(session, seed=0):
    return [sample["latent"] for sample in session.samples(str(seed).encode())]


def wait_for_pictures(page, session, latent):
    """Waits until the page shows the pictures of both networks at a latent."""
    for name, url in session.decode(json.dumps(list(latent)).encode()).items():
        page.wait_for_selector(f'#{name} img[src="{url}"]', state="attached")


def test_samples_of_a_seed_and_saving(page, session):
    page.fill("#seed", "5")
    page.keyboard.press("Enter")
    first = session.samples(b"5")[0]["picture"]
    page.wait_for_selector(f'#samples img[src="{first}"]')
    page.locator("#samples button").nth(3).click()
    wait_for_pictures(page, session, samples(session, 5)[3])
    with page.expect_download() as download:
        page.locator("#gan a").click()
    assert download.value.suggested_filename == "gan_5.png"


def test_slider_moves_only_along_its_direction(page, session):
    page.locator("#direction-2").fill("1.5")
    start = np.array(samples(session)[0])
    direction = np.array(session.facts()["directions"][1])
    wait_for_pictures(page, session, start + (1.5 - start @ direction) * direction)
    page.click("#reset")
    wait_for_pictures(page, session, np.zeros(5))


def test_interpolation_between_two_samples(page, session):
    ends = np.array(samples(session))[[0, 3]]
    page.click("#start")
    page.locator("#samples button").nth(3).click()
    wait_for_pictures(page, session, ends[1])
    page.click("#end")
    page.locator("#between").fill("0.25")
    angle = np.arccos(ends[0] @ ends[1] / np.linalg.norm(ends, axis=1).prod())
    weights = np.sin([0.75 * angle, 0.25 * angle]) / np.sin(angle)
    wait_for_pictures(page, session, weights @ ends)


def test_own_image_is_encoded_and_reconstructed(page, session):
    file = png(64, 64)
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": file})
    expected = session.encode(file)
    page.wait_for_selector(f'#own img[src="{expected["picture"]}"]')
    wait_for_pictures(page, session, expected["latent"])


def test_error_is_shown(page):
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"none"})
    page.wait_for_selector("#error:visible")
    assert "cannot be used" in page.inner_text("#error")
