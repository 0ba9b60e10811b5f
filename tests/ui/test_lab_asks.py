"""What the lab asks Python for: the discriminator, averages, numbers, files. And large type, and axe-core."""

import copy
import math
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from randomness import draw
from screen import HeldRequests, fits_the_width, gamma_text, painted, translate, two_frames

from sagan import average_maps, checkpoint, heatmaps, latents
from sagan.classes import Classes
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler
from sagan.ui import save, texts
from sagan.ui.attention import score_sentence
from sagan.ui.current import CurrentFace, describe
from sagan.ui.numbers import computed

G_LAYERS, D_LAYERS = ("16x16", "32x32"), ("8x8", "4x4")
LAB = "#attention-view"


def switch(page, name: str, value: str = "") -> None:
    selector = f'input[value="{value}"]' if value else "input"
    page.locator(f'{LAB} [data-name="{name}"] {selector}').check(force=True)
    two_frames(page)


def rough(times: float) -> str:
    return f"{times:.1f}" if times < 9.95 else f"{times:,.0f}"


def figure(page, panel: str):
    return page.locator(f'{LAB} figure[data-layer="{panel}"]')


def drawn(page, panel: str, averaged: bool = False) -> np.ndarray:
    part = ".querySelector('.mean')" if averaged else ""
    return np.array(figure(page, panel).evaluate(f"figure => [...figure{part}.weights]"))


def point_at(page, panel: str, x: float, y: float) -> None:
    """Move the mouse to the middle of a pixel of the face."""
    figure(page, panel).locator(".picture").scroll_into_view_if_needed()
    box = figure(page, panel).locator(".picture").bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    two_frames(page)


def pin(page, *places: tuple[int, int]) -> None:
    for x, y in places:
        assert page.evaluate("([x, y]) => sagan.lab.pin(x, y)", [x, y])
    two_frames(page)


def somewhere() -> tuple[int, int]:
    return draw.randrange(64), draw.randrange(64)


def softmax(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    logits = q.astype(np.float64) @ k.astype(np.float64).T
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def position(x: int, y: int, side: int) -> int:
    return y * side // 64 * side + x * side // 64


def face_of(sampler, seed: int) -> np.ndarray:
    return sampler.faces(latents.from_seed(seed, sampler.config.z_dim)[None])[0]


# The discriminator


def wait_for_discriminator(page) -> None:
    page.wait_for_function(
        """() => [...document.querySelectorAll('#attention-view figure:not([hidden])')].every(
            (figure) => figure.dataset.layer.startsWith('discriminator') && figure.weights)"""
    )


def test_the_discriminators_attention_to_the_same_face_is_fetched_when_asked_for(page, sampler):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    switch(page, "network", "discriminator")
    wait_for_discriminator(page)
    assert len(requests) == 1
    for direction in ("forward", "backward"):
        switch(page, "direction", direction)
        x, y = somewhere()
        point_at(page, "discriminator 8x8", (x + 0.5) / 64, (y + 0.5) / 64)
        face = face_of(sampler, page.evaluate("sagan.face.seed_a"))
        for layer, vectors in sampler.discriminator_queries_keys(face).items():
            maps, at = softmax(*vectors), position(x, y, int(layer.split("x")[0]))
            wanted = maps[:, at] if direction == "backward" else maps[at]
            np.testing.assert_allclose(drawn(page, f"discriminator {layer}"), wanted, rtol=0, atol=1e-6)
            gamma = gamma_text(sampler.discriminator_gammas[layer])
            assert figure(page, f"discriminator {layer}").locator(".gamma").text_content() == gamma
    assert len(requests) == 1
    score = f"{sampler.score(face[None])[0]:.2f}".replace("-", "−")
    assert page.locator(f"{LAB} .status").text_content() == texts.LAB["score"].format(score=score)


@pytest.mark.parametrize("known", [True, False])
def test_beside_a_score_stands_what_others_had_when_training_ended(new_page, serve, sampler, known):
    model = copy.copy(sampler)
    rows = [{"step": step, "d_real": -0.3 + step, "d_fake": -0.756 - step} for step in (5, 0)]
    model.history = rows if known else [{"step": 1, "d_loss": 1.0, "d_real": 0.2}]
    page = new_page(f"{serve(model)}?network=discriminator&seed=5")
    page.wait_for_function("document.querySelector('#attention-view .status')?.textContent")
    score = f"{sampler.score(face_of(sampler, 5)[None])[0]:.2f}".replace("-", "−")
    said = texts.LAB["score"].format(score=score)
    if known:
        said += " " + texts.LAB["score_known"].format(real="−0.30", fake="−0.76")
    assert page.locator(f"{LAB} .status").text_content() == said


@pytest.mark.parametrize(("share", "kind"), [(0.4, "score_known_changed"), (0, "score_known")])
def test_scores_of_augmented_pictures_are_called_that(share, kind):
    earlier = {"d_real": 1.0, "d_fake": -1.0, "augment": 0.4 - share}
    said = score_sentence([earlier, {"d_real": 0.25, "d_fake": -0.5, "augment": share}])
    assert said.endswith(texts.LAB[kind].format(real="0.25", fake="−0.50"))


@pytest.mark.one_page
def test_another_face_is_shown_to_the_discriminator_too(page, sampler):
    switch(page, "network", "discriminator")
    wait_for_discriminator(page)
    seed = draw.randrange(2**32)
    page.locator("#seed input[type=number]").fill(str(seed))
    page.wait_for_selector(f'{LAB} [data-seed="{seed}"]')
    wait_for_discriminator(page)
    score = f"{sampler.score(face_of(sampler, seed)[None])[0]:.2f}".replace("-", "−")
    page.wait_for_function(
        "said => document.querySelector('#attention-view .status').textContent === said",
        arg=texts.LAB["score"].format(score=score),
    )
    point_at(page, "discriminator 4x4", 0.6, 0.3)
    q, k = sampler.discriminator_queries_keys(face_of(sampler, seed))["4x4"]
    wanted = softmax(q, k)[position(38, 19, 4)]
    np.testing.assert_allclose(drawn(page, "discriminator 4x4"), wanted, rtol=0, atol=1e-6)
    switch(page, "network", "generator")
    assert page.locator(f"{LAB} .status").text_content() == ""
    assert page.locator(f"{LAB} figure:not([hidden])").evaluate_all(
        "all => all.map((f) => f.dataset.layer)"
    ) == [
        *G_LAYERS,
        "combined",
    ]


@pytest.mark.one_page
def test_pins_show_the_maps_of_the_network_that_is_chosen(page, sampler):
    x, y = somewhere()
    pin(page, (x, y))
    switch(page, "network", "discriminator")
    wait_for_discriminator(page)
    page.wait_for_function("document.querySelectorAll('#attention-view .card .field').length === 2")
    two_frames(page)
    maps = page.locator(f"{LAB} .card .field").evaluate_all("all => all.map(({weights}) => [...weights])")
    face = face_of(sampler, page.evaluate("sagan.face.seed_a"))
    for layer, weights in zip(D_LAYERS, maps, strict=True):
        q, k = sampler.discriminator_queries_keys(face)[layer]
        wanted = softmax(q, k)[position(x, y, int(layer.split("x")[0]))]
        np.testing.assert_allclose(weights, wanted, rtol=0, atol=1e-6)


def heights_until_the_discriminator_has_looked(page, parts: str) -> set[float]:
    """Make a new face in turn of the discriminator, and see how high these parts are all the while."""
    wait_for_discriminator(page)
    two_frames(page)
    page.evaluate(
        """parts => {
            globalThis.heights = new Set();
            const look = () => {
                for (const part of document.querySelectorAll(parts)) heights.add(part.offsetHeight);
                requestAnimationFrame(look);
            };
            look();
        }""",
        parts,
    )
    requests, before = HeldRequests(page, views=True), page.evaluate("sagan.face.seed_a")
    page.locator("#dice").click()
    requests.answer(0)
    page.wait_for_function("before => sagan.face.seed_a !== before", arg=before)
    requests.wait_for(2)
    two_frames(page)
    assert page.locator(f"{LAB} figure:not([hidden]) .best").first.text_content() == "–"
    requests.answer(1)
    wait_for_discriminator(page)
    two_frames(page)
    return set(page.evaluate("[...heights]"))


@pytest.mark.parametrize("width", [390, 760, 1280])
def test_pins_keep_their_room_while_the_discriminator_looks_at_another_face(new_page, address, width):
    page = new_page(f"{address}?network=discriminator&pins=10-10_30-30_50-50", width=width)
    page.wait_for_selector(f"{LAB} .card .says")
    assert len(heights_until_the_discriminator_has_looked(page, f"{LAB} .pins")) == 1
    says = page.locator(f"{LAB} .card .says").all_text_contents()
    assert len(says) == 3 * len(D_LAYERS) and not any("–" in said for said in says)


def test_average_maps_keep_their_room_while_the_discriminator_looks_at_another_face(
    new_page, averaged_address
):
    page = new_page(f"{averaged_address}?network=discriminator")
    page.wait_for_selector(f"{LAB} [data-drawn]")
    switch(page, "average")
    wait_for_averages(page)
    assert len(heights_until_the_discriminator_has_looked(page, f"{LAB} .layers")) == 1
    assert page.locator(f"{LAB} .mean:visible").count() == len(D_LAYERS) + 1


def test_maps_of_pins_that_are_to_come_are_not_those_of_the_face_before(page):
    pin(page, somewhere())
    switch(page, "network", "discriminator")
    wait_for_discriminator(page)
    requests = HeldRequests(page, views=True)
    page.locator("#dice").click()
    requests.answer(0)
    requests.wait_for(2)
    two_frames(page)
    for field in page.locator(f"{LAB} .card .field, {LAB} figure:not([hidden]) .field").all():
        assert not painted(field).any()
    shown = page.locator(f"{LAB} figure:not([hidden])")
    assert shown.locator(".query:visible, .key:visible").count() == 0
    assert set(shown.locator(".best, .share").all_text_contents()) == {"–", ""}
    assert page.locator(f"{LAB} .status").text_content() == ""  # the score is of the face before, too
    requests.answer(1)
    wait_for_discriminator(page)
    two_frames(page)
    for field in page.locator(f"{LAB} .card .field").all():
        assert painted(field).any()


def test_what_the_discriminator_saw_in_a_face_is_not_shown_of_the_next_one(page, sampler):
    requests, before = HeldRequests(page, views=True), page.evaluate("sagan.face.seed_a")
    switch(page, "network", "discriminator")
    requests.wait_for(1)
    assert page.locator(f"{LAB} .most button:visible").evaluate_all("all => all.every((b) => b.disabled)")
    saved(page, "view")  # of what is there
    page.locator("#dice").click()
    requests.answer(1)
    page.wait_for_function("before => sagan.face.seed_a !== before", arg=before)
    requests.answer(0)
    requests.wait_for(3)  # it is asked again
    two_frames(page)
    assert page.locator(f"{LAB} .status").text_content() == ""
    for said in (".best", ".gamma"):
        assert figure(page, "discriminator 8x8").locator(said).text_content() == "–"
    requests.answer(2)
    wait_for_discriminator(page)
    score = sampler.score(face_of(sampler, page.evaluate("sagan.face.seed_a"))[None])[0]
    said = texts.LAB["score"].format(score=f"{score:.2f}".replace("-", "−"))
    assert page.locator(f"{LAB} .status").text_content() == said


@pytest.mark.one_page
def test_another_network_has_its_own_layer_in_focus(page):
    focused = page.locator(f"{LAB} figure.in-focus")
    assert focused.get_attribute("data-layer") == "32x32"
    figure(page, "16x16").locator(".focus").click()
    switch(page, "network", "discriminator")
    assert focused.get_attribute("data-layer") == "discriminator 8x8"  # the finest
    assert focused.locator(".focus").get_attribute("aria-pressed") == "true"
    assert "layer=" not in page.evaluate("sagan.link(sagan.face)")  # that network has none of that name


# The first payload


def test_the_first_payload_of_a_face_stays_below_150_kb():
    config = SaganConfig()
    sampler = Sampler(Generator(config, spectral=False), Discriminator(config, spectral=False))
    assert len(describe(sampler, CurrentFace(draw.randrange(2**32), 0)).encode()) <= 150_000


# This face or every face?


@pytest.fixture(scope="session")
def averaged(tmp_path_factory) -> Sampler:
    """A checkpoint with the average maps of three faces, on another scale than most: the file says which."""
    config = SaganConfig(g_width=8, d_width=8, z_dim=16)
    folder = tmp_path_factory.mktemp("averaged") / "model"
    networks = Generator(config, spectral=False).eval(), Discriminator(config, spectral=False)
    for network in networks:
        for layer in network.attention.values():
            layer.gamma.data.normal_()
            layer.query.weight.data *= 8
    checkpoint.save(folder, Classes(), *networks, [], "# Averaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(average_maps, "LOW", -7)
        average_maps.write(folder, 3)
    return Sampler.load(folder)


@pytest.fixture(scope="module")
def averaged_address(averaged, serve_long) -> str:
    return serve_long(averaged)


def wait_for_averages(page) -> None:
    page.wait_for_selector(f"{LAB} figure:not([hidden]) .mean:not([hidden])")
    two_frames(page)


def test_the_average_map_of_the_pointed_place_stands_beside_the_faces_own(
    new_page, averaged, averaged_address
):
    page = new_page(averaged_address)
    page.wait_for_selector(f"{LAB} [data-drawn]")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    switch(page, "average")
    wait_for_averages(page)
    assert len([url for url in requests if url.endswith(".safetensors")]) == 1
    assert page.locator(f"{LAB} .status").text_content() == ""  # nothing loads any more
    page.locator(f'{LAB} [data-name="average"] input').uncheck(force=True)
    switch(page, "average")
    wait_for_averages(page)
    files = len(requests)
    assert len([url for url in requests if url.endswith(".safetensors")]) == 1
    wanted = {}
    for prefix, name in (("", "generator"), ("discriminator ", "discriminator")):
        sums: dict[str, np.ndarray] = {}
        for seed in range(3):
            z = latents.from_seed(seed, 16)
            vectors = (
                averaged.queries_keys(z)
                if name == "generator"
                else (averaged.discriminator_queries_keys(averaged.faces(z[None])[0]))
            )
            for layer, (q, k) in vectors.items():
                sums[layer] = sums.get(layer, 0) + softmax(q, k) / 3
        wanted |= {f"{prefix}{layer}": maps for layer, maps in sums.items()}
    for backward in (False, True):
        switch(page, "direction", "backward" if backward else "forward")
        x, y = somewhere()
        point_at(page, "16x16", (x + 0.5) / 64, (y + 0.5) / 64)
        for layer in G_LAYERS:
            maps, at = wanted[layer], position(x, y, int(layer.split("x")[0]))
            row = maps[:, at] if backward else maps[at]
            shown = drawn(page, layer, averaged=True)
            strong = row * len(row) > 1 / 60  # below it a code is 0
            np.testing.assert_allclose(shown[strong], row[strong], rtol=0.03)
            said = figure(page, layer).locator(".mean").text_content()
            assert "3 faces" in said and f"up to {rough(shown.max() * len(shown))} × uniform" in said
            below = figure(page, layer).locator(".entropy").bounding_box()["y"]  # the numbers of the face
            assert figure(page, layer).locator(".mean canvas").bounding_box()["y"] > below
        assert figure(page, "combined").locator(".mean").is_visible()
        marks = [figure(page, "16x16").locator(mark) for mark in (".mean .here", ".picture .query")]
        here, query = (mark.get_attribute("style") for mark in marks)
        assert here == query
    assert len(requests) == files
    switch(page, "network", "discriminator")
    wait_for_discriminator(page)
    wait_for_averages(page)
    maps = wanted["discriminator 8x8"]
    x, y = somewhere()
    point_at(page, "discriminator 8x8", (x + 0.5) / 64, (y + 0.5) / 64)
    np.testing.assert_allclose(
        drawn(page, "discriminator 8x8", averaged=True), maps[:, position(x, y, 8)], rtol=0.03
    )
    switch(page, "scale", "own")
    picture = np.asarray(Image.open(saved(page, "view").path()).convert("RGB"))
    assert picture[528:912, 24:408].max() > 150  # the average map is in it, too
    page.locator(f'{LAB} [data-name="average"] input').uncheck(force=True)
    two_frames(page)
    assert page.locator(f"{LAB} .mean:visible").count() == 0


def test_an_open_page_keeps_its_averages_when_they_are_gone_from_the_folder(
    new_page, serve, averaged, tmp_path
):
    folder = shutil.copytree(averaged.source, tmp_path / "model")
    page = new_page(serve(Sampler.load(folder)))
    page.wait_for_selector(f"{LAB} [data-drawn]")
    (folder / checkpoint.AVERAGE_MAPS).unlink()
    switch(page, "average")
    wait_for_averages(page)


@pytest.mark.one_page
def test_a_checkpoint_without_average_maps_says_so_in_a_sentence(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.locator(f'{LAB} [data-name="average"] input').click(force=True)
    assert page.locator(f"{LAB} .status").text_content() == texts.LAB["no_averages"]
    assert not page.locator(f'{LAB} [data-name="average"] input').is_checked()
    assert requests == []


def test_averages_that_do_not_arrive_are_asked_for_again(new_page, averaged_address):
    page = new_page(averaged_address)
    page.wait_for_selector(f"{LAB} [data-drawn]")
    page.route("**/average_maps.safetensors", lambda route: route.fulfill(body=b"no maps"))
    page.locator(f'{LAB} [data-name="average"] input').click(force=True)
    page.wait_for_selector(f"{LAB} p.error:not(:empty)")
    assert not page.locator(f'{LAB} [data-name="average"] input').is_checked()
    page.unroute("**/average_maps.safetensors")
    switch(page, "average")
    wait_for_averages(page)
    assert page.locator(f"{LAB} p.error").text_content() == ""


def test_what_failed_is_said_until_the_next_face_or_try(page, monkeypatch):
    def fails(*_):
        raise ValueError("no figure")

    error = page.locator(f"{LAB} p.error")
    for after in ("face", "try"):
        with monkeypatch.context() as broken:
            broken.setattr(save, "figure", fails)
            page.locator(f"{LAB} .save summary").click()
            page.locator(f'{LAB} [data-save="png"]').click()
            page.wait_for_selector(f"{LAB} p.error:not(:empty)")
        if after == "face":
            page.locator("#dice").click()
            page.wait_for_function(
                "text => document.querySelector(text).textContent === ''", arg=f"{LAB} p.error"
            )
        else:
            page.locator(f"{LAB} .save summary").click()
            with page.expect_download():
                page.locator(f'{LAB} [data-save="npz"]').click()
                assert error.text_content() == ""


@pytest.mark.one_page
def test_the_menu_closes_when_the_focus_leaves_it(page):
    page.locator(f"{LAB} .save summary").click()
    page.locator(f'{LAB} [data-save="npz"]').focus()
    assert page.locator(f"{LAB} .save").evaluate("menu => menu.open")
    page.locator("#dice").focus()
    assert not page.locator(f"{LAB} .save").evaluate("menu => menu.open")


@pytest.mark.one_page
def test_the_menu_closes_once_something_is_chosen_from_it_or_elsewhere(page):
    menu, summary = page.locator(f"{LAB} .save"), page.locator(f"{LAB} .save summary")
    saved(page, "view")
    assert not menu.evaluate("menu => menu.open")
    assert summary.evaluate("summary => summary === document.activeElement")
    summary.click()
    page.locator(f"{LAB} .caption").click()  # which takes no focus
    assert not menu.evaluate("menu => menu.open")


# The numbers


def open_numbers(page) -> None:
    page.locator("#numbers-view summary").click()
    page.locator("#numbers-view .content").scroll_into_view_if_needed()
    page.wait_for_selector("#numbers-view [data-shown]")


def wait_for_numbers(page, layer: str, x: int, y: int) -> None:
    page.locator("#numbers-view .content").scroll_into_view_if_needed()
    query = position(x, y, int(layer.split("x")[0]))
    page.wait_for_selector(f'#numbers-view [data-layer="{layer}"][data-query="{query}"]:not(.waiting)')


def numbers(page, selector: str) -> list[float]:
    cells = page.locator(f"#numbers-view {selector}").all_text_contents()
    return [float(text.replace("−", "-").split(" ")[0]) for text in cells]


@pytest.mark.one_page
def test_the_sums_stand_below_the_values_that_they_are_sums_of(page):
    ends = """cells => cells.map((cell) =>
        cell.getBoundingClientRect().right - parseFloat(getComputedStyle(cell).paddingRight))"""
    open_numbers(page)
    for layer in G_LAYERS:
        page.locator(f'#numbers-view input[value="{layer}"]').check(force=True)
        page.wait_for_selector(f'#numbers-view [data-layer="{layer}"]:not(.waiting)')
        values = page.locator('#numbers-view .keys tbody tr:last-child [data-part="values"] .vector span')
        for row in page.locator("#numbers-view .sum tr").all():
            sums = row.locator("td").evaluate_all(ends)
            assert len(sums) == 8 and sums == pytest.approx(values.evaluate_all(ends), abs=1)


@pytest.mark.one_page
def test_the_numbers_of_the_pinned_point_are_those_of_the_sampler(page, sampler):
    x, y = somewhere()
    pin(page, (x, y))
    open_numbers(page)
    for layer in G_LAYERS:
        page.locator(f'#numbers-view input[value="{layer}"]').check(force=True)
        wait_for_numbers(page, layer, x, y)
        side = int(layer.split("x")[0])
        z = latents.from_seed(page.evaluate("sagan.face.seed_a"), sampler.config.z_dim)
        q, k = (array.astype(np.float64) for array in sampler.queries_keys(z)[layer])
        query = position(x, y, side)
        weights = softmax(q, k)[query]
        best = np.argsort(-weights, kind="stable")[:5]
        near = {"abs": 0.0051}
        assert numbers(page, ".query .vector span") == pytest.approx(q[query], **near)
        assert numbers(page, '.keys td[data-part="k"] .vector span') == pytest.approx(k[best].ravel(), **near)
        logits = numbers(page, '.keys td[data-part="logits"]')
        assert logits == pytest.approx(k[best] @ q[query], **near)
        assert numbers(page, '.keys td[data-part="weights"]') == pytest.approx(weights[best], abs=6e-5)
        places = page.locator("#numbers-view .keys tbody td:first-child").all_text_contents()
        assert places == [f"column {at % side}, row {at // side}" for at in best]
        # What is summed and added agrees with itself and with the layer.
        made = sampler.computation(z, layer, query)
        for name in ("attended", "x", "y"):
            shown = numbers(page, f'.sum [data-part="{name}"] td')
            assert shown == pytest.approx(getattr(made, name)[:8], **near)
        products = numbers(page, '.sum [data-part="gamma"] td')
        assert products == pytest.approx(sampler.gammas[layer] * made.attended[:8], **near)
        length = np.linalg.norm(made.x)
        added = abs(made.gamma) * np.linalg.norm(made.attended) / length
        said = texts.NUMBERS["added"].format(times=f"{added:.2f}")
        assert page.locator("#numbers-view .added").text_content() == said
        sign, held = re.search(r"(> )?(\d+) %", page.locator("#numbers-view .rest").text_content()).groups()
        if sign:
            assert held == "99" and weights[best].sum() > 0.99499
        else:
            assert int(held) == pytest.approx(100 * weights[best].sum(), abs=0.501)


@pytest.mark.one_page
@pytest.mark.parametrize(
    ("weights", "held"),
    [([0.997, 1e-3, 5e-4, 4e-4, 3e-4], "> 99 %"), ([1 / 1024] * 5, "< 1 %"), ([6 / 4096] * 5, "1 %")],
)
def test_the_strongest_keys_never_hold_all_of_the_weight_or_none(page, sampler, monkeypatch, weights, held):
    computation, given = sampler.computation, np.float32(weights)
    monkeypatch.setattr(
        sampler, "computation", lambda *asked, **more: replace(computation(*asked, **more), weights=given)
    )
    pin(page, somewhere())
    open_numbers(page)
    page.wait_for_selector("#numbers-view [data-shown]:not(.waiting)")
    assert f"hold {held} of the weight" in page.locator("#numbers-view .rest").text_content()


@pytest.mark.one_page
def test_the_numbers_follow_pins_and_keys_but_not_the_mouse(page):
    open_numbers(page)
    first, second = (3, 60), (50, 9)
    pin(page, first)
    wait_for_numbers(page, "32x32", *first)
    pin(page, second)
    wait_for_numbers(page, "32x32", *second)
    page.evaluate("sagan.lab.clear()")
    page.locator(f'{LAB} figure[data-layer="32x32"] .picture').press("ArrowLeft")
    place = page.evaluate("sagan.lab.state.place")
    wait_for_numbers(page, "32x32", *place)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    point_at(page, "16x16", 0.9, 0.1)
    page.locator("#numbers-view .content").scroll_into_view_if_needed()
    page.wait_for_timeout(600)
    assert requests == []


@pytest.mark.one_page
def test_the_numbers_follow_the_face_and_the_pin_and_layer_that_are_chosen(page, sampler):
    open_numbers(page)
    first, second = (3, 60), (50, 9)
    pin(page, first, second)
    page.evaluate("sagan.lab.set({ chosen: sagan.lab.state.pins[0] })")
    wait_for_numbers(page, "32x32", *first)
    figure(page, "16x16").locator(".focus").click()
    wait_for_numbers(page, "16x16", *first)
    assert page.locator("#numbers-view input:checked").get_attribute("value") == "16x16"
    switch(page, "network", "discriminator")
    wait_for_numbers(page, "32x32", *first)  # that network has no numbers here
    page.locator('#numbers-view input[value="16x16"]').check(force=True)
    assert page.evaluate("sagan.lab.state.network") == "generator"
    wait_for_numbers(page, "16x16", *first)
    seed = draw.randrange(2**32)
    shown = page.locator("#numbers-view .content").get_attribute("data-shown")
    page.locator("#seed input[type=number]").fill(str(seed))
    page.wait_for_selector(f'#numbers-view .content:not([data-shown="{shown}"]):not(.waiting)')
    assert page.evaluate("sagan.face.seed_a") == seed
    made = sampler.computation(latents.from_seed(seed, 16), "16x16", position(*first, 16))
    assert numbers(page, '.sum [data-part="x"] td') == pytest.approx(made.x[:8], abs=0.0051)


def test_a_part_of_the_formula_and_its_numbers_light_up_together(page):
    open_numbers(page)

    def lit() -> set[str]:
        parts = page.locator("#numbers-view .lit").evaluate_all("all => all.map((e) => e.dataset.part)")
        return set(parts)

    for name in texts.NUMBERS["parts"]:
        button = page.locator(f'#numbers-view .formula [data-part="{name}"]')
        button.hover() if draw.random() < 0.5 else button.focus()
        assert lit() == {name}
        assert page.locator(f'#numbers-view .scroll .lit[data-part="{name}"]').count() >= 1
        assert page.locator("#numbers-view .explain").text_content() == texts.NUMBERS["parts"][name]
    page.locator('#numbers-view td[data-part="values"]').first.hover()
    assert lit() == {"values"}
    assert page.locator('#numbers-view .formula .lit[data-part="values"]').count() == 1


def test_on_a_phone_the_numbers_of_a_part_come_into_sight(new_page, address):
    page = new_page(address, width=390, height=844)
    page.wait_for_selector(f"{LAB} [data-drawn]")
    open_numbers(page)
    scroll = page.locator("#numbers-view .scroll").bounding_box()
    for name in ("values", "weights", "logits", "k", "y", "q"):
        page.locator(f'#numbers-view .formula [data-part="{name}"]').click()
        lit = page.locator("#numbers-view .scroll :is(td, tr).lit").first.bounding_box()
        assert scroll["x"] - 1 <= lit["x"] < scroll["x"] + scroll["width"] - 20, name


def test_computations_keep_to_the_class_and_to_eight_channels(with_classes):
    face = CurrentFace(draw.randrange(2**32), 0, label=draw.randrange(3))
    answer = computed(with_classes, face, "16x16", 77)
    z = latents.from_seed(face.seed_a, 16)
    made = with_classes.computation(z, "16x16", 77, face.label)
    assert answer["values"] == made.values[:, :8].tolist() and answer["y"] == made.y[:8].tolist()
    assert answer["width"] == len(made.y) >= 8 and answer["q"] == made.q.tolist()


# Files


def saved(page, kind: str):
    page.locator(f"{LAB} .save summary").click()
    with page.expect_download() as download:
        page.locator(f'{LAB} [data-save="{kind}"]').click()
    return download.value


@pytest.mark.one_page
def test_the_view_is_saved_as_a_picture_without_a_request(page):
    pin(page, (20, 20), (40, 50))
    page.locator("#opacity input[type=number]").fill("0")
    page.wait_for_function("() => getComputedStyle(document.querySelector('.field')).opacity === '0'")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    download = saved(page, "view")
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == []
    picture = Image.open(download.path())
    seed = page.evaluate("sagan.face.seed_a")
    assert download.suggested_filename == f"sagan-attention-{seed}.png"
    assert picture.width > 3 * 384 and picture.height > 384
    face = painted(figure(page, "16x16").locator(".face"))[..., :3]

    def panel(picture: Image.Image) -> np.ndarray:
        return np.asarray(picture.convert("RGB"))[72 : 72 + 384, 24 : 24 + 384]

    same = (np.abs(panel(picture).astype(int) - face) <= 1).all(2)
    assert 0.9 < same.mean() < 1  # all but the markers
    page.locator("#opacity input[type=number]").fill("1")
    page.wait_for_function("() => getComputedStyle(document.querySelector('.field')).opacity === '1'")
    heat = panel(Image.open(saved(page, "view").path()))
    assert (heat == panel(picture)).all(2).mean() < 0.2


@pytest.mark.one_page
def test_a_saved_view_shows_the_pins_their_maps_and_what_the_colours_mean(page):
    places = [(20, 20), (40, 50)]
    pin(page, *places)
    page.locator("#opacity input[type=number]").fill("1")
    page.wait_for_function("() => getComputedStyle(document.querySelector('.field')).opacity === '1'")
    picture = np.asarray(Image.open(saved(page, "view").path()).convert("RGB")).astype(int)
    for (x, y), colour in zip(places, heatmaps.PIN_COLOURS, strict=False):
        fill = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        for panel in range(3):
            left, top = 24 + panel * 408 + (x + 0.5) * 6, 72 + (y + 0.5) * 6
            dot = picture[int(top) - 8, int(left)]  # above its number
            assert np.abs(dot - fill).max() <= 1
    wide = (picture.shape[1] - 24) // 5 - 24
    for i, card in enumerate(page.locator(f"{LAB} .card").all()):
        x = 24 + i * (wide + 24)
        for j in range(card.locator(".field").count()):
            top = 72 + 384 + 3 * 24 + 24 + 10 + j * (wide + 24)
            seen = picture[top : top + wide, x : x + wide].mean((0, 1))
            np.testing.assert_allclose(seen, over_the_face(card, j).mean((0, 1)), atol=6)
    bar = picture[-2 * 24 - 10, 24 : 24 + 320]
    table = heatmaps.colour(np.linspace(0, 1, 320))[:, :3]
    np.testing.assert_allclose(bar, table, atol=4)


def over_the_face(card, i: int) -> np.ndarray:
    """What a card shows in its picture `i`: the map over the face, (192, 192, 3)."""
    face, field = (painted(card.locator(part).nth(i)).astype(float) for part in (".face", ".field"))
    share = field[..., 3:] / 255
    return field[..., :3] * share + face[..., :3] * (1 - share)


def test_a_view_is_saved_by_words_that_the_browser_translated(page):
    translate(page.locator(f"{LAB} .save"), "penguin")
    page.locator(f"{LAB} .save summary").click()
    with page.expect_download():
        page.locator(f'{LAB} [data-save="view"] font font').click()


@pytest.mark.one_page
def test_the_raw_maps_of_the_face_are_saved(page, sampler):
    seed = page.evaluate("sagan.face.seed_a")
    saved(page, "npz")
    download = saved(page, "npz")  # as often as somebody likes
    assert download.suggested_filename == f"sagan-maps-{seed}.npz"
    wanted = sampler.raw_maps(latents.from_seed(seed, sampler.config.z_dim))
    with np.load(download.path()) as arrays:
        assert int(arrays["about/seed_a"]) == seed
        for name, array in wanted.items():
            np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.one_page
def test_the_score_stands_again_after_a_file(page):
    status = page.locator(f"{LAB} .status")
    switch(page, "network", "discriminator")
    page.wait_for_function("(element) => element.textContent !== ''", arg=status.element_handle())
    score = status.text_content()
    saved(page, "npz")
    assert status.text_content() == score


@pytest.mark.one_page
def test_a_figure_shows_the_pins_of_the_layer_in_focus(page, sampler, monkeypatch):
    drawn_with = []

    def attention_figure(*arguments, **options):
        drawn_with.append((arguments, options))
        return heatmaps_figure(*arguments, **options)

    heatmaps_figure = heatmaps.attention_figure
    monkeypatch.setattr(heatmaps, "attention_figure", attention_figure)
    places = [(5, 9), (60, 33), (31, 63)]
    pin(page, *places)
    page.evaluate("sagan.lab.unpin(sagan.lab.state.pins[0])")
    figure(page, "16x16").locator(".focus").click()
    switch(page, "direction", "backward")
    png = Image.open(saved(page, "png").path())
    assert png.format == "PNG" and png.width > 1000
    ((face, pins, maps, colours), options) = drawn_with[0]
    seed = page.evaluate("sagan.face.seed_a")
    np.testing.assert_array_equal(face, face_of(sampler, seed))
    np.testing.assert_allclose(pins, [((x + 0.5) / 64, (y + 0.5) / 64) for x, y in places[1:]])
    assert list(colours) == list(heatmaps.PIN_COLOURS[1:3])  # pins keep theirs
    q, k = sampler.queries_keys(latents.from_seed(seed, sampler.config.z_dim))["16x16"]
    for weights, (x, y) in zip(maps, places[1:], strict=True):
        np.testing.assert_allclose(weights, softmax(q, k)[:, position(x, y, 16)], atol=1e-6)
    assert "16x16, who looks at the point" in options["unit"] and options["shared"]
    svg = saved(page, "svg")
    assert ElementTree.parse(svg.path()).getroot().tag.endswith("svg")
    page.evaluate("sagan.lab.clear()")
    switch(page, "scale", "own")
    point_at(page, "32x32", 0.3, 0.8)
    assert Image.open(saved(page, "png").path()).format == "PNG"  # of the point that is lit
    ((_, (lit,), _, _), options) = drawn_with[-1]
    assert lit == pytest.approx((0.3, 0.8), abs=1 / 64) and not options["shared"]


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_figure_of_all_layers_combined_is_weighted_by_gamma(sampler, network):
    face, (x, y) = CurrentFace(draw.randrange(2**32), 0), somewhere()
    z = latents.from_seed(face.seed_a, sampler.config.z_dim)
    if network == "generator":
        vectors, gammas = sampler.queries_keys(z), sampler.gammas
    else:
        vectors = sampler.discriminator_queries_keys(sampler.faces(z[None])[0])
        gammas = sampler.discriminator_gammas
    maps = {layer: softmax(*pair) for layer, pair in vectors.items()}
    whole = save.combined(maps, gammas)
    side = max(int(layer.split("x")[0]) for layer in maps)
    wanted = np.zeros((side, side))
    total = sum(abs(gamma) for gamma in gammas.values())
    for layer, attention in maps.items():
        coarse = int(layer.split("x")[0])
        row = attention[position(x, y, coarse)]
        for line in range(side):
            for column in range(side):
                weight = row[line * coarse // side * coarse + column * coarse // side]
                share = abs(gammas[layer]) / total if total else 1 / len(maps)
                wanted[line, column] += share * weight * (coarse / side) ** 2
    np.testing.assert_allclose(whole[position(x, y, side)], wanted.ravel(), atol=1e-12)
    np.testing.assert_allclose(whole.sum(1), 1)


def test_a_figure_with_no_gamma_at_all_takes_equal_shares():
    maps = {"4x4": np.full((16, 16), 1 / 16), "2x2": np.eye(4)}
    whole = save.combined(maps, {"4x4": 0.0, "2x2": 0.0})
    assert whole[0, 0] == pytest.approx(1 / 32 + 1 / 8) and whole[0, 15] == pytest.approx(1 / 32)


# Large type, other screens, and everybody


@pytest.mark.one_page
def test_projector_mode_shows_the_lab_alone_and_large(page):
    before = figure(page, "16x16").locator(".picture").bounding_box()["width"]
    size = "figure => parseFloat(getComputedStyle(figure.querySelector('dd')).fontSize)"
    small = figure(page, "16x16").evaluate(size)
    others = ":is(#header-view, #header-view h1, #face-view, #seed, #psi, #tabs [role=tab], footer):visible"
    assert page.locator(others).count() > 5
    projector = page.locator(f"{LAB} .projector")
    projector.click()
    page.wait_for_function(
        "before => document.querySelector('#attention-view .picture').clientWidth > before", arg=before
    )
    assert figure(page, "16x16").evaluate(size) > 1.3 * small
    assert page.locator(others).count() == 0
    assert page.locator("#dice").is_visible()
    fits_the_width(page)
    page.wait_for_timeout(500)  # the browser's full screen
    button = page.locator("#dice").bounding_box()
    for picture in page.locator(f"{LAB} figure:not([hidden]) .picture").all():
        assert picture.bounding_box()["y"] >= button["y"] + button["height"] - 1
    point_at(page, "32x32", 0.4, 0.4)
    page.keyboard.press("Escape")
    page.wait_for_selector("#header-view h1")
    two_frames(page)
    assert projector.get_attribute("aria-pressed") == "false"
    assert figure(page, "16x16").locator(".picture").bounding_box()["width"] == pytest.approx(before)


@pytest.mark.one_page
@pytest.mark.parametrize("full", [True, False])
def test_the_projector_is_left_with_the_full_screen_or_without_one_by_escape(page, full):
    projector = page.locator(f"{LAB} .projector")
    if not full:
        page.evaluate("document.documentElement.requestFullscreen = null")  # as on some phones
    projector.click()
    assert projector.text_content() == texts.LAB["projector_off"]
    if full:
        page.wait_for_function("document.fullscreenElement !== null")
        page.evaluate("document.exitFullscreen()")  # as browsers do it themselves
    else:
        page.keyboard.press("Escape")
        page.evaluate("delete document.documentElement.requestFullscreen")
    page.wait_for_selector("body:not(.projector)")
    assert projector.get_attribute("aria-pressed") == "false"
    assert projector.text_content() == texts.LAB["projector"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(new_page, address, theme):
    page = new_page(f"{address}?__theme={theme}")
    page.wait_for_selector(f"{LAB} [data-drawn]")
    pin(page, (20, 20), (40, 50))
    open_numbers(page)
    page.locator("#dials-view summary").click()
    page.locator("#dials-view .content").scroll_into_view_if_needed()
    page.wait_for_selector("#dials-view [data-shown]")
    switch(page, "network", "discriminator")
    wait_for_discriminator(page)
    for waiting in (False, True):  # what is being made anew stays readable
        page.evaluate(
            """waiting => document.querySelectorAll('#attention-view .lab, #tabs details .content')
                .forEach((part) => part.classList.toggle('waiting', waiting))""",
            waiting,
        )
        found = Axe().run(page).response["violations"]
        assert [
            (finding["id"], [node["html"] for node in finding["nodes"]])
            for finding in found
            if finding["impact"] in ("serious", "critical")
        ] == []


def test_a_narrow_screen_never_scrolls_sideways_with_everything_open(new_page, address):
    page = new_page(address, width=390, height=844)
    page.wait_for_selector(f"{LAB} [data-drawn]")
    pin(page, (1, 1), (20, 20), (40, 50), (63, 0), (9, 63))
    open_numbers(page)
    page.locator("#dials-view summary").click()
    page.locator("#dials-view .content").scroll_into_view_if_needed()
    page.wait_for_selector("#dials-view [data-shown]")
    page.locator(f"{LAB} .save summary").click()
    fits_the_width(page)


@pytest.mark.parametrize(
    "layers", [{"g_attention": (16,)}, {"d_attention": ()}, {"g_attention": (8, 16, 32)}]
)
def test_models_with_other_layers_have_a_lab_too(new_page, serve, layers):
    config = SaganConfig(g_width=8, d_width=8, z_dim=16, **layers)
    networks = Generator(config, spectral=False), Discriminator(config, spectral=False)
    page = new_page(serve(Sampler(*networks)))
    page.wait_for_selector(f"{LAB} [data-drawn]")
    names = [f"{side}x{side}" for side in config.g_attention]
    shown = page.locator(f"{LAB} figure:not([hidden])").evaluate_all("all => all.map((f) => f.dataset.layer)")
    assert shown == names + (["combined"] if len(names) > 1 else [])
    switches = page.locator(f'{LAB} [data-name="network"]').count()
    assert switches == (1 if config.d_attention else 0)
    for name in shown:
        weights = drawn(page, name)
        assert weights.sum() == pytest.approx(1) and math.isqrt(len(weights)) ** 2 == len(weights)


def test_the_table_of_a_narrow_layer_says_that_it_shows_every_channel(new_page, serve):
    for width, said in ((1, "every channel"), (8, "first 8 channels")):
        config = SaganConfig(g_width=width, d_width=8, z_dim=16, g_attention=(16,))
        networks = Generator(config, spectral=False).eval(), Discriminator(config, spectral=False)
        page = new_page(serve(Sampler(*networks)))
        page.wait_for_selector("#attention-view [data-drawn]")
        page.locator("#numbers-view summary").click()
        page.wait_for_function("document.querySelector('#numbers-view .keys tbody td')?.textContent")
        assert page.locator("#numbers-view .first").text_content() == said
