"""The lab of the Attention tab in a real browser: what it draws and says, against numpy in float64."""

import math

import numpy as np
import pytest
from randomness import draw
from screen import enlarged, painted, percent, two_frames

from sagan import heatmaps, inside, latents
from sagan.ui import texts

LAYERS = ("16x16", "32x32")
SIZE = 64
KINDS = ("query", "key")


def picture(page, layer: str):
    return page.locator(f'#attention-view figure[data-layer="{layer}"] .picture')


def place(page, layer: str, x: float, y: float) -> tuple[float, float]:
    """The middle of the pixel of the face that holds the point (x, y), on the screen."""
    picture(page, layer).scroll_into_view_if_needed()
    box = picture(page, layer).bounding_box()
    middle = ((int(share * SIZE) + 0.5) / SIZE for share in (x, y))
    x, y = (
        start + share * length
        for share, start, length in zip(
            middle, (box["x"], box["y"]), (box["width"], box["height"]), strict=True
        )
    )
    return x, y


def point_at(page, layer: str, x: float, y: float) -> None:
    page.mouse.move(*place(page, layer, x, y))
    two_frames(page)


def click(page, layer: str, x: float, y: float) -> None:
    page.mouse.click(*place(page, layer, x, y))
    two_frames(page)


def leave(page) -> None:
    page.mouse.move(5, 5)
    two_frames(page)


def switch(page, name: str, value: str) -> None:
    page.locator(f'#attention-view [data-name="{name}"] input[value="{value}"]').check(force=True)
    two_frames(page)


def drawn(page, layer: str) -> np.ndarray:
    """The weights that are on screen."""
    return np.array(page.locator(f'figure[data-layer="{layer}"]').evaluate("figure => [...figure.weights]"))


def says(page, layer: str, measure: str) -> str:
    return page.locator(f'#attention-view figure[data-layer="{layer}"] .{measure}').text_content()


def caption(page) -> str:
    return page.locator("#attention-view .caption").text_content()


def pinned(page) -> list[tuple[int, int]]:
    return [tuple(pin) for pin in page.evaluate("sagan.lab.state.pins.map(({x, y}) => [x, y])")]


def current_seed(page) -> int:
    return page.evaluate("sagan.face.seed_a")


def maps_of(sampler, seed: int) -> dict[str, np.ndarray]:
    """Float64 softmax of q k^T of both layers, (n, n)."""
    maps = {}
    for layer, (q, k) in sampler.queries_keys(latents.from_seed(seed, sampler.config.z_dim)).items():
        logits = q.astype(np.float64) @ k.astype(np.float64).T
        weights = np.exp(logits - logits.max(1, keepdims=True))
        maps[layer] = weights / weights.sum(1, keepdims=True)
    return maps


def position(layer: str, x: float, y: float) -> int:
    side = int(layer.split("x")[0])
    return int(y * side) * side + int(x * side)


def expected(sampler, seed: int, x: float, y: float, backward: bool = False) -> dict[str, np.ndarray]:
    """What both layers and their combination have to show, by panel."""
    shown, total = {}, sum(abs(gamma) for gamma in sampler.gammas.values())
    combined = np.zeros((32, 32))
    for layer, maps in maps_of(sampler, seed).items():
        at, side = position(layer, x, y), int(layer.split("x")[0])
        shown[layer] = maps[:, at] if backward else maps[at]
        fine = 32 // side
        for line in range(32):
            for column in range(32):
                weight = shown[layer][line // fine * side + column // fine] / fine**2
                combined[line, column] += abs(sampler.gammas[layer]) / total * weight
    return shown | {"combined": combined.ravel()}


def anywhere() -> tuple[float, float]:
    return draw.random(), draw.random()


# The pointer


@pytest.mark.one_page
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_all_panels_draw_the_map_of_the_pointed_place_without_a_request(page, sampler, direction):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    switch(page, "direction", direction)
    for hovered in (*LAYERS, "combined"):
        x, y = anywhere()
        point_at(page, hovered, x, y)
        wanted = expected(sampler, current_seed(page), x, y, direction == "backward")
        for panel, weights in wanted.items():
            np.testing.assert_allclose(drawn(page, panel), weights, rtol=0, atol=1e-6)
    assert requests == []


@pytest.mark.one_page
def test_rows_and_columns_are_those_of_a_float64_softmax_of_the_same_queries_and_keys(page, sampler):
    maps = maps_of(sampler, current_seed(page))
    for layer, wanted in maps.items():
        positions = draw.sample(range(len(wanted)), 30)
        rows, columns = page.evaluate(
            """([name, positions]) => {
                const math = saganAttention, layer = sagan.face.layers.find((layer) => layer.name === name);
                const [q, k] = [layer.q, layer.k].map(math.floats), n = parseInt(name) ** 2;
                const sums = math.normalisers(q, k, n);
                return [positions.map((i) => [...math.row(q, k, n, i)]),
                        positions.map((j) => [...math.column(q, k, n, j, sums)])];
            }""",
            [layer, positions],
        )
        np.testing.assert_allclose(rows, wanted[positions], rtol=0, atol=1e-6)
        np.testing.assert_allclose(columns, wanted[:, positions].T, rtol=0, atol=1e-6)


@pytest.mark.one_page
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_measures_say_what_the_drawn_map_is(page, sampler, direction):
    switch(page, "direction", direction)
    x, y = anywhere()
    point_at(page, "32x32", x, y)
    for layer in LAYERS:
        weights = expected(sampler, current_seed(page), x, y, direction == "backward")[layer]
        side, at = int(layer.split("x")[0]), position(layer, x, y)
        share = weights / weights.sum()
        distance = outside = 0.0
        for j in range(side * side):
            right, down = j % side - at % side, j // side - at // side
            distance += share[j] * math.hypot(right, down) * SIZE / side
            outside += share[j] * (abs(right) > 1 or abs(down) > 1)
        data = page.locator(f'#attention-view figure[data-layer="{layer}"]').evaluate("f => ({...f.dataset})")
        strongest = np.argsort(-weights, kind="stable")[:5]
        assert [int(key) for key in data["keys"].split(",")] == strongest.tolist()
        assert float(data["distance"]) == pytest.approx(distance)
        assert float(data["outside"]) == pytest.approx(outside)
        assert says(page, layer, "distance") == f"{distance:.1f} px"
        assert says(page, layer, "outside") == f"{percent(outside)} %"
        assert says(page, layer, "total") == f"{weights.sum():.1f} × average"
        entropy = heatmaps.entropy_bits(share)
        assert says(page, layer, "entropy") == f"{entropy:.1f} of {2 * math.log2(side):.0f} bits"
        times = np.sort(weights)[::-1][:5] * side**2
        assert says(page, layer, "best") == f"{times[0]:.1f} × uniform"
        of_row = page.locator(f'#attention-view figure[data-layer="{layer}"] .share')
        assert of_row.is_visible() == (direction == "forward")
        assert of_row.text_content() == f", {percent(weights.max())} %"
        following = [float(text.replace(",", "")) for text in says(page, layer, "next")[:-2].split(" · ")]
        assert following == pytest.approx(times[1:], rel=0.06, abs=0.051)


@pytest.mark.one_page
def test_the_combined_panel_says_how_much_each_layer_counts(page, sampler):
    sizes = np.abs([sampler.gammas[layer] for layer in LAYERS])
    shares = [round(float(share)) for share in 100 * sizes / sizes.sum()]
    assert says(page, "combined", "mix") == " + ".join(f"{share} %" for share in shares)
    assert "gamma" in says(page, "combined", "spread") and "32×32" in says(page, "combined", "spread")


def colours_of(page, layer: str) -> np.ndarray:
    """The pixels of a heatmap, RGBA (256, 256, 4)."""
    field = page.locator(f'#attention-view figure[data-layer="{layer}"] .field')
    return painted(field).astype(int)


def coloured(shares: np.ndarray) -> np.ndarray:
    """The cells of a map, RGBA (n, n, 4): from share 0, faint, to share 1, opaque."""
    side = math.isqrt(len(shares))
    opacity = np.floor(255 * (0.4 + 0.6 * np.sqrt(shares)) + 0.5)
    return np.column_stack([heatmaps.colour(shares), opacity]).astype(np.uint8).reshape(side, side, 4)


@pytest.mark.one_page
def test_the_scale_is_shared_or_each_maps_own_maximum_and_the_bar_says_which(page):
    point_at(page, "32x32", *anywhere())
    unit = page.locator("#attention-view .scale .unit")
    ticks = page.locator("#attention-view .ticks span")
    assert ticks.all_text_contents() == ["≤ 1 ×", "4 ×", "16 ×", "≥ 64 ×"]
    assert unit.text_content() == texts.ATTENTION["scale"]
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    shared = {panel: colours_of(page, panel) for panel in (*LAYERS, "combined")}
    switch(page, "scale", "own")
    for panel, before in shared.items():
        weights = drawn(page, panel)
        assert f"{panel} {weights.max() * len(weights):.1f} ×".lower() in unit.text_content().lower()
        field = colours_of(page, panel)
        wanted = enlarged(page, coloured(weights / weights.max()), 256)
        np.testing.assert_allclose(field, wanted, atol=1)
        assert (field != before).any()
    assert ticks.all_text_contents()[-1] == texts.ATTENTION["largest"]
    switch(page, "scale", "shared")
    for panel, before in shared.items():
        np.testing.assert_array_equal(colours_of(page, panel), before)
    assert requests == []


@pytest.mark.one_page
def test_the_legend_names_the_markers_of_each_direction(page):
    words = page.locator("#attention-view .marks")
    assert "query" in words.text_content() and "five strongest keys" in words.text_content()
    switch(page, "direction", "backward")
    assert "five strongest queries" in words.text_content()
    assert caption(page) == texts.ATTENTION["hover_backward"]
    assert says(page, "16x16", "best-name") == texts.ATTENTION["best_backward"]
    assert page.locator("#attention-view .received:visible").count() == 3


# Pins


@pytest.mark.one_page
def test_a_click_pins_the_point_and_leaving_the_picture_returns_to_it(page):
    x, y = anywhere()
    click(page, "16x16", x, y)
    assert pinned(page) == [(int(64 * x), int(64 * y))]
    assert caption(page) == texts.ATTENTION["pinned"].format(count=1, most=5)
    kept = drawn(page, "32x32")
    point_at(page, "16x16", (x + 0.5) % 1, y)  # the pointer still explores
    assert drawn_query(page, "32x32") == position("32x32", (x + 0.5) % 1, y)
    leave(page)
    assert drawn_query(page, "32x32") == position("32x32", x, y)
    np.testing.assert_array_equal(drawn(page, "32x32"), kept)


@pytest.mark.one_page
def test_without_a_pin_the_last_pointed_place_stays(page):
    point_at(page, "16x16", *anywhere())
    last = drawn(page, "32x32")
    leave(page)
    np.testing.assert_array_equal(drawn(page, "32x32"), last)


def five_places() -> list[tuple[float, float]]:
    """Five points, too far from each other to be taken for the same."""
    cells = draw.sample([(x, y) for x in range(4) for y in range(4)], 5)
    return [((x + draw.uniform(0.3, 0.7)) / 4, (y + draw.uniform(0.3, 0.7)) / 4) for x, y in cells]


def card_maps(page) -> list[list[np.ndarray]]:
    """The weights of the maps on each pin's card."""
    two_frames(page)
    every = page.locator("#attention-view .card").evaluate_all(
        "all => all.map((card) => [...card.querySelectorAll('.field')].map(({weights}) => [...weights]))"
    )
    return [[np.array(weights) for weights in card] for card in every]


@pytest.mark.one_page
def test_up_to_five_pins_keep_their_maps_also_for_another_face(page, sampler):
    places = five_places()
    for x, y in places:
        click(page, draw.choice(LAYERS), x, y)
    click(page, "16x16", 0.01, 0.01)
    assert len(pinned(page)) == 5
    assert caption(page) == "No more than 5 points can be pinned. Remove one first."
    colours = page.locator("#attention-view .card").evaluate_all(
        "all => all.map((c) => getComputedStyle(c).borderTopColor)"
    )
    assert len(set(colours)) == 5
    assert page.locator('figure[data-layer="16x16"] .pin').all_text_contents() == list("12345")

    def all_are_of(seed: int) -> None:
        for (x, y), maps in zip(places, card_maps(page), strict=True):
            wanted = expected(sampler, seed, x, y)
            for layer, weights in zip(LAYERS, maps, strict=True):
                np.testing.assert_allclose(weights, wanted[layer], rtol=0, atol=1e-6)

    before = current_seed(page)
    all_are_of(before)
    page.locator("#dice").click()
    page.wait_for_function("before => sagan.face.seed_a !== before", arg=before)
    all_are_of(current_seed(page))
    switch(page, "direction", "backward")
    for (x, y), maps in zip(places, card_maps(page), strict=True):
        wanted = expected(sampler, current_seed(page), x, y, backward=True)
        np.testing.assert_allclose(maps[0], wanted["16x16"], rtol=0, atol=1e-6)


@pytest.mark.one_page
def test_one_pin_or_all_are_removed_and_a_colour_is_free_again(page):
    places = five_places()
    for x, y in places[:4]:
        click(page, "32x32", x, y)
    assert page.locator("#attention-view .hint").text_content() == ""
    colours = "sagan.lab.state.pins.map(({colour}) => colour)"
    page.get_by_role("button", name="Remove pin 2").click()
    assert page.evaluate(colours) == [0, 2, 3]
    x, y = places[0]
    click(page, "16x16", x, y)  # on its dot
    assert page.evaluate(colours) == [2, 3]
    click(page, "32x32", *places[4])
    assert page.evaluate(colours) == [2, 3, 0]
    page.get_by_role("button", name="Clear all").click()
    two_frames(page)
    assert pinned(page) == [] and page.locator("#attention-view .card").count() == 0
    assert page.get_by_role("button", name="Clear all").is_disabled()
    assert page.locator("#attention-view .hint").text_content() == texts.LAB["pins_hint"]
    assert page.locator("#attention-view .picture .pin").count() == 0


def chosen(page) -> list[str]:
    """The numbers of pins that are marked as chosen on the pictures, on each of which they are."""
    return page.locator("#attention-view figure:not([hidden]) .pin.chosen").all_text_contents()


@pytest.mark.one_page
def test_where_a_pin_is_removed_the_pointer_looks_and_leaves_for_the_newest_that_is_left(page):
    (first_x, first_y), (x, y), other = five_places()[:3]
    click(page, "32x32", first_x, first_y)
    click(page, "32x32", x, y)
    click(page, "32x32", x, y)  # on its dot
    assert drawn_query(page, "16x16") == position("16x16", x, y)
    leave(page)
    assert drawn_query(page, "16x16") == position("16x16", first_x, first_y)
    page.get_by_role("button", name="Clear all").click()
    point_at(page, "32x32", *other)
    leave(page)
    assert drawn_query(page, "16x16") == position("16x16", *other)  # and not for what is there no more


@pytest.mark.one_page
def test_delete_removes_the_pin_under_the_pointer_or_else_the_chosen_one(page):
    places = five_places()[:4]
    for place in places[:3]:
        click(page, "32x32", *place)
    first, _, third = pinned(page)
    page.get_by_role("button", name="Pin 1,").click()
    picture(page, "32x32").focus()
    point_at(page, "32x32", *places[1])
    press(page, "Delete")
    assert pinned(page) == [first, third] and chosen(page) == ["1"] * 3
    point_at(page, "32x32", *places[3])
    press(page, "Delete")
    assert pinned(page) == [third]


@pytest.mark.one_page
def test_a_card_shows_its_pin_in_the_large_pictures(page):
    first, second = five_places()[:2]
    click(page, "32x32", *first)
    wanted = drawn(page, "16x16")
    click(page, "32x32", *second)
    leave(page)
    assert (drawn(page, "16x16") != wanted).any()
    assert chosen(page) == ["2"] * 3
    page.get_by_role("button", name="Pin 1,").click()
    two_frames(page)
    np.testing.assert_array_equal(drawn(page, "16x16"), wanted)
    pressed = page.locator("#attention-view .card .maps").evaluate_all("all => all.map((b) => b.ariaPressed)")
    assert chosen(page) == ["1"] * 3 and pressed == ["true", "false"]


# Without a mouse


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
    two_frames(page)


SHOWS_FOCUS = """() => {
    const outlined = (part) => getComputedStyle(part).outlineStyle !== 'none';
    const focused = document.activeElement, label = focused.closest('label');
    return outlined(focused) || (label !== null && outlined(label)) || !focused.closest('.view');
}"""


def tab_to(page, selector: str) -> None:
    """Press Tab until the focus is on an element; every stop on the way shows its focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        assert page.evaluate(SHOWS_FOCUS), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab never reaches {selector}")


@pytest.mark.one_page
def test_the_lab_works_with_the_keyboard_alone(page, sampler):
    tab_to(page, '#attention-view figure[data-layer="16x16"] .picture')
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    start = int(drawn_query(page, "16x16"))
    press(page, "ArrowLeft", "ArrowDown", "Enter")
    assert drawn_query(page, "16x16") == start + 15
    press(page, "ArrowLeft", "Enter")
    assert len(pinned(page)) == 2
    spoken = page.locator("#attention-view .spoken").text_content()
    assert all(layer in spoken for layer in LAYERS) and "Combined" in spoken
    press(page, "Delete")
    assert len(pinned(page)) == 1
    tab_to(page, '#attention-view [data-name="direction"] input')
    press(page, "ArrowRight")
    assert page.evaluate("sagan.lab.state.direction") == "backward"
    ((x, y),) = pinned(page)
    tab_to(page, "#attention-view .card .maps")
    press(page, "Enter")
    wanted = expected(sampler, current_seed(page), (x + 0.5) / 64, (y + 0.5) / 64, backward=True)
    np.testing.assert_allclose(drawn(page, "32x32"), wanted["32x32"], rtol=0, atol=1e-6)
    press(page, "Delete")
    assert pinned(page) == []
    assert page.evaluate("document.activeElement.matches('.picture')")


@pytest.mark.one_page
def test_the_focus_goes_on_from_a_pin_that_is_removed(page):
    for place in five_places()[:3]:
        click(page, "32x32", *place)
    focused = """[...document.querySelectorAll('#attention-view .card')]
        .findIndex((card) => card.querySelector('.maps') === document.activeElement)"""
    page.locator("#attention-view .card .maps").nth(1).focus()
    press(page, "Backspace")
    assert len(pinned(page)) == 2 and page.evaluate(focused) == 1  # to the one that was the third
    press(page, "Delete")
    assert len(pinned(page)) == 1 and page.evaluate(focused) == 0
    page.get_by_role("button", name="Clear all").press("Enter")
    assert page.evaluate("document.activeElement.matches('.picture')")


@pytest.mark.one_page
def test_arrow_keys_stop_at_the_edges_and_come_back_at_once(page):
    for edge, next_to_it, outwards, back in (
        (0.01, 0.1, ("ArrowLeft", "ArrowUp"), ("ArrowRight", "ArrowDown")),
        (0.99, 0.9, ("ArrowRight", "ArrowDown"), ("ArrowLeft", "ArrowUp")),
    ):
        point_at(page, "16x16", edge, edge)
        picture(page, "16x16").focus()
        press(page, *outwards * 3)
        assert drawn_query(page, "16x16") == position("16x16", edge, edge)
        press(page, *back)
        assert drawn_query(page, "16x16") == position("16x16", next_to_it, next_to_it)


@pytest.mark.one_page
def test_keys_that_move_or_pin_the_point_scroll_nothing(page):
    taken = """(picture, key) => !picture.dispatchEvent(
        new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }))"""
    keys = ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Enter", "Delete", " ", "Backspace")
    point_at(page, "16x16", *anywhere())
    counts = []
    for key in keys:
        assert picture(page, "16x16").evaluate(taken, key), key
        counts.append(len(pinned(page)))
    assert counts == [0, 0, 0, 0, 1, 0, 1, 0]
    for key in ("Tab", "PageDown", "a"):
        assert not picture(page, "16x16").evaluate(taken, key), key


@pytest.mark.one_page
@pytest.mark.parametrize(("direction", "point", "best"), [("forward", *KINDS), ("backward", *KINDS[::-1])])
def test_keys_are_answered_with_where_the_point_and_the_strongest_place_lie(page, direction, point, best):
    switch(page, "direction", direction)
    picture(page, "32x32").focus()
    press(page, *draw.choices(("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"), k=9))
    spoken = page.locator("#attention-view .spoken").text_content()
    for name, side in {"16x16": 16, "32x32": 32, "combined": 32}.items():
        title = texts.LAB["combined"] if name == "combined" else f"Layer {name}"
        row, column = divmod(drawn_query(page, name), side)
        best_row, best_column = divmod(int(drawn(page, name).argmax()), side)
        assert (
            f"{title}: {point} in column {column}, row {row}; "
            f"strongest {best} in column {best_column}, row {best_row}, "
        ) in spoken


@pytest.mark.one_page
def test_a_pin_is_called_by_what_its_maps_say_and_choosing_it_is_spoken_of(page):
    spoken = page.locator("#attention-view .spoken")
    before = spoken.text_content()
    (x, y), second = five_places()[:2]
    click(page, "32x32", x, y)
    click(page, "32x32", *second)
    first = page.locator("#attention-view .card .maps").first
    says = first.locator(".says").all_text_contents()
    assert len(says) == 2
    page.get_by_role("button", name="; ".join(says)).first.wait_for()
    assert spoken.text_content() == before
    first.press("Enter")
    two_frames(page)
    assert f"Layer 32x32: query in column {int(32 * x)}, row {int(32 * y)};" in spoken.text_content()


def drawn_query(page, layer: str) -> int:
    return int(page.locator(f'#attention-view figure[data-layer="{layer}"]').get_attribute("data-query"))


@pytest.mark.one_page
def test_a_tap_only_looks_even_where_its_click_does_not_say_that_it_was_one(page):
    page.evaluate(
        """() => {
            const picture = document.querySelector('#attention-view figure[data-layer="16x16"] .picture');
            const box = picture.getBoundingClientRect();
            const [clientX, clientY] = [box.left + 0.34 * box.width, box.top + 0.28 * box.height];
            const at = { clientX, clientY, bubbles: true };
            for (const type of ['pointerdown', 'pointerup'])
                picture.dispatchEvent(new PointerEvent(type, { ...at, pointerType: 'touch' }));
            picture.dispatchEvent(new MouseEvent('click', at));
        }"""
    )
    assert pinned(page) == []
    two_frames(page)
    assert drawn_query(page, "16x16") == position("16x16", 0.34, 0.28)


def pin_most_button(page, layer: str):
    said = texts.LAB["pin_most_of"].format(name=layer)
    return page.locator("#attention-view .pins").get_by_role("button", name=said, exact=True)


@pytest.mark.one_page
@pytest.mark.parametrize("layer", LAYERS)
def test_what_receives_most_in_a_layer_is_pinned_instead_of_other_places(page, sampler, layer):
    side = int(layer.split("x")[0])
    received = maps_of(sampler, current_seed(page))[layer].sum(0)
    best = [divmod(int(at), side) for at in np.argsort(-received, kind="stable")[:5]]
    middles = [tuple(int((cell + 0.5) * 64 / side) for cell in (column, row)) for row, column in best]
    page.evaluate("for (let x = 0; x < 5; x++) sagan.lab.pin(x, 63)")
    pin_most_button(page, layer).click()
    assert pinned(page) == middles
    assert page.evaluate("[sagan.lab.state.chosen.x, sagan.lab.state.chosen.y]") == list(middles[0])
    assert page.evaluate("sagan.lab.state.direction") == "backward"  # who looks at them


@pytest.mark.one_page
def test_of_the_discriminator_what_receives_most_in_its_own_layers_is_pinned(page, sampler):
    assert page.locator("#attention-view .pins .most button:visible").all_text_contents() == list(LAYERS)
    switch(page, "network", "discriminator")
    button = pin_most_button(page, "8x8")
    page.wait_for_function("button => !button.disabled", arg=button.element_handle())
    assert page.locator("#attention-view .pins .most button:visible").all_text_contents() == ["8x8", "4x4"]
    button.click()
    face = sampler.faces(latents.from_seed(current_seed(page), sampler.config.z_dim)[None])[0]
    received = inside.attention(*sampler.discriminator_queries_keys(face)["8x8"]).sum(0)
    places = [(x // 8 + y // 8 * 8, x % 8, y % 8) for x, y in pinned(page)]
    assert [place[1:] for place in places] == [(4, 4)] * 5
    pins = received[[at for at, *_ in places]]
    np.testing.assert_allclose(pins, np.sort(received)[::-1][:5], rtol=1e-5)


FINGERS = """(kind) => {
    const picture = document.querySelector('#attention-view figure[data-layer="16x16"] .picture');
    const box = picture.getBoundingClientRect();
    const at = (x, y) => (
        { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true });
    const point = (type, x, y, isPrimary = true) =>
        picture.dispatchEvent(new PointerEvent(type, { ...at(x, y), pointerType: kind, isPrimary }));
    point('pointerdown', 0.34, 0.28);
    point('pointerup', 0.34, 0.28);
    picture.dispatchEvent(new PointerEvent('click', { ...at(0.34, 0.28), pointerType: kind }));
    point('pointerleave', 0.34, 0.28);
    point('pointerdown', 0.9, 0.9, false);
    point('pointermove', 0.9, 0.9, false);
}"""


@pytest.mark.one_page
@pytest.mark.parametrize("kind", ["touch", "pen"])
def test_a_pen_looks_as_a_finger_does_and_a_second_one_moves_nothing(page, kind):
    click(page, "32x32", 0.6, 0.7)
    before = pinned(page)
    page.evaluate(FINGERS, kind)
    page.wait_for_timeout(300)  # a finger that stays is followed after 150 ms
    assert pinned(page) == before
    assert drawn_query(page, "16x16") == position("16x16", 0.34, 0.28)
    assert page.get_by_role("button", name=texts.LAB["pin_here"]).is_visible()  # it does not hover


FINGER = """([type, x, y, fingers]) => {
    const picture = document.querySelector('#attention-view figure[data-layer="16x16"] .picture');
    const box = picture.getBoundingClientRect();
    const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
    const touch = (identifier) => new Touch({ ...at, identifier, target: picture });
    const how = { ...at, bubbles: true, cancelable: true, pointerType: 'touch', isPrimary: true };
    return picture.dispatchEvent(type === 'touchmove'
        ? new TouchEvent(type, { ...how, touches: Array.from({ length: fingers }, (_, i) => touch(i)) })
        : new PointerEvent(type, how));
}"""


def finger(page, what: str, x: float, y: float, fingers: int = 1) -> bool:
    """Tell the picture of the 16x16 layer of a finger; False: it keeps the browser from scrolling."""
    return page.evaluate(FINGER, [what, x, y, fingers])


@pytest.mark.one_page
def test_a_finger_that_scrolls_is_not_followed_later(page):
    point_at(page, "16x16", 0.6, 0.7)
    finger(page, "pointerdown", 0.34, 0.28)
    finger(page, "pointercancel", 0.34, 0.28)  # as browsers do when they begin to scroll
    page.wait_for_timeout(300)  # a finger that stays is followed after 150 ms
    assert drawn_query(page, "16x16") == position("16x16", 0.6, 0.7)
    assert finger(page, "touchmove", 0.34, 0.5)


@pytest.mark.one_page
def test_a_finger_that_leaves_the_picture_is_followed_along_its_edge(page):
    finger(page, "pointerdown", 0.34, 0.28)
    for (x, y), pixel in (((-0.2, 0.5), [0, 32]), ((1.2, -3), [63, 0]), ((0.5, 1), [32, 63])):
        finger(page, "pointermove", x, y)
        assert page.evaluate("sagan.lab.state.place") == pixel
    finger(page, "pointerup", 0.5, 1)


@pytest.mark.one_page
def test_two_fingers_may_zoom_into_a_picture(page):
    style = picture(page, "16x16").evaluate("picture => getComputedStyle(picture).touchAction")
    assert style == "pan-y pinch-zoom"
    finger(page, "pointerdown", 0.34, 0.28)
    page.wait_for_function("`${sagan.lab.state.place}` === '21,17'")  # it rested
    assert not finger(page, "touchmove", 0.34, 0.3)
    assert finger(page, "touchmove", 0.34, 0.3, fingers=2)
    finger(page, "pointerup", 0.34, 0.3)


@pytest.mark.one_page
def test_keys_of_the_browser_stay_its_own(page):
    click(page, "16x16", *anywhere())
    before = pinned(page)
    for _ in range(2):
        for key in ("Control+Backspace", "Meta+Delete", "Alt+Delete", "Control+Enter"):
            press(page, key)
            assert pinned(page) == before != [], key  # what one removes, another one may pin again
        page.locator("#attention-view .card .remove").focus()


def test_the_lab_works_with_touch_alone(browser, address, sampler):
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
    context.set_default_timeout(120_000)  # nothing of the page is in this context's cache
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#attention-view [data-drawn]")

    def tap(x: float, y: float, layer: str = "32x32") -> None:
        page.touchscreen.tap(*place(page, layer, x, y))
        two_frames(page)

    places = five_places()[:2]
    for x, y in places:
        tap(x, y)
        assert drawn_query(page, "16x16") == position("16x16", x, y)
        page.get_by_role("button", name="Pin this point").tap()
    assert pinned(page) == [(int(64 * x), int(64 * y)) for x, y in places]
    page.locator('[data-name="direction"] label').last.tap()
    for (x, y), maps in zip(places, card_maps(page), strict=True):
        wanted = expected(sampler, current_seed(page), x, y, backward=True)
        for layer, weights in zip(LAYERS, maps, strict=True):
            np.testing.assert_allclose(weights, wanted[layer], rtol=0, atol=1e-6)
    page.locator('figure[data-layer="16x16"] .focus').tap()
    assert picture(page, "16x16").bounding_box()["width"] > 300
    assert picture(page, "32x32").bounding_box()["width"] < 200
    page.get_by_role("button", name="Remove pin 1").tap()
    assert len(pinned(page)) == 1
    page.get_by_role("button", name="Clear all").tap()
    assert pinned(page) == []
    context.close()


# Links


def copied_link(page) -> str:
    page.locator("#header-view .link").click()
    page.wait_for_function("document.querySelector('#header-view output').textContent")
    return page.evaluate("navigator.clipboard.readText()")


@pytest.mark.one_page
def test_a_link_restores_direction_scale_layer_and_pins(page, new_page, sampler):
    places = five_places()[:3]
    for x, y in places:
        click(page, "32x32", x, y)
    switch(page, "direction", "backward")
    switch(page, "scale", "own")
    page.locator('figure[data-layer="16x16"] .focus').click()
    seed, link = current_seed(page), copied_link(page)
    other = new_page(link)
    other.wait_for_selector("#attention-view [data-drawn]")
    assert current_seed(other) == seed
    for (x, y), maps in zip(places, card_maps(other), strict=True):
        wanted = expected(sampler, seed, x, y, backward=True)
        np.testing.assert_allclose(maps[1], wanted["32x32"], rtol=0, atol=1e-6)
    leave(other)
    newest = expected(sampler, seed, *places[-1], backward=True)
    np.testing.assert_allclose(drawn(other, "combined"), newest["combined"], rtol=0, atol=1e-6)
    assert other.locator('figure[data-layer="16x16"] .focus').get_attribute("aria-pressed") == "true"
    assert other.locator('[data-name="scale"] input[value="own"]').is_checked()
    assert other.locator("#face-view .notice").text_content() == ""
    assert copied_link(other) == link


def test_a_link_of_a_first_visit_says_nothing_of_the_lab(page):
    assert "pins" not in copied_link(page) and "direction" not in copied_link(page)


def test_a_bad_link_opens_the_lab_with_what_is_valid_and_one_sentence(new_page, address):
    many = "_".join(f"{i % 60}-{i // 60}" for i in range(500))
    bad = f"direction=backward&layer=64x64&gamma_16x16=nan&gamma_32x32=0.5&pins={many}"
    page = new_page(f"{address}?seed=9&{bad}")
    page.wait_for_selector("#attention-view [data-drawn]")
    assert pinned(page) == [(i, 0) for i in range(5)]
    state = page.evaluate("sagan.lab.state")
    assert state["direction"] == "backward" and state["layer"] is None and state["gammas"] == {"32x32": 0.5}
    notice = page.locator("#face-view .notice").text_content()
    assert notice == texts.IGNORED.format(values="layer=64x64, 495 of 500 pins, gamma_16x16=nan")
