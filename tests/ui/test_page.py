"""The page in a real browser: one current face on every tab, links, the walk, downloads, a narrow screen."""

import base64
import copy
import re
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from screen import (
    HeldRequests,
    chosen_tab,
    fast_forward,
    fits_the_width,
    gamma_text,
    opening,
    painted,
    translate,
)

from sagan import heatmaps, latents
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler
from sagan.ui import SESSIONS, build_app, controls, faces, texts, walk
from sagan.ui.current import CurrentFace


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    # A box takes what it began with once more, soon after it is there for the first time.
    page.evaluate("() => new Promise((done) => requestIdleCallback(() => requestIdleCallback(done)))")


def wait_for_face(page, seed: int, t: float = 0) -> None:
    page.wait_for_selector(f'#face-view [data-seed="{seed}"][data-t="{t:g}"]')


def current_picture(page) -> np.ndarray:
    """The bytes that the browser received for the current face."""
    uri = page.evaluate("sagan.face.image")
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))))


def face_of(sampler, z: np.ndarray) -> np.ndarray:
    return sampler.faces(z[None])[0]


def sheet_is_ready(page, count: int) -> None:
    page.wait_for_function(
        "count => document.querySelectorAll('#sheet-view .grid img:not([hidden])').length === count",
        arg=count,
    )


def first_picture_is(page, picture: str) -> None:
    """Wait until the sheet is at rest and begins with this picture."""
    page.wait_for_function(
        """picture => !document.querySelector('#sheet-view .waiting, #sheet-view.waiting')
            && document.querySelector('#sheet-view .grid img').src === picture""",
        arg=picture,
    )


def test_the_header_says_what_this_is_and_the_footer_names_model_and_source(page):
    assert page.locator("h1").count() == 1
    said = page.locator("#header-view p").inner_text()
    assert said == f"{texts.HEADER['what_faces']} {texts.HEADER['how']}"
    said = page.locator("#footer-view").text_content().strip()
    assert said.startswith("Test model · 64×64") and "model card" in said
    assert page.locator("#footer-view a").first.get_attribute("href").startswith("https://arxiv.org/")
    card = page.get_by_text("Made of noise.")
    assert not card.is_visible()
    page.wait_for_function("() => location.search.includes('seed=')")  # a link in it would load the page anew
    page.locator("#dice").click()
    page.wait_for_function("() => sagan.face.seed_a !== 11 && !sagan.pending()")
    seed = page.evaluate("sagan.face.seed_a")
    page.set_viewport_size({"width": 1280, "height": 400})
    for _ in range(2):  # as often as somebody likes
        page.locator("#footer-view a.card").click()
        card.wait_for()
        page.wait_for_function("document.querySelector('#card').getBoundingClientRect().bottom < innerHeight")
        page.evaluate("scrollTo(0, 0)")
    assert page.evaluate("sagan.face.seed_a") == seed


def test_a_click_in_the_sheet_makes_that_face_the_current_one_on_every_tab(page, sampler):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    page.locator("#sheet-view .grid button").nth(17).click()
    wait_for_face(page, 17)
    marked = page.locator('#sheet-view .grid button[aria-current="true"]')
    assert marked.count() == 1 and "17" in marked.get_attribute("aria-label")
    assert page.locator("#seed input[type=number]").input_value() == "17"
    z = latents.from_seed(17, sampler.config.z_dim)
    np.testing.assert_array_equal(current_picture(page), face_of(sampler, z))

    open_tab(page, "Attention")
    page.wait_for_selector('#attention-view [data-seed="17"]')
    open_tab(page, "Walk")
    page.wait_for_function("document.querySelector('#walk-view .a').textContent.includes('17')")


@pytest.mark.one_page
def test_the_sheet_is_reached_with_the_keyboard(page):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    first = page.locator('#sheet-view .grid button[tabindex="0"]')
    assert first.count() == 1
    first.focus()
    page.keyboard.press("ArrowRight")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    wait_for_face(page, int(label.split()[-1]))


@pytest.mark.one_page
def test_arrow_keys_go_through_the_rows_of_the_sheet_and_tab_comes_back_to_where_one_was(page, sampler):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    buttons = page.locator("#sheet-view .grid button")
    tops = buttons.evaluate_all("all => all.map((button) => button.offsetTop)")
    columns, start = tops.count(tops[0]), sampler.curated[0].seed  # which is its place on the sheet
    assert columns <= start < 24 - columns
    focused = "[...document.querySelectorAll('#sheet-view .grid button')].indexOf(document.activeElement)"
    page.locator('#sheet-view .grid button[tabindex="0"]').focus()
    down, above = start + columns, start - columns
    ways = {"ArrowDown": down, "ArrowRight": down + 1, "ArrowUp": start + 1, "ArrowLeft": start}
    for key, to in [*ways.items(), ("ArrowUp", above), ("ArrowUp", above), ("Alt+ArrowRight", above)]:
        page.keyboard.press(key)
        assert page.evaluate(focused) == to, key
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == -1
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(focused) == above


def test_before_there_is_a_sheet_and_between_its_faces_there_is_nothing_to_choose(page):
    asking = re.compile("/run/predict|/queue/join")
    requests = HeldRequests(page, asking)
    open_tab(page, "Faces")
    requests.wait_for(1)
    page.locator("#sheet-view .grid button").nth(3).click()
    page.locator("#sheet-view .download").click()
    page.route(asking, lambda route: route.continue_())
    requests.held[0].continue_()
    sheet_is_ready(page, 24)
    first, second = (page.locator("#sheet-view .grid button").nth(i).bounding_box() for i in (0, 1))
    gap = first["x"] + first["width"]
    assert second["x"] - gap > 2
    page.mouse.click((gap + second["x"]) / 2, first["y"] + 20)
    page.wait_for_timeout(300)
    assert len(requests.held) == 1 and not page.evaluate("sagan.pending()")


@pytest.mark.one_page
def test_a_face_that_is_chosen_asks_for_no_other_sheet(page):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.locator("#sheet-view .grid button").nth(5).click()
    wait_for_face(page, 5)
    page.wait_for_timeout(400)  # views ask 120 ms after a change
    assert len(requests) == 1
    assert page.locator("#sheet-view .waiting, #sheet-view.waiting").count() == 0


def test_the_sheet_follows_its_first_seed_and_how_many(page, sampler):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    page.locator("#first-seed input[type=number]").fill("4294967294")
    page.locator("#count input[type=number]").fill("3")
    page.locator("#count input[type=number]").press("Enter")
    z = latents.from_seed(4294967294, sampler.config.z_dim)
    first_picture_is(page, faces.pictures.png_uri(face_of(sampler, z)))
    labels = page.locator("#sheet-view .grid button").evaluate_all("all => all.map((b) => b.ariaLabel)")
    assert [label.split("seed ")[1].split(",")[0] for label in labels] == ["4294967294", "4294967295", "0"]


@pytest.mark.parametrize(
    ("tab", "picture"), [("Faces", "#sheet-view .grid button"), ("Inside", "#inside-view .cells canvas")]
)
def test_what_is_to_come_breathes_until_it_is_there_unless_motion_is_unwanted(page, tab, picture):
    moving = """picture => document.querySelector(picture).getAnimations()
        .map(({ animationName, playState }) => `${animationName} ${playState}`)"""
    asking = re.compile("/run/predict|/queue/join")
    requests = HeldRequests(page, asking)
    open_tab(page, tab)
    requests.wait_for(1)
    assert page.evaluate(moving, picture) == ["breathe running"]
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving, picture) == []
    page.emulate_media(reduced_motion="no-preference")
    page.route(asking, lambda route: route.continue_())
    for request in requests.held:
        request.continue_()
    page.wait_for_function("picture => !document.querySelector(picture).closest('.empty')", arg=picture)
    assert page.evaluate(moving, picture) == []


def test_a_sheet_that_failed_is_asked_for_again(page, sampler, monkeypatch):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    asked = threading.Event()
    with monkeypatch.context() as broken:
        broken.setattr(faces, "faces_from", lambda *_: asked.set() or 1 / 0)
        page.locator("#first-seed input[type=number]").fill("8")
        page.wait_for_selector("#sheet-view .waiting")
        page.wait_for_selector("#sheet-view :not(.waiting) > .grid")
        assert page.locator("#sheet-view p.error").text_content() == texts.SHEET["failed"]
    assert asked.is_set()
    page.locator("#first-seed input[type=number]").fill("9")
    z = latents.from_seed(9, sampler.config.z_dim)
    first_picture_is(page, faces.pictures.png_uri(face_of(sampler, z)))
    assert page.locator("#sheet-view p.error").text_content() == ""


def test_a_request_that_is_never_answered_is_said_to_have_failed(page, monkeypatch):
    page.clock.install()
    begun, enough = threading.Event(), threading.Event()

    def never(*_):
        begun.set()
        return enough.wait(60) and 1 / 0

    monkeypatch.setattr(faces, "faces_from", never)
    try:
        open_tab(page, "Faces")
        assert begun.wait(30)
        page.wait_for_selector("#sheet-view .waiting")
        fast_forward(page, 100_000)
        assert page.locator("#sheet-view .waiting").count() == 1
        fast_forward(page, 21_000)
        page.wait_for_selector("#sheet-view :not(.waiting) > .grid")
        assert page.locator("#sheet-view p.error").text_content() == texts.SHEET["failed"]
    finally:
        enough.set()


def moved(page, here: str, there: str) -> None:
    """From now on another server answers at the page's address."""
    page.route(f"{here}**", lambda route: route.continue_(url=route.request.url.replace(here, there)))


@pytest.mark.parametrize("contact", ["Faces", "dials", "dice"])
def test_where_a_server_has_another_model_the_page_loads_again_before_it_shows_any_of_it(
    serve, new_page, sampler, contact
):
    here, config = serve(sampler), SaganConfig(g_width=8, d_width=8, z_dim=16)
    other = Sampler(Generator(config, spectral=False), Discriminator(config, spectral=False))
    other.sha256 = "of another"
    page = new_page(f"{here}?seed=3&pins=9-9")
    page.wait_for_selector("#attention-view [data-drawn]")
    moved(page, here, serve(other))
    page.evaluate("""() => {
        const made = '#sheet-view img:not([hidden]), #dials-view [data-shown]';
        globalThis.isOld = true;
        addEventListener('pagehide', () => { sessionStorage.shown = document.querySelector(made) !== null; });
    }""")
    if contact == "Faces":
        open_tab(page, "Faces")
    elif contact == "dials":
        page.locator("#dials-view summary").click()
        page.locator("#dials-view .content").scroll_into_view_if_needed()
    else:
        page.locator("#dice").click()
    page.wait_for_function("!globalThis.isOld && globalThis.sagan?.face")
    assert page.evaluate("sessionStorage.shown") == "false"
    assert page.evaluate("sagan.face.seed_a") == 3
    assert page.evaluate("sagan.lab.state.pins.map(({ x, y }) => [x, y])") == [[9, 9]]
    assert chosen_tab(page) == (contact if contact == "Faces" else texts.ATTENTION_TAB)
    assert np.array_equal(current_picture(page), face_of(other, latents.from_seed(3, 16)))


def test_a_server_that_was_started_anew_with_the_same_model_leaves_the_page_as_it_is(
    serve, new_page, sampler
):
    here = serve(sampler)
    page = new_page(here)
    page.wait_for_selector("#attention-view [data-drawn]")
    moved(page, here, serve(sampler))
    page.evaluate("globalThis.isOld = true")
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    page.locator("#seed input[type=number]").fill("7")
    wait_for_face(page, 7)
    assert page.evaluate("globalThis.isOld")


def test_the_sheet_shows_the_newest_truncation_even_if_it_was_changed_back_meanwhile(page, monkeypatch):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    before = page.locator("#sheet-view .grid img").first.get_attribute("src")
    begun, go_on, faces_from = threading.Event(), threading.Event(), faces.faces_from

    def slow(*arguments):
        begun.set()
        go_on.wait(60)
        return faces_from(*arguments)

    monkeypatch.setattr(faces, "faces_from", slow)
    for psi in (0.5, 1):
        page.locator("#psi input[type=number]").fill(str(psi))
        page.wait_for_function("psi => sagan.face.psi === psi", arg=psi)
        while not begun.is_set():
            page.wait_for_timeout(20)
    go_on.set()
    first_picture_is(page, before)


@pytest.mark.one_page
def test_of_quick_choices_the_last_one_stays(page):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    page.evaluate(
        "[3, 20, 9].forEach((i) => document.querySelectorAll('#sheet-view .grid button')[i].click())"
    )
    wait_for_face(page, 9)
    page.wait_for_timeout(500)
    wait_for_face(page, 9)
    assert page.locator("#seed input[type=number]").input_value() == "9"


@pytest.mark.one_page
def test_an_answer_that_comes_late_changes_neither_the_face_nor_the_controls(page):
    seed = page.evaluate("sagan.face.seed_a")
    late = {"asked": -1, "seed_a": 5, "seed_b": 6, "t": 0.5}
    page.evaluate("late => sagan.show(JSON.stringify(late))", late)
    page.wait_for_timeout(300)
    assert page.evaluate("sagan.face.seed_a") == seed
    assert page.locator("#seed input[type=number]").input_value() == str(seed)


def test_a_request_that_arrives_after_a_later_one_does_not_win(page):
    held = []
    page.route("**/run/predict*", lambda route: route.continue_() if held else held.append(route))
    page.locator("#seed input[type=number]").fill("5")
    while not held:
        page.wait_for_timeout(20)
    before = page.evaluate("sagan.face.seed_a")
    page.locator("#dice").click()
    page.wait_for_function("before => sagan.face.seed_a !== before", arg=before)
    diced = page.evaluate("sagan.face.seed_a")
    held[0].continue_()
    page.wait_for_timeout(1000)
    assert page.evaluate("sagan.face.seed_a") == diced != 5
    assert page.locator("#seed input[type=number]").input_value() == str(diced)


def agreed(page) -> list[str]:
    """Seed and truncation as their boxes say them, which is what the face is."""
    boxes = [page.locator(f"#{box} input[type=number]").input_value() for box in ("seed", "psi")]
    assert page.evaluate("[sagan.face.seed_a, sagan.face.psi]") == [float(value) for value in boxes]
    return boxes


@pytest.mark.one_page
def test_a_picture_that_is_decoded_late_does_not_win(page):
    """Of two faces the browser may have the picture of the newer one first."""
    shown = page.evaluate(
        """async () => {
            const { decode } = sagan, slow = {};
            slow.done = new Promise((go) => { slow.go = go; });
            sagan.decode = async (address) => {
                sagan.decode = decode;
                await slow.done;
                return decode(address);
            };
            const [first, second] = [1, 2].map(() => sagan.numbered([0])[0]);
            const tell = (asked, seed_a) =>
                sagan.show(JSON.stringify({ ...sagan.face, picture: null, asked, seed_a }));
            const late = tell(first, 71);
            await tell(second, 72);
            slow.go();
            await late;
            return [sagan.face.seed_a, document.querySelector('#face-view [data-seed]').dataset.seed];
        }"""
    )
    assert shown == [72, "72"]


@pytest.mark.one_page
def test_what_is_said_already_is_not_read_out_again(page):
    """A live region is read out when its text is set, whatever it was before."""
    changes = """words => {
        const region = document.querySelector('#face-view .notice'), seen = new MutationObserver(() => {});
        seen.observe(region, { childList: true });
        for (const text of words) sagan.say(region, text);
        region.textContent = '';
        return seen.takeRecords().length;
    }"""
    assert page.evaluate(changes, ["one", "one", "two"]) == 3  # the third change is its end


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_after_two_quick_changes_the_controls_say_what_the_face_is(page, sampler, order):
    requests = HeldRequests(page)
    page.locator("#dice").click()
    requests.wait_for(1)
    page.locator("#psi input[type=number]").fill("0.5")
    requests.wait_for(2)  # sent with the seed from before the dice
    for i in order:
        requests.answer(i)
    assert agreed(page) == [str(sampler.curated[0].seed), "0.5"]  # the newest request wins


def test_what_is_typed_while_other_changes_are_on_their_way_stays_in_its_box(page):
    requests = HeldRequests(page)
    page.locator("#dice").click()
    for psi in ("0.3", "0.5"):  # Gradio asks for the second once the first is answered
        page.locator("#psi input[type=number]").fill(psi)
        page.wait_for_timeout(300)
    for i in range(3):
        requests.answer(i)
    assert agreed(page)[1] == "0.5"


@pytest.mark.parametrize(("box", "values"), [("seed", ("4", "42")), ("psi", ("0.3", "0.5"))])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_a_slider_said_before_a_choice_does_not_take_the_choice_back(page, sampler, box, values, order):
    requests = HeldRequests(page)
    for value in values:  # Gradio asks for the second once the first is answered
        page.locator(f"#{box} input[type=number]").fill(value)
        requests.wait_for(1)
    page.locator("#dice").click()
    for i in (*order, 2):
        requests.answer(i)
    seed, psi = agreed(page)
    assert seed not in (*values, str(sampler.curated[0].seed))
    assert psi == (values[1] if box == "psi" else "1")
    assert not page.evaluate("sagan.pending()")


def change_the_seed_to_42_and(page, box: str, value: str) -> None:
    """Change the seed twice, and another slider, which asks for the second seed, before the first answer."""
    requests = HeldRequests(page)
    for name, text in (("seed", "4"), ("seed", "42"), (box, value)):  # Gradio keeps the second back
        page.locator(f"#{name} input[type=number]").fill(text)
        requests.wait_for(2 if name == box else 1)
    for i in range(3):
        requests.answer(i)


def test_another_seed_begins_a_new_way_also_where_another_slider_asks_for_it(new_page, address):
    page = new_page(f"{address}?seed=3&seed_b=5&t=0.5")
    wait_for_face(page, 3, 0.5)
    change_the_seed_to_42_and(page, "psi", "0.7")
    assert page.evaluate("[sagan.face.t, ...sagan.values()]") == [0, 42, 5, 0, 0.7, None]
    assert agreed(page) == ["42", "0.7"] and not page.evaluate("sagan.pending()")
    open_tab(page, "Walk")
    assert page.locator("#t input[type=number]").input_value() == "0"


def test_the_way_is_not_begun_anew_where_its_slider_was_moved_after_another_seed(new_page, address):
    page = new_page(f"{address}?seed=3&seed_b=5&t=0.5&tab=walk")
    wait_for_face(page, 3, 0.5)
    page.wait_for_selector("#walk-view .play:enabled")
    change_the_seed_to_42_and(page, "t", "0.7")
    assert page.evaluate("sagan.values()") == [42, 5, 0.7, 1, None]
    assert page.locator("#t input[type=number]").input_value() == "0.7"


def test_swapped_twice_both_ends_are_where_they_were(page):
    open_tab(page, "Walk")
    page.wait_for_function("document.querySelector('#walk-view .b').textContent.includes('seed')")
    ends = page.evaluate("[sagan.face.seed_a, sagan.face.seed_b]")
    requests = HeldRequests(page)
    page.locator("#swap").dblclick()
    for i in range(2):
        requests.answer(i)
    assert page.evaluate("sagan.values().slice(0, 3)") == [*ends, 0]
    page.unroute_all()
    page.locator("#swap").click()
    page.wait_for_function("ends => sagan.face.seed_a === ends[1] && sagan.face.t === 1", arg=ends)
    assert page.locator("#seed input[type=number]").input_value() == str(ends[1])


@pytest.mark.parametrize("button", ["dice", "dice-b", "swap"])
def test_a_button_that_was_clicked_twice_does_not_take_a_newer_choice_back(page, button):
    open_tab(page, "Walk")
    page.wait_for_function("document.querySelector('#walk-view .b').textContent.includes('seed')")
    ends = page.evaluate("[sagan.face.seed_a, sagan.face.seed_b]")
    requests = HeldRequests(page)
    page.locator(f"#{button}").dblclick()
    page.locator("#walk-view .strip button").nth(6).click()
    for i in range(3):
        requests.answer(i)
    assert page.evaluate("[sagan.face.seed_a, sagan.face.seed_b, sagan.face.t]") == [*ends, 0.75]
    boxes = [page.locator(f"#{box} input[type=number]").input_value() for box in ("seed", "seed-b", "t")]
    assert [float(value) for value in boxes] == [*ends, 0.75]


@pytest.mark.parametrize("way", ["pointer", "keyboard"])
def test_a_seed_box_that_is_left_as_it_was_asks_for_nothing(new_page, address, way):
    page = new_page(f"{address}?seed=3&seed_b=5&t=0.5&psi=7")
    wait_for_face(page, 3, 0.5)
    notice, requests = page.locator("#face-view .notice"), []
    page.on("request", lambda request: requests.append(request.url))
    box = page.locator("#seed input[type=number]")
    box.click() if way == "pointer" else box.focus()
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.className.includes('reset-button')")
    page.wait_for_timeout(300)
    assert requests == [] and "psi=7" in notice.text_content()
    page.locator("#psi input[type=number]").fill("0.5")
    page.wait_for_function("sagan.face.psi === 0.5")
    assert page.evaluate("[sagan.face.seed_a, sagan.face.t]") == [3, 0.5] and len(requests) == 1


def test_a_reset_leads_to_what_a_first_visit_begins_with_whatever_the_link_said(new_page, address, sampler):
    page = new_page(f"{address}?seed=3&seed_b=5&t=0.5&psi=0.5")
    wait_for_face(page, 3, 0.5)
    open_tab(page, "Walk")
    first, second = (face.seed for face in sampler.curated[:2])
    resets = {"t": ("t", 0), "seed-b": ("seed_b", second), "psi": ("psi", 1), "seed": ("seed_a", first)}
    for box, (name, value) in resets.items():
        page.locator(f"#{box} .reset-button").click()
        page.wait_for_function("([name, value]) => sagan.face[name] === value", arg=[name, value])
        assert float(page.locator(f"#{box} input[type=number]").input_value()) == value
    assert page.evaluate("sagan.values()") == [first, second, 0, 1, None]


def test_a_reset_of_another_slider_is_gradios(page):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    page.locator("#count input[type=number]").fill("5")
    sheet_is_ready(page, 5)
    page.locator("#count .reset-button").click()
    sheet_is_ready(page, 24)
    assert page.locator("#count input[type=number]").input_value() == "24"


def test_a_card_cannot_cover_the_page(sampler, serve, new_page):
    sampler = copy.copy(sampler)
    sampler.card = '# Card\n\n<div class="cover" style="position:fixed;inset:0;z-index:9999">a</div>\n\nEnd.'
    page = new_page(serve(sampler))
    page.locator("#card button").first.click()
    page.get_by_text("End.", exact=True).wait_for()
    assert page.locator("#card .cover").count() == 1  # styles are let through
    page.evaluate("scrollTo(0, 0)")
    page.locator("#header-view h1").click(timeout=5000)  # Playwright clicks only what nothing covers


def test_a_page_goes_on_where_the_server_has_forgotten_its_session(sampler, serve, new_page):
    app = build_app(sampler)
    page = new_page(serve(app))
    page.wait_for_selector("#attention-view [data-drawn]")
    page.locator("#seed input[type=number]").fill("7")
    wait_for_face(page, 7)
    sessions = app.state_holder
    own = set(sessions.session_data)
    for i in range(SESSIONS):
        sessions[f"visitor {i}"]
    assert own and not own & set(sessions.session_data)
    assert len(sessions.session_data) == SESSIONS
    page.locator("#psi input[type=number]").fill("0.5")
    page.wait_for_function("sagan.face.psi === 0.5")
    wait_for_face(page, 7)
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    assert page.locator(".toast-body").count() == 0


@pytest.mark.one_page
@pytest.mark.parametrize(("box", "name", "value"), [("seed", "seed_a", 72), ("psi", "psi", 0.5)])
def test_what_was_typed_just_before_controls_are_set_back_stays(page, box, name, value):
    page.evaluate(
        """([box, value]) => {
            const input = document.querySelector(`#${box} input[type=number]`);
            input.value = value;
            input.dispatchEvent(new Event('input', { bubbles: true }));
            sagan.emit('late'); // before the request of what was typed
        }""",
        [box, value],
    )
    page.wait_for_function("([name, value]) => sagan.face[name] === value", arg=[name, value])
    page.wait_for_function("!sagan.pending()")
    agreed(page)
    assert page.locator(f"#{box} input[type=number]").input_value() == f"{value}"


@pytest.mark.parametrize("meanwhile", ["", "50000000000", "-3"])
def test_a_number_that_is_being_retyped_is_no_error(page, meanwhile):
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    for box in ("count", "first-seed", "seed", "psi"):
        page.locator(f"#{box} input[type=number]").fill(meanwhile)
        page.wait_for_timeout(300)
        assert page.locator("#sheet-view .grid button").count() > 0
    for box, value in (("count", 5), ("first-seed", 70), ("psi", 0.5), ("seed", 72)):
        page.locator(f"#{box} input[type=number]").fill(str(value))
    sheet_is_ready(page, 5)
    wait_for_face(page, 72)
    page.wait_for_selector('#sheet-view .grid button:nth-child(3)[aria-current="true"]')
    assert page.locator(".toast-body").count() == 0


@pytest.mark.one_page
@pytest.mark.parametrize(("typed", "shown"), [("41.7", "42"), ("2.5", "3")])
def test_a_box_with_a_fraction_is_set_to_the_number_of_the_face(page, typed, shown):
    page.locator("#seed input[type=number]").fill(typed)
    wait_for_face(page, int(shown))
    page.wait_for_function(
        "shown => document.querySelector('#seed input[type=number]').value === shown", arg=shown
    )


def test_the_end_of_a_walk_is_marked_and_named_as_its_seed(page):
    first = page.evaluate("sagan.face.seed_a")
    open_tab(page, "Walk")
    page.locator("#seed-b input[type=number]").fill("3")
    page.locator("#t input[type=number]").fill("1")
    wait_for_face(page, first, 1)
    assert page.locator("#face-view .name").text_content() == "Seed 3"
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    marked = page.locator('#sheet-view button[aria-current="true"]')
    assert marked.get_attribute("aria-label") == texts.SHEET["current"].format(seed=3)
    names = [page.evaluate(f"sagan.named({{seed_a: 5, seed_b: 7, t: {t}}})") for t in (0, 0.125, 1)]
    assert (
        [str(name) for name in names]
        == [CurrentFace(5, 7, t).name for t in (0, 0.125, 1)]
        == ["5", "5-7-13", "7"]
    )


@pytest.mark.one_page
def test_a_quick_answer_dims_nothing(page):
    dims = """async () => {
        const wait = (ms) => new Promise((done) => setTimeout(done, ms));
        const dim = () => document.body.classList.contains('waiting-for-face'), seen = [];
        for (const ms of [0, 600]) {
            sagan.numbered([0]);
            await wait(ms);
            seen.push(dim());
            sagan.emit('failed', 'face-view');
            seen.push(dim());
        }
        return seen;
    }"""
    assert page.evaluate(dims) == [False, False, True, False]


def test_who_waits_for_a_face_sees_it(page):
    opacity = "() => getComputedStyle(document.querySelector('#face-view canvas')).opacity"
    assert page.evaluate(opacity) == "1"
    held = []
    page.route("**/run/predict*", lambda route: held.append(route))
    page.locator("#dice").click()
    page.wait_for_function(f"() => ({opacity})() === '0.45'")
    assert len(held) == 1
    held[0].continue_()
    page.wait_for_function(f"() => ({opacity})() === '1'")


@pytest.fixture
def failing_page(context, address):
    """The page of a first visitor, in which errors of the server are errors in the console that are meant."""
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#attention-view [data-drawn]")
    yield page
    page.close()


def roll(page) -> None:
    """Ask for another face, and see it."""
    before = page.evaluate("sagan.face.seed_a")
    page.locator("#dice").click()
    page.wait_for_function("seed => sagan.face.seed_a !== seed", arg=before)


def test_a_request_that_fails_is_not_waited_for(failing_page):
    page = failing_page
    held = []
    page.route("**/run/predict*", lambda route: held.append(route))
    page.locator("#dice").click()
    page.wait_for_selector("body.waiting-for-face")
    held[0].fulfill(status=500, json={"error": "broken"})
    page.wait_for_selector("body:not(.waiting-for-face)")
    assert not page.evaluate("sagan.pending()")
    page.unroute("**/run/predict*")
    roll(page)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_of_three_requests_the_newest_that_is_answered_is_shown_and_said(page, failing):
    """The first answers overtake each other, and one never comes."""
    shown = page.evaluate(
        """async (failing) => {
            let late = 0;
            sagan.on('late', () => { late += 1; });
            const asked = [1, 2, 3].map(() => sagan.numbered([0])[0]);
            const answer = (i) => {
                if (i === failing) return sagan.emit('failed', 'face-view');
                const face = { ...sagan.face, picture: null, asked: asked[i - 1], seed_a: i };
                return sagan.show(JSON.stringify(face));
            };
            const waiting = [];
            for (const i of [2, 1, 3]) {
                await answer(i);
                waiting.push(sagan.pending());
            }
            return [waiting, sagan.face.seed_a, sagan.values()[0], late];
        }""",
        failing,
    )
    newest = 2 if failing == 3 else 3
    assert shown[:3] == [[True, True, False], newest, newest]
    assert shown[3] >= 1  # the controls are told


def test_answers_of_which_only_the_newest_is_told_are_all_counted(page):
    """Gradio hands a component the last of several values that arrive at once."""
    shown = page.evaluate(
        """async () => {
            const tell = (asked) => sagan.show(JSON.stringify({ ...sagan.face, picture: null, asked }));
            const [, , third] = [1, 2, 3].map(() => sagan.numbered([0])[0]);
            await tell(third);
            const first = sagan.pending();
            sagan.numbered([0]);
            const second = sagan.pending();
            sagan.emit('failed', 'face-view');
            return [first, second, sagan.pending()];
        }"""
    )
    assert shown == [False, True, False]


def test_a_download_whose_face_never_comes_does_not_take_the_next_one(failing_page):
    page, downloads = failing_page, []
    page.on("download", lambda download: downloads.append(download))
    open_tab(page, "Walk")
    play_a_while(page)
    page.route("**/run/predict*", lambda route: route.fulfill(status=500, json={"error": "broken"}))
    page.locator("#face-view .download").click()
    page.wait_for_function("() => sagan.t === null && !sagan.pending()")
    page.unroute("**/run/predict*")
    roll(page)
    page.wait_for_timeout(500)
    assert downloads == []


def test_a_way_that_is_paused_where_no_face_comes_goes_back_to_the_face(failing_page):
    page = failing_page
    open_tab(page, "Walk")
    page.wait_for_selector("#walk-view .play:enabled")
    faces_shown = [page.locator(canvas) for canvas in ("#walk-view .picture", "#face-view canvas")]
    before = [painted(canvas) for canvas in faces_shown]
    play_a_while(page)
    for canvas, picture in zip(faces_shown, before, strict=True):
        assert (painted(canvas) != picture).any()
    page.route("**/run/predict*", lambda route: route.fulfill(status=500, json={"error": "broken"}))
    page.locator("#walk-view .play").click()
    page.wait_for_function("() => sagan.t === null && !sagan.pending()")
    page.wait_for_selector('#walk-view [data-t="0"]')
    for canvas, picture in zip(faces_shown, before, strict=True):
        np.testing.assert_array_equal(painted(canvas), picture)
    page.locator("#header-view .link").click()
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    assert "&t=0&" in page.evaluate("navigator.clipboard.readText()")


@pytest.mark.one_page
def test_a_new_face_is_spoken_of(page):
    assert page.locator("#face-view .name").get_attribute("aria-live") == "polite"


def test_a_page_that_is_loaded_again_shows_again_what_it_showed(page):
    page.locator("#dice").click()
    page.wait_for_function("() => !sagan.pending() && location.search.includes(`seed=${sagan.face.seed_a}&`)")
    page.evaluate("sagan.lab.pin(20, 30)")
    page.wait_for_function("() => location.search.includes('pins=20-30')")
    seed = page.evaluate("sagan.face.seed_a")
    page.reload()
    page.wait_for_function("globalThis.sagan?.face")
    assert page.evaluate("[sagan.face.seed_a, sagan.lab.state.pins[0].x]") == [seed, 20]


def test_the_address_says_what_is_set_while_a_face_is_on_its_way_or_lost(page):
    requests, seed = HeldRequests(page), page.evaluate("sagan.face.seed_a")
    page.locator("#dice").click()
    requests.wait_for(1)
    page.evaluate("sagan.lab.pin(20, 30)")
    page.wait_for_function("() => location.search.includes('pins=20-30')")
    assert f"?seed={seed}&" in page.url and page.evaluate("sagan.pending()")


def test_a_page_that_is_loaded_again_keeps_the_theme_that_was_chosen(page):
    dark = "document.body.classList.contains('dark')"
    for chosen in (True, False):
        page.locator("#header-view .theme").click()
        assert page.evaluate(dark) is chosen
        page.locator("#dice").click()
        page.wait_for_function(
            "() => !sagan.pending() && location.search.includes(`seed=${sagan.face.seed_a}&`)"
        )
        page.reload()
        page.wait_for_selector("#attention-view [data-drawn]")
        assert page.evaluate(dark) is chosen


def test_a_page_that_is_loaded_again_opens_the_tab_that_it_showed(page):
    open_tab(page, "Walk")
    page.wait_for_function("() => new URLSearchParams(location.search).get('tab') === 'walk'")
    page.wait_for_selector("#walk-view .play:enabled")  # the way is here: nothing is on its way any more
    page.reload()
    page.wait_for_selector("#walk-view .play:enabled")
    assert chosen_tab(page) == "Walk"
    open_tab(page, "Attention")  # on which a visit begins, so that no link needs to say it
    page.wait_for_function("() => location.search.includes('seed=') && !location.search.includes('tab=')")
    page.reload()
    page.wait_for_selector("#attention-view [data-drawn]")
    assert chosen_tab(page) == "Attention"


def test_a_copied_link_opens_the_tab_that_it_was_copied_on(page, new_page):
    open_tab(page, "Inside")
    page.locator("#header-view .link").click()
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.endswith("&tab=inside")
    other = new_page(link)
    other.wait_for_selector("#inside-view")
    assert chosen_tab(other) == "Inside"
    assert other.locator("#face-view .notice").text_content() == ""


@pytest.mark.one_page
@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_moves_for_what_is_said_of_a_copied_link(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    places = """() => [...document.querySelectorAll('#header-view :is(h1, p, button), #page')].map((part) => {
        const { x, y, width, height } = part.getBoundingClientRect();
        return [x, y, width, height];
    })"""
    before = page.evaluate(places)
    page.locator("#header-view .link").click()
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    assert page.evaluate(places) == before
    said = page.locator("#header-view output").bounding_box()
    assert said["x"] >= 0 and said["x"] + said["width"] <= width
    for button in page.locator("#header-view button").all():
        button.click(trial=True)  # Playwright clicks only what nothing covers
    page.wait_for_function("!document.querySelector('#header-view output').textContent")


def test_a_curated_face_that_is_loaded_again_is_told_of_again(page, sampler):
    seed, (x, y), text = sampler.curated[1]
    page.locator("#attention-view .choices button").nth(1).click()
    page.wait_for_function("seed => location.search.includes(`seed=${seed}&`)", arg=seed)
    page.reload()
    page.wait_for_selector("#attention-view [data-drawn]")
    assert page.locator("#attention-view .caption").text_content().startswith(text)
    assert page.evaluate("sagan.lab.state.place") == [int(64 * x), int(64 * y)]


def test_the_address_keeps_words_of_others(new_page, address):
    page = new_page(f"{address}?__theme=dark&psi=0.5#here")
    page.wait_for_function("() => location.search.includes('seed=')")
    words = page.evaluate("[...new URLSearchParams(location.search)].map(([word]) => word)")
    assert sorted(words) == ["__theme", "psi", "seed", "seed_b", "t"]
    assert page.url.endswith("#here")


def test_the_address_forgets_what_a_link_said_of_the_lab_and_is_no_more(new_page, address):
    lab = "direction=backward&pins=9-9_20-30&gamma_16x16=2&maps=uniform"
    page = new_page(f"{address}?__theme=light&seed=5&{lab}")
    page.wait_for_function("() => location.search.includes('seed_b=')")
    page.evaluate("sagan.lab.set({ ...sagan.lab.FIRST })")
    page.wait_for_function("() => !location.search.includes('pins')")
    words = page.evaluate("[...new URLSearchParams(location.search)].map(([word]) => word)")
    assert sorted(words) == ["__theme", "psi", "seed", "seed_b", "t"]


TIMERS = """() => {
    const { setTimeout: set, clearTimeout: clear } = globalThis;
    globalThis.later = new Map(); // what is to happen after 2.5 seconds
    globalThis.setTimeout = (work, ms, ...rest) => {
        const timer = set(ms === 2500 ? () => {} : work, ms, ...rest);
        if (ms === 2500) later.set(timer, work);
        return timer;
    };
    globalThis.clearTimeout = (timer) => { later.delete(timer); clear(timer); };
}"""


@pytest.mark.parametrize("meanwhile", ["copied again", "another sentence"])
def test_that_a_link_was_copied_is_said_for_a_while(page, meanwhile):
    page.evaluate(TIMERS)
    said, copied = page.locator("#header-view output"), texts.HEADER["copied"]
    is_copied = "text => document.querySelector('#header-view output').textContent === text"
    page.locator("#header-view .link").click()
    page.wait_for_function(is_copied, arg=copied)
    if meanwhile == "copied again":
        said.evaluate("said => { said.textContent = ''; }")
        page.locator("#header-view .link").click()
        page.wait_for_function(is_copied, arg=copied)
        expected = ""
    else:
        expected = texts.TOUR["failed"]
        said.evaluate("(said, text) => { said.textContent = text; }", expected)
    assert page.evaluate("later.size") == 1  # the newest alone counts
    page.evaluate("for (const work of later.values()) work()")
    assert said.text_content() == expected


@pytest.mark.parametrize("change", ["lab", "tab"])
def test_a_link_that_is_copied_by_hand_goes_with_what_it_says(page, change):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.locator("#header-view .link").click()
    field = page.locator("#header-view input")
    field.wait_for()
    assert page.evaluate("getSelection().toString()") == field.input_value()
    page.evaluate("sagan.lab.pin(3, 4)") if change == "lab" else open_tab(page, "Inside")
    field.wait_for(state="hidden")


def test_without_a_clipboard_the_link_stands_below_the_buttons_until_it_is_outdated(new_page, address):
    page = new_page(address, width=390, height=844)
    page.wait_for_selector("#attention-view [data-drawn]")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.locator("#header-view .link").click()
    field = page.locator("#header-view input")
    field.wait_for()
    assert field.input_value() == page.evaluate("sagan.link(sagan.face)")
    for part in (field, page.locator("#header-view .theme")):
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert field.bounding_box()["y"] >= box["y"] + box["height"]
    page.locator("#dice").click()
    field.wait_for(state="hidden")


def test_a_link_without_a_clipboard_stays_where_a_box_was_typed_into_before(page):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    box, requests = page.locator("#seed input[type=number]"), []
    box.click()
    box.fill("42")
    wait_for_face(page, 42)
    page.on("request", lambda request: requests.append(request.url))
    page.locator("#header-view .link").click()
    field = page.locator("#header-view input")
    field.wait_for()
    page.wait_for_timeout(300)
    assert field.is_visible() and field.evaluate("field => document.activeElement === field")
    assert requests == [] and "?seed=42&" in field.input_value()


def test_a_face_and_a_sheet_can_be_downloaded_as_png(page, sampler):
    with page.expect_download() as download:
        page.locator("#face-view .download").click()
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path())), current_picture(page))
    assert Path(download.value.suggested_filename).suffix == ".png"

    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    with page.expect_download() as download:
        page.locator("#sheet-view .download").click()
    assert download.value.suggested_filename == "sagan-sheet-0.png"
    picture = np.asarray(Image.open(download.value.path()).convert("RGB"))
    assert picture.shape == (5 * 66 + 2, 5 * 66 + 2, 3)
    z = latents.from_seed(6, sampler.config.z_dim)
    np.testing.assert_array_equal(picture[68 : 68 + 64, 68 : 68 + 64], face_of(sampler, z))


def test_a_face_is_called_the_same_where_the_browser_translates_the_page(page, sampler):
    translate(page.locator("#face-view"), "ペンギン")
    with page.expect_download() as download:
        page.locator("#face-view .download").click()
    assert download.value.suggested_filename == f"sagan-seed-{sampler.curated[0].seed}.png"


@pytest.mark.one_page
def test_dragging_the_walk_slider_ends_on_the_face_under_its_last_value(page, sampler):
    open_tab(page, "Walk")
    slider = page.locator("#t input[type=range]")
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 8, middle)
    page.mouse.down()
    for i in range(1, 11):
        page.mouse.move(box["x"] + 8 + i / 10 * 0.6 * (box["width"] - 16), middle)
    page.mouse.up()
    t = float(slider.input_value())
    assert 0.5 < t < 0.7
    seed_a, seed_b = sampler.curated[0].seed, int(page.locator("#seed-b input[type=number]").input_value())
    wait_for_face(page, seed_a, t)
    a, b = (latents.from_seed(seed, sampler.config.z_dim) for seed in (seed_a, seed_b))
    np.testing.assert_array_equal(current_picture(page), face_of(sampler, latents.slerp(a, b, t)))


@pytest.mark.one_page
def test_the_way_plays_without_a_request_and_pauses_where_it_is(page):
    open_tab(page, "Walk")
    page.wait_for_function("document.querySelector('#walk-view .b').textContent.includes('seed')")
    page.wait_for_timeout(300)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    play = page.locator("#walk-view .play")
    play.click()
    page.wait_for_function("document.querySelector('#walk-view [data-t]').dataset.t > 0.2")
    assert float(page.locator("#t input[type=range]").input_value()) > 0
    assert requests == []
    stopped = play.evaluate("play => { play.click(); return Number(play.closest('[data-t]').dataset.t); }")
    page.wait_for_function("sagan.face.t > 0.2")
    assert page.evaluate("sagan.face.t") == pytest.approx(stopped, abs=0.0051)
    assert float(page.locator("#t input[type=range]").input_value()) == page.evaluate("sagan.face.t")
    assert len(requests) == 1


def test_only_the_way_of_the_current_face_can_be_played(page, monkeypatch):
    open_tab(page, "Walk")
    play, seed = page.locator("#walk-view .play"), page.locator("#seed input[type=number]")
    page.wait_for_selector("#walk-view .play:enabled")
    go_on, way = threading.Event(), walk.way
    monkeypatch.setattr(walk, "way", lambda *arguments: go_on.wait(60) and 1 / 0)
    seed.fill("21")
    wait_for_face(page, 21)
    assert play.is_disabled()  # it is not there yet
    go_on.set()
    page.wait_for_selector("#walk-view .error:not(:empty)")
    assert play.is_disabled()  # it failed
    monkeypatch.setattr(walk, "way", way)
    seed.fill("22")
    page.wait_for_selector("#walk-view .play:enabled")
    assert page.evaluate("sagan.face.seed_a") == 22
    assert "22" in page.locator("#walk-view .a").text_content()


@pytest.mark.one_page
def test_a_picture_of_the_strip_is_jumped_to(page, sampler):
    open_tab(page, "Walk")
    page.wait_for_function("document.querySelector('#walk-view .b').textContent.includes('seed')")
    page.get_by_role("button", name=texts.WALK["step"].format(percent=75)).click()
    seed_a, seed_b = page.evaluate("[sagan.face.seed_a, sagan.face.seed_b]")
    wait_for_face(page, seed_a, 0.75)
    name = texts.FACE["between"].format(percent=75, seed_a=seed_a, seed_b=seed_b)
    assert page.locator("#face-view .name").text_content() == name
    assert page.get_by_role("img", name=texts.FACE["alt"].format(name=name)).count() == 1


PLAYED = """share => {
    const frame = requestAnimationFrame, now = performance.now;
    let tick;
    performance.now = () => 1000;
    globalThis.requestAnimationFrame = (work) => { tick = work; return 1; };
    document.querySelector('#walk-view .play').click();
    tick(1000 + 4000 * share); // from A to B it plays for four seconds
    [globalThis.requestAnimationFrame, performance.now] = [frame, now];
}"""


def test_the_strip_and_what_plays_show_the_pictures_of_the_way(page, monkeypatch):
    greys = [37 * i % 256 for i in range(walk.FRAMES)]
    frames = np.repeat(np.uint8(greys), 64 * 64 * 3).reshape(-1, 64, 64, 3)
    monkeypatch.setattr(walk, "way", lambda *_, **__: frames)
    open_tab(page, "Walk")
    page.wait_for_selector("#walk-view .play:enabled")
    strip = [int(painted(canvas)[64, 64, 0]) for canvas in page.locator("#walk-view .strip canvas").all()]
    assert strip == pytest.approx(greys[:: (walk.FRAMES - 1) // (walk.STRIP - 1)], abs=4)
    page.evaluate(PLAYED, 10.5 / (walk.FRAMES - 1))
    for canvas in ("#walk-view .picture", "#face-view canvas"):  # one fades into the next
        grey = int(painted(page.locator(canvas))[192, 192, 0])
        assert grey == pytest.approx((greys[10] + greys[11]) / 2, abs=4)


@pytest.mark.one_page
def test_a_way_that_plays_turns_back_at_its_end(page):
    open_tab(page, "Walk")
    page.locator("#t input[type=number]").fill("0.95")
    page.wait_for_function("sagan.face.t === 0.95 && !sagan.pending()")
    page.locator("#walk-view .play").click()
    page.wait_for_function("document.querySelector('#walk-view [data-t]').dataset.t > 0.97")
    page.wait_for_function("document.querySelector('#walk-view [data-t]').dataset.t < 0.93")
    assert page.locator("#walk-view .play").text_content() == texts.WALK["pause"]
    page.locator("#walk-view .play").click()
    page.wait_for_function("() => sagan.t === null && !sagan.pending()")


@pytest.mark.one_page
def test_a_way_that_plays_again_before_the_face_of_its_pause_came_plays_on(page):
    open_tab(page, "Walk")
    play_a_while(page)
    requests, play = HeldRequests(page), page.locator("#walk-view .play")
    play.click()
    requests.wait_for(1)
    play.click()
    requests.answer(0)
    page.wait_for_function("sagan.face.t > 0.04 && !sagan.pending()")
    assert play.text_content() == texts.WALK["pause"]
    page.wait_for_function("document.querySelector('#walk-view [data-t]').dataset.t > sagan.face.t + 0.05")
    page.unroute_all()
    play.click()
    page.wait_for_function("() => sagan.t === null && !sagan.pending()")


@pytest.mark.one_page
def test_a_jump_while_the_way_plays_is_one_request(page, sampler):
    open_tab(page, "Walk")
    page.wait_for_function("document.querySelector('#walk-view .b').textContent.includes('seed')")
    page.wait_for_timeout(300)
    page.locator("#walk-view .play").click()
    page.wait_for_function("document.querySelector('#walk-view [data-t]').dataset.t > 0.05")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.locator("#walk-view .strip button").nth(6).click()
    wait_for_face(page, sampler.curated[0].seed, 0.75)
    page.wait_for_timeout(300)
    assert len(requests) == 1 and page.evaluate("sagan.face.t") == 0.75


def play_a_while(page) -> None:
    """Play the way until it is on its way."""
    at = page.evaluate("sagan.face.t")
    page.wait_for_selector("#walk-view .play:enabled")
    page.locator("#walk-view .play").click()
    page.wait_for_function(
        "at => document.querySelector('#walk-view [data-t]').dataset.t > at + 0.05", arg=at
    )


@pytest.mark.one_page
def test_touching_the_slider_while_the_way_plays_stops_it_there(page, sampler):
    open_tab(page, "Walk")
    play_a_while(page)
    slider = page.locator("#t input[type=range]")
    slider.fill("0.9")
    wait_for_face(page, sampler.curated[0].seed, 0.9)
    page.wait_for_timeout(300)
    assert page.locator("#walk-view .play").text_content() == "Play"
    assert float(slider.input_value()) == page.evaluate("sagan.face.t") == 0.9


@pytest.mark.one_page
def test_a_way_that_plays_stops_when_its_tab_is_left(page):
    open_tab(page, "Walk")
    play_a_while(page)
    open_tab(page, "Faces")
    page.wait_for_function("document.querySelector('#walk-view .play').textContent === 'Play'")
    page.wait_for_function("sagan.face.t > 0.04")
    stopped = float(page.locator("#walk-view [data-t]").get_attribute("data-t"))
    assert page.evaluate("sagan.face.t") == pytest.approx(stopped, abs=0.0051)


def file_between(page) -> str:
    """What the current face, one between two seeds, is called as a file."""
    face = page.evaluate("sagan.face")
    return f"sagan-seed-{face['seed_a']}-{face['seed_b']}-{round(100 * face['t'])}.png"


@pytest.mark.one_page
def test_download_and_link_while_the_way_plays_are_of_the_picture_on_screen(page):
    open_tab(page, "Walk")
    play_a_while(page)
    with page.expect_download() as download:
        page.locator("#face-view .download").click()
    t = page.evaluate("sagan.face.t")
    assert t > 0.05 and download.value.suggested_filename == file_between(page)
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path())), current_picture(page))

    play_a_while(page)
    page.locator("#header-view .link").click()
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    further = page.evaluate("sagan.face.t")
    assert further > t and f"&t={further:g}&" in page.evaluate("navigator.clipboard.readText()")
    assert page.locator("#walk-view .play").text_content() == "Play"


@pytest.mark.one_page
def test_download_and_link_right_after_a_pause_are_of_the_picture_on_screen(page):
    open_tab(page, "Walk")
    play_a_while(page)
    requests = HeldRequests(page)
    page.locator("#walk-view .play").click()
    requests.wait_for(1)
    before = page.evaluate("sagan.face.t")
    with page.expect_download() as download:
        page.locator("#face-view .download").click()
        page.locator("#header-view .link").click()
        requests.answer(0)
    t = page.evaluate("sagan.face.t")
    assert t > before + 0.05 and download.value.suggested_filename == file_between(page)
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path())), current_picture(page))
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    assert f"&t={t:g}&" in page.evaluate("navigator.clipboard.readText()")
    assert len(requests.held) == 1  # the way was paused once


@pytest.mark.one_page
def test_a_way_that_is_stopped_by_an_answer_from_before_it_played_leaves_a_face_to_link_to(page):
    open_tab(page, "Walk")
    page.wait_for_selector("#walk-view .play:enabled")
    requests = HeldRequests(page)
    page.locator("#psi input[type=number]").fill("0.5")
    requests.wait_for(1)
    play_a_while(page)
    requests.answer(0)
    page.wait_for_function("() => sagan.t === null && sagan.face.psi === 0.5")
    page.locator("#header-view .link").click()
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    assert "&psi=0.5" in page.evaluate("navigator.clipboard.readText()")


@pytest.mark.one_page
def test_swapping_the_ends_keeps_the_face(page):
    open_tab(page, "Walk")
    page.wait_for_function("document.querySelector('#walk-view .b').textContent.includes('seed')")
    page.locator("#walk-view .strip button").nth(2).click()
    page.wait_for_function("sagan.face.t === 0.25")
    before, seed_b = current_picture(page), page.evaluate("sagan.face.seed_b")
    page.locator("#swap").click()
    wait_for_face(page, seed_b, 0.75)
    assert np.abs(current_picture(page).astype(int) - before).max() <= 1


def test_typing_a_seed_shows_its_face_and_returns_to_the_start_of_the_walk(page, new_page, address):
    page = new_page(f"{address}?seed=5&t=0.5")
    wait_for_face(page, 5, 0.5)
    page.locator("#seed input[type=number]").fill("4294967295")
    page.locator("#seed input[type=number]").press("Enter")
    wait_for_face(page, 4294967295, 0)


@pytest.mark.one_page
def test_truncation_zero_is_the_same_face_for_every_seed(page):
    page.locator("#psi input[type=number]").fill("0")
    page.wait_for_function("sagan.face.psi === 0")
    one = current_picture(page)
    seed = page.evaluate("sagan.face.seed_a")
    page.locator("#dice").click()
    page.wait_for_function("seed => sagan.face.seed_a !== seed", arg=seed)
    np.testing.assert_array_equal(current_picture(page), one)


def test_a_link_opens_its_face_and_the_copied_link_is_the_same(new_page, address, sampler):
    page = new_page(f"{address}?seed=123&seed_b=4294967295&t=0.4&psi=0.7")
    wait_for_face(page, 123, 0.4)
    a, b = (latents.from_seed(seed, sampler.config.z_dim) for seed in (123, 4294967295))
    z = latents.truncate(latents.slerp(a, b, 0.4), 0.7)
    np.testing.assert_array_equal(current_picture(page), face_of(sampler, z))
    assert page.locator("#face-view .notice").text_content() == ""
    page.locator("#header-view .link").click()
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.partition("?")[2] == "seed=123&seed_b=4294967295&t=0.4&psi=0.7"


@pytest.mark.parametrize("bad", ["seed=-1", "seed=4294967296", "seed=abc", "psi=2", "t=nan", "tab=lab"])
def test_a_bad_link_opens_with_what_is_valid_and_says_what_was_ignored(new_page, address, bad):
    good = "psi=0.5" if not bad.startswith("psi") else "seed=9"
    page = new_page(f"{address}?{good}&{bad}")
    page.wait_for_function("globalThis.sagan?.face")
    assert page.evaluate("sagan.face.psi") == 0.5 or page.evaluate("sagan.face.seed_a") == 9
    assert bad in page.locator("#face-view .notice").text_content()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_new_face_before_the_first_one_keeps_what_else_a_link_says(new_page, address, order):
    page = new_page("about:blank")
    requests = HeldRequests(page)
    page.goto(f"{address}?seed=21&psi=7&pins=9-9_20-30&gamma_16x16=2&maps=b")
    requests.wait_for(1)
    page.locator("#dice").click()
    for i in order:
        requests.answer(i)
    page.wait_for_function("sagan.face?.seed_a !== 21 && !sagan.pending()")
    state = page.evaluate("sagan.lab.state")
    assert [(pin["x"], pin["y"]) for pin in state["pins"]] == [(9, 9), (20, 30)]
    assert (state["gammas"], state["maps"]) == ({"16x16": 2}, "b")
    notice = page.locator("#face-view .notice")
    assert "psi=7" in notice.text_content()
    page.unroute("**/run/predict*")
    page.locator("#dice").click()
    page.wait_for_function("document.querySelector('#face-view .notice').textContent === ''")


def test_nothing_of_a_link_is_read_as_html(new_page, address):
    page = new_page(f"{address}?seed=<img src=x onerror=alert(1)>")
    page.wait_for_function("globalThis.sagan?.face")
    assert page.locator("#face-view .notice img").count() == 0
    assert "<img" in page.locator("#face-view .notice").text_content()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_screen_never_scrolls_sideways(new_page, address, theme):
    page = new_page(f"{address}?__theme={theme}", width=390, height=844)
    page.wait_for_selector("#attention-view [data-drawn]")
    for tab in ("Faces", "Walk", "Attention"):
        open_tab(page, tab)
        page.wait_for_timeout(200)
        fits_the_width(page)
    pictures = page.locator("#attention-view figure:not([hidden]) .picture")
    first, second, third = sorted((box.bounding_box() for box in pictures.all()), key=lambda b: b["y"])
    # One as wide as the screen, the others below it side by side, and all seen at once.
    assert first["width"] > 300 and min(second["width"], third["width"]) > 150
    assert second["y"] == third["y"] > first["y"] + first["height"]
    assert third["y"] + third["height"] - first["y"] < 844


@pytest.mark.one_page
def test_the_face_and_its_controls_stay_in_sight_of_what_lies_below(page):
    page.locator("#numbers-view summary").click()
    page.mouse.move(700, 400)
    page.mouse.wheel(0, 5000)
    page.wait_for_function("scrollY > 300")
    for part in ("#face-view", "#dice", "#psi"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800, part


def test_the_controls_of_the_face_lie_inside_their_boxes(new_page, address):
    page = new_page(address, width=320)
    page.wait_for_selector("#attention-view [data-drawn]")
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for name in ("seed", "psi"):
            box, reset = (page.locator(f"#{name}{part}").bounding_box() for part in ("", " .reset-button"))
            assert reset["x"] + reset["width"] <= box["x"] + box["width"], (width, name)


def test_the_value_of_truncation_can_be_read_on_any_screen(new_page, address):
    page = new_page(address, width=320)
    page.wait_for_selector("#attention-view [data-drawn]")
    box = page.locator("#psi input[type=number]")
    box.fill("0.88")
    for width in (320, 340, 360, 361, 390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), width


@pytest.fixture(scope="module")
def replaced_colours(browser, address) -> Iterator:
    """The page with two pins, on a system that replaces all colours."""
    context = browser.new_context(forced_colors="active")
    context.set_default_timeout(120_000)  # nothing of the page is in this context's cache
    with opening(context) as open_page:
        page = open_page(address)
        page.wait_for_selector("#attention-view [data-drawn]")
        page.evaluate("sagan.lab.pin(20, 20); sagan.lab.pin(40, 50)")
        page.wait_for_selector("#attention-view .card:nth-child(2)")
        yield page
    context.close()


def style_of(part, name: str) -> str:
    return part.evaluate("(part, name) => getComputedStyle(part)[name]", name)


def test_where_a_system_replaces_all_colours_markers_and_pins_keep_theirs(replaced_colours):
    page = replaced_colours
    for marker in (".layers .query", ".layers .key:last-child", ".marks .query", ".marks .key"):
        part = page.locator(f"#attention-view {marker}").first
        assert style_of(part, "borderTopColor") == "rgb(255, 255, 255)", marker
        assert "rgb(0, 0, 0)" in style_of(part, "boxShadow"), marker
    cards = page.locator("#attention-view .card").all()
    for colour, pin, card in zip(heatmaps.PIN_COLOURS, page.locator(".dots .pin").all(), cards, strict=False):
        rgb = f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"
        assert style_of(pin, "backgroundColor") == rgb
        assert style_of(card, "borderTopColor") == rgb
        assert style_of(card.locator(".here").first, "borderTopColor") == rgb
        words = [style_of(card.locator(part).first, "color") for part in ("b", ".says")]
        assert set(words) == {style_of(page.locator("#face-view .name"), "color")}
    assert [style_of(card.locator(".map").first, "outlineStyle") for card in cards] == ["none", "solid"]


def test_where_a_system_replaces_all_colours_buttons_have_an_edge(replaced_colours):
    page = replaced_colours
    on_tabs = {
        texts.WALK_TAB: (texts.DICE, texts.SEED_B_DICE, texts.SWAP),
        texts.FACES_TAB: (texts.SHEET_DICE,),
    }
    for tab, names in on_tabs.items():
        open_tab(page, tab)
        for name in names:
            button = page.get_by_role("button", name=name, exact=True)
            edge = [style_of(button, f"borderBottom{what}") for what in ("Width", "Style")]
            assert edge == ["1px", "solid"], name


PALE = r"""() => {
    const linear = (byte) => (byte <= 10 ? byte / 3294.6 : ((byte / 255 + 0.055) / 1.055) ** 2.4);
    const bright = (colour) => {
        const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), pale = [];
    while (walker.nextNode()) {
        const { data, parentElement: part } = walker.currentNode;
        if (!data.trim() || !part.checkVisibility() || part.matches('.pin')) continue;
        if (1.05 / (bright(getComputedStyle(part).color) + 0.05) < 4.5) pale.push(data.trim());
    }
    return pale;
}"""


def test_what_is_printed_from_the_dark_theme_can_be_read_on_white(new_page, address):
    page = new_page(f"{address}?__theme=dark")
    page.wait_for_selector("#attention-view [data-drawn]")
    page.evaluate("sagan.lab.pin(20, 20)")
    page.locator("#dials-view summary").click()
    assert page.evaluate(PALE) != []
    page.emulate_media(media="print")
    for tab in (texts.ATTENTION_TAB, texts.WALK_TAB, texts.FACES_TAB, texts.INSIDE_TAB, texts.LESSON_TAB):
        open_tab(page, tab)
        assert page.evaluate(PALE) == [], tab


def test_opening_the_page_asks_nobody_but_this_server(browser, address):
    page = browser.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("#attention-view [data-drawn]")
    assert all(url.startswith((address, "data:", "blob:")) for url in requests)
    page.close()


def test_a_model_without_attention_has_the_other_tabs(new_page, serve):
    config = SaganConfig(g_width=8, d_width=8, z_dim=16, g_attention=())
    networks = Generator(config, spectral=False), Discriminator(config, spectral=False)
    page = new_page(f"{serve(Sampler(*networks))}?tab=attention")
    page.wait_for_function("globalThis.sagan?.face")
    sheet_is_ready(page, 24)
    assert page.get_by_role("tab").all_text_contents() == ["Faces", "Walk", "Inside"]
    assert "tab=attention" in page.locator("#face-view .notice").text_content()
    assert page.locator("#header-view p").text_content().strip() == texts.HEADER["what"]


def test_the_class_changes_the_face_the_sheet_and_the_link(new_page, serve, with_classes):
    page = new_page(f"{serve(with_classes)}?seed=4&class=2")
    wait_for_face(page, 4)
    z = latents.from_seed(4, with_classes.config.z_dim)[None]
    np.testing.assert_array_equal(current_picture(page), with_classes.faces(z, np.array([2]))[0])
    page.locator("#label input").click()
    page.get_by_role("option", name="smiling").click()
    page.wait_for_function("sagan.face.label === 1")
    np.testing.assert_array_equal(current_picture(page), with_classes.faces(z, np.array([1]))[0])
    assert page.evaluate("sagan.link(sagan.face)").endswith("?seed=4&seed_b=7&t=0&psi=1&class=1")
    open_tab(page, "Faces")
    z = latents.from_seed(0, with_classes.config.z_dim)[None]
    first_picture_is(page, faces.pictures.png_uri(with_classes.faces(z, np.array([1]))[0]))


def test_the_page_opens_on_a_class_that_had_training_images_and_marks_those_that_had_none(
    new_page, serve, half_learned
):
    page = new_page(serve(half_learned))
    wait_for_face(page, 1)
    assert page.evaluate("sagan.face.label") == 1
    z = latents.from_seed(1, half_learned.config.z_dim)[None]
    np.testing.assert_array_equal(current_picture(page), half_learned.faces(z, np.array([1]))[0])
    page.locator("#label input").click()
    names = [name.strip() for name in page.get_by_role("option").all_text_contents()]
    assert [name.removeprefix("✓").strip() for name in names] == [
        "none (no training images)",
        "smiling",
        "bearded",
    ]
    page.get_by_role("option", name="none").click()
    page.wait_for_function("sagan.face.label === 0")


def test_files_of_a_class_name_it(new_page, serve, with_classes):
    page = new_page(f"{serve(with_classes)}?seed=4&class=2")
    wait_for_face(page, 4)
    with page.expect_download() as download:
        page.locator("#face-view .download").click()
    assert download.value.suggested_filename == "sagan-seed-4-class-2.png"
    assert CurrentFace(4, 7, 0.5, label=2).name == "4-7-50-class-2"
    page.evaluate(
        """() => { sagan.snapshot = ({ words }) => {
            sagan.told = words.title;
            return document.createElement('canvas');
        }; }"""
    )
    open_tab(page, "Attention")
    page.locator("#attention-view .save summary").click()
    with page.expect_download() as download:
        page.locator('#attention-view [data-save="view"]').click()
    assert download.value.suggested_filename == "sagan-attention-4-class-2.png"
    assert page.evaluate("sagan.told") == "Seed 4, bearded"
    open_tab(page, "Faces")
    sheet_is_ready(page, 24)
    with page.expect_download() as download:
        page.locator("#sheet-view .download").click()
    assert download.value.suggested_filename == "sagan-sheet-0-class-2.png"


def test_a_first_face_that_does_not_come_is_told_of_and_stays_in_the_address(context, address, monkeypatch):
    page = context.new_page()  # the failure is also an error in the browser's console
    with monkeypatch.context() as broken:
        broken.setattr(controls, "from_link", lambda *_: 1 / 0)
        page.goto(f"{address}?seed=5&pins=3-4")
        page.wait_for_selector("#face-view .notice:not(:empty)")
    assert page.locator("#face-view .notice").text_content() == texts.FACE["none"]
    page.wait_for_timeout(800)  # longer than the page waits before it writes the address
    assert page.url.endswith("?seed=5&pins=3-4")
    page.reload()
    page.wait_for_selector('#face-view [data-seed="5"]')
    assert page.locator("#face-view .notice").text_content() == ""
    page.close()


@pytest.mark.parametrize("faces_chosen", [False, True])
def test_only_a_model_with_chosen_faces_says_that_it_makes_faces(new_page, serve, sampler, faces_chosen):
    shown = copy.copy(sampler)
    shown.curated = sampler.curated if faces_chosen else ()
    said = new_page(serve(shown)).locator("#header-view").text_content()
    assert (texts.HEADER["what_faces"] in said) is faces_chosen
    assert (texts.HEADER["what"] in said) is not faces_chosen


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0.00"), (1.276, "1.28"), (-0.35, "−0.35"), (-0.004, "−0.004"), (0.0001234, "1e−4"), (0.01, "0.01")],
)
@pytest.mark.one_page
def test_a_small_gamma_does_not_look_like_none(page, value, said):
    assert page.evaluate("value => sagan.gamma(value)", value) == said == gamma_text(value)
