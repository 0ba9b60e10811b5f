"""Measure the page in Chromium on this machine: python benchmarks/page_speed.py [--checkpoint FOLDER].

Prints each figure beside the one it has to meet. Run it on a quiet machine. Needs a Chromium, and playwright
(tests/requirements.txt).
"""

import argparse
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Error, Page, sync_playwright

ROOT = Path(__file__).parents[1]
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DRAWN = "#attention-view [data-drawn]"
SECONDS_TO_WAIT = 120

# Counts animation frames; times every pointer event with its listeners, and every frame callback that draws.
WATCH = """
(() => {
  const view = document.querySelector('#attention-view [data-drawn]');
  const seen = globalThis.seen = { handled: [], drew: [], waited: [] };
  let frame = 0, started = 0, asked = null;
  const request = globalThis.requestAnimationFrame.bind(globalThis);
  const count = () => { frame++; request(count); };
  request(count);
  globalThis.requestAnimationFrame = (callback) => request((now) => {
    const before = view.dataset.drawn, start = performance.now();
    callback(now);
    if (view.dataset.drawn === before || asked === null) return;
    seen.drew.push(performance.now() - start);
    seen.waited.push(frame - asked);
    asked = null;
  });
  addEventListener('pointermove', () => { started = performance.now(); asked ??= frame; }, true);
  addEventListener('pointermove', () => seen.handled.push(performance.now() - started));
})()
"""

# Sets the seed as a drag of its slider does; resolves once both layers are drawn for it.
CHANGE_SEED = """
(seed) => new Promise((done) => {
  const slider = document.querySelector('#seed input[type=range]');
  const view = document.querySelector('#attention-view [data-drawn]');
  const start = performance.now();
  slider.value = seed;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  const look = () => {
    if (view.dataset.seed === String(seed)) done(performance.now() - start);
    else requestAnimationFrame(look);
  };
  look();
})
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", default=str(ROOT / "checkpoints" / "celeba64"), help="checkpoint folder"
    )
    parser.add_argument("--moves", type=int, default=300, help="pointer events to measure")
    parser.add_argument("--seeds", type=int, default=100, help="seed changes to measure")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("No Chromium found: install it, for example with `apt install chromium`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        port = free_port()
        command = [sys.executable, "app.py", "--checkpoint", options.checkpoint, "--port", str(port)]
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as server:
            try:
                first_face = open_page(page, f"http://127.0.0.1:{port}") - start
                report(page, first_face, options.moves, options.seeds)
            finally:
                server.terminate()


def report(page: Page, first_face: float, moves: int, seeds: int) -> None:
    """Measure and print everything after the start."""
    costs, share, requests = hover(page, moves)
    changes = [page.evaluate(CHANGE_SEED, random.randrange(2**32)) for _ in range(seeds + 5)][5:]
    line = "{:<58} {:>10}   {}".format
    print(line("what", "measured", "figure"))
    print(line("python app.py to the first face on screen (s)", f"{first_face:.1f}", "<= 15"))
    for name, value in percentiles(costs).items():
        figure = "<= 8" if name == "p95" else ""
        print(line(f"pointer event plus drawing both layers, {name} (ms)", f"{value:.2f}", figure))
    print(line("drawn in the next animation frame (%)", f"{100 * share:.1f}", ">= 95"))
    print(line("network requests while hovering", str(requests), "0"))
    for name, value in percentiles(changes).items():
        figure = "<= 120" if name == "p95" else ""
        print(line(f"seed slider to new face, both layers ready, {name} (ms)", f"{value:.1f}", figure))


def hover(page: Page, moves: int) -> tuple[np.ndarray, float, int]:
    """Milliseconds of each pointer event with its drawing, share drawn in the next frame, requests."""
    page.evaluate(WATCH)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    box = page.locator("#attention-view .picture").first.bounding_box()
    for _ in range(moves):
        x, y = (random.uniform(0.02, 0.98) for _ in range(2))
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(20)
    seen = page.evaluate("seen")
    count = min(len(seen["handled"]), len(seen["drew"]))
    costs = np.array(seen["handled"][-count:]) + np.array(seen["drew"][-count:])
    return costs, float(np.mean(np.array(seen["waited"]) <= 1)), len(requests)


def percentiles(values: np.ndarray | list[float]) -> dict[str, float]:
    return {f"p{p}": float(np.percentile(values, p)) for p in (50, 95)}


def open_page(page: Page, address: str) -> float:
    """Open the page as soon as it answers; returns the time at which its first face is on screen."""
    give_up = time.perf_counter() + SECONDS_TO_WAIT
    while True:
        try:
            page.goto(address)
            break
        except Error:
            if time.perf_counter() > give_up:
                raise
            time.sleep(0.1)
    page.wait_for_selector(DRAWN, timeout=1000 * SECONDS_TO_WAIT)
    return time.perf_counter()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
