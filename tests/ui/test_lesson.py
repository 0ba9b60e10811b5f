"""The Lesson tab: the tour sets the page for each step, and the worksheet gives the model's figures."""

import copy
import html
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from randomness import draw
from screen import HeldRequests, chosen_tab, covered, fits_the_width, two_frames

from sagan import heatmaps, latents
from sagan.classes import Classes
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler
from sagan.ui import lesson, texts, worksheet
from sagan.ui.controls import START_SEED

LAST = len(lesson.STEPS) - 1
IN_SIGHT = """selector => {
    const target = document.querySelector(selector).getBoundingClientRect();
    const card = document.querySelector('#tour-view .card').getBoundingClientRect();
    const [top, bottom] = card.top > innerHeight / 3 ? [0, card.top] : [card.bottom, innerHeight];
    return target.top < bottom - 20 && target.bottom > top + 20 && target.top > top - 20;
}"""


def card(page, selector: str = ""):
    return page.locator(f"#tour-view .card {selector}".strip())


def at(page, index: int) -> None:
    """Wait until the page shows a step."""
    page.wait_for_selector(f'#tour-view .card[data-step="{index}"]')
    page.wait_for_selector(f"{lesson.STEPS[index].shows}.toured")


def begin(page, index: int = 0) -> None:
    page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
    page.locator("#lesson-view .step").nth(index).click()
    at(page, index)


@contextmanager
def no_faces(sampler: Sampler) -> Iterator[None]:
    """Inside the block no face is made: whoever asks for one waits for its end."""
    over, make = threading.Event(), sampler.face_and_queries_keys

    def wait(*arguments):
        assert over.wait(60)
        return make(*arguments)

    with pytest.MonkeyPatch.context() as held:
        held.setattr(sampler, "face_and_queries_keys", wait)
        try:
            yield
        finally:
            over.set()


def random_model(**options) -> Sampler:
    config = SaganConfig(g_width=8, d_width=8, z_dim=16, **options)
    return Sampler(Generator(config, spectral=False).eval(), Discriminator(config, spectral=False))


# The tour


def test_the_tour_has_nine_steps_of_two_or_three_sentences_and_a_thing_to_do():
    assert len(lesson.STEPS) == len(texts.LESSON["steps"]) == 9
    for step in lesson.STEPS:
        words = texts.LESSON["steps"][step.name]
        sentences = re.findall(r"[.:?!](?:\s|$)", words["say"])
        assert 2 <= len(sentences) <= 4 and len(words["say"]) < 300, step.name
        assert words["do"] and words["see"] and words["title"]


def test_every_step_finds_the_page_set_to_show_it(page, sampler):
    begin(page)
    for index, step in enumerate(lesson.STEPS):
        at(page, index)
        face = sampler.curated[step.face % len(sampler.curated)]
        page.wait_for_function(IN_SIGHT, arg=step.shows)
        assert chosen_tab(page) == {"attention": texts.ATTENTION_TAB, "inside": texts.INSIDE_TAB}[step.tab]
        assert page.evaluate("sagan.face.seed_a") == face.seed
        state = page.evaluate("sagan.lab.state")
        of_query = [tuple(int(64 * share) for share in face.query)]
        pins = of_query if step.name != "everybody" else receive_most(sampler, face.seed, "16x16")[0]
        assert [(pin["x"], pin["y"]) for pin in state["pins"]] == pins
        assert (state["chosen"]["x"], state["chosen"]["y"]) == pins[0]
        assert state["network"] == ("discriminator" if step.name == "discriminator" else "generator")
        assert state["gammas"] == (dict.fromkeys(sampler.layers, 0) if step.name == "gamma" else {})
        assert state["maps"] == "own"
        assert state["layer"] == ("combined" if step.name == "two_scales" else None)
        for view in ("dials-view", "numbers-view"):
            opened = page.locator(f"#{view} details").evaluate("details => details.open")
            assert opened == (view == step.unfold), (step.name, view)
        words = texts.LESSON["steps"][step.name]
        assert card(page, ".title").text_content() == words["title"]
        shown = card(page, ".words").text_content()
        assert "{" not in shown and words.get("do_without_average", words["do"])[-30:] in shown
        see = lesson.words_of(sampler, step)["see"]
        assert "{" not in see and not card(page, ".see p").is_visible()
        card(page, ".see summary").click()
        assert card(page, ".see p").is_visible() and card(page, ".see p").text_content() == see
        assert card(page, ".count").text_content() == texts.TOUR["count"].format(number=index + 1, all=9)
        assert page.locator(".toured").count() == 1
        assert card(page, ".dots .done").count() == index + 1
        if index < LAST:
            card(page, ".next").click()
    assert card(page, ".next").text_content() == texts.TOUR["finish"]


def receive_most(sampler: Sampler, seed: int, layer: str, label: int | None = None) -> tuple[list, float]:
    """The pixels in the middle of the five cells that receive most in a layer, and what share of all."""
    side = int(layer.split("x")[0])
    received = [0.0] * side**2
    for row in sampler.attention(latents.from_seed(seed, 16), layer, label).astype(np.float64):
        for key, weight in enumerate(row):
            received[key] += weight / side**2
    best = sorted(range(side**2), key=lambda key: -received[key])[:5]
    middle = [((at % side + 0.5) * 64 / side, (at // side + 0.5) * 64 / side) for at in best]
    return [(int(x), int(y)) for x, y in middle], sum(received[at] for at in best)


def test_what_everybody_looks_at_is_told_with_what_changes_without_it(sampler, with_classes):
    step = next(step for step in lesson.STEPS if step.name == "everybody")
    for model, seed, label in ((sampler, 11, None), (with_classes, START_SEED, 0)):
        pins, share = receive_most(model, seed, "16x16", label)
        z, labels = latents.from_seed(seed, 16)[None], None if label is None else np.array([label])
        maps = {}
        for layer, (q, k) in model.queries_keys(z[0], label).items():
            side = int(layer.split("x")[0])
            weights = np.exp(q.astype(np.float64) @ k.T)
            for x, y in pins:
                weights[:, y * side // 64 * side + x * side // 64] = 0
            maps[layer] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
        moved = np.abs(model.faces(z, labels, maps=maps)[0].astype(int) - model.faces(z, labels)[0]).mean()
        told = lesson.words_of(model, step)
        assert f"Five of the 256 cells of the 16x16 layer receive {100 * share:.0f} % of" in told["say"]
        assert "(2 % if all received alike)" in told["say"]
        (said,) = re.findall(r"changes by ([\d.]+) grey levels", told["see"])
        assert float(said) == pytest.approx(moved, abs=0.06)
        assert lesson.setting(model, step)["pins"] == pins


def test_what_everybody_looks_at_is_told_of_the_class_that_is_shown(new_page, serve, with_classes):
    page = new_page(f"{serve(with_classes)}?class=2")
    page.wait_for_selector("#attention-view [data-drawn]")
    everybody = next(index for index, step in enumerate(lesson.STEPS) if step.name == "everybody")
    begin(page, everybody)
    assert page.evaluate("sagan.face.label") == 0
    assert page.evaluate("sagan.values()[4]") == 0
    pins = [(pin["x"], pin["y"]) for pin in page.evaluate("sagan.lab.state.pins")]
    assert pins == receive_most(with_classes, START_SEED, "16x16", 0)[0]
    card(page, ".leave").click()
    page.wait_for_function("sagan.face.label === 2")


def test_which_layer_looks_farther_is_counted_on_the_face_of_the_step(sampler, with_classes):
    step = next(step for step in lesson.STEPS if step.name == "two_scales")
    for model, name in ((sampler, "seed 12"), (with_classes, f"seed {START_SEED}, none,")):
        seed = int(name.split()[1].strip(","))
        z, farther = latents.from_seed(seed, 16), 0
        label = next(iter(model.classes.learned), None)
        maps = {side: model.attention(z, f"{side}x{side}", label) for side in (16, 32)}
        for row in range(32):
            for column in range(32):
                coarse, fine = (
                    heatmaps.mean_distance(maps[side][at], at, side, 64)
                    for side in (16, 32)
                    for at in [row * side // 32 * side + column * side // 32]
                )
                farther += coarse > fine
        said = f"With {name} the 16x16 layer looks farther at {100 * farther / 1024:.0f} % of the places."
        assert lesson.words_of(model, step)["see"].startswith(f"{said} ")


@pytest.mark.one_page
def test_the_header_leads_into_the_tour_too(page):
    page.get_by_role("tab", name=texts.FACES_TAB, exact=True).click()
    page.locator("#header-view .tour").click()
    at(page, 0)
    assert chosen_tab(page) == texts.ATTENTION_TAB


@pytest.mark.one_page
def test_back_and_next_go_through_the_steps_and_quick_clicks_count(page):
    begin(page, 2)
    card(page, ".back").click()
    at(page, 1)
    card(page, ".next").click()
    card(page, ".next").click()
    card(page, ".next").click()
    at(page, 4)
    begin(page, 0)
    assert card(page, ".back").is_disabled()


@pytest.mark.one_page
def test_quick_clicks_stop_at_either_end(page):
    quickly = "(button) => { button.click(); button.click(); button.click(); }"
    begin(page, 1)
    card(page, ".back").evaluate(quickly)
    at(page, 0)
    begin(page, LAST - 1)
    card(page, ".next").evaluate(quickly)
    at(page, LAST)
    assert card(page, ".error").text_content() == ""


@pytest.mark.one_page
def test_escape_closes_the_menu_first(page):
    begin(page)
    menu = page.locator("#attention-view details.save")
    menu.locator("summary").click()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    assert menu.get_attribute("open") is None and card(page).is_visible()
    assert page.evaluate("document.activeElement.matches('details.save summary')")
    page.keyboard.press("Escape")
    page.locator("#lesson-view .start").wait_for()
    assert not card(page).is_visible()


def test_escape_closes_the_list_of_classes_first(new_page, serve, with_classes):
    page = new_page(serve(with_classes))
    page.wait_for_selector("#attention-view [data-drawn]")
    begin(page)
    page.locator("#label input").click()
    page.get_by_role("option", name="smiling").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("option", name="smiling").wait_for(state="hidden")
    assert card(page).is_visible()
    page.keyboard.press("Escape")  # from the closed box
    page.locator("#lesson-view .start").wait_for()
    assert not card(page).is_visible()


def test_a_face_that_was_asked_for_after_a_step_ends_the_waiting_for_it(page, sampler):
    begin(page)
    with no_faces(sampler):
        card(page, ".next").click()
        page.wait_for_function("sagan.pending()")
        page.locator("#dice").click()
        page.wait_for_timeout(300)
    page.wait_for_function("!sagan.pending() && sagan.face.step === undefined")
    shown = int(card(page).get_attribute("data-step"))  # the step's answer may come first, or not at all
    card(page, ".next").click()
    at(page, shown + 1)


def test_a_tour_that_another_face_overtook_takes_nothing_along(page, sampler, monkeypatch):
    overtaken, asked, free = threading.Event(), [], sampler.face_and_queries_keys

    def slow_at_first(*arguments):
        asked.append(1)
        assert len(asked) > 1 or overtaken.wait(30)
        return free(*arguments)

    before = page.evaluate("sagan.face.seed_a")
    with monkeypatch.context() as held:
        held.setattr(sampler, "face_and_queries_keys", slow_at_first)
        page.locator("#header-view .tour").click()
        page.wait_for_function("sagan.pending()")
        page.locator("#dice").click()
        page.wait_for_function("before => sagan.face.seed_a !== before", arg=before)
        overtaken.set()
    seed = page.evaluate("sagan.face.seed_a")
    page.evaluate("sagan.lab.pin(3, 4)")
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    assert not card(page).is_visible() and page.evaluate("sagan.lab.state.pins.length") == 1
    assert page.evaluate("sagan.face.seed_a") == seed and chosen_tab(page) == texts.ATTENTION_TAB


def test_a_tour_that_is_asked_for_before_there_is_a_face_begins_with_it(new_page, address, sampler):
    with no_faces(sampler):
        page = new_page(f"{address}?seed=21&pins=9-9_20-30")
        page.locator("#header-view .tour").click()
        page.wait_for_timeout(300)
    at(page, 0)
    card(page, ".leave").click()
    page.wait_for_function("sagan.face.seed_a === 21 && !sagan.pending()")
    pins = page.evaluate("sagan.lab.state.pins.map(({ x, y }) => [x, y])")
    assert pins == [[9, 9], [20, 30]]


def test_escape_calls_an_early_tour_off(new_page, address, sampler):
    with no_faces(sampler):
        page = new_page(address)
        page.locator("#header-view .tour").click()
        page.keyboard.press("Escape")
    page.wait_for_selector("#attention-view [data-drawn]")
    page.wait_for_timeout(300)
    assert not card(page).is_visible() and not page.evaluate("sagan.pending()")


def test_during_the_tour_the_address_says_what_was_shown_before(new_page, address, sampler):
    page = new_page(f"{address}?seed=21&pins=9-9")
    page.wait_for_selector("#attention-view [data-drawn]")
    page.wait_for_timeout(700)
    before = page.evaluate("location.search")
    begin(page)
    page.locator("#dice").click()
    page.wait_for_function("sagan.face.step === undefined")
    page.wait_for_timeout(1000)
    assert page.evaluate("location.search") == before and "seed=21" in before
    searched = page.evaluate_handle(
        """() => {
            const said = new Set(), { replaceState } = history;
            history.replaceState = function (...given) {
                said.add(given[2]);
                return replaceState.apply(this, given);
            };
            return said;
        }"""
    )
    with no_faces(sampler):
        card(page, ".leave").click()
        page.wait_for_timeout(1000)
    page.wait_for_function("sagan.face.seed_a === 21 && !sagan.pending()")
    page.wait_for_timeout(700)
    assert all("seed=21" in said for said in searched.evaluate("said => [...said]"))
    page.locator("#dice").click()
    page.wait_for_function("before => location.search !== before", arg=before)


def test_a_step_that_arrives_after_the_tour_was_left_opens_no_tab(page):
    begin(page)
    requests = HeldRequests(page)
    card(page, ".next").click()
    requests.wait_for(1)
    card(page, ".leave").click()
    requests.answer(1)
    requests.answer(0)
    page.wait_for_function("!sagan.pending()")
    assert not card(page).is_visible()
    assert chosen_tab(page) == texts.LESSON_TAB and page.evaluate("sagan.tab") == "lesson"
    assert page.evaluate("document.activeElement.matches('#lesson-view .start')")


def test_of_two_steps_of_which_the_later_arrives_first_its_tab_stays(page):
    begin(page, LAST - 2)
    requests = HeldRequests(page)
    card(page, ".next").click()
    requests.wait_for(1)
    card(page, ".next").click()
    requests.answer(1)
    at(page, LAST)
    requests.answer(0)
    assert chosen_tab(page) == texts.INSIDE_TAB
    assert page.locator(lesson.STEPS[LAST].shows).is_visible()


def test_a_step_opens_its_tab_where_another_one_was_opened_meanwhile(page):
    begin(page)
    for index, name in ((1, texts.FACES_TAB), (2, texts.INSIDE_TAB)):
        page.get_by_role("tab", name=name, exact=True).click()
        card(page, ".next").click()
        at(page, index)
        assert chosen_tab(page) == texts.ATTENTION_TAB


def test_a_tour_leads_to_tabs_for_which_a_narrow_screen_has_no_room(new_page, address):
    page = new_page(f"{address}?tab=faces", width=240)
    page.wait_for_function("globalThis.sagan?.face")
    page.wait_for_function("document.querySelectorAll('#tabs [role=tab]').length < 4")  # the others: a menu
    page.evaluate("sagan.emit('tour', 0)")
    at(page, 0)
    assert chosen_tab(page) == texts.ATTENTION_TAB
    card(page, ".leave").click()
    page.locator("#lesson-view .start").wait_for()
    page.evaluate(f"sagan.emit('tour', {LAST})")
    at(page, LAST)
    assert chosen_tab(page) == texts.INSIDE_TAB


@pytest.mark.one_page
def test_a_second_escape_does_nothing(page):
    begin(page)
    card(page, ".next").focus()
    requests = HeldRequests(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    requests.answer(0)
    assert len(requests.held) == 1
    page.wait_for_function("!sagan.pending()")
    assert not card(page).is_visible()


def test_the_tour_is_shown_in_large_type_too_and_leaving_it_leads_out_of_the_projector(page):
    page.locator("#attention-view .projector").click()
    page.evaluate("sagan.emit('tour', 0)")
    for index in range(len(lesson.STEPS)):
        at(page, index)
        card(page, ".next").wait_for()
        boxes = [page.locator(part).bounding_box() for part in ("#dice", "#tour-view .card")]
        (top, bottom), (above, below) = ((box["y"], box["y"] + box["height"]) for box in boxes)
        assert bottom <= above or top >= below  # New face is never under the card
        assert card(page, ".say").evaluate("said => parseFloat(getComputedStyle(said).fontSize)") > 18
        card(page, ".next").click()
    page.locator("#lesson-view .start").wait_for()
    assert page.locator("#header-view h1").is_visible()
    assert page.evaluate("document.body.className").split() == []


@pytest.mark.parametrize("how", ["leave", "finish", "escape"])
def test_after_the_tour_the_page_is_what_it_was_before(page, how):
    seed = draw.randrange(2**32)
    page.locator("#seed input[type=number]").fill(str(seed))
    page.locator("#seed input[type=number]").press("Tab")
    page.wait_for_function("seed => sagan.face?.seed_a === seed", arg=seed)
    page.locator("#psi input[type=number]").fill("0.6")
    page.locator("#psi input[type=number]").press("Tab")
    page.wait_for_function("sagan.face.psi === 0.6")
    page.evaluate("sagan.lab.pin(3, 60); sagan.lab.pin(50, 2); sagan.lab.set({ direction: 'backward' })")
    page.locator("#dials-view summary").click()
    page.evaluate("sagan.lab.set({ gammas: { '16x16': 2 }, maps: 'b' })")
    state, link = page.evaluate("[JSON.stringify(sagan.lab.state), sagan.link(sagan.face)]")
    begin(page, LAST)
    if how == "leave":
        page.evaluate("sagan.lab.pin(9, 9)")
        card(page, ".leave").click()
    elif how == "finish":
        card(page, ".next").click()
    else:
        card(page, ".next").focus()
        page.keyboard.press("Escape")
    page.wait_for_function("seed => sagan.face.seed_a === seed", arg=seed)
    assert page.evaluate("JSON.stringify(sagan.lab.state)") == state
    assert not card(page).is_visible() and page.locator(".toured").count() == 0
    page.wait_for_function(f"document.querySelector('#seed input[type=number]').value === '{seed}'")
    assert chosen_tab(page) == texts.LESSON_TAB
    assert page.evaluate("sagan.link(sagan.face)") == f"{link}&tab=lesson"
    assert page.locator("#dials-view details").evaluate("details => details.open")
    assert not page.locator("#numbers-view details").evaluate("details => details.open")


def test_the_tour_works_with_the_keyboard_alone(page):
    page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("#lesson-view .start").wait_for()  # what is hidden takes no focus
    page.locator("#lesson-view .start").focus()
    page.keyboard.press("Enter")
    for index in range(4):
        at(page, index)
        assert page.evaluate("document.activeElement.matches('#tour-view .next')")
        page.keyboard.press("Enter")
    page.locator("#attention-view .picture").first.focus()
    page.keyboard.press("Escape")  # from wherever the focus is
    page.wait_for_function("document.activeElement.matches('#lesson-view .start')")
    assert not card(page).is_visible()


def test_the_focus_stays_on_the_card_where_back_is_used_up(page):
    begin(page, 1)
    card(page, ".back").focus()
    page.keyboard.press("Enter")
    at(page, 0)
    assert page.evaluate("document.activeElement.matches('#tour-view .next')")


def test_one_escape_ends_the_projector_the_next_one_the_tour(page):
    begin(page)
    page.locator("#attention-view .projector").click()
    page.wait_for_function(IN_SIGHT, arg=lesson.STEPS[0].shows)  # in large type too
    page.keyboard.press("Escape")
    page.locator("#header-view h1").wait_for()
    assert card(page).is_visible()
    page.wait_for_function(IN_SIGHT, arg=lesson.STEPS[0].shows)
    page.keyboard.press("Escape")
    page.locator("#lesson-view .start").wait_for()
    assert not card(page).is_visible()


def test_a_step_that_fails_says_so_and_can_be_asked_for_again(context, address, monkeypatch):
    page = context.new_page()  # the failure is also an error in the browser's console
    page.goto(address)
    page.wait_for_selector("#attention-view [data-drawn]")
    with monkeypatch.context() as broken:
        broken.setattr(lesson, "_face_of", lambda *_: 1 / 0)
        page.locator("#header-view .tour").click()
        page.wait_for_function(
            "said => document.querySelector('#header-view output').textContent === said",
            arg=texts.TOUR["failed"],
        )
        page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
        page.wait_for_function("document.querySelector('#header-view output').textContent === ''")
        page.locator("#lesson-view .start").click()
        page.wait_for_selector("#lesson-view .error:not(:empty)")
        assert not card(page).is_visible()
    page.locator("#lesson-view .start").click()
    at(page, 0)
    with monkeypatch.context() as broken:
        broken.setattr(lesson, "_face_of", lambda *_: 1 / 0)
        card(page, ".next").click()
        page.wait_for_selector("#tour-view .error:not(:empty)")
        assert card(page, ".error").text_content() == texts.TOUR["failed"]
    card(page, ".next").click()
    at(page, 1)
    assert card(page, ".error").text_content() == ""
    page.close()


def test_a_step_whose_face_is_face_b_gets_another_b_until_the_tour_is_left(new_page, address, sampler):
    first, second = (face.seed for face in sampler.curated[:2])
    page = new_page(f"{address}?seed={second}&seed_b={first}")
    page.wait_for_selector("#attention-view [data-drawn]")
    begin(page)
    assert page.evaluate("[sagan.face.seed_a, sagan.face.seed_b]") == [first, second]
    card(page, ".leave").click()
    page.wait_for_function("seed => sagan.face.seed_a === seed", arg=second)
    assert page.evaluate("sagan.face.seed_b") == first


def broken(route) -> None:
    route.fulfill(status=500, json={"error": "broken"})


def leaving(page, address: str) -> HeldRequests:
    """Begin a tour at seed 21, and ask to leave it; that request and all after it are held."""
    page.goto(f"{address}?seed=21")
    page.wait_for_selector("#attention-view [data-drawn]")
    begin(page, 3)
    requests = HeldRequests(page)
    card(page, ".leave").click()
    return requests


def test_an_answer_of_a_tour_that_was_left_is_not_in_the_address(page, address):
    page.goto(f"{address}?seed=21")
    page.wait_for_function("() => location.search.includes('seed_b=')")
    begin(page, 3)
    requests = HeldRequests(page)
    card(page, ".next").click()
    requests.wait_for(1)
    card(page, ".leave").click()
    requests.wait_for(2)
    requests.answer(0)
    assert page.evaluate("sagan.face.step") == 4
    assert "?seed=21&" in page.evaluate("location.search")
    requests.answer(1)
    page.wait_for_function("sagan.face.seed_a === 21")
    assert "?seed=21&" in page.evaluate("location.search")


def leave(page) -> None:
    """Leave a tour that began at seed 21, and see that face again."""
    card(page, ".leave").click()
    page.wait_for_function("sagan.face.seed_a === 21 && !sagan.pending()")


def test_a_tour_that_could_not_be_left_is_left_at_the_next_try(context, address):
    page = context.new_page()  # the failure is also an error in the browser's console
    page.goto(f"{address}?seed=21&pins=9-9")
    page.wait_for_selector("#attention-view [data-drawn]")
    page.wait_for_function("() => location.search.includes('seed_b=')")
    search = page.evaluate("location.search")
    begin(page, 3)
    page.route("**/run/predict*", broken)
    card(page, ".leave").click()
    page.wait_for_selector("#tour-view .error:not(:empty)")
    assert card(page, ".error").text_content() == texts.TOUR["failed"]
    at(page, 3)
    page.wait_for_timeout(700)  # longer than the address waits before it says another face
    assert page.evaluate("location.search") == search
    page.unroute("**/run/predict*")
    leave(page)
    assert page.evaluate("sagan.lab.state.pins.map(({ x, y }) => [x, y])") == [[9, 9]]
    assert not card(page).is_visible()
    page.close()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_tour_comes_back_where_neither_the_face_from_before_it_nor_a_new_one_arrives(
    context, address, order
):
    page = context.new_page()  # the failure is also an error in the browser's console
    requests = leaving(page, address)
    page.locator("#dice").click()
    requests.wait_for(2)
    for i in order:
        assert not card(page).is_visible()
        broken(requests.held[i])
    at(page, 3)
    page.unroute("**/run/predict*")
    leave(page)
    page.close()


def test_a_tour_that_begins_again_before_the_last_one_is_left_ends_where_that_began(
    new_page, address, sampler
):
    page = new_page(f"{address}?seed=21&pins=9-9")
    page.wait_for_selector("#attention-view [data-drawn]")
    begin(page, 3)
    with no_faces(sampler):
        card(page, ".leave").click()
        page.locator("#header-view .tour").click()
    at(page, 0)
    leave(page)
    assert page.evaluate("sagan.lab.state.pins.map(({ x, y }) => [x, y])") == [[9, 9]]


def test_a_tour_that_begins_again_while_leaving_the_last_one_fails_can_be_left(context, address):
    page = context.new_page()  # the failure is also an error in the browser's console
    requests = leaving(page, address)
    page.locator("#header-view .tour").click()
    requests.wait_for(1)
    broken(requests.held[0])
    at(page, 3)
    assert card(page, ".error").text_content() == texts.TOUR["failed"]
    page.unroute("**/run/predict*")
    leave(page)
    assert not card(page).is_visible() and len(requests.held) == 1  # no tour begins that nobody waits for
    page.close()


def test_a_tour_is_left_although_a_face_after_it_fails(context, address):
    page = context.new_page()  # the failure is also an error in the browser's console
    requests = leaving(page, address)
    page.locator("#dice").click()
    requests.wait_for(2)
    requests.answer(0)
    broken(requests.held[1])
    page.wait_for_function("sagan.face.seed_a === 21 && !sagan.pending()")
    assert not card(page).is_visible()
    assert page.locator("#lesson-view .error").text_content() == ""
    page.unroute("**/run/predict*")
    begin(page, 2)
    page.close()


def test_a_worksheet_that_arrives_leaves_what_is_said_of_a_step(context, serve, sampler, monkeypatch):
    address, written = serve(sampler), threading.Event()
    monkeypatch.setattr(worksheet, "page", lambda *_: written.wait(60) and "<p>A sheet</p>")
    monkeypatch.setattr(lesson, "_face_of", lambda *_: 1 / 0)
    page = context.new_page()  # the failure is also an error in the browser's console
    page.goto(address)
    page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
    page.locator("#lesson-view .start").click()
    page.wait_for_selector("#lesson-view .error:not(:empty)")
    written.set()
    page.wait_for_selector("#lesson-view .worksheet[href]")
    assert page.locator("#lesson-view .error").text_content() == texts.TOUR["failed"]
    page.close()


def test_a_worksheet_that_failed_is_made_when_the_tab_is_opened_again(context, serve, sampler, monkeypatch):
    address = serve(sampler)
    page = context.new_page()  # the failure is also an error in the browser's console
    page.goto(address)
    link, error = page.locator("#lesson-view .worksheet"), page.locator("#lesson-view p.error")
    with monkeypatch.context() as broken:
        broken.setattr(worksheet, "page", lambda *_: 1 / 0)
        page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
        page.wait_for_selector("#lesson-view p.error:not(:empty)")
    assert error.text_content() == texts.LESSON["failed"]
    assert link.get_attribute("aria-disabled") == "true" and link.get_attribute("href") is None
    assert link.inner_text() == texts.LESSON["worksheet_open"]  # and not that it is being made
    for tab in (texts.FACES_TAB, texts.LESSON_TAB):
        page.get_by_role("tab", name=tab, exact=True).click()
    page.wait_for_selector("#lesson-view .worksheet[href]")
    assert error.text_content() == "" and link.get_attribute("aria-disabled") is None
    assert link.inner_text() == texts.LESSON["worksheet_open"]
    page.close()


def test_while_the_worksheet_is_made_its_button_says_so(page):
    requests = HeldRequests(page, re.compile("/run/predict|/queue/join"))
    page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
    requests.wait_for(1)
    link = page.locator("#lesson-view .worksheet")
    assert link.inner_text() == texts.LESSON["worksheet_waiting"]
    requests.answer(0)
    page.wait_for_selector("#lesson-view .worksheet[href]")
    assert link.inner_text() == texts.LESSON["worksheet_open"]


def toured(page) -> Iterator[tuple[lesson.Step, dict[str, float]]]:
    """Each step of the tour, when what it is about is in sight, and the box of its card."""
    page.wait_for_selector("#attention-view [data-drawn]")
    page.evaluate("sagan.emit('tour', 0)")
    for index, step in enumerate(lesson.STEPS):
        at(page, index)
        page.wait_for_function(IN_SIGHT, arg=step.shows)
        yield step, card(page).bounding_box()
        card(page, ".next").click()


def test_on_a_phone_a_step_is_seen_beside_its_card(new_page, address):
    page = new_page(address, width=390, height=844)
    for step, box in toured(page):
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] < 844 / 2
        fits_the_width(page)
        if step.lab.get("network") == "discriminator":  # its score is what the step is about
            page.wait_for_selector("#attention-view .status:not(:empty)")
            score = page.locator("#attention-view .status").text_content()
            assert card(page, ".score").is_visible() and card(page, ".score").text_content() == score
        else:
            assert not card(page, ".score").is_visible()


def test_on_a_phone_held_sideways_the_card_leaves_room_for_what_it_is_about(new_page, address):
    for _, box in toured(new_page(address, width=844, height=390)):
        assert box["y"] >= 0 and box["y"] + box["height"] < 390 / 2


@pytest.mark.parametrize(("width", "height"), [(640, 450), (844, 390), (1280, 800)])
def test_what_has_the_focus_is_never_behind_the_card(new_page, address, width, height):
    page = new_page(address, width, height)
    page.wait_for_selector("#attention-view [data-drawn]")
    page.evaluate("sagan.emit('tour', 1)")
    at(page, 1)
    page.wait_for_timeout(500)  # the step has been scrolled to
    for key in ("Tab", "Shift+Tab"):
        met = set()
        for _ in range(70):
            page.keyboard.press(key)
            two_frames(page)
            assert covered(page) == ""
            met.add(page.evaluate("document.activeElement.outerHTML"))
        assert len(met) > 40


@pytest.mark.one_page
def test_a_button_of_the_card_that_gets_the_focus_moves_nothing(page):
    begin(page, 1)
    card(page, ".next").focus()
    page.wait_for_timeout(500)
    before = page.evaluate("scrollY")
    for key in ("Shift+Tab", "Shift+Tab", "Tab", "Tab"):
        page.keyboard.press(key)
        two_frames(page)
        assert page.evaluate("scrollY") == before > 0


@pytest.mark.one_page
def test_where_new_faces_are_asked_for_the_card_has_a_button_for_them(page):
    begin(page, 0)
    assert not card(page, ".dice").is_visible()
    asking = next(index for index, step in enumerate(lesson.STEPS) if step.name == "discriminator")
    for index in range(1, asking + 1):
        card(page, ".next").click()
        at(page, index)
    before = page.evaluate("sagan.face.seed_a")
    card(page, ".dice").click()
    page.wait_for_function("seed => sagan.face.seed_a !== seed", arg=before)
    assert card(page).get_attribute("data-step") == str(asking)


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"g_attention": (16,)}, {"two_scales"}),
        ({"g_attention": (8, 16, 32)}, {"two_scales"}),
        ({"d_attention": ()}, {"discriminator"}),
        ({"d_spectral_norm": False}, {"spectral_norm"}),
        ({"image_size": 32}, set()),
    ],
)
def test_steps_and_exercises_fit_the_model(options, left_out):
    sampler = random_model(**options)
    steps = lesson.steps(sampler)
    assert {step.name for step in lesson.STEPS} - {step.name for step in steps} == left_out
    for step in steps:
        assert all("{" not in words for words in lesson.words_of(sampler, step).values())
        setting = lesson.setting(sampler, step)
        assert len(setting["pins"]) == (5 if step.most else 1)
        assert max(map(max, setting["pins"])) < sampler.config.image_size
        assert set(setting["lab"].get("gammas", {})) in (set(), set(sampler.layers))
    sheet = worksheet.page(sampler, lesson.looked_at(sampler)[0])
    assert sheet.count("<li>") == 2 * (8 - ("discriminator" in left_out))
    for layer in sampler.layers:
        side = int(layer.split("x")[0])
        cells = f"{layer}: {options.get('image_size', 64) // side} pixels, {side**4:,} shares"
        assert sheet.count(cells) == 1


def test_a_model_without_attention_has_no_lesson(new_page, serve):
    page = new_page(serve(random_model(g_attention=())))
    page.get_by_role("tab", name=texts.INSIDE_TAB, exact=True).wait_for()
    assert page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_lesson_and_the_tour(new_page, address, theme):
    page = new_page(f"{address}?__theme={theme}")
    page.wait_for_selector("#attention-view [data-drawn]")
    page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
    page.wait_for_selector("#lesson-view .worksheet[href]")

    def serious() -> list:
        found = Axe().run(page).response["violations"]
        return [
            (finding["id"], [node["html"] for node in finding["nodes"]])
            for finding in found
            if finding["impact"] in ("serious", "critical")
        ]

    assert serious() == []
    begin(page, 1)
    assert serious() == []


# The worksheet


def softmax(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    logits = q.astype(np.float64) @ k.astype(np.float64).T
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_answers_are_the_models_own_figures(sampler, with_classes, classes):
    model = with_classes if classes else sampler
    label, labels = (0, np.zeros(1, int)) if classes else (None, None)
    seed, x, y = draw.randrange(2**32), draw.randrange(64), draw.randrange(64)
    known = worksheet.figures(model, seed, [x, y])
    z = latents.from_seed(seed, model.config.z_dim)
    rows, logits = {}, {}
    for layer, (q, k) in model.queries_keys(z, label).items():
        side = int(layer.split("x")[0])
        query = y * side // 64 * side + x * side // 64
        rows[layer] = softmax(q, k)[query]
        logits[layer] = np.sort(k.astype(np.float64) @ q[query].astype(np.float64))[::-1]
    fine, coarse = rows["32x32"], rows["16x16"]
    row, column = y * 32 // 64, x * 32 // 64
    near = [
        fine[32 * i + j]
        for i in range(row - 1, row + 2)
        for j in range(column - 1, column + 2)
        if 0 <= i < 32 and 0 <= j < 32
    ]
    for name, share in (("outside", 1 - sum(near)), ("share", coarse.max())):
        if share > 0.9995:
            assert known[name] == "> 99.9"
        else:
            assert float(known[name]) == pytest.approx(100 * share, abs=0.051)
    first, fifth = logits["32x32"][[0, 4]]
    assert float(known["first"].replace("−", "-")) == pytest.approx(first, abs=0.006)
    assert float(known["fifth"].replace("−", "-")) == pytest.approx(fifth, abs=0.006)
    printed = [float(known[name].replace("−", "-").replace(",", "")) for name in ("first", "fifth", "ratio")]
    assert printed[2] == pytest.approx(math.exp(printed[0] - printed[1]), rel=0.005)  # as a pupil computes it
    assert float(known["gap"]) == pytest.approx(printed[0] - printed[1])
    best = np.sort(fine)[::-1]
    assert float(known["fifth_share"]) == pytest.approx(best[4], rel=0.06)
    assert float(known["times"]) == pytest.approx(256 * coarse.max(), abs=0.06)
    entropy = -sum(w * math.log2(w) for w in fine if w)
    assert float(known["entropy"]) == pytest.approx(entropy, abs=0.06)
    off = dict.fromkeys(model.layers, 0.0)
    a, b = (
        model.faces(z[None], labels, gammas)[0].astype(int)
        for gammas in (off, off | {"32x32": model.gammas["32x32"]})
    )
    assert float(known["change"]) == pytest.approx(np.abs(a - b).mean(), abs=0.06)
    scores = {}
    for number in range(1, 7):
        face = model.faces(latents.from_seed(number, model.config.z_dim)[None], labels)
        scores[number] = model.score(face, labels)[0]
    assert known["best"] == str(max(scores, key=scores.get))
    assert known["scores"].startswith(f"1: {scores[1]:.2f}".replace("-", "−"))


def test_the_worksheet_opens_as_two_pages_to_print(page, sampler):
    page.get_by_role("tab", name=texts.LESSON_TAB, exact=True).click()
    page.wait_for_selector("#lesson-view .worksheet[href]")
    with page.context.expect_page() as opened:
        page.locator("#lesson-view .worksheet").click()
    sheet = opened.value
    sheet.wait_for_load_state()
    assert sheet.locator(".exercises li").count() == sheet.locator(".solutions li").count() == 8
    assert sheet.locator("h1").text_content() == texts.WORKSHEET["title"]
    seed, (x, y) = lesson.looked_at(sampler)[0]
    query = f"?seed={seed}&psi=1&pins={int(64 * x)}-{int(64 * y)}"
    link = sheet.locator("a").get_attribute("href")
    assert link == page.evaluate("location.origin + location.pathname") + query
    printed = sheet.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2
    sheet.goto(link)  # as somebody who reads it on paper types it
    sheet.wait_for_selector("#attention-view [data-drawn]")
    assert sheet.evaluate("sagan.lab.state.pins.map(({ x, y }) => [x, y])") == [[int(64 * x), int(64 * y)]]
    assert sheet.evaluate("sagan.face.seed_a") == seed
    sheet.close()


def test_the_worksheet_is_made_once_for_all_visitors(new_page, serve, sampler, monkeypatch):
    address = serve(sampler)
    made = []
    monkeypatch.setattr(worksheet, "page", lambda *_: made.append(1) or "<p>A sheet</p>")
    for _ in range(2):
        page = new_page(address)
        page.get_by_role("tab", name="Lesson", exact=True).click()
        page.wait_for_selector("#lesson-view .worksheet[href]")
    assert made == [1]


def test_texts_reach_the_worksheet_as_text(sampler, monkeypatch):
    wild = "<script>alert(1)</script> & $title {seed}"
    monkeypatch.setitem(texts.WORKSHEET, "answers_note", wild)
    sheet = worksheet.page(sampler, (5, (0.1, 0.9)))
    assert html.escape(wild) in sheet and "<script>alert" not in sheet


def test_the_worksheet_of_a_model_with_classes_names_the_one_that_it_is_about(half_learned):
    sheet = worksheet.page(half_learned, (5, (0.1, 0.9)))
    assert "Set the seed to 5 and truncation to 1, the class to “smiling”; " in html.unescape(sheet)
    assert "?seed=5&psi=1&pins=6-57&class=1" in html.unescape(sheet)
    of_class = copy.copy(half_learned)
    of_class.classes = Classes(of_class.classes.names, (0, 0, 9))
    assert worksheet.figures(half_learned, 5, [6, 57]) != worksheet.figures(of_class, 5, [6, 57])


def test_where_there_are_no_average_maps_the_tour_asks_for_what_can_be_done(sampler):
    step = next(step for step in lesson.STEPS if step.name == "meaning")
    assert sampler.average_maps is None
    words = texts.LESSON["steps"]["meaning"]
    assert lesson.words_of(sampler, step)["do"] == words["do_without_average"]
    assert lesson.setting(sampler, step)["dice"] is True
    averaged = copy.copy(sampler)
    averaged.average_maps = Path("average_maps.safetensors")
    assert lesson.words_of(averaged, step)["do"] == words["do"]
    assert lesson.setting(averaged, step)["dice"] is False
    assert "do_without_average" not in lesson.words_of(averaged, step)
