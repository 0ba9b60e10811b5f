"""The page in a frame as high as itself, as a Space shows it, follows the window around the frame."""

import pytest

from sagan.ui import lesson, texts

# What iframe-resizer 4 does in a page around the frame; its other end comes with Gradio.
SPACE = """<!doctype html><meta name="viewport" content="width=device-width">
<body style="margin: 0"><header style="height: 60px">Spaces</header>
<iframe src="{address}" allow="fullscreen" scrolling="no"
        style="display: block; width: 100%; border: 0; height: 700px"></iframe>
<script>
    const frame = document.querySelector('iframe');
    const say = (text) => frame.contentWindow.postMessage(`[iFrameSizer]${text}`, '*');
    const offset = () => scrollY + frame.getBoundingClientRect().top;
    function tell() {
        const info = { scrollTop: scrollY, clientHeight: innerHeight, offsetTop: offset() };
        say(`pageInfo:${JSON.stringify(info)}`);
    }
    function answer(kind, height) {
        if (kind === 'scrollToOffset') scrollTo(0, offset() + height);
        else if (kind !== 'pageInfo') setTimeout(() => frame.style.height = `${height}px`, 200); // it is busy
        else {
            for (const event of ['scroll', 'resize']) addEventListener(event, tell);
            tell();
        }
    }
    const begin = 'f:0:false:false:32:true:false::bodyOffset:::0:false:child:scroll';
    frame.addEventListener('load', () => say(begin));
    addEventListener('message', ({ data }) => {
        if (typeof data !== 'string' || !data.startsWith('[iFrameSizer]f:')) return;
        const [, height, , kind] = data.split(':');
        answer(kind, Number(height));
    });
</script>"""
WINDOW = "http://localhost:9/"


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desktop", "phone"])
def space(request, new_page, context, address):
    """(the window around the frame, the page in it)"""
    context.route(
        WINDOW,
        lambda route: route.fulfill(body=SPACE.replace("{address}", address), content_type="text/html"),
    )
    window = new_page(WINDOW, *request.param)
    window.wait_for_function("document.querySelector('iframe').offsetHeight > 1000")
    page = window.frames[1]
    page.wait_for_selector("#attention-view [data-drawn]")
    page.wait_for_selector(".framed", state="attached")
    yield window, page
    context.unroute(WINDOW)


def box(page, selector: str) -> tuple[float, float]:
    """The upper and the lower end of an element, in pixels of the window."""
    place = page.locator(selector).bounding_box()
    return place["y"], place["y"] + place["height"]


def until(window, holds) -> None:
    """Wait until something holds; at its last try it tells what does not."""
    for _ in range(100):
        try:
            return holds()
        except AssertionError:
            window.wait_for_timeout(100)
    holds()


def test_the_tour_and_what_it_is_about_stay_in_sight(space):
    window, page = space
    height = window.viewport_size["height"]
    page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
    page.locator("#lesson-view .start").click()
    for index, step in enumerate(lesson.STEPS):
        page.wait_for_selector(f'#tour-view .card[data-step="{index}"]')
        page.wait_for_selector(f"{step.shows}.toured")

        def in_sight(step=step):
            (top, bottom), (first, last) = box(page, "#tour-view .card"), box(page, step.shows)
            assert top >= 0 and bottom <= height and bottom - top < height / 2
            begin, end = (bottom, height) if top < height / 3 else (0, top)
            assert begin - 20 < first < end - 20 and last > begin + 20

        until(window, in_sight)
        assert page.evaluate("scrollY") == 0
        page.locator("#tour-view .next").click()


def test_the_card_follows_a_window_that_is_scrolled(space):
    window, page = space
    height = window.viewport_size["height"]
    page.evaluate("sagan.emit('tour', 0)")
    page.wait_for_selector("#tour-view .card")
    window.wait_for_timeout(1500)  # the step has been scrolled to
    for way in (300, 500, -700, -2000):
        window.mouse.move(100, 100)
        window.mouse.wheel(0, way)

        def in_sight():
            top, bottom = box(page, "#tour-view .card")
            assert top >= 0 and bottom <= height

        until(window, in_sight)


def test_a_frame_is_as_high_as_what_it_shows(space):
    window, page = space
    for tab in (texts.LESSON_TAB, texts.INSIDE_TAB, texts.ATTENTION_TAB):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.evaluate("scrollTo(0, 9999)")

        def whole():
            assert page.evaluate("scrollY") == 0
            assert page.evaluate("document.documentElement.scrollHeight <= innerHeight + 1")

        until(window, whole)


def test_a_curated_face_comes_into_sight(space):
    window, page = space
    page.locator("#attention-view .choices button").first.click()

    def in_sight():
        first, last = box(page, "#attention-view .in-focus .picture")
        assert -5 < first < window.viewport_size["height"] / 2 and last > 0

    until(window, in_sight)


def test_the_projector_scrolls_on_the_whole_screen(space):
    window, page = space
    page.get_by_role("button", name=texts.LAB["projector"]).click()
    page.wait_for_function("document.fullscreenElement !== null")
    window.mouse.move(200, 400)
    window.mouse.wheel(0, 300)
    page.wait_for_function("document.body.scrollTop > 100")
    page.wait_for_function("sagan.hidden.above + sagan.hidden.below === 0")
    page.get_by_role("button", name=texts.LAB["projector_off"]).click()
    page.wait_for_function("document.fullscreenElement === null")
    page.wait_for_function("sagan.hidden.above + sagan.hidden.below > 0")
