"""The Training tab in a real browser: each moment against numpy, from the film and the history."""

import copy
import math
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
import torch
from randomness import draw, fresh_rng
from safetensors.torch import load_file
from screen import (
    HeldRequests,
    anywhere,
    described,
    enlarged,
    fast_forward,
    fits_the_width,
    gamma_text,
    in_space,
    opening,
    painted,
    until,
)

from sagan import checkpoint
from sagan.classes import Classes
from sagan.film import Film, shoot
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler
from sagan.ui import texts
from sagan.ui.training import curves, joined, moments, points

CONFIG = SaganConfig(g_width=8, d_width=8, z_dim=16)
STEPS = (0, 16, 24, 32, 40)
BATCH = 64
LAYERS = ("16x16", "32x32")
CHOSEN = 1  # the page opens with the face of seed 1, which is in the film


def random_generator() -> Generator:
    generator = Generator(CONFIG, spectral=False).eval()
    with torch.no_grad():
        for layer in generator.attention.values():
            layer.gamma.normal_()
            layer.query.weight *= 10
    return generator


def measured(rng: np.random.Generator) -> dict[str, float]:
    return {
        "face_fd": float(rng.uniform(50, 400)),
        "floor_face_fd": float(rng.uniform(9, 40)),
        "unknown": 1.0,
    }


@pytest.fixture(scope="session")
def filmed(tmp_path_factory) -> Sampler:
    """A checkpoint with a film of other networks at each of five moments, and a history of 20 rows."""
    folder = tmp_path_factory.mktemp("filmed") / "model"
    generators = [random_generator() for _ in STEPS]
    earlier = zip(STEPS[:-1], generators, strict=False)
    film = Film(CONFIG, [shoot(g, s, s * BATCH, Classes()) for s, g in earlier])
    tensors = film.ending_with(STEPS[-1], STEPS[-1] * BATCH, generators[-1], Classes())
    rng = fresh_rng()
    history = [
        {"step": step, "images": step * BATCH, "d_loss": float(rng.normal()), "g_loss": float(rng.normal())}
        | {f"g_gamma_{layer}": float(rng.normal()) for layer in LAYERS}
        | (measured(rng) if step % 8 == 0 else {})
        for step in range(2, 42, 2)
    ]
    networks = generators[-1], Discriminator(CONFIG, spectral=False)
    checkpoint.save(folder, Classes(), *networks, history, "# Filmed", companions={checkpoint.FILM: tensors})
    return Sampler.load(folder)


@pytest.fixture(scope="module")
def filmed_address(filmed, serve_long) -> str:
    return serve_long(filmed)


def open_training(page) -> None:
    page.wait_for_selector("#attention-view [data-drawn]", state="attached")  # perhaps on another tab by now
    page.get_by_role("tab", name="Training", exact=True).click()
    page.wait_for_selector("#training-view [data-step]")


@pytest.fixture
def training(prepared, filmed_address):
    """The page with the Training tab open and its film loaded."""
    return prepared(filmed_address, open_training)


def scrub_to(page, moment: int) -> None:
    page.locator("#training-view input[type=range]").fill(str(moment))
    page.wait_for_selector(f'#training-view [data-step="{STEPS[moment]}"]')


def part(page, selector: str):
    return page.locator(f"#training-view {selector}")


def point_at(page, layer: str, x: float, y: float) -> None:
    box = part(page, f'figure[data-layer="{layer}"] .picture').bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def drawn(page, layer: str) -> dict[str, float]:
    data = part(page, f'figure[data-layer="{layer}"]').evaluate("figure => ({...figure.dataset})")
    return {name: float(data[name]) for name in ("query", "key", "weight", "entropy")}


def expected(moment: dict, face: int, layer: str, x: float, y: float) -> dict[str, float]:
    return described(*(moment[f"{layer}/{name}"][face] for name in "qk"), x, y)


def assert_faces_of(moment: dict, page) -> None:
    """The eight faces on screen are those of this moment."""
    for canvas, face in zip(part(page, ".strip canvas").all(), moment["faces"], strict=True):
        opaque = np.full((64, 64, 1), 255, np.uint8)
        wanted = enlarged(page, np.concatenate([face, opaque], 2), 128)
        np.testing.assert_allclose(painted(canvas).astype(int), wanted, atol=1)


# What is shown


def test_the_tab_opens_with_the_finished_faces(training, filmed):
    assert part(training, ".moment").text_content() == "Step 40 · 2,560 images shown"
    assert part(training, "input[type=range]").input_value() == "4"
    assert_faces_of(filmed.film.moments[-1], training)


@pytest.mark.one_page
def test_scrubbing_shows_faces_and_attention_of_each_moment_without_a_request(training, filmed):
    x, y = anywhere()
    point_at(training, "32x32", x, y)
    requests = []
    training.on("request", lambda request: requests.append(request.url))
    for at in draw.sample(range(5), 5):
        scrub_to(training, at)
        moment = filmed.film.moments[at]
        assert_faces_of(moment, training)
        for layer in LAYERS:
            assert drawn(training, layer) == pytest.approx(expected(moment, CHOSEN, layer, x, y), rel=1e-6)
            gamma = gamma_text(moment[f"{layer}/gamma"].item())
            assert part(training, f'figure[data-layer="{layer}"] .gamma').text_content() == gamma
    assert requests == []


@pytest.mark.one_page
def test_hover_moves_the_query_in_both_layers_without_a_request(training, filmed):
    scrub_to(training, 2)
    requests = []
    training.on("request", lambda request: requests.append(request.url))
    for hovered in LAYERS:
        x, y = anywhere()
        point_at(training, hovered, x, y)
        for layer in LAYERS:
            row = expected(filmed.film.moments[2], CHOSEN, layer, x, y)
            assert drawn(training, layer) == pytest.approx(row, rel=1e-6)
    assert requests == []


def test_a_pinned_point_is_followed_through_the_training(training, filmed):
    point_at(training, "16x16", 0.28, 0.28)  # inside a cell: a click is told in whole pixels
    training.mouse.down()
    training.mouse.up()
    point_at(training, "16x16", 0.72, 0.72)  # without a pin it would stay here
    training.mouse.move(5, 5)
    for at in (3, 1):
        scrub_to(training, at)
        for layer in LAYERS:
            row = expected(filmed.film.moments[at], CHOSEN, layer, 0.28, 0.28)
            assert drawn(training, layer) == pytest.approx(row, rel=1e-6)


def test_a_chosen_face_shows_its_attention_and_becomes_the_current_one(training, filmed):
    scrub_to(training, 1)
    point_at(training, "16x16", 0.3, 0.6)
    part(training, ".strip button").nth(5).click()
    point_at(training, "16x16", 0.31, 0.61)
    for layer in LAYERS:
        row = expected(filmed.film.moments[1], 5, layer, 0.31, 0.61)
        assert drawn(training, layer) == pytest.approx(row, rel=1e-6)
    training.wait_for_selector('#face-view [data-seed="5"][data-t="0"]')
    pressed = part(training, ".strip button").evaluate_all("all => all.map((b) => b.ariaPressed)")
    assert pressed == ["true" if i == 5 else "false" for i in range(8)]
    # A face on the way from another one is none of these.
    training.evaluate("sagan.emit('face', { ...sagan.face, seed_a: 2, t: 0.5 })")
    assert part(training, '.strip [aria-pressed="true"]').get_attribute("data-name") == "Seed 5"


def test_the_last_moment_is_the_checkpoint_itself(filmed):
    for seed, face in enumerate(filmed.film.moments[-1]["faces"]):
        z = torch.randn(16, generator=torch.Generator().manual_seed(seed)).numpy()
        assert np.abs(filmed.faces(z[None])[0].astype(int) - face).max() <= 3  # weights were stored in fp16


# The slider


@pytest.mark.one_page
def test_keys_move_the_slider_by_one_moment_and_it_says_where_it_is(training):
    slider = part(training, "input[type=range]")
    scrub_to(training, 4)
    slider.focus()
    for key, at in (("ArrowLeft", 3), ("ArrowLeft", 2), ("ArrowRight", 3), ("Home", 0), ("End", 4)):
        slider.press(key)
        training.wait_for_selector(f'#training-view [data-step="{STEPS[at]}"]')
        text = f"Step {STEPS[at]} · {STEPS[at] * BATCH:,} images shown"
        assert slider.get_attribute("aria-valuetext") == text == part(training, ".moment").text_content()


def test_play_runs_from_the_start_to_the_end_and_pause_stops_it_without_a_request(training):
    requests = []
    training.on("request", lambda request: requests.append(request.url))
    play = part(training, ".play")
    play.click()
    assert play.text_content() == "Pause"
    training.wait_for_selector('#training-view [data-step="16"]')
    play.click()
    stopped = part(training, "[data-step]").get_attribute("data-step")
    assert play.text_content() == "Play" and int(stopped) < 40
    training.wait_for_timeout(2000)  # longer than a moment lasts
    assert part(training, "[data-step]").get_attribute("data-step") == stopped
    play.click()
    training.wait_for_selector('#training-view [data-step="40"]')
    training.wait_for_function("document.querySelector('#training-view .play').textContent === 'Play'")
    assert requests == []


@pytest.mark.one_page
@pytest.mark.parametrize("how", ["slider", "curve"])
def test_who_chooses_a_moment_while_the_film_plays_stops_it_there(training, how):
    play = part(training, ".play")
    play.click()
    assert play.text_content() == texts.TRAINING["pause"]
    if how == "slider":
        part(training, "input[type=range]").fill("0")
    else:
        part(training, '[data-chart="losses"] .plot').click(position={"x": 2, "y": 20})
    assert play.text_content() == texts.TRAINING["play"]
    assert part(training, "[data-step]").get_attribute("data-step") == "0"


@pytest.mark.one_page
def test_playing_stops_when_another_tab_is_opened(training):
    part(training, ".play").click()
    training.get_by_role("tab", name="Faces", exact=True).click()
    training.wait_for_function("document.querySelector('#training-view .play').textContent === 'Play'")
    stopped = part(training, "[data-step]").get_attribute("data-step")
    assert int(stopped) < STEPS[-1]  # at its end it stops anyway


# The curves


@pytest.mark.one_page
@pytest.mark.parametrize("at", [1, 3, 4])
def test_values_at_the_cursor_are_the_newest_rows_of_the_history(training, filmed, at):
    scrub_to(training, at)
    columns = {
        "losses": ["d_loss", "g_loss"],
        "gammas": [f"g_gamma_{layer}" for layer in LAYERS],
        "metric": ["face_fd", "floor_face_fd"],
    }
    for chart, names in columns.items():
        shown = part(training, f'[data-chart="{chart}"] .lines b').all_text_contents()
        for name, text in zip(names, shown, strict=True):
            rows = [row for row in filmed.history if row["step"] <= STEPS[at] and name in row]
            assert float(text.replace("−", "-")) == pytest.approx(rows[-1][name], abs=0.001, rel=0.005)
        label = part(training, f'[data-chart="{chart}"] .plot').get_attribute("aria-label")
        assert all(text in label for text in shown)


@pytest.mark.one_page
def test_before_the_first_row_there_is_no_value(training):
    scrub_to(training, 0)
    assert set(part(training, ".lines b").all_text_contents()) == {"–"}
    assert part(training, ".dot:visible").count() == 0


def on_the_axis(images: float) -> float:
    """Where so many images stand on the axis of a film that ends with the last step, in percent."""
    return 100 * math.log2(1 + images / 1000) / math.log2(1 + STEPS[-1] * BATCH / 1000)


@pytest.mark.one_page
@pytest.mark.parametrize("at", [1, 3])
def test_the_cursor_stands_at_the_moment_and_the_dots_on_the_curves(training, filmed, at):
    scrub_to(training, at)
    for chart in part(training, "[data-chart]").all():
        cursor = chart.locator(".cursor")
        ends = [float(cursor.get_attribute(end)) for end in ("x1", "x2")]
        assert ends == pytest.approx([on_the_axis(STEPS[at] * BATCH)] * 2)
        paths = chart.locator(".curves path").evaluate_all("all => all.map((p) => p.getAttribute('d'))")
        dots = chart.locator(".dot").evaluate_all("all => all.map(({ style }) => [style.left, style.top])")
        assert len(paths) == len(dots) == 2
        for d, dot in zip(paths, dots, strict=True):
            corners = [[float(x) for x in pair.split()] for pair in d.removeprefix("M").split("L")]
            newest = max(corner for corner in corners if corner[0] <= ends[0] + 0.01)
            assert [float(share.removesuffix("%")) for share in dot] == pytest.approx(newest, abs=0.01)


@pytest.mark.one_page
def test_the_axis_says_how_many_images_were_shown(training):
    ticks = part(training, '[data-chart="losses"] .images span')
    assert ticks.all_text_contents() == ["0", "1K", "2.56K"]
    places = ticks.evaluate_all("all => all.map(({ style }) => parseFloat(style.left))")
    assert places == pytest.approx([on_the_axis(images) for images in (0, 1000, 2560)], abs=0.01)


@pytest.mark.one_page
def test_a_curve_passes_through_the_rows_of_the_history(training, filmed):
    d = part(training, '[data-chart="losses"] .curves path').first.get_attribute("d")
    seen = np.array([pair.split() for pair in d.removeprefix("M").split("L")], float)
    rows = [row for row in filmed.history if "d_loss" in row]
    x = np.log2(1 + np.array([row["images"] for row in rows]) / 1000)
    np.testing.assert_allclose(seen[:, 0], 100 * x / x[-1], atol=0.01)
    every = [row[name] for row in rows for name in ("d_loss", "g_loss")]
    y = (np.array([row["d_loss"] for row in rows]) - min(every)) / (max(every) - min(every))
    np.testing.assert_allclose(seen[:, 1], 95 - 90 * y, atol=0.01)


@pytest.mark.one_page
def test_the_few_points_of_a_metric_are_marked_and_those_of_other_curves_are_not(training):
    d = part(training, '[data-chart="metric"] .curves path').first.get_attribute("d")
    marked = part(training, '[data-chart="metric"] .points').get_attribute("d")
    assert marked.split("h0")[:-1] == [f"M{corner}" for corner in d.removeprefix("M").split("L")]
    assert part(training, '[data-chart="losses"] .points').get_attribute("d") == ""


@pytest.mark.one_page
def test_a_press_on_a_curve_goes_to_the_nearest_moment(training):
    plot = part(training, '[data-chart="gammas"] .plot')
    scrub_to(training, 4)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    place = math.log2(1 + 24 * BATCH / 1000) / math.log2(1 + 40 * BATCH / 1000)
    training.mouse.click(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
    training.wait_for_selector('#training-view [data-step="24"]')


@contextmanager
def on_a_phone(browser, address: str) -> Iterator:
    """The Training tab under fingers, with a curve in the middle of the screen."""
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    context.set_default_timeout(120_000)  # nothing of the page is in this context's cache
    with closing(context), opening(context) as open_page:
        page = open_page(f"{address}?tab=training", 390)
        page.wait_for_selector("#training-view [data-step]")
        plot = part(page, '[data-chart="losses"] .plot')
        plot.evaluate("plot => plot.scrollIntoView({ block: 'center' })")
        yield page, plot


def swipe(page, plot, across: float, up: float) -> None:
    """Draw a finger over a curve, from its middle, so many pixels."""
    fingers, box = page.context.new_cdp_session(page), plot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def tell(kind: str, *points: dict[str, float]) -> None:
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    tell("touchStart", {"x": x, "y": y})
    for share in range(1, 11):
        tell("touchMove", {"x": x + share * across / 10, "y": y - share * up / 10})
        page.wait_for_timeout(20)
    tell("touchEnd")


def test_on_a_curve_a_finger_scrolls_up_and_down_and_moves_the_film_sideways(browser, filmed_address):
    with on_a_phone(browser, filmed_address) as (page, plot):
        for up in (150, -150):
            before = page.evaluate("scrollY")
            swipe(page, plot, 4, up)
            page.wait_for_function("before => Math.abs(scrollY - before) > 100", arg=before)
            assert page.locator(f'#training-view [data-step="{STEPS[-1]}"]').count() == 1
        swipe(page, plot, 5 - plot.bounding_box()["width"] / 2, 4)
        page.wait_for_selector(f'#training-view [data-step="{STEPS[0]}"]')


def test_a_swipe_that_scrolls_stops_no_film(browser, filmed_address):
    with on_a_phone(browser, filmed_address) as (page, plot):
        part(page, ".play").evaluate("play => play.click()")
        before = page.evaluate("scrollY")
        swipe(page, plot, 4, 150)
        page.wait_for_function("before => scrollY - before > 100", arg=before)
        page.wait_for_selector(f'#training-view [data-step="{STEPS[-1]}"]')


def test_a_tap_on_a_curve_goes_to_the_nearest_moment(browser, filmed_address):
    with on_a_phone(browser, filmed_address) as (page, plot):
        box = plot.bounding_box()
        page.touchscreen.tap(box["x"] + 3, box["y"] + box["height"] / 2)
        page.wait_for_selector(f'#training-view [data-step="{STEPS[0]}"]')


def test_long_histories_are_averaged_over_equal_stretches_of_the_axis():
    rng = fresh_rng()
    history = [{"step": i, "images": 640 * i, "d_loss": float(rng.normal())} for i in range(1, 5001)]
    x = np.log2(1 + np.array([row["images"] for row in history]) / 1000)
    shown = points(history, "d_loss")
    assert 100 < len(shown) <= 300
    width, first = (x[-1] - x[0]) / 300, x[0]
    wanted = []
    for i in range(300):
        inside = [
            row
            for row, at in zip(history, x, strict=True)
            if first + i * width <= at and (at < first + (i + 1) * width or i == 299)
        ]
        if inside:
            wanted.append([np.mean([row[name] for row in inside]) for name in ("images", "d_loss")])
    np.testing.assert_allclose(shown, wanted)  # no row is on an edge, where rounding could move it
    assert shown[0] == (640, history[0]["d_loss"])  # where rows are rare, they stay as they are


def test_gaps_other_columns_and_numbers_that_are_none_are_left_out():
    history = [
        {"step": 1, "images": 10, "d_loss": 1.0, "odd": 5.0},
        {"step": 2, "images": 20, "d_loss": math.nan},
        {"step": 3, "d_loss": 3.0},
        {"step": 4, "images": 30, "d_loss": 2.0, "face_fd": math.inf, "g_gamma_16x16": 0.5},
    ]
    assert points(history, "d_loss") == [(10, 1.0), (30, 2.0)]
    charts = curves(history, ("16x16", "32x32"))
    assert [chart["id"] for chart in charts] == ["losses"]  # a single point is no curve
    assert [line["points"] for line in charts[0]["lines"]] == [points(history, "d_loss")]
    assert curves([], ("16x16",)) == [] and curves([{"step": 1}], ()) == []
    assert moments(history) == [{"step": step, "images": 10 * i} for i, step in ((1, 1), (2, 2), (3, 4))]


def test_the_metric_of_a_run_that_measured_itself_has_its_own_name():
    history = [{"step": i, "images": 10 * i, "frechet_distance": 9.5 - i} for i in (1, 2)]
    (chart,) = curves(history, ())
    assert chart["title"] == "Fréchet distance of features, lower is better"
    assert chart["lines"] == [{"name": "generated", "points": [(10, 8.5), (20, 7.5)]}]
    (chart,) = curves([row | {"face_fd": 80.0, "floor_frechet_distance": 4.0} for row in history], ())
    assert chart["title"] == "Fréchet distance of faces, lower is better"
    assert chart["lines"] == [{"name": "generated", "points": [(10, 80.0), (20, 80.0)]}]


def test_a_metric_stands_over_its_floor_which_alone_is_no_chart():
    history = [{"step": i, "images": 10 * i, "floor_fid": 5.0} for i in (1, 2)]
    assert curves(history, ()) == [] == curves([*history, history[1] | {"fid": 29.0}], ())
    (chart,) = curves([row | {"fid": 30.0 - row["step"]} for row in history], ())
    assert chart["title"] == "FID, lower is better"
    assert chart["lines"] == [
        {"name": "generated", "points": [(10, 29.0), (20, 28.0)]},
        {"name": "real", "points": [(10, 5.0), (20, 5.0)]},
    ]


# Without a film, and on other screens


def test_a_history_without_a_film_shows_its_curves_and_scrubs_through_its_rows(new_page, serve, filmed):
    networks = random_generator(), Discriminator(CONFIG, spectral=False)
    sampler = Sampler(*networks)
    sampler.history = filmed.history
    page = new_page(serve(sampler))
    open_training(page)
    assert part(page, ".strip").count() == 0 and part(page, ".picture").count() == 0
    assert part(page, "[data-step]").get_attribute("data-step") == "40"
    part(page, "input[type=range]").fill("3")
    page.wait_for_selector('#training-view [data-step="8"]')
    shown = part(page, '[data-chart="losses"] .lines b').first.text_content()
    assert float(shown.replace("−", "-")) == pytest.approx(filmed.history[3]["d_loss"], abs=0.001, rel=0.005)
    assert "no film" in part(page, ".help").text_content()


def test_without_film_and_history_there_is_no_such_tab(page):
    assert page.get_by_role("tab", name="Training").count() == 0


def test_moments_of_another_run_are_marked_and_explained(new_page, serve, filmed, tmp_path):
    folder = shutil.copytree(filmed.source, tmp_path / "model")
    tensors = load_file(folder / checkpoint.FILM)
    tensors["other_run"][:2] = 1
    checkpoint.add_companion(folder, checkpoint.FILM, tensors, checkpoint.generator_hash(folder), {})
    page = new_page(serve(Sampler.load(folder)))
    open_training(page)
    for at, mark in enumerate(["*", "*", "", "", ""]):
        scrub_to(page, at)
        assert part(page, ".moment").text_content().endswith(f"images shown{mark}")
    assert part(page, ".help").text_content().count("* Another, shorter run") == 1


@pytest.mark.one_page
def test_what_a_place_receives_is_not_told_of_a_film(training):
    assert training.locator("#training-view .received").count() > 0
    for direction in ("backward", "forward"):
        training.evaluate("direction => sagan.lab.set({direction})", direction)
        assert training.locator("#training-view .received:visible").count() == 0


@pytest.fixture
def with_labels(tmp_path) -> Sampler:
    """A checkpoint of three classes, without attention in the generator, and its film."""
    config = SaganConfig(g_width=8, d_width=8, z_dim=16, num_classes=3, g_attention=())
    networks = Generator(config, spectral=False).eval(), Discriminator(config, spectral=False)
    classes = Classes(("a", "b", "c"))
    film = {checkpoint.FILM: Film(config).ending_with(40, 40 * BATCH, networks[0], classes)}
    checkpoint.save(tmp_path / "model", classes, *networks, [], "", companions=film)
    return Sampler.load(tmp_path / "model")


def test_a_film_of_classes_without_attention_says_what_it_shows(new_page, serve, with_labels):
    page = new_page(serve(with_labels))
    page.wait_for_function("globalThis.sagan?.face")
    page.get_by_role("tab", name="Training", exact=True).click()
    page.wait_for_selector("#training-view [data-step]")
    assert part(page, ".help").text_content() == (
        "Always the same eight latents. Choose a face: it becomes the current one. "
        "The seeds go through the classes in turn."
    )
    labels = part(page, ".strip button").evaluate_all("all => all.map((button) => button.ariaLabel)")
    assert labels == [f"Face from seed {seed}" for seed in range(8)]
    chosen = part(page, '.strip [aria-pressed="true"]')
    for seed, label, shown in ((2, 2, 2), (4, 0, 2), (4, 1, 4)):  # of class 0, seed 4 is not the film's
        page.evaluate(
            "face => sagan.emit('face', {...sagan.face, ...face})", {"seed_a": seed, "label": label}
        )
        assert chosen.get_attribute("aria-label") == f"Face from seed {shown}"


def test_each_of_many_layers_has_a_line_of_its_own(new_page, serve, tmp_path):
    config = SaganConfig(image_size=128, g_width=8, d_width=8, z_dim=16, g_attention=(4, 8, 16, 32, 64))
    networks = Generator(config, spectral=False), Discriminator(config, spectral=False)
    gammas = {f"g_gamma_{side}x{side}": side / 100 for side in config.g_attention}
    history = [{"step": step, "images": step * BATCH} | gammas for step in (10, 20)]
    checkpoint.save(tmp_path / "model", Classes(), *networks, history, "")
    page = new_page(serve(Sampler.load(tmp_path / "model")))
    page.get_by_role("tab", name="Training", exact=True).click()
    page.wait_for_selector("#training-view [data-step]")
    looks = part(page, ".curves path").evaluate_all(
        "all => all.map((path) => getComputedStyle(path).stroke + getComputedStyle(path).strokeDasharray)"
    )
    assert len(looks) == len(set(looks)) == 5


def test_a_small_value_on_a_curve_does_not_look_like_none(new_page, serve, filmed):
    sampler = Sampler(filmed._generator, filmed._discriminator)
    gammas = {"g_gamma_16x16": -0.0003, "g_gamma_32x32": 0.0}
    sampler.history = [{"step": step, "images": step * BATCH} | gammas for step in (10, 20)]
    page = new_page(serve(sampler))
    open_training(page)
    assert part(page, ".lines b").all_text_contents() == ["−3e−4", "0"]
    assert [part(page, f".{end}").text_content() for end in ("high", "low")] == ["0", "−3e−4"]


def assert_room_on_a_tablet(page) -> None:
    """Every tab is in sight and no wider than the screen, and the layers stand in one row."""
    for name in ("Faces", "Walk", "Training", "Inside", "Lesson", "Attention"):
        tab = page.get_by_role("tab", name=name, exact=True)
        assert tab.is_visible(), name
        tab.click()
        page.wait_for_timeout(200)
        fits_the_width(page)
    pictures = page.locator("#attention-view figure:not([hidden]) .picture").all()
    assert len(pictures) == 3 and len({picture.bounding_box()["y"] for picture in pictures}) == 1
    # And whatever the figures of a point, what stands below them stays where it is.
    below = set()
    weak = "1.5 × uniform", ", 0.6 %", "1.4 · 1.4 · 1.3 · 1.2 ×"
    strong = "899.1 × uniform", ", > 99.9 %", "71 · 15 · 11 · 5.0 ×"
    for figures in (weak, strong):
        for name, text in zip(("best", "share", "next"), figures, strict=True):
            page.locator(f"#attention-view .{name}").evaluate_all(
                "(all, text) => { for (const dd of all) dd.textContent = text; }", text
            )
        below.add(page.locator("#attention-view .legend").bounding_box()["y"])
    assert len(below) == 1


@pytest.mark.parametrize("widths", [(744, 768), (1023, 820), (834, 930)])
def test_a_tablet_held_upright_shows_every_tab_and_the_layers_in_one_row(new_page, filmed_address, widths):
    page = new_page(filmed_address, width=widths[0], height=1180)
    page.wait_for_selector("#attention-view [data-drawn]")
    for width in widths:
        page.set_viewport_size({"width": width, "height": 1180})
        assert_room_on_a_tablet(page)


def test_what_is_said_while_the_film_loads_are_shares_of_it(new_page, filmed_address):
    page = new_page(filmed_address)
    page.wait_for_selector("#attention-view [data-drawn]")
    page.evaluate(
        """() => {
            const { fetch } = sagan.files;
            globalThis.shares = [];
            sagan.files.fetch = (file, say) => fetch(file, (share) => { shares.push(share); say(share); });
        }"""
    )
    open_training(page)
    shares = page.evaluate("shares")
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] == 1


def test_a_film_that_does_not_arrive_says_so_and_is_asked_for_again(new_page, filmed_address):
    page = new_page(filmed_address)
    page.wait_for_selector("#attention-view [data-drawn]")
    page.route("**/film.safetensors", lambda route: route.fulfill(body=b"not a film"))
    page.get_by_role("tab", name="Training", exact=True).click()
    page.wait_for_function("document.querySelector('#training-view .error').textContent.includes('again')")
    assert not part(page, ".moment").is_visible()  # nothing loads any more
    page.unroute("**/film.safetensors")
    page.get_by_role("tab", name="Faces", exact=True).click()
    open_training(page)
    assert part(page, ".error").text_content() == ""


LOST = 121_000  # ms; after them no answer is waited for any more


def come_back(page) -> None:
    """Open another tab and come back, as who reads that the film could not be loaded is told to."""
    for tab in (texts.FACES_TAB, texts.TRAINING_TAB):
        page.get_by_role("tab", name=tab, exact=True).click()


def holding(page, *patterns: str) -> list[HeldRequests]:
    """Open the tab, on a clock of the page's own, while its requests of each pattern are held."""
    page.wait_for_selector("#attention-view [data-drawn]")
    page.clock.install()
    held = [HeldRequests(page, pattern, views=True) for pattern in patterns]
    page.get_by_role("tab", name=texts.TRAINING_TAB, exact=True).click()
    return held


def test_a_film_that_takes_minutes_to_arrive_is_no_failure(new_page, filmed_address):
    page = new_page(filmed_address)
    (downloads,) = holding(page, "**/film.safetensors")
    downloads.wait_for(1)
    fast_forward(page, LOST)
    assert part(page, ".error").text_content() == ""
    assert part(page, ".moment").text_content() == texts.TRAINING["loading_first"]
    come_back(page)
    downloads.held[0].continue_()
    page.wait_for_selector("#training-view [data-step]")
    come_back(page)
    fast_forward(page, LOST)
    assert part(page, ".error").text_content() == "" and len(downloads.held) == 1


def test_before_the_film_is_there_nothing_plays_and_no_curve_can_be_pressed(new_page, filmed_address):
    page = new_page(filmed_address)
    (downloads,) = holding(page, "**/film.safetensors")
    downloads.wait_for(1)
    part(page, ".play").click()
    assert part(page, ".play").text_content() == texts.TRAINING["play"]
    part(page, '[data-chart="losses"] .plot').click()
    assert page.locator("#training-view [data-step]").count() == 0
    downloads.held[0].continue_()
    page.wait_for_selector("#training-view [data-step]")


SLOWLY = """async () => {
    const { fetch } = globalThis, shares = [];
    const stream = (signal) => new ReadableStream({
        start(control) {
            signal.addEventListener('abort', () => control.error(signal.reason));
            globalThis.send = (last) => { control.enqueue(new Uint8Array(2)); if (last) control.close(); };
        },
    });
    globalThis.fetch = async (_, { signal }) => new Response(stream(signal));
    globalThis.file = sagan.files.fetch({ url: '', size: 6 }, (share) => shares.push(share))
        .then((file) => [file.byteLength, ...shares], String);
    globalThis.fetch = fetch;
}"""


def test_a_file_of_which_something_comes_now_and_then_is_waited_for(page):
    page.clock.install()
    page.evaluate(SLOWLY)
    for last in (False, False, True):
        page.clock.run_for(1)
        fast_forward(page, page.evaluate("sagan.files.STALLED") - 1000)
        page.evaluate("async (last) => { send(last); await null; }", last)
    assert page.evaluate("file") == [6, 1 / 3, 2 / 3, 1]


def test_a_film_of_which_nothing_more_comes_is_given_up_and_can_be_asked_for_again(new_page, filmed_address):
    page = new_page(filmed_address)
    (downloads,) = holding(page, "**/film.safetensors")
    downloads.wait_for(1)
    fast_forward(page, page.evaluate("sagan.files.STALLED") + 1000)
    page.wait_for_selector("#training-view .error:not(:empty)")
    assert part(page, ".error").text_content() == texts.TRAINING["failed"]
    come_back(page)
    downloads.wait_for(2)
    downloads.held[1].continue_()
    page.wait_for_selector("#training-view [data-step]")
    assert part(page, ".error").text_content() == ""


def test_a_film_of_which_two_answers_tell_is_loaded_once(new_page, filmed_address):
    page = new_page(filmed_address)
    answers, downloads = holding(page, "**/run/predict*", "**/film.safetensors")
    answers.wait_for(1)
    fast_forward(page, LOST)
    assert part(page, ".error").text_content() == texts.TRAINING["failed"]
    assert not part(page, ".moment").is_visible()
    come_back(page)
    answers.wait_for(2)
    answers.held[0].continue_()
    downloads.wait_for(1)
    with page.expect_response(answers.pattern):
        answers.held[1].continue_()
    assert part(page, ".error").text_content() == "" and part(page, ".moment").is_visible()
    assert page.locator('#training-view [aria-busy="true"]').count() == 1
    for download in downloads.held:
        download.continue_()
    page.wait_for_selector("#training-view [data-step]")
    assert len(downloads.held) == 1


def test_pictures_and_charts_have_room_on_any_screen(new_page, filmed_address):
    page = new_page(filmed_address, width=390)
    open_training(page)
    for width in (390, 768, 900, 1020, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for part in ("figure[data-layer] .picture", ".plot"):
            for box in page.locator(f"#training-view {part}").all():
                assert box.bounding_box()["width"] >= 110, (width, part)


def test_the_film_of_classes_leaves_out_those_without_training_images(new_page, serve, with_labels):
    with_labels.classes = Classes(with_labels.classes.names, (0, 5, 9))
    page = new_page(serve(with_labels))
    page.wait_for_function("globalThis.sagan?.face")
    page.get_by_role("tab", name="Training", exact=True).click()
    page.wait_for_selector("#training-view [data-step]")
    for seed, label in ((4, 1), (3, 2)):
        part(page, ".strip button").nth(seed).click()
        page.wait_for_function(
            "([seed, label]) => sagan.face.seed_a === seed && sagan.face.label === label", arg=[seed, label]
        )
        assert (
            part(page, '.strip [aria-pressed="true"]').get_attribute("aria-label") == f"Face from seed {seed}"
        )
    page.evaluate("face => sagan.emit('face', {...sagan.face, ...face})", {"seed_a": 2, "label": 2})
    assert part(page, '.strip [aria-pressed="true"]').get_attribute("aria-label") == "Face from seed 3"


def test_a_loss_with_the_gradient_penalty_says_so(new_page, serve, filmed):
    sampler = copy.copy(filmed)
    sampler.history = [row | {"penalty": 0.1} for row in sampler.history]
    page = new_page(serve(sampler))
    page.get_by_role("tab", name="Training", exact=True).click()
    said = part(page, ".notes").text_content()
    assert said.startswith(texts.TRAINING["penalty"]) and texts.TRAINING["hinge"] not in said


@pytest.mark.parametrize("with_penalty", [False, True])
def test_a_loss_with_the_penalty_of_consistency_says_so(new_page, serve, filmed, with_penalty):
    sampler = Sampler(filmed._generator, filmed._discriminator)
    rows = [{"step": step, "images": 4 * step, "d_loss": 1.0, "g_loss": 0.5} for step in (1, 2)]
    sampler.history = [row | ({"inconsistency": 0.1} if with_penalty else {}) for row in rows]
    page = new_page(serve(sampler))
    page.get_by_role("tab", name=texts.TRAINING_TAB, exact=True).click()
    said = page.locator("#training-view .notes")
    said.wait_for()
    assert (texts.TRAINING["inconsistency"] in said.text_content()) is with_penalty
    assert said.text_content().startswith(texts.TRAINING["hinge"])


def test_nothing_is_said_of_curves_that_are_not_there_yet(new_page, serve, filmed):
    sampler = copy.copy(filmed)
    sampler.history = [
        {"step": 1, "images": 4, "d_loss": 1.0, "g_loss": 0.5, "inconsistency": 0.1, "fid": 9.0}
    ]
    page = new_page(serve(sampler))
    page.get_by_role("tab", name=texts.TRAINING_TAB, exact=True).click()
    part(page, ".help").wait_for()
    assert not part(page, ".notes").count()


@pytest.mark.parametrize("column", ["fid", "face_fd"])
def test_what_fid_is_stands_below_its_curve(new_page, serve, filmed, column):
    sampler = Sampler(filmed._generator, filmed._discriminator)
    sampler.history = [{"step": step, "images": 4 * step, column: 9.0 / step} for step in (1, 2)]
    page = new_page(serve(sampler))
    page.get_by_role("tab", name=texts.TRAINING_TAB, exact=True).click()
    page.locator("#training-view .charts").wait_for()
    said = page.locator("#training-view .notes").all_text_contents()
    assert said == ([texts.TRAINING["fid"]] if column == "fid" else [])


def rates(*runs: tuple[int, float]) -> list[dict[str, float]]:
    """A history of runs, each (rows, rate): its rate falls from there to nearly nothing."""
    falling = [rate * (count - i) / count for count, rate in runs for i in range(count)]
    return [
        {"step": i, "images": 64 * i, "d_loss": 1.0, "g_loss": 0.5, "g_lr": rate}
        for i, rate in enumerate(falling)
    ]


def test_a_run_joins_the_one_before_where_the_rate_rises():
    counts = [draw.randrange(4, 30) for _ in range(4)]
    history = rates(*((count, draw.uniform(1e-4, 1.4e-4)) for count in counts))
    assert joined(history) == [64 * (sum(counts[:i]) - 1) for i in (1, 2, 3)]
    assert joined([row | {"g_lr": 1e-4} for row in history]) == []
    assert joined([{name: value for name, value in row.items() if name != "g_lr"} for row in history]) == []


@pytest.mark.parametrize("count", [1, 3])
def test_where_runs_join_every_chart_has_a_line_and_the_page_says_what_it_is(new_page, serve, filmed, count):
    sampler = Sampler(filmed._generator, filmed._discriminator)
    sampler.history = rates(*[(20, 1e-4)] * count)
    page = new_page(serve(sampler))
    page.get_by_role("tab", name=texts.TRAINING_TAB, exact=True).click()
    part(page, ".curves path[d]").first.wait_for(state="attached")
    last = math.log2(1 + sampler.history[-1]["images"] / 1000)
    wanted = [100 * math.log2(1 + images / 1000) / last for images in joined(sampler.history)]
    lines = part(page, ".grid .joint").evaluate_all(
        "lines => lines.map((line) => Number(line.getAttribute('x1')))"
    )
    assert len(wanted) == count - 1 and lines == pytest.approx(wanted)
    assert (texts.TRAINING["joined"] in part(page, ".notes").text_content()) is (count > 1)


def test_an_open_page_keeps_its_film_when_the_run_saves_anew(new_page, serve, filmed, tmp_path):
    folder = shutil.copytree(filmed.source, tmp_path / "model")
    page = new_page(serve(Sampler.load(folder)))
    later, networks = random_generator(), Discriminator(CONFIG, spectral=False)
    film = {checkpoint.FILM: Film(CONFIG).ending_with(99, 99 * BATCH, later, Classes())}
    checkpoint.save(folder, Classes(), later, networks, [], "# Later", companions=film)
    assert Sampler.load(folder).film.steps == [99]
    open_training(page)
    assert part(page, ".moment").text_content() == "Step 40 · 2,560 images shown"
    assert_faces_of(filmed.film.moments[-1], page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_screen_never_scrolls_sideways(new_page, filmed_address, theme):
    page = new_page(f"{filmed_address}?__theme={theme}", width=390, height=844)
    open_training(page)
    fits_the_width(page)
    widths = part(page, ".picture").evaluate_all("all => all.map((p) => p.getBoundingClientRect().width)")
    assert min(widths) > 300
    part(page, ".charts").scroll_into_view_if_needed()  # the slider stays at hand
    assert part(page, "input[type=range]").evaluate("s => s.getBoundingClientRect().top") >= 0


def test_nothing_jumps_when_the_film_arrives(new_page, filmed_address):
    page = new_page(filmed_address)
    page.wait_for_selector("#attention-view [data-drawn]")
    page.route("**/film.safetensors", lambda route: None)  # never answered
    page.get_by_role("tab", name="Training", exact=True).click()
    page.wait_for_function("document.querySelector('#training-view .plot').clientWidth > 0")
    where = """() => ['.strip', '.transport', '.picture', '.charts', '.help'].map((part) => {
        const box = document.querySelector(`#training-view ${part}`).getBoundingClientRect();
        return [box.x, box.y, box.width, box.height];
    })"""
    before = page.evaluate(where)
    page.unroute("**/film.safetensors")
    page.reload()
    open_training(page)
    assert page.evaluate(where) == before


@pytest.mark.parametrize("framed", [False, True])
def test_on_a_phone_the_slider_stays_in_sight_above_the_pictures(new_page, filmed_address, framed):
    if framed:
        window, page = in_space(new_page, filmed_address, 390, 844)
    else:
        window = page = new_page(filmed_address, width=390, height=844)
    open_training(page)
    window.wait_for_timeout(1000)  # a frame has grown
    window.mouse.move(100, 400)
    window.mouse.wheel(0, 1000)

    def stays():
        assert window.evaluate("scrollY") == 1000
        assert part(page, ".transport").bounding_box()["y"] == pytest.approx(0, abs=1)

    until(window, stays)
