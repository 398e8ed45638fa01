"""Latency of the explorer from slider to image, in headless Chromium.

    python benchmarks/explorer.py runs/quickstart

The mouse drags the slider of a principal direction back and forth. For every input event, the page
records the time from the event's time stamp until the image of that state, or of a newer one, is
painted (the first message after the animation frame). It includes the browser's frame interval of
17 ms and the time spent waiting for an earlier request. Requires Chromium and the extras explore
and test.
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
    """Starts the explorer of a run and prints the latencies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="folder of a run, an export, or pretrained")
    parser.add_argument("--moves", type=int, default=600, help="number of mouse moves")
    parser.add_argument("--screenshot", type=Path, help="file to write a screenshot to")
    args = parser.parse_args()
    server = subprocess.Popen(
        ["vaegan", "explore", args.run, "--port=0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        match = re.search(r"http://\S+", server.stdout.readline())
        if match is None:
            sys.exit("The explorer did not start.")
        drag(match[0], args.moves, args.screenshot)
    finally:
        server.terminate()
        server.wait()


def drag(address: str, moves: int, screenshot: Path | None) -> None:
    """Drags a slider of the explorer at an address; prints the latencies that the page records."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(address)
        page.wait_for_selector("#nearest-list img", timeout=120_000)  # when the data is encoded
        page.click("#random")
        page.wait_for_timeout(1500)
        if screenshot:
            page.screenshot(path=screenshot)
        page.click("#tab-sliders")
        page.evaluate(
            """() => { window.latencies = []; window.images = 0;
            document.addEventListener("waited", (e) => window.latencies.push(...e.detail));
            document.addEventListener("picture", () => window.images++); }"""
        )
        box = page.locator("#directions-0").bounding_box()
        assert box is not None
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        for i in range(moves):
            position = abs(i % 200 - 100) / 100
            page.mouse.move(box["x"] + box["width"] * (0.1 + 0.8 * position), y)
            page.wait_for_timeout(8)
        page.mouse.up()
        page.wait_for_timeout(500)
        latencies, images = page.evaluate("() => [window.latencies, window.images]")
        browser.close()
    latencies.sort()
    print(
        f"{len(latencies)} inputs, {images} images: median {statistics.median(latencies):.1f} ms, "
        f"95 % within {latencies[int(0.95 * len(latencies))]:.1f} ms, "
        f"99 % within {latencies[int(0.99 * len(latencies))]:.1f} ms, "
        f"maximum {latencies[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main()
