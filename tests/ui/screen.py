"""What a test reads off the browser's screen, and what should stand there."""

import base64
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from randomness import draw

BYTES = """(canvas) => {
    const {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    return [height, width, btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(''))];
}"""  # one string: as a list of numbers, a picture takes seconds to arrive


# What iframe-resizer 4 does in a page around the frame; its other end comes with Gradio.
SPACE = """<!doctype html><meta name="viewport" content="width=device-width">
<body style="margin: 0"><header style="height: 60px">Spaces</header>
<iframe src="{address}" allow="fullscreen" scrolling="{scrolling}"
        style="display: block; width: 100%; border: 0; height: 700px; max-height: {highest}px"></iframe>
<script>
    const frame = document.querySelector('iframe'), events = ['scroll', 'resize'];
    const say = (text) => frame.contentWindow.postMessage(`[iFrameSizer]${text}`, '*');
    const offset = () => scrollY + frame.getBoundingClientRect().top;
    let late = 0; // ms by which a busy window tells where it is
    function tell() {
        const size = { clientWidth: innerWidth, clientHeight: innerHeight };
        const info = { scrollTop: scrollY, offsetTop: offset(), ...size };
        setTimeout(say, late, `pageInfo:${JSON.stringify(info)}`);
    }
    const answers = {
        scrollToOffset: (height) => scrollTo(0, offset() + height),
        pageInfo() { for (const event of events) addEventListener(event, tell); tell(); },
        pageInfoStop() { for (const event of events) removeEventListener(event, tell); },
    };
    function grow(height) { // later: it is busy
        if (height > 0) setTimeout(() => { frame.style.height = `${height}px`; }, 200);
    }
    const begin = 'f:0:false:false:32:true:false::bodyOffset:::0:false:child:scroll';
    frame.addEventListener('load', () => say(begin));
    addEventListener('message', ({ data }) => {
        if (typeof data !== 'string' || !data.startsWith('[iFrameSizer]f:')) return;
        const [, height, , kind] = data.split(':');
        (answers[kind] ?? grow)(Number(height));
    });
</script>"""
WINDOW = "http://localhost:9/"


COVERED = """() => {
    const focused = document.activeElement, card = document.querySelector('#tour-view .card');
    if (focused === document.body || card.contains(focused)) return '';
    const part = focused.getBoundingClientRect(), over = card.getBoundingClientRect();
    const under = part.left >= over.left && part.right <= over.right
        && part.top >= over.top && part.bottom <= over.bottom;
    const { above, below } = sagan.hidden;
    const away = part.bottom <= above || part.top >= innerHeight - below;
    return under || away ? focused.outerHTML.slice(0, 80) : '';
}"""


def covered(page) -> str:
    """What has the focus, where the card of the tour or the window's edge hides it; '': it is in sight."""
    return page.evaluate(COVERED)


CUT_OFF = """() => {
    const scrolls = (part) => !part.matches('.gradio-container')
        && (['auto', 'scroll'].includes(getComputedStyle(part).overflowX) || scrolls(part.parentElement));
    return [...document.querySelectorAll('.gradio-container *')]
        .filter((part) => part.checkVisibility() && !scrolls(part.parentElement))
        .filter((part) => part.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .map((part) => part.outerHTML.slice(0, 80));
}"""


def fits_the_width(page) -> None:
    """Nothing of the page reaches beyond its right edge: it clips its parts, so these never make it wider."""
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def two_frames(page) -> None:
    """Wait until the page has drawn what it was told."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def percent(share: float) -> str:
    """As the page says a share in percent."""
    return "> 99.9" if share > 0.9995 else f"{100 * share:.1f}"


def gamma_text(value: float) -> str:
    """A gamma as the page says it: in two places, and in more where these would be zeros."""
    if abs(value) >= 0.01 or not value:
        text = f"{value or 0:.2f}"
    elif abs(value) >= 0.0005:
        text = f"{value:.3f}"
    else:
        digit, exponent = f"{value:.0e}".split("e")
        text = f"{digit}e{int(exponent)}"
    return text.replace("-", "−")


def in_space(open_page: Callable, address: str, width: int, height: int, highest: int = 9999) -> tuple:
    """Open a page in a frame as high as itself, as a Space shows it, but at most `highest` pixels.

    Returns (the window around the frame, the page in it).
    """
    text = SPACE.replace("{address}", address).replace("{highest}", str(highest))
    text = text.replace("{scrolling}", "no" if highest == 9999 else "yes")
    window = open_page("about:blank", width, height)
    window.route(WINDOW, lambda route: route.fulfill(body=text, content_type="text/html"))
    window.goto(WINDOW)
    window.wait_for_function(f"document.querySelector('iframe').offsetHeight >= {min(highest, 1000)}")
    page = window.frames[1]
    page.wait_for_selector("#attention-view [data-drawn]")
    page.wait_for_selector(".framed", state="attached")
    return window, page


TRANSLATED = """(element, word) => {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT), nodes = [];
    while (walker.nextNode()) if (walker.currentNode.data.trim()) nodes.push(walker.currentNode);
    for (const node of nodes) {
        const [outer, inner] = [document.createElement('font'), document.createElement('font')];
        inner.textContent = word;
        outer.append(inner);
        node.replaceWith(outer);
    }
}"""


def translate(part, word: str) -> None:
    """Let every text in a located part be this word, in the tags that a browser puts around translations."""
    part.evaluate(TRANSLATED, word)


def chosen_tab(page) -> str:
    return page.locator('#tabs [role="tab"][aria-selected="true"]').text_content()


def until(window, holds: Callable) -> None:
    """Wait until something holds; at its last try it tells what does not."""
    for _ in range(100):
        try:
            return holds()
        except AssertionError:
            window.wait_for_timeout(100)
    holds()


def fast_forward(page, milliseconds: int) -> None:
    """Let at least this much time pass on the page's clock; Playwright 1.55 now and then loses a leap."""
    end = page.evaluate("Date.now()") + milliseconds
    while (left := end - page.evaluate("Date.now()")) > 0:
        page.clock.fast_forward(left)


@contextmanager
def opening(context) -> Iterator:
    """open_page(address, width=1280, height=800) opens a page; any error in its scripts is one at the end."""
    pages, errors = [], []

    def open_page(address: str, width: int = 1280, height: int = 800):
        page = context.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(address)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not errors


class HeldRequests:
    """The requests of a page, for faces if nothing else is said, each answered when the test says so.

    views: also those of views for what they show of a face.
    """

    FACES = "**/run/predict*"

    def __init__(self, page, pattern: str | re.Pattern = FACES, views: bool = False):
        self.page, self.pattern, self.held = page, pattern, []
        self.all = views or pattern != self.FACES
        page.route(pattern, self.hold)

    def hold(self, route) -> None:
        if self.all or "number" not in (route.request.post_data_json.get("event_data") or {}):
            self.held.append(route)
        else:
            route.continue_()

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.held) < count:
            assert time.monotonic() < deadline, f"{len(self.held)} of {count} requests came"
            self.page.wait_for_timeout(50)

    def answer(self, i: int) -> None:
        self.wait_for(i + 1)
        with self.page.expect_response(lambda response: response.request == self.held[i].request):
            self.held[i].continue_()
        self.page.wait_for_timeout(500)


def anywhere() -> tuple[float, float]:
    """A point, in shares of a picture, on no edge of a cell: a browser's pointer is not that exact."""
    return (draw.randrange(64) + 0.5) / 64, (draw.randrange(64) + 0.5) / 64


def painted(canvas) -> np.ndarray:
    """The pixels of a located canvas, RGBA, (H, W, 4) uint8."""
    height, width, data = canvas.evaluate(BYTES)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)


ENLARGED = """([data, width, height, size]) => {
    const canvas = (w, h) => Object.assign(document.createElement('canvas'), {width: w, height: h});
    const small = canvas(width, height), large = canvas(size, size), context = large.getContext('2d');
    const bytes = Uint8ClampedArray.from(atob(data), (letter) => letter.charCodeAt());
    small.getContext('2d').putImageData(new ImageData(bytes, width, height), 0, 0);
    context.imageSmoothingQuality = 'high';
    context.drawImage(small, 0, 0, size, size);
    document.body.append(large);
}"""


def enlarged(page, picture: np.ndarray, size: int) -> np.ndarray:
    """RGBA pixels (h, w, 4) uint8 as this browser enlarges them, smoothly: (size, size, 4) uint8."""
    height, width, _ = picture.shape
    data = base64.b64encode(np.ascontiguousarray(picture).tobytes()).decode()
    page.evaluate(ENLARGED, [data, width, height, size])
    canvas = page.locator("body > canvas")
    pixels = painted(canvas)
    canvas.evaluate("canvas => canvas.remove()")
    return pixels


def described(queries: np.ndarray, keys: np.ndarray, x: float, y: float) -> dict[str, float]:
    """What an attention map should say of the query at (x, y), from queries and keys (n*n, d)."""
    side = math.isqrt(len(queries))
    query = int(y * side) * side + int(x * side)
    logits = keys.astype(np.float64) @ queries[query].astype(np.float64)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    entropy = -(weights[weights > 0] * np.log2(weights[weights > 0])).sum()
    return {"query": query, "key": weights.argmax(), "weight": weights.max(), "entropy": entropy}
