"""What the browser draws over the face, against numpy in float64 from the sampler's queries and keys."""

import copy
import math
import time

import pytest
from screen import anywhere, described, gamma_text, percent

from sagan import latents
from sagan.ui import texts

LAYERS = ("16x16", "32x32")


def point_at(page, layer: str, x: float, y: float) -> None:
    box = page.locator(f'figure[data-layer="{layer}"] .picture').bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    wait_for_query(page, layer, x, y)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def wait_for_query(page, layer: str, x: float, y: float) -> None:
    """Wait until a layer shows the map of a point; how soon it does is for benchmarks/page_speed.py."""
    side = int(layer.split("x")[0])
    page.wait_for_function(
        "([layer, query]) => document.querySelector(`figure[data-layer='${layer}']`).dataset.query == query",
        arg=[layer, int(y * side) * side + int(x * side)],
    )


def drawn(page, layer: str) -> dict[str, float]:
    data = page.locator(f'figure[data-layer="{layer}"]').evaluate("figure => ({...figure.dataset})")
    return {name: float(data[name]) for name in ("query", "key", "weight", "entropy")}


def expected(sampler, seed: int, layer: str, x: float, y: float) -> dict[str, float]:
    z = latents.from_seed(seed, sampler.config.z_dim)
    return described(*sampler.queries_keys(z)[layer], x, y)


def shown_seed(page) -> int:
    return int(page.locator("#face-view [data-seed]").get_attribute("data-seed"))


def test_first_visit_lights_the_first_curated_query_without_a_click(page, sampler):
    seed, (x, y), text = sampler.curated[0]
    assert shown_seed(page) == seed
    for layer in LAYERS:
        assert drawn(page, layer) == pytest.approx(expected(sampler, seed, layer, x, y))
    caption = page.locator("#attention-view .caption").text_content()
    assert caption.startswith(text) and "Move over the face" in caption


def test_the_walk_of_a_first_visit_goes_from_the_first_to_the_second_curated_face(page, sampler):
    face = page.evaluate("sagan.face")
    assert [face["seed_a"], face["seed_b"]] == [one.seed for one in sampler.curated[:2]]


@pytest.mark.one_page
@pytest.mark.parametrize("hovered", LAYERS)
def test_hover_draws_the_query_of_the_pointed_place_in_both_layers_without_a_request(page, sampler, hovered):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    for _ in range(5):
        x, y = anywhere()
        point_at(page, hovered, x, y)
        for layer in LAYERS:
            assert drawn(page, layer) == pytest.approx(
                expected(sampler, shown_seed(page), layer, x, y), rel=1e-6
            )
    assert requests == []


@pytest.mark.one_page
def test_numbers_are_in_words_beside_each_layer(page, sampler):
    point_at(page, "16x16", 0.4, 0.6)
    for layer in LAYERS:
        row = expected(sampler, shown_seed(page), layer, 0.4, 0.6)
        side = int(layer.split("x")[0])
        part = page.locator(f'figure[data-layer="{layer}"]')
        assert part.locator(".gamma").text_content() == gamma_text(sampler.gammas[layer])
        assert part.locator(".best").text_content() == f"{row['weight'] * side**2:.1f} × uniform"
        assert part.locator(".share").text_content() == f", {percent(row['weight'])} %"
        assert part.locator(".share").is_visible()
        assert (
            part.locator(".entropy").text_content()
            == f"{row['entropy']:.1f} of {2 * math.log2(side):.0f} bits"
        )


@pytest.mark.one_page
def test_the_query_square_covers_the_cell_of_the_query(page):
    point_at(page, "32x32", 0.3, 0.8)
    for layer in LAYERS:
        side = int(layer.split("x")[0])
        picture = page.locator(f'figure[data-layer="{layer}"] .picture').bounding_box()
        square = page.locator(f'figure[data-layer="{layer}"] .query').bounding_box()
        cell = picture["width"] / side
        assert [square["width"], square["height"]] == pytest.approx([cell, cell], abs=1)
        assert square["x"] - picture["x"] == pytest.approx(int(0.3 * side) * cell, abs=1)
        assert square["y"] - picture["y"] == pytest.approx(int(0.8 * side) * cell, abs=1)


@pytest.mark.one_page
def test_the_strongest_key_is_the_brightest_place_of_the_field(page):
    point_at(page, "16x16", 0.7, 0.2)
    for layer in LAYERS:
        side = int(layer.split("x")[0])
        lights = page.locator(f'figure[data-layer="{layer}"] .field').evaluate(
            """(canvas, side) => Array.from({length: side * side}, (_, j) => {
                const [x, y] = [j % side, Math.floor(j / side)].map((c) => (c + 0.5) * canvas.width / side);
                const [r, g, b, a] = canvas.getContext('2d').getImageData(x, y, 1, 1).data;
                return (r + g + b) * a;
            })""",
            side,
        )
        # Smoothing takes from a single bright cell and may give to a neighbour.
        assert lights[int(drawn(page, layer)["key"])] > 0.6 * max(lights)
        assert max(lights) > 2 * min(lights)


@pytest.mark.one_page
def test_a_field_shows_nothing_of_the_one_before(page):
    def field() -> str:
        return page.locator('figure[data-layer="32x32"] .field').evaluate("canvas => canvas.toDataURL()")

    point_at(page, "32x32", 0.1, 0.1)
    first = field()
    for x in (0.9, 0.5, 0.1):
        point_at(page, "32x32", x, 0.1)
    assert field() == first


@pytest.mark.one_page
def test_arrow_keys_move_the_query_by_one_cell_and_speak_the_numbers(page):
    point_at(page, "16x16", 0.5, 0.5)
    picture = page.locator('figure[data-layer="16x16"] .picture')
    picture.focus()
    before = drawn(page, "16x16")["query"]
    for key, step in (("ArrowRight", 1), ("ArrowDown", 16), ("ArrowLeft", -1), ("ArrowUp", -16)):
        picture.press(key)
        page.wait_for_function(
            "query => document.querySelector('figure[data-layer=\"16x16\"]').dataset.query == query",
            arg=str(int(before + step)),
        )
        before += step
    assert "entropy" in page.locator("#attention-view .spoken").text_content()


@pytest.mark.one_page
def test_opacity_changes_in_the_browser_alone(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    field = page.locator(".field").first
    page.locator("#opacity input[type=number]").fill("0.2")
    page.wait_for_function("() => getComputedStyle(document.querySelector('.field')).opacity == '0.2'")
    assert field.is_visible() and requests == []


@pytest.mark.one_page
def test_a_curated_face_is_opened_by_its_button_with_its_sentence_as_plain_text(page, sampler):
    seed, (x, y), text = sampler.curated[1]
    page.locator("#attention-view .choices button").nth(1).click()
    page.wait_for_selector(f'#attention-view [data-seed="{seed}"]')
    assert drawn(page, "32x32") == pytest.approx(expected(sampler, seed, "32x32", x, y))
    caption = page.locator("#attention-view .caption").text_content()
    assert caption.startswith(text) and "Move over the face" in caption
    assert (
        page.locator("#attention-view .choices b", has_text="left").count() == 0
    )  # no HTML from a checkpoint


def say_something(page, sampler) -> None:
    """Open a curated face, and see its sentence."""
    seed, _, text = sampler.curated[1]
    page.locator("#attention-view .choices button").nth(1).click()
    page.wait_for_selector(f'#attention-view [data-seed="{seed}"]')
    assert page.locator("#attention-view .caption").text_content().startswith(text)


@pytest.mark.one_page
@pytest.mark.parametrize("change", ["face", "truncation", "place", "network", "direction"])
def test_the_sentence_of_a_curated_face_goes_with_what_it_describes(page, sampler, change):
    say_something(page, sampler)
    if change == "face":
        page.locator("#dice").click()
    elif change == "truncation":
        page.locator("#psi input[type=number]").fill("0.5")
    elif change == "place":
        point_at(page, "32x32", 0.62, 0.41)
    else:
        value = {"network": "discriminator", "direction": "backward"}[change]
        page.locator(f'#attention-view input[name="lab-{change}"][value="{value}"]').check(force=True)
    text = sampler.curated[1].text
    page.wait_for_function(
        "text => !document.querySelector('#attention-view .caption').textContent.includes(text)", arg=text
    )


@pytest.mark.one_page
def test_a_curated_face_is_shown_in_the_view_that_its_sentence_speaks_of(page, sampler):
    for name, value in (("network", "discriminator"), ("direction", "backward")):
        page.locator(f'#attention-view input[name="lab-{name}"][value="{value}"]').check(force=True)
    page.evaluate("sagan.lab.set({ layer: 'combined' })")
    say_something(page, sampler)
    state = page.evaluate("sagan.lab.state")
    assert [state[name] for name in ("network", "direction", "layer")] == ["generator", "forward", None]
    assert page.locator('#attention-view input[value="generator"]').is_checked()


def test_a_curated_face_that_is_face_b_walks_to_another_one(page, sampler):
    first, second = (face.seed for face in sampler.curated[:2])
    page.locator("#attention-view .choices button").nth(1).click()
    page.wait_for_selector(f'#attention-view [data-seed="{second}"]')
    assert page.evaluate("[sagan.face.seed_a, sagan.face.seed_b]") == [second, first]
    page.locator("#attention-view .choices button").nth(2).click()
    page.wait_for_selector(f'#attention-view [data-seed="{sampler.curated[2].seed}"]')
    assert page.evaluate("sagan.face.seed_b") == first  # what is another one stays
    page.get_by_role("tab", name="Walk", exact=True).click()
    assert page.locator("#seed-b input[type=number]").input_value() == str(first)


def test_a_sentence_is_of_the_class_that_its_face_was_chosen_in(new_page, serve, with_classes, sampler):
    model = copy.copy(with_classes)
    model.curated = sampler.curated
    seed, _, text = model.curated[0]
    page = new_page(f"{serve(model)}?seed={seed}&class=2")
    page.wait_for_selector("#attention-view [data-drawn]")
    caption = page.locator("#attention-view .caption")
    assert text not in caption.text_content()
    page.locator("#attention-view .choices button").first.click()
    page.wait_for_function("sagan.face.label === 0")
    assert page.evaluate("sagan.face.seed_a") == seed and caption.text_content().startswith(text)
    page.wait_for_function("document.querySelector('#label input').value === 'none'")


@pytest.mark.parametrize("word", ["network=discriminator", "direction=backward"])
def test_a_link_to_another_view_of_the_first_face_says_nothing_of_the_generators(
    new_page, address, sampler, word
):
    page = new_page(f"{address}?{word}")
    page.wait_for_function("globalThis.sagan?.face")
    assert shown_seed(page) == sampler.curated[0].seed
    assert sampler.curated[0].text not in page.locator("#attention-view .caption").text_content()


def test_on_a_phone_a_curated_face_comes_into_sight(new_page, address, sampler):
    page = new_page(address, width=390, height=844)
    page.wait_for_selector("#attention-view [data-drawn]")
    page.locator("#attention-view .choices button").nth(1).scroll_into_view_if_needed()
    assert page.locator("#attention-view .in-focus .picture").bounding_box()["y"] < -390 / 2
    say_something(page, sampler)
    assert page.locator("#attention-view .in-focus .picture").bounding_box()["y"] >= 0


@pytest.mark.one_page
def test_a_new_face_keeps_the_pointed_place(page, sampler):
    point_at(page, "32x32", 0.62, 0.41)
    before = shown_seed(page)
    page.locator("#dice").click()
    page.wait_for_function(
        "seed => document.querySelector('#attention-view [data-seed]').dataset.seed != seed",
        arg=str(before),
    )
    for layer in LAYERS:
        assert drawn(page, layer) == pytest.approx(
            expected(sampler, shown_seed(page), layer, 0.62, 0.41), rel=1e-6
        )


def test_on_a_phone_a_finger_that_taps_rests_or_starts_sideways_is_followed_and_a_swipe_scrolls(
    browser, address
):
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
    context.set_default_timeout(120_000)  # nothing of the page is in this context's cache
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#attention-view [data-drawn]")
    assert page.locator("#attention-view .caption").text_content().endswith(texts.ATTENTION["touch"])
    assert page.locator("#header-view p").inner_text().endswith(texts.HEADER["how_touch"])
    picture = page.locator('figure[data-layer="16x16"] .picture')
    picture.scroll_into_view_if_needed()
    box, before = picture.bounding_box(), page.evaluate("scrollY")
    finger = context.new_cdp_session(page)

    def stroke(*places: tuple[float, float], rest: int = 0) -> float:
        """Move a finger over shares of the picture's width and height, after `rest` ms at the first.

        Returns how many ms it was at the first place, which on a busy machine are more.
        """
        began, rested = time.monotonic(), 0.0
        for i, (x, y) in enumerate(places):
            at = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
            touch = {"type": "touchMove" if i else "touchStart", "touchPoints": [at]}
            finger.send("Input.dispatchTouchEvent", touch)
            if i == 1:
                rested = 1000 * (time.monotonic() - began)
            page.wait_for_timeout(20 if i else rest)
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        return rested

    for place in ((0.22, 0.28), (0.72, 0.6)):
        stroke(place)
        wait_for_query(page, "16x16", *place)
    assert page.locator("#attention-view .caption").text_content() == texts.ATTENTION["touch_long"]
    up = [(0.53, 0.91 - 0.07 * i) for i in range(10)]
    stroke(*up, rest=400)
    wait_for_query(page, "16x16", *up[-1])
    aside = [(0.1 + 0.1 * i, 0.78) for i in range(5)]
    stroke(*aside, *up[2:])
    wait_for_query(page, "16x16", *up[-1])
    assert page.evaluate("scrollY") == before
    quick = 0  # strokes that did not rest; of three a busy browser may take one for a finger that did
    for _ in range(20):
        rested = stroke(*up)
        quick += rested < 150
        page.wait_for_timeout(500)
        moved = page.evaluate("scrollY") > before + 50
        assert not moved or rested < 300
        if moved or quick == 3:
            break
    assert quick and moved
    context.close()
