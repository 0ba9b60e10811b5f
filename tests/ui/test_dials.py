"""The gamma dials: three pictures of the current face, against the sampler."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from randomness import draw, fresh_rng
from screen import gamma_text, painted

from sagan import latents
from sagan.ui import dials, texts
from sagan.ui.current import CurrentFace

LAYERS = ("16x16", "32x32")


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))))


def part(page, selector: str):
    return page.locator(f"#dials-view {selector}")


@pytest.fixture
def dialled(page):
    """The page with the dials unfolded and their first pictures there."""
    part(page, "summary").click()
    page.wait_for_selector("#dials-view [data-shown]")
    return page


def turn(page, layer: str, times: float) -> None:
    shown = part(page, ".content").get_attribute("data-shown")
    part(page, f'[data-dial="{layer}"] input').fill(f"{times:g}")
    page.wait_for_function(
        "shown => document.querySelector('#dials-view .content').dataset.shown !== shown", arg=shown
    )
    page.wait_for_selector("#dials-view .content:not(.waiting)")


def reduced(enlarged: np.ndarray) -> np.ndarray:
    """A picture of 384 pixels at the size of the face, by taking means."""
    return enlarged.astype(float).reshape(64, 6, 64, 6, -1)[..., :3].mean((1, 3))


def canvas(page, name: str) -> np.ndarray:
    """A picture of the row, at the size of the face."""
    return reduced(painted(part(page, f'[data-picture="{name}"]')))


def assert_shows(page, name: str, face: np.ndarray) -> None:
    wanted = reduced(np.asarray(Image.fromarray(face).resize((384, 384), Image.Resampling.BICUBIC)))
    # Every browser has its own way to enlarge.
    assert np.corrcoef(canvas(page, name).ravel(), wanted.ravel())[0, 1] > 0.95


def face_with(sampler, seed: int, times: dict[str, float]) -> np.ndarray:
    gammas = {layer: times.get(layer, 1) * sampler.gammas[layer] for layer in LAYERS}
    return sampler.faces(latents.from_seed(seed, sampler.config.z_dim)[None], None, gammas)[0]


def test_nothing_is_asked_for_before_the_dials_are_unfolded(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.locator("#dice").click()
    page.wait_for_timeout(1500)
    assert len(requests) == 1  # the face


def test_three_pictures_show_attention_off_as_dialled_and_the_difference(dialled, sampler):
    seed = dialled.evaluate("sagan.face.seed_a")
    off = face_with(sampler, seed, dict.fromkeys(LAYERS, 0))
    assert_shows(dialled, "off", off)
    assert_shows(dialled, "dialled", face_with(sampler, seed, {}))
    times = {layer: round(draw.uniform(1.5, 3), 1) for layer in LAYERS}
    for layer, value in times.items():
        turn(dialled, layer, value)
        said = part(dialled, f'[data-dial="{layer}"] output').text_content()
        assert said == f"{gamma_text(value * sampler.gammas[layer])} = {value:.2f} × learned"
    face = face_with(sampler, seed, times)
    assert_shows(dialled, "dialled", face)
    change = face.astype(int) - off
    factor = int(part(dialled, ".content").get_attribute("data-factor"))
    assert_shows(dialled, "difference", np.clip(128 + factor * change, 0, 255).astype(np.uint8))
    said = part(dialled, ".amplified").text_content()
    assert said == texts.DIALS["amplified"].format(factor=factor, change=f"{np.abs(change).mean():.1f}")


def test_the_dials_change_neither_the_current_face_nor_its_attention(dialled):
    before = dialled.evaluate("[sagan.face.image, JSON.stringify(sagan.face.layers)]")
    turn(dialled, "16x16", 2)
    assert dialled.evaluate("[sagan.face.image, JSON.stringify(sagan.face.layers)]") == before


def test_off_and_learned_are_one_press_and_another_face_keeps_the_dials(dialled, sampler):
    for layer in LAYERS:
        part(dialled, f'[data-dial="{layer}"] .off').click()
    dialled.wait_for_function(
        "document.querySelector('#dials-view .amplified').textContent.includes(': 0.0 of')"
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
