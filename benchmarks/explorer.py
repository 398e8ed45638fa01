"""From slider to picture, measured in the browser: the explorer in headless Chromium.

    python benchmarks/explorer.py runs/quickstart

A mouse drags a slider of a principal direction there and back. The page itself notes for every
input event how long it was until a picture of that state, or of a newer one, was painted: from the
event's time stamp to the first message after the animation frame. So frames, which come every
17 ms, are in it, and so is the wait for a request that was under way. It needs Chromium and the
extras explore and test.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def main() -> None:
    """Prints the latencies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--moves", type=int, default=600, help="of the mouse")
    parser.add_argument("--screenshot", type=Path, help="where to write one")
    arguments = parser.parse_args()
    server = subprocess.Popen(
        ["vaegan", "explore", arguments.run, "--port=0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        if found is None:
            sys.exit("The explorer did not start.")
        drag(found[0], arguments.moves, arguments.screenshot)
    finally:
        server.terminate()
        server.wait()


def drag(address: str, moves: int, screenshot: Path | None) -> None:
    """Drags a slider of the explorer at an address, and prints what the page noted."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(address)
        page.wait_for_selector("#nearest-list img", timeout=120_000)  # the data are encoded
        page.click("#random")
        page.wait_for_timeout(1500)
        if screenshot:
            page.screenshot(path=screenshot)
        page.click("#tab-sliders")
        page.evaluate(
            """() => { window.waits = []; window.pictures = 0;
            document.addEventListener("waited", (e) => window.waits.push(...e.detail));
            document.addEventListener("picture", () => window.pictures++); }"""
        )
        box = page.locator("#directions-0").bounding_box()
        assert box is not None
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        for i in range(moves):
            at = abs(i % 200 - 100) / 100
            page.mouse.move(box["x"] + box["width"] * (0.1 + 0.8 * at), y)
            page.wait_for_timeout(8)
        page.mouse.up()
        page.wait_for_timeout(500)
        waits, pictures = page.evaluate("() => [window.waits, window.pictures]")
        browser.close()
    waits.sort()
    print(
        f"{len(waits)} inputs, {pictures} pictures: median {statistics.median(waits):.1f} ms, "
        f"95 % within {waits[int(0.95 * len(waits))]:.1f} ms, "
        f"99 % within {waits[int(0.99 * len(waits))]:.1f} ms, most {waits[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main()
