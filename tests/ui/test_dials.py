"""The gamma dials and the choice of maps: pictures of the current face, against the sampler."""

import base64
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from randomness import draw, fresh_rng
from screen import gamma_text, painted, two_frames

from sagan import inside, latents
from sagan.ui import dials, pictures, texts
from sagan.ui.current import CurrentFace

LAYERS = ("16x16", "32x32")


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))))


def part(page, selector: str):
    return page.locator(f"#dials-view {selector}")


@pytest.fixture
def dialled(page):
    """The page with the dials unfolded and their first pictures there."""
    # Pictures of another test do not count.
    part(page, ".content").evaluate("content => { delete content.dataset.shown; }")
    part(page, "summary").click()
    page.wait_for_selector("#dials-view [data-shown]:not(.waiting)")
    return page


def turn(page, layer: str, times: float) -> None:
    and_wait(page, lambda: part(page, f'[data-dial="{layer}"] input').fill(f"{times:g}"))


def choose(page, maps: str) -> None:
    and_wait(page, part(page, f'.maps input[value="{maps}"]').click)


def and_wait(page, act: Callable[[], None]) -> None:
    """Change something and wait for the pictures of it."""
    shown = part(page, ".content").get_attribute("data-shown")
    act()
    page.wait_for_function(
        "shown => document.querySelector('#dials-view .content').dataset.shown !== shown", arg=shown
    )
    page.wait_for_selector("#dials-view .content:not(.waiting)")


ENLARGED = """async (uri) => {
    const picture = Object.assign(new Image(), {src: uri});
    await picture.decode();
    const canvas = Object.assign(document.createElement('canvas'), {width: 384, height: 384});
    const context = canvas.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.drawImage(picture, 0, 0, 384, 384);
    document.body.append(canvas);
}"""  # every browser has its own way to do so, and for pictures another than for canvases


def off_by(page, name: str, face: np.ndarray) -> int:
    """By how many levels, at most, a picture of the row is another than this face."""
    page.evaluate(ENLARGED, pictures.png_uri(face))
    wanted = page.locator("body > canvas")
    difference = painted(part(page, f'[data-picture="{name}"]')).astype(int) - painted(wanted)
    wanted.evaluate("canvas => canvas.remove()")
    return np.abs(difference).max()


def assert_shows(page, name: str, face: np.ndarray) -> None:
    assert off_by(page, name, face) <= 1


def assert_shows_of(page, name: str, faces: dict, chosen: object) -> None:
    """Of several faces the picture shows the chosen one."""
    assert_shows(page, name, faces[chosen])
    assert all(off_by(page, name, face) > 1 for key, face in faces.items() if key != chosen)


def face_with(sampler, seed: int, times: dict[str, float]) -> np.ndarray:
    gammas = {layer: times.get(layer, 1) * sampler.gammas[layer] for layer in LAYERS}
    return sampler.faces(latents.from_seed(seed, sampler.config.z_dim)[None], None, gammas)[0]


CHOICES = ("strongest", "uniform", "b", "masked", "told")
OF_B = ("b", "told")


def pins_of(sampler, z: np.ndarray, label: int | None = None) -> list[tuple[int, int]]:
    """Pixels in the three cells of the 16x16 layer that receive most in the face of z, where pins matter."""
    best = np.argsort(-sampler.attention(z, "16x16", label).sum(0), kind="stable")[:3]
    return [(int(at % 16 * 4 + draw.randrange(4)), int(at // 16 * 4 + draw.randrange(4))) for at in best]


def cells_of(pins: list[tuple[int, int]], layer: str) -> list[int]:
    cell = 64 // int(layer.split("x")[0])
    return [y // cell * (64 // cell) + x // cell for x, y in pins]


def altered_by(
    sampler, z: np.ndarray, z_b: np.ndarray, kind: str, pins: list, label: int | None = None
) -> dict[str, dict]:
    """What a choice gives the sampler for the face of z, where that of z_b is face B."""
    if kind != "told":
        return {"maps": maps_of(sampler, z_b if kind == "b" else z, kind, pins, label)}
    values = sampler.values(z_b, label)
    return {"values": {layer: {at: values[layer][at] for at in cells_of(pins, layer)} for layer in LAYERS}}


def maps_of(
    sampler, z: np.ndarray, kind: str, pins: list = (), label: int | None = None
) -> dict[str, np.ndarray]:
    """What all layers attend to with the maps of this kind, of the face of z; "masked" ones at the pins."""
    queries_keys = sampler.queries_keys(z, label)
    maps = {layer: inside.attention(*queries_keys[layer]) for layer in LAYERS}
    if kind == "uniform":
        return {layer: np.ones_like(weights) / len(weights) for layer, weights in maps.items()}
    if kind == "masked":
        for layer in LAYERS:
            maps[layer] = inside.attention(*queries_keys[layer], cells_of(pins, layer))
    if kind == "strongest":
        return {layer: np.eye(len(weights))[weights.argmax(1)] for layer, weights in maps.items()}
    return maps


def test_nothing_is_asked_for_before_the_dials_are_unfolded(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.locator("#dice").click()
    page.wait_for_timeout(1500)
    assert len(requests) == 1  # the face


def test_pictures_show_attention_off_as_dialled_and_the_difference(dialled, sampler):
    seed = dialled.evaluate("sagan.face.seed_a")
    off = face_with(sampler, seed, dict.fromkeys(LAYERS, 0))
    assert_shows(dialled, "off", off)
    assert_shows(dialled, "dialled", face_with(sampler, seed, {}))
    times = {layer: round(draw.uniform(1.5, 3), 1) for layer in LAYERS}
    for layer, value in times.items():
        turn(dialled, layer, value)
        said = part(dialled, f'[data-dial="{layer}"] output').text_content()
        assert said == f"{gamma_text(value * sampler.gammas[layer])} = {value:.2f} × learned"
        assert part(dialled, f'[data-dial="{layer}"] input').get_attribute("aria-valuetext") == said
    face = face_with(sampler, seed, times)
    assert_shows(dialled, "dialled", face)
    change = face.astype(int) - off
    factor = int(part(dialled, ".content").get_attribute("data-factor"))
    assert_shows(dialled, "difference", np.clip(128 + factor * change, 0, 255).astype(np.uint8))
    said = part(dialled, ".amplified").text_content()
    assert said == texts.DIALS["amplified"].format(factor=factor, change=f"{np.abs(change).mean():.1f}")


@pytest.mark.one_page
def test_the_dials_change_neither_the_current_face_nor_its_attention(dialled):
    shown = """() => [
        sagan.face.image, JSON.stringify(sagan.face.layers),
        ...[...document.querySelectorAll('#attention-view figure:not([hidden])')]
            .map((figure) => [figure.textContent, ...figure.weights]),
    ]"""
    before = dialled.evaluate(shown)
    turn(dialled, "16x16", 2)
    two_frames(dialled)
    assert dialled.evaluate(shown) == before


@pytest.mark.one_page
def test_off_and_learned_are_one_press_and_another_face_keeps_the_dials(dialled, sampler):
    for layer in LAYERS:
        part(dialled, f'[data-dial="{layer}"] .off').click()
    dialled.wait_for_function(
        "document.querySelector('#dials-view .amplified').textContent.includes('difference 0.0 of')"
    )
    part(dialled, '[data-dial="32x32"] .learned').click()
    before = dialled.evaluate("sagan.face.seed_a")
    dialled.locator("#dice").click()
    dialled.wait_for_function("before => sagan.face.seed_a !== before", arg=before)
    seed = dialled.evaluate("sagan.face.seed_a")
    dialled.wait_for_timeout(300)
    dialled.wait_for_selector("#dials-view .content:not(.waiting)")
    dialled.wait_for_timeout(300)  # the pictures are decoded
    assert_shows(dialled, "dialled", face_with(sampler, seed, {"16x16": 0}))
    assert dialled.evaluate("sagan.lab.state.gammas") == {"16x16": 0}


@pytest.mark.one_page
@pytest.mark.parametrize("kind", CHOICES)
def test_a_choice_of_maps_is_shown_beside_the_face_as_learned(dialled, sampler, kind):
    assert part(dialled, ".maps input:checked").get_attribute("value") == "own"
    seed, seed_b = dialled.evaluate("[sagan.face.seed_a, sagan.face.seed_b]")
    z, z_b = (latents.from_seed(s, sampler.config.z_dim) for s in (seed, seed_b))
    own = face_with(sampler, seed, {})
    assert_shows(dialled, "learned", own)
    assert part(dialled, ".face").text_content() == texts.DIALS["as_learned"]
    turn(dialled, "16x16", 2)
    pins = pins_of(sampler, z)
    for x, y in pins:
        dialled.evaluate("([x, y]) => sagan.lab.pin(x, y)", [x, y])
    choose(dialled, kind)
    gammas = sampler.gammas | {"16x16": 2 * sampler.gammas["16x16"]}
    faces = {
        choice: sampler.faces(z[None], None, gammas, **altered_by(sampler, z, z_b, choice, pins))[0]
        for choice in CHOICES
    } | {"own": face_with(sampler, seed, {"16x16": 2})}
    assert_shows_of(dialled, "dialled", faces, kind)
    off = face_with(sampler, seed, dict.fromkeys(LAYERS, 0))
    assert_shows(dialled, "off", off)
    assert_shows(dialled, "learned", sampler.faces(z_b[None])[0] if kind in OF_B else own)
    change, other = (np.abs(faces[kind].astype(int) - image).mean() for image in (off, faces["own"]))
    factor = part(dialled, ".content").get_attribute("data-factor")
    said = texts.DIALS["amplified_maps"].format(factor=factor, change=f"{change:.1f}", other=f"{other:.1f}")
    assert part(dialled, ".amplified").text_content() == said
    caption = texts.DIALS["b"].format(seed=seed_b) if kind in OF_B else texts.DIALS["as_learned"]
    assert part(dialled, ".face").text_content() == caption
    assert part(dialled, '[data-picture="learned"]').get_attribute("aria-label") == caption
    assert part(dialled, ".how").text_content() == texts.DIALS["how"][kind]
    linked = "_".join(f"{x}-{y}" for x, y in pins)
    assert dialled.evaluate("sagan.link(sagan.face)").endswith(f"&maps={kind}&pins={linked}&gamma_16x16=2")
    choose(dialled, "own")
    assert_shows_of(dialled, "dialled", faces, "own")
    assert "maps" not in dialled.evaluate("sagan.link(sagan.face)")


@pytest.mark.one_page
@pytest.mark.parametrize("kind", ["masked", "told"])
def test_pins_that_come_and_go_count_at_once_and_none_is_said(dialled, sampler, kind):
    choose(dialled, kind)
    assert part(dialled, ".how").text_content() == texts.DIALS["no_pins"]
    own = face_with(sampler, dialled.evaluate("sagan.face.seed_a"), {})
    assert_shows(dialled, "dialled", own)
    ends = dialled.evaluate("[sagan.face.seed_a, sagan.face.seed_b]")
    z, z_b = (latents.from_seed(seed, sampler.config.z_dim) for seed in ends)

    def and_see(change: str) -> None:
        """The cards of pins stand above the dials, and come and go with them."""
        dialled.evaluate(change)
        part(dialled, ".content").scroll_into_view_if_needed()

    pins = pins_of(sampler, z)
    for x, y in pins:
        and_wait(dialled, lambda x=x, y=y: and_see(f"sagan.lab.pin({x}, {y})"))
    assert part(dialled, ".how").text_content() == texts.DIALS["how"][kind]
    changed = sampler.faces(z[None], **altered_by(sampler, z, z_b, kind, pins))[0]
    assert_shows(dialled, "dialled", changed)
    other = f"{np.abs(changed.astype(int) - own).mean():.1f} from the picture with “its own”"
    assert part(dialled, ".amplified").text_content().endswith(other)
    and_wait(dialled, lambda: and_see("sagan.lab.clear()"))
    assert_shows(dialled, "dialled", own)
    assert part(dialled, ".how").text_content() == texts.DIALS["no_pins"]


@pytest.mark.one_page
def test_pins_ask_for_no_pictures_while_all_maps_are_whole(dialled):
    requests = []
    dialled.on("request", lambda request: requests.append(request.url))
    dialled.evaluate("sagan.lab.pin(3, 4)")
    dialled.wait_for_timeout(600)
    assert requests == []


@pytest.mark.one_page
def test_a_pin_does_not_unfold_the_dials(dialled):
    choose(dialled, "masked")
    part(dialled, "summary").click()
    dialled.evaluate("sagan.lab.pin(3, 4)")
    assert not part(dialled, "details").evaluate("details => details.open")
    assert part(dialled, ".how").text_content() == texts.DIALS["how"]["masked"]


def open_walk(page) -> None:
    """Open its tab and wait for the walk: while Gradio still makes sliders, they lose what is typed."""
    page.get_by_role("tab", name=texts.WALK_TAB, exact=True).click()
    page.wait_for_selector("#walk-view .play:enabled")


def test_another_face_b_brings_its_maps(new_page, address, sampler):
    page = new_page(f"{address}?seed=8&seed_b=21&maps=b")
    page.wait_for_selector("#dials-view .fold[open]")
    part(page, ".content").scroll_into_view_if_needed()
    page.wait_for_selector("#dials-view [data-shown]")
    open_walk(page)
    page.locator("#seed-b input[type=number]").fill("22")
    page.locator("#seed-b input[type=number]").press("Tab")
    page.wait_for_function("sagan.face.seed_b === 22")
    page.get_by_role("tab", name=texts.ATTENTION_TAB, exact=True).click()
    part(page, ".content").scroll_into_view_if_needed()
    page.wait_for_function(
        "caption => document.querySelector('#dials-view .face').textContent === caption",
        arg=texts.DIALS["b"].format(seed=22),
    )
    seeds = (21, 22)
    z, *ends = (latents.from_seed(seed, sampler.config.z_dim) for seed in (8, *seeds))
    learned = sampler.faces(np.array(ends))
    dialled = [sampler.faces(z[None], None, None, maps_of(sampler, end, "b"))[0] for end in ends]
    assert_shows_of(page, "dialled", dict(zip(seeds, dialled, strict=True)), 22)
    assert_shows_of(page, "learned", dict(zip(seeds, learned, strict=True)), 22)


@pytest.mark.one_page
def test_a_drag_ends_on_the_picture_of_its_last_value(dialled, sampler):
    slider = part(dialled, '[data-dial="16x16"] input')
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    dialled.mouse.move(box["x"] + box["width"] / 3, middle)
    dialled.mouse.down()
    for i in range(12):
        dialled.mouse.move(box["x"] + box["width"] * (0.3 + 0.04 * i), middle)
    dialled.mouse.up()
    times = float(slider.input_value())
    assert times > 1.5
    dialled.wait_for_selector("#dials-view .content:not(.waiting)")
    dialled.wait_for_timeout(300)
    seed = dialled.evaluate("sagan.face.seed_a")
    assert_shows(dialled, "dialled", face_with(sampler, seed, {"16x16": times}))


def test_a_link_with_dials_opens_them_as_they_were(new_page, address, sampler):
    page = new_page(f"{address}?seed=8&gamma_32x32=0")
    page.wait_for_selector("#dials-view .fold[open]")
    part(page, ".content").scroll_into_view_if_needed()
    page.wait_for_selector("#dials-view [data-shown]")
    assert_shows(page, "dialled", face_with(sampler, 8, {"32x32": 0}))
    assert page.evaluate("sagan.link(sagan.face)").endswith("&gamma_32x32=0")


def test_pictures_that_failed_are_asked_for_again(context, address, monkeypatch):
    dialled = context.new_page()  # the failure is also an error in the browser's console
    dialled.goto(address)
    dialled.wait_for_selector("#attention-view [data-drawn]")
    part(dialled, "summary").click()
    dialled.wait_for_selector("#dials-view [data-shown]")
    with monkeypatch.context() as broken:
        broken.setattr(dials, "compare", lambda *_: 1 / 0)
        part(dialled, '[data-dial="16x16"] input').fill("0.5")
        dialled.wait_for_selector("#dials-view p.error:not(:empty)")
        assert part(dialled, "p.error").text_content() == texts.DIALS["failed"]
    turn(dialled, "16x16", 0.6)
    assert part(dialled, "p.error").text_content() == ""
    dialled.close()


@pytest.mark.parametrize("largest", [0, 1, 3, 40, 63, 64, 200])
def test_the_difference_is_amplified_as_far_as_nothing_is_clipped(largest):
    before = np.full((4, 4, 3), 20, np.uint8)
    after = before + fresh_rng().integers(0, largest + 1, before.shape, np.uint8)
    after[1, 2, 0] = before[1, 2, 0] + largest
    picture, factor = dials.amplified(before, after)
    fits = [power for power in (1, 2, 4, 8, 16, 32, 64) if power * largest < 128]
    assert factor == (max(fits) if fits else 1)
    wanted = np.clip(128 + factor * (after.astype(int) - before), 0, 255)
    np.testing.assert_array_equal(picture, wanted)


@pytest.mark.parametrize("kind", CHOICES)
def test_maps_are_of_a_face_as_learned_truncated_and_of_its_class(with_classes, kind):
    psi, label = draw.uniform(0.3, 1), draw.randrange(3)
    t = draw.choice([0, draw.uniform(0, 0.6)])
    face = CurrentFace(draw.randrange(2**32), draw.randrange(2**32), t, psi, label)
    times = [draw.uniform(1, 3) for _ in LAYERS]
    z = face.latent(16)
    pins = pins_of(with_classes, z, label)
    answer = dials.compare(with_classes, face, times, kind, pins)
    gammas = {layer: value * with_classes.gammas[layer] for layer, value in zip(LAYERS, times, strict=True)}
    z_b = latents.truncate(latents.from_seed(face.seed_b, 16), psi)
    labels = np.array([label])
    wanted = with_classes.faces(
        z[None], labels, gammas, **altered_by(with_classes, z, z_b, kind, pins, label)
    )[0]
    np.testing.assert_array_equal(pixels(answer["dialled"]), wanted)
    own = with_classes.faces(z[None], labels, gammas)[0]
    apart = np.abs(wanted.astype(int) - own).mean()
    # Truncated faces may lie close together; but all pixels are compared, so any difference is seen.
    assert apart > 0 and answer["other"] == pytest.approx(apart)
    learned = with_classes.faces((z_b if kind in OF_B else z)[None], labels)[0]
    np.testing.assert_array_equal(pixels(answer["learned"]), learned)
    assert answer["seed_b"] == (face.seed_b if kind in OF_B else None)


def test_its_own_maps_are_the_dialled_ones_not_those_as_learned(with_classes):
    face = CurrentFace(draw.randrange(2**32), 0, label=draw.randrange(3))
    dialled = pixels(dials.compare(with_classes, face, [3.0, 1.0])["dialled"])
    gammas = {layer: (3, 1)[i] * with_classes.gammas[layer] for i, layer in enumerate(LAYERS)}
    z, labels = latents.from_seed(face.seed_a, 16)[None], np.array([face.label])
    np.testing.assert_array_equal(dialled, with_classes.faces(z, labels, gammas)[0])
    learned = with_classes.faces(z, labels, gammas, maps_of(with_classes, z[0], "own", label=face.label))[0]
    assert np.abs(dialled.astype(int) - learned).mean() > 1


@pytest.mark.one_page
def test_where_all_gammas_are_0_the_page_says_that_maps_change_nothing(page):
    how = page.locator("#dials-how")
    page.evaluate("sagan.lab.set({ maps: 'uniform', gammas: { '16x16': 0, '32x32': 0 } })")
    assert how.text_content() == texts.DIALS["no_gammas"]
    page.evaluate("sagan.lab.set({ gammas: { '16x16': 0 } })")
    assert how.text_content() == texts.DIALS["how"]["uniform"]
    page.evaluate("sagan.lab.set({ maps: 'own', gammas: { '16x16': 0, '32x32': 0 } })")
    assert how.text_content() == texts.DIALS["how"]["own"]


def test_a_row_gives_all_of_its_weight_to_its_strongest_key():
    weights = fresh_rng().dirichlet(np.ones(9), 9).astype(np.float32)
    alone = dials.strongest(weights)
    assert alone.dtype == np.float32
    for row, given in zip(alone, weights, strict=True):
        assert row.sum() == row.max() == 1 and row.argmax() == given.argmax()


@pytest.mark.parametrize("label", [None, 3, True, [], [1]])
def test_a_class_that_is_none_is_refused_by_the_dials(with_classes, label):
    with pytest.raises(ValueError, match="class must be an integer from 0 to 2"):
        dials.compare(with_classes, CurrentFace(1, 2, label=label), [1.0, 1.0])


def test_without_classes_the_dials_need_none(sampler):
    plain, with_list = (
        dials.compare(sampler, CurrentFace(1, 2, label=label), [2.0, 1.0]) for label in (None, [])
    )
    assert with_list == plain


def test_classes_are_kept_by_the_dials(with_classes):
    face = CurrentFace(draw.randrange(2**32), 0, label=draw.randrange(3))
    times = [draw.uniform(0, 3) for _ in LAYERS]
    answer = dials.compare(with_classes, face, times)
    gammas = {layer: value * with_classes.gammas[layer] for layer, value in zip(LAYERS, times, strict=True)}
    z, label = latents.from_seed(face.seed_a, 16)[None], np.array([face.label])
    np.testing.assert_array_equal(pixels(answer["dialled"]), with_classes.faces(z, label, gammas)[0])
    off = with_classes.faces(z, label, dict.fromkeys(LAYERS, 0.0))[0]
    np.testing.assert_array_equal(pixels(answer["off"]), off)
    change = pixels(answer["dialled"]).astype(int) - off
    wanted = np.clip(128 + answer["factor"] * change, 0, 255)
    np.testing.assert_array_equal(pixels(answer["difference"]), wanted)


@pytest.mark.parametrize(
    ("query", "why", "box", "value", "then"),
    [
        ("seed=8&seed_b=8&maps=b", "seed", "#seed-b", "9", texts.DIALS["how"]["b"]),
        ("seed=8&seed_b=8&t=1&maps=b", "seed", "#seed-b", "9", texts.DIALS["same"]["t"]),
        ("seed=7&seed_b=8&t=1&maps=told&pins=3-4", "t", "#t", "0.5", texts.DIALS["how"]["told"]),
        ("seed=7&seed_b=8&t=1&psi=0&maps=b", "psi", "#psi", "0.5", texts.DIALS["same"]["t"]),
    ],
)
def test_where_face_b_is_the_face_itself_the_page_says_why_and_what_helps(
    new_page, address, query, why, box, value, then
):
    page = new_page(f"{address}?{query}")
    page.wait_for_selector("#dials-view .fold[open]")
    says = "how => document.querySelector('#dials-view .how').textContent === how"
    page.wait_for_function(says, arg=texts.DIALS["same"][why])  # once the face of the link is there
    open_walk(page)
    page.locator(f"{box} input[type=number]").fill(value)
    page.wait_for_function(f"how => !({says})(how)", arg=texts.DIALS["same"][why])
    assert part(page, ".how").text_content() == then


LINES = """all => all.map((part) => {
    const text = document.createRange();
    text.selectNodeContents(part);
    return text.getClientRects().length;
})"""  # a part of a grid is one box itself, however many lines it has


def test_the_dials_have_room_at_every_width(new_page, address):
    page = new_page(f"{address}?maps=b")
    page.wait_for_selector("#dials-view .fold[open]")
    for width in (1280, 1200, 1120, 1024, 1023, 820, 721, 720, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        for selector in (".dial input", ".pictures canvas"):
            for box in part(page, selector).all():
                assert box.bounding_box()["width"] > 100, (width, selector)
        switch = part(page, ".switch")
        assert switch.evaluate("all => all.scrollWidth <= all.clientWidth"), width
        assert part(page, ".dial label").evaluate_all(LINES) == [1] * len(LAYERS), width
        box, content = switch.bounding_box(), part(page, ".content").bounding_box()
        assert box["x"] + box["width"] <= content["x"] + content["width"], width
