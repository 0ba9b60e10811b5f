"""The page in a frame as high as itself, as a Space shows it, follows the window around the frame."""

from functools import partial

import pytest
from screen import covered, in_space, until

from sagan.ui import lesson, texts


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desktop", "phone"])
def space(request, new_page, address):
    """(the window around the frame, the page in it)"""
    return in_space(new_page, address, *request.param)


def box(page, selector: str) -> tuple[float, float]:
    """The upper and the lower end of an element, in pixels of the window."""
    place = page.locator(selector).bounding_box()
    return place["y"], place["y"] + place["height"]


def begin_tour(window, page, index: int = 0) -> None:
    page.evaluate("index => sagan.emit('tour', index)", index)
    page.wait_for_selector(f'#tour-view .card[data-step="{index}"]')
    window.wait_for_timeout(1500)  # the step has been scrolled to


def on_the_card(new_page, address: str, width: int, height: int) -> tuple:
    """(the window, the page in it), at a step of the tour, with the focus on the card."""
    window, page = in_space(new_page, address, width, height)
    begin_tour(window, page, 1)
    page.locator("#tour-view .next").evaluate("button => button.focus({ preventScroll: true })")
    return window, page


def nothing_covered(page) -> None:
    assert covered(page) == ""


def card_in_sight(window, page) -> None:
    top, bottom = box(page, "#tour-view .card")
    assert top >= 0 and bottom <= window.viewport_size["height"]


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
        page.locator("#tour-view .next").evaluate("button => button.click()")  # it may still move


def test_the_card_follows_a_window_that_is_scrolled(space):
    window, page = space
    begin_tour(window, page)
    for way in (300, 500, -700, -2000):
        window.mouse.move(100, 100)
        window.mouse.wheel(0, way)
        until(window, lambda: card_in_sight(window, page))


@pytest.mark.parametrize(("width", "height", "key"), [(640, 450, "Tab"), (1280, 800, "Shift+Tab")])
def test_what_has_the_focus_is_never_behind_the_card(new_page, address, width, height, key):
    window, page = on_the_card(new_page, address, width, height)

    met = set()
    for _ in range(60):
        window.keyboard.press(key)
        window.wait_for_timeout(50)
        until(window, partial(nothing_covered, page))
        met.add(page.evaluate("document.activeElement.outerHTML"))
    assert len(met) > 40


def test_what_has_the_focus_comes_out_from_behind_a_card_that_follows_late(new_page, address):
    window, page = on_the_card(new_page, address, 640, 450)
    window.evaluate("late = 300")

    for presses in (2, 3, 1, 4) * 2:
        for _ in range(presses):
            window.keyboard.press("Tab")
            window.wait_for_timeout(30)
        window.wait_for_timeout(320)
        until(window, partial(nothing_covered, page))


def test_who_scrolls_after_the_focus_moved_is_not_pulled_back(new_page, address):
    window, _ = on_the_card(new_page, address, 640, 450)
    window.mouse.move(320, 200)
    for _ in range(6):
        window.keyboard.press("Tab")
        window.wait_for_timeout(300)  # shorter than the page looks after the focus
        before = window.evaluate("scrollY")
        for _ in range(6):
            window.mouse.wheel(0, -20)
            window.wait_for_timeout(60)

        def stays(there: int = max(0, before - 120)) -> None:
            assert window.evaluate("scrollY") == there

        until(window, stays)  # a busy machine scrolls late
        window.wait_for_timeout(200)
        stays()


def as_high_as_the_page(page) -> None:
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight + 1")


def test_a_frame_is_as_high_as_what_it_shows(space):
    window, page = space
    for tab in (texts.LESSON_TAB, texts.INSIDE_TAB, texts.ATTENTION_TAB):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.evaluate("scrollTo(0, 9999)")
        until(window, partial(as_high_as_the_page, page))


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

    def scrolls():
        window.mouse.wheel(0, 300)
        assert page.evaluate("document.body.scrollTop") > 100

    until(window, scrolls)
    page.wait_for_function("sagan.hidden.above + sagan.hidden.below === 0")
    page.get_by_role("button", name=texts.LAB["projector_off"]).click()
    page.wait_for_function("document.fullscreenElement === null")
    page.wait_for_function("sagan.hidden.above + sagan.hidden.below > 0")


def test_the_card_may_be_as_high_as_before_where_bars_of_the_browser_come(new_page, address):
    window, page = in_space(new_page, address, 390, 844)
    page.evaluate("sagan.emit('tour', 0)")
    page.wait_for_selector("#tour-view .card[data-step]")
    highest = "getComputedStyle(document.querySelector('#tour-view .card')).maxHeight"
    before = page.evaluate(highest)
    window.set_viewport_size({"width": 390, "height": 780})
    page.wait_for_function("innerHeight - sagan.hidden.above - sagan.hidden.below === 780")  # it was told
    assert page.evaluate(highest) == before
    window.set_viewport_size({"width": 844, "height": 390})  # it is turned
    page.wait_for_function("innerHeight - sagan.hidden.above - sagan.hidden.below === 390")
    assert page.evaluate("document.documentElement.style.getPropertyValue('--window')") == "390px"


def test_a_message_of_gradio_does_not_end_it(space):
    window, page = space
    begin_tour(window, page)
    asked = "new Promise((done) => parentIFrame.getPageInfo((told) => done(told.clientHeight)))"
    assert page.evaluate(asked) == window.viewport_size["height"]  # what it asks while a message is shown
    page.evaluate("parentIFrame.getPageInfo(false)")
    window.mouse.move(100, 100)
    for way in (-2000, 500):
        window.mouse.wheel(0, way)
        window.wait_for_timeout(300)
        until(window, lambda: card_in_sight(window, page))


def test_a_visitor_scrolls_away_from_a_step_on_a_low_screen(new_page, address):
    window, page = in_space(new_page, address, 640, 320)
    page.evaluate("sagan.emit('tour', 0)")
    page.wait_for_selector("#tour-view .card")
    window.wait_for_timeout(2000)
    assert window.evaluate("scrollY") > 200
    window.mouse.move(100, 100)
    window.mouse.wheel(0, -3000)
    window.wait_for_timeout(1500)
    assert window.evaluate("scrollY") == 0


def test_a_block_that_is_pressed_stays_in_sight(space):
    window, page = space
    page.get_by_role("tab", name=texts.INSIDE_TAB, exact=True).click()
    page.wait_for_selector("#inside-view .maps:not([hidden]) canvas")
    until(window, partial(as_high_as_the_page, page))
    block = page.locator("#inside-view button[data-block]").nth(2)
    block.click()
    window.wait_for_timeout(1500)

    def in_sight():
        place, maps = block.bounding_box(), page.locator("#inside-view .maps").bounding_box()
        if maps["y"] + maps["height"] - place["y"] < window.viewport_size["height"]:  # there is room for both
            assert place["y"] >= 0
        assert maps["y"] < window.viewport_size["height"] and maps["y"] + maps["height"] > 0

    until(window, in_sight)


def test_the_card_is_in_sight_after_the_projector(space):
    window, page = space
    begin_tour(window, page)
    page.get_by_role("button", name=texts.LAB["projector"]).click()
    page.wait_for_function("document.fullscreenElement !== null")
    page.locator("#tour-view .next").click()
    page.wait_for_selector('#tour-view .card[data-step="1"]')
    page.get_by_role("button", name=texts.LAB["projector_off"]).click()
    page.wait_for_function("document.fullscreenElement === null")

    def in_sight():
        (top, bottom), height = box(page, "#tour-view .card"), window.viewport_size["height"]
        assert top >= 0 and bottom <= height and (top < 200 or bottom == height)

    until(window, in_sight)


def test_a_frame_that_does_not_grow_scrolls(new_page, address):
    window, page = in_space(new_page, address, 1280, 800, highest=600)
    window.mouse.move(300, 300)

    def scrolls():
        window.mouse.wheel(0, 200)
        assert page.evaluate("scrollY") > 300

    until(window, scrolls)
