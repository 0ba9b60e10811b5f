"""Measure the page in Chromium on this machine: python -m benchmarks.page_speed [--checkpoint FOLDER].

Prints each figure beside the one it has to meet. Run it on a quiet machine. Needs a Chromium, and playwright
(tests/requirements.txt).
"""

import argparse
import base64
import random
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import Error, Page, sync_playwright

from sagan.commands import run_program

ROOT = Path(__file__).parents[1]
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DRAWN = "#attention-view [data-drawn]"
SECONDS_TO_WAIT = 120
VISITS = 8  # faces that each of many visitors asks for
PAUSE = 3  # s before each, on average

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

# Turns the first gamma dial as a drag does; resolves once the four pictures of that value are drawn.
TURN_DIAL = """
(times) => new Promise((done) => {
  const view = document.querySelector('#dials-view .content');
  const dial = document.querySelector('#dials-view input[type=range]');
  const before = view.dataset.shown, start = performance.now();
  dial.value = times;
  dial.dispatchEvent(new Event('input', { bubbles: true }));
  const look = () => {
    if (view.dataset.shown !== before) done(performance.now() - start);
    else requestAnimationFrame(look);
  };
  look();
})
"""

# Points at cells of a layer, one in each animation frame; resolves to the weights that were drawn for them.
DRAW = """
async ([layer, cells]) => {
  const figure = document.querySelector(`#attention-view figure[data-layer="${layer}"]`);
  const picture = figure.querySelector('.picture'), box = picture.getBoundingClientRect();
  const side = parseInt(layer), drawn = [];
  for (const cell of cells) {
    const [x, y] = [cell % side, Math.floor(cell / side)].map((at) => (at + 0.5) / side);
    const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
    picture.dispatchEvent(new PointerEvent('pointermove', { ...at, pointerType: 'mouse' }));
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    drawn.push([Number(figure.dataset.query), [...figure.weights]]);
  }
  return drawn;
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", default=str(ROOT / "checkpoints" / "celeba64"), help="checkpoint folder"
    )
    parser.add_argument("--moves", type=int, default=300, help="pointer events to measure")
    parser.add_argument("--seeds", type=int, default=100, help="seed changes and dial turns to measure")
    parser.add_argument("--queries", type=int, default=1000, help="attention rows to check")
    parser.add_argument("--visitors", type=int, default=30, help="visitors at the same time")
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
                report(page, first_face, options)
            finally:
                server.terminate()


def report(page: Page, first_face: float, options: argparse.Namespace) -> None:
    """Measure and print everything after the start."""
    costs, share, requests = hover(page, options.moves)
    changes = [page.evaluate(CHANGE_SEED, random.randrange(2**32)) for _ in range(options.seeds + 5)][5:]
    payload = page.evaluate("new Blob([JSON.stringify({ ...sagan.face, picture: undefined })]).size")
    worst = worst_weight(page, options.queries)
    turns = turn_dial(page, options.seeds)
    line = "{:<58} {:>10}   {}".format
    print(line("what", "measured", "figure"))
    print(f"{options.moves} moves, {options.seeds} seeds and dial turns, {options.queries} queries")
    print(line("python app.py to the first face on screen (s)", f"{first_face:.1f}", "<= 15"))
    for name, value in percentiles(costs).items():
        figure = "<= 8" if name == "p95" else ""
        print(line(f"pointer event, both layers, combined, measures, {name} (ms)", f"{value:.2f}", figure))
    print(line("drawn in the next animation frame (%)", f"{100 * share:.1f}", ">= 95"))
    print(line("network requests while hovering", str(requests), "0"))
    for name, value in percentiles(changes).items():
        figure = "<= 120" if name == "p95" else ""
        print(line(f"seed slider to new face, both layers ready, {name} (ms)", f"{value:.1f}", figure))
    for name, value in percentiles(turns).items():
        figure = "<= 120" if name == "p95" else ""
        print(line(f"gamma dial to four new pictures, {name} (ms)", f"{value:.1f}", figure))
    print(line("drawn weights against a float64 softmax, worst", f"{worst:.1e}", "<= 1e-6"))
    print(line("first payload of a face (KB)", f"{payload / 1000:.0f}", "<= 150"))
    for name, value in percentiles(crowd(page, options.visitors)).items():
        what = f"{options.visitors} visitors, each a new face {PAUSE} s after the last, {name} (ms)"
        print(line(what, f"{value:.1f}", ""))


def turn_dial(page: Page, turns: int) -> list[float]:
    """Milliseconds of each turn of a gamma dial until its four pictures are drawn."""
    page.locator("#dials-view summary").click()
    page.locator("#dials-view .content").scroll_into_view_if_needed()
    page.wait_for_selector("#dials-view .content[data-shown]")
    page.wait_for_timeout(500)
    steps = [0.05 * step for step in range(61)]  # a dial goes from 0 to 3, and no value twice in a row
    values = [random.choice(steps[i % 2 :: 2]) for i in range(turns + 5)]
    return [page.evaluate(TURN_DIAL, value) for value in values][5:]


def crowd(page: Page, visitors: int) -> list[float]:
    """Milliseconds of each answer with a new face, where so many ask for one again and again."""
    seed = random.randrange(2**32)
    with page.expect_request(lambda request: request.method == "POST") as asked:
        page.evaluate(CHANGE_SEED, seed)
    address, body = asked.value.url, asked.value.post_data_json
    at = body["data"].index(seed)

    def visit(number: int) -> list[float]:
        waits = []
        with httpx.Client(timeout=SECONDS_TO_WAIT) as visitor:
            for _ in range(VISITS):
                time.sleep(random.expovariate(1 / PAUSE))
                wanted = random.randrange(2**32)
                data = [*body["data"][:at], wanted, *body["data"][at + 1 :]]
                start = time.perf_counter()
                question = body | {"data": data, "session_hash": f"visitor{number}"}
                answer = visitor.post(address, json=question).raise_for_status()
                waits.append(1000 * (time.perf_counter() - start))
                if str(wanted) not in answer.text:
                    raise RuntimeError(f"The answer has no face of seed {wanted}: {answer.text[:200]}")
        return waits

    with ThreadPoolExecutor(visitors) as pool:
        return [wait for waits in pool.map(visit, range(visitors)) for wait in waits]


def worst_weight(page: Page, queries: int) -> float:
    """Of random queries of all layers, the largest error of a drawn weight against NumPy in float64."""
    layers = page.evaluate("sagan.face.layers")
    worst = 0.0
    for at, layer in enumerate(layers):
        positions = int(layer["name"].partition("x")[0]) ** 2
        q, k = (np.frombuffer(base64.b64decode(layer[name]), "<f4").astype(np.float64) for name in "qk")
        logits = q.reshape(positions, -1) @ k.reshape(positions, -1).T
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        count = queries // len(layers) + (at < queries % len(layers))
        for done in range(0, count, 100):
            cells = [random.randrange(positions) for _ in range(min(100, count - done))]
            for query, drawn in page.evaluate(DRAW, [layer["name"], cells]):
                worst = max(worst, float(np.abs(weights[query] - drawn).max()))
    return worst


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
    run_program(main, prints_result=True)
