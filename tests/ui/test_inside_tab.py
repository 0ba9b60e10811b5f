"""The Inside tab in a real browser: blocks against forward hooks, spectral norm against numpy's SVD."""

import asyncio
import base64
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from randomness import draw, fresh_rng
from screen import fits_the_width, painted

from sagan import checkpoint, latents, spectra
from sagan.classes import Classes
from sagan.export import plain
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler
from sagan.ui import build_app, inside, spectrum, texts, work
from sagan.ui.current import CurrentFace

CONFIG = SaganConfig(g_width=4, d_width=4, z_dim=16)
NETWORKS = ("generator", "discriminator")
START = "generator/32x32"  # the block that the tab opens with
WAIT = 60_000  # ms: two cores may be busy


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Sampler:
    """A checkpoint as a run writes it, with the singular values of its weights before normalisation."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    networks = Generator(CONFIG), Discriminator(CONFIG)
    with torch.no_grad():
        for network in networks:
            for parameter in network.parameters():
                parameter.mul_(draw.uniform(1.5, 20))
            for layer in network.attention.values():
                layer.gamma.normal_()
    companions = {checkpoint.SPECTRA: spectra.measure(*networks)}
    checkpoint.save(folder, Classes(), *map(plain, networks), [], "# Trained", companions=companions)
    return Sampler.load(folder)


@pytest.fixture(scope="module")
def trained_address(trained, serve_long) -> str:
    return serve_long(trained)


def modules(sampler: Sampler) -> dict[str, torch.nn.Module]:
    """Every layer of a sampler's plain networks by the name that the page gives it."""
    return {
        f"{name}/{inner}": module
        for name, network in zip(NETWORKS, (sampler._generator, sampler._discriminator), strict=True)
        for inner, module in network.named_modules()
    }


def matrix(sampler: Sampler, layer: str) -> np.ndarray:
    """The weight of a layer with a row for each output, float64."""
    module = modules(sampler)[layer]
    weight = module.weight.double().numpy()
    weight = weight.swapaxes(0, 1) if isinstance(module, torch.nn.ConvTranspose2d) else weight
    return weight.reshape(len(weight), -1)


def singular_values(sampler: Sampler, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Before and after normalisation: the first from the file of the run, the second from an SVD."""
    return sampler.spectra[layer]["before"], np.linalg.svd(matrix(sampler, layer), compute_uv=False)


def outputs(generator: Generator, discriminator: Discriminator) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of what every block of both networks puts out, (C, H, W), in the order data meets them."""
    config = generator.config
    label = torch.zeros(1, dtype=torch.long) if config.num_classes else None
    with torch.inference_mode():
        image, made = generator(torch.zeros(1, config.z_dim), label, extras="activations")
        _, judged = discriminator(image, label, extras="activations")
    return {
        network: {block: tuple(output.shape[1:]) for block, output in blocks.items()}
        for network, blocks in zip(NETWORKS, (made, judged), strict=True)
    }


def kind_of(block: str) -> str:
    """What a block is by its name: "16x16", "attention 16x16", "image" or "score"."""
    word = block.split()[0]
    return word if word in ("attention", "image", "score") else "convolution"


# Without a browser


@pytest.mark.parametrize(
    "config",
    [
        SaganConfig(g_width=2, d_width=3, z_dim=8),
        SaganConfig(image_size=32, g_width=2, d_width=2, z_dim=8, num_classes=3),
        SaganConfig(image_size=128, g_width=1, d_width=2, z_dim=8, d_attention=(32,), d_spectral_norm=False),
        SaganConfig(image_size=32, g_width=2, d_width=2, z_dim=8, g_attention=(), d_attention=()),
        SaganConfig(image_size=32, g_width=2, d_width=2, z_dim=8, g_residual=(8, 16, 16), d_residual=(4,)),
    ],
    ids=["usual", "classes", "critic without spectral norm", "no attention", "residual"],
)
def test_the_diagram_is_what_a_forward_meets_and_names_every_normalised_layer(config):
    networks = Generator(config, spectral=False).eval(), Discriminator(config, spectral=False)
    sampler = Sampler(*networks)
    label = 0 if config.num_classes else None
    face = np.zeros((config.image_size, config.image_size, 3), np.uint8)
    asked = {
        "generator": sampler.activations(np.zeros(8, np.float32), label),
        "discriminator": sampler.discriminator_activations(face, label),
    }
    met = outputs(*networks)
    diagrams = [inside.network(sampler, name) for name in NETWORKS]
    for diagram in diagrams:
        shown = [(block["name"], block["kind"], block["shape"]) for block in diagram["blocks"]]
        assert shown == [(block, kind_of(block), shape) for block, shape in met[diagram["name"]].items()]
        assert [block["name"] for block in diagram["blocks"]] == list(asked[diagram["name"]])
        assert all("{" not in block["does"].replace("{gamma}", "") for block in diagram["blocks"])
        for block in diagram["blocks"]:
            said = "2 residual blocks each add" in block["does"], "a residual block adds" in block["does"]
            sides = config.g_residual if diagram["name"] == "generator" else config.d_residual
            count = sides.count(block["shape"][1]) if block["kind"] == "convolution" else 0
            assert said == (count == 2, count == 1)
            what = block["what"].replace("\N{NO-BREAK SPACE}", " ")
            after = {0: "", 1: " + residual", 2: " + 2 residual"}[count]
            assert what == texts.INSIDE["kinds"][block["kind"]] + after
    layers = spectrum.normalised_layers(diagrams)
    assert sorted(layer["name"] for layer in layers) == sorted(sampler.spectra)
    assert len({layer["title"] for layer in layers}) == len(layers)


def test_maps_are_sent_in_256_levels_between_their_own_ends():
    rng = fresh_rng()
    maps = (rng.normal(size=(5, 6, 7)) * 10.0 ** rng.integers(-5, 5, (5, 1, 1))).astype(np.float32)
    maps[3] = rng.normal()
    sent = inside.levels(maps)
    shown = np.frombuffer(base64.b64decode(sent["levels"]), np.uint8).reshape(maps.shape)
    for channel, levels, low, high in zip(maps, shown, sent["low"], sent["high"], strict=True):
        assert (low, high) == (channel.min(), channel.max())
        if low < high:
            exact = 255 * (channel.astype(np.float64) - low) / (high - low)
            assert np.abs(levels - exact).max() <= 0.5 + 1e-6
            assert (levels.min(), levels.max()) == (0, 255)
        else:
            assert not levels.any()


def test_what_cannot_be_answered_comes_as_a_sentence(with_classes, trained):
    answer = work.answered(5, inside.activations, with_classes, CurrentFace(1, 2, label=7))
    assert answer == {
        "number": 5,
        "error": "A class must be an integer from 0 to 2, but was 7.",
    }
    with pytest.raises(ValueError, match="There is no normalised layer 'generator/none'"):
        spectrum.describe(trained, "generator/none", 0)


def test_with_classes_the_maps_are_those_of_the_class(with_classes):
    face = CurrentFace(draw.randrange(2**32), 0, label=draw.randrange(3))
    sent = inside.activations(with_classes, face)["blocks"]
    for block, maps in with_classes.activations(face.latent(16), face.label).items():
        assert sent[f"generator/{block}"]["low"] == maps.min((1, 2)).tolist()


# In the browser


def part(page, selector: str):
    return page.locator(f"#inside-view {selector}")


def norm(page, selector: str):
    return page.locator(f"#spectrum-view {selector}")


def open_inside(page) -> None:
    page.get_by_role("tab", name="Inside", exact=True).click()
    page.wait_for_selector("#inside-view [data-block][data-seed]", timeout=WAIT)


@pytest.fixture
def tab(prepared, trained_address):
    """The page with the Inside tab open and the first face in it."""
    return prepared(trained_address, open_inside)


def choose(page, block: str) -> None:
    part(page, f'button[data-block="{block}"]').click()
    page.wait_for_selector(f'#inside-view [data-block="{block}"][data-seed]')


def spectrum_of(page, layer: str, sampler: Sampler) -> None:
    """Scroll to spectral norm and wait for a layer."""
    page.locator("#spectrum-view").scroll_into_view_if_needed()
    number = [entry["name"] for entry in all_layers(sampler)].index(layer)
    norm(page, "select").select_option(str(number))
    page.wait_for_selector(f'#spectrum-view [data-layer="{number}"]', timeout=WAIT)


def all_layers(sampler: Sampler) -> list[dict[str, str]]:
    return spectrum.normalised_layers([inside.network(sampler, name) for name in NETWORKS])


def hooked(sampler: Sampler, seed: int) -> dict[str, np.ndarray]:
    """What forward hooks see of a face in every block, (C, H, W); what follows a hook is done by numpy."""
    seen, layers = {}, modules(sampler)
    sides = sampler.config.sides
    watched = {f"generator/blocks.{i}": f"generator/{side}x{side}" for i, side in enumerate(sides)}
    watched |= {f"discriminator/blocks.{i}": f"discriminator/{s}x{s}" for i, s in enumerate(sides[::-1])}
    watched |= {f"generator/attention.{name}": f"generator/attention {name}" for name in sampler.layers}
    watched |= {
        f"discriminator/attention.{name}": f"discriminator/attention {name}"
        for name in sampler.discriminator_layers
    }
    watched |= {"generator/to_image": "generator/image", "discriminator/to_score": "discriminator/score"}

    def keep(layer: str):
        def hook(_module, _inputs, output):
            seen[watched[layer]] = output[0].double().numpy()  # a copy: what follows works in place

        return layers[layer].register_forward_hook(hook)

    handles = [keep(layer) for layer in watched]
    try:
        sampler.score(sampler.faces(latents.from_seed(seed, sampler.config.z_dim)[None]))
    finally:
        for handle in handles:
            handle.remove()
    seen["generator/image"] = np.tanh(seen["generator/image"])
    for side in sides:
        convolved = seen[f"discriminator/{side}x{side}"]
        seen[f"discriminator/{side}x{side}"] = np.where(convolved > 0, convolved, convolved / 10)
    return seen


def drawn(page) -> list[np.ndarray]:
    """The colours of every map that is shown, (H, W, 3)."""
    maps = page.locator("#inside-view .cells figure:not([hidden]) canvas").all()
    return [painted(canvas)[..., :3].astype(int) for canvas in maps]


def assert_drawn(page, output: np.ndarray) -> None:
    """The first 16 channels are on screen, each on its own scale, to one of 256 levels."""
    table = colormaps["inferno"](np.arange(256), bytes=True)[:, :3].astype(int)
    maps = drawn(page)
    assert len(maps) == min(16, len(output))
    captions = part(page, ".cells figure:not([hidden]) figcaption").all_text_contents()
    named = part(page, ".cells figure:not([hidden]) canvas").evaluate_all(
        "all => all.map((c) => c.ariaLabel)"
    )
    for i, (picture, channel, caption) in enumerate(zip(maps, output, captions, strict=False)):
        low, high = channel.min(), channel.max()
        level = np.round(255 * (channel - low) / ((high - low) or 1)).astype(int)
        near = [np.abs(picture - table[np.clip(level + d, 0, 255)]).max(-1) for d in (-1, 0, 1)]
        assert (np.min(near, 0) == 0).all()
        ends = caption.replace("all ", "").split(" to ")
        said = [float(word.replace("−", "-")) for word in ends]
        assert said == pytest.approx([low, high][: len(said)], rel=0.01, abs=6e-4)
        assert named[i] == texts.INSIDE["map"].format(number=i + 1, low=ends[0], high=ends[-1])


def test_all_blocks_are_buttons_with_their_shape_and_attention_is_marked(tab, trained):
    for name in NETWORKS:
        blocks = inside.blocks_of(trained, name)
        buttons = part(tab, f'[data-network="{name}"] button')
        assert buttons.count() == len(blocks)
        for text, block in zip(buttons.all_inner_texts(), blocks, strict=True):
            shape = "1 number" if block["name"] == "score" else " × ".join(map(str, block["shape"]))
            assert shape in text and ("◆" in text) == (block["kind"] == "attention")
        marked = part(tab, f'[data-network="{name}"] button.attention')
        assert marked.count() == 2
    pressed = part(tab, 'button[aria-pressed="true"]')
    assert pressed.evaluate_all("all => all.map((b) => b.dataset.block)") == [START]
    assert "128" not in part(tab, ".network").first.inner_text()
    assert "16 numbers" in part(tab, ".network").first.inner_text()


@pytest.mark.one_page
def test_the_maps_of_every_block_are_those_of_a_forward_hook(tab, trained):
    seen = hooked(trained, tab.evaluate("sagan.face.seed_a"))
    (score,) = seen.pop("discriminator/score").flatten()
    gammas = dict(zip(NETWORKS, (trained.gammas, trained.discriminator_gammas), strict=True))
    for block, output in seen.items():
        choose(tab, block)
        assert_drawn(tab, output)
        channels, side, _ = output.shape
        said, counted = (part(tab, name).text_content() for name in (".does", ".counted"))
        assert f"{side}×{side} places" in said
        assert f"first 16 of {channels} maps" in counted if channels > 16 else f"All {channels}" in counted
        network, _, layer = block.partition("/attention ")
        if layer:
            gamma = said.split("gamma, ")[1].split(",")[0].replace("−", "-")
            assert float(gamma) == pytest.approx(gammas[network][layer], rel=0.006, abs=6e-4)
    choose(tab, "discriminator/score")
    said = part(tab, ".score").text_content().removeprefix("Score ").replace("−", "-")
    assert float(said) == pytest.approx(score, rel=0.006, abs=6e-4)
    assert not part(tab, ".maps").is_visible()


def test_blocks_are_asked_for_once_a_face_and_not_before_the_tab_is_opened(
    new_page, trained_address, trained, monkeypatch
):
    asked = []
    activations = inside.activations
    monkeypatch.setattr(
        inside, "activations", lambda *arguments: asked.append(arguments[1].seed_a) or activations(*arguments)
    )
    page = new_page(trained_address)
    page.wait_for_selector("#attention-view [data-drawn]", timeout=WAIT)
    assert asked == []
    open_inside(page)
    first = page.evaluate("sagan.face.seed_a")
    for block in ("generator/8x8", "discriminator/attention 4x4"):
        choose(page, block)
    assert asked == [first]
    page.locator("#seed input[type=number]").fill("4294967295")
    page.locator("#seed input[type=number]").press("Enter")
    page.wait_for_selector('#inside-view [data-seed="4294967295"]', timeout=WAIT)
    assert asked == [first, 4294967295]
    assert_drawn(page, hooked(trained, 4294967295)["discriminator/attention 4x4"])  # the block stays


def test_a_tab_opened_before_the_first_face_is_there_shows_it_when_it_comes(
    new_page, trained_address, trained, monkeypatch
):
    go_on, face = threading.Event(), trained.face_and_queries_keys
    monkeypatch.setattr(
        trained, "face_and_queries_keys", lambda *arguments: go_on.wait(60) and face(*arguments)
    )
    page = new_page(trained_address)
    page.get_by_role("tab", name="Inside", exact=True).click()
    page.wait_for_selector("#inside-view .waiting", timeout=WAIT)
    assert "32x32" in part(page, ".name").text_content()  # what needs no face is there already
    page.wait_for_timeout(500)
    assert page.is_visible("#inside-view .waiting")  # until the face comes
    where = """() => ['.networks', '.does', '.cells', '.counted'].map((part) => {
        const box = document.querySelector(`#inside-view ${part}`).getBoundingClientRect();
        return [box.x, box.y, box.width, box.height];
    })"""
    before = page.evaluate(where)
    go_on.set()
    page.wait_for_selector("#inside-view [data-block][data-seed]", timeout=WAIT)
    assert page.evaluate(where) == before  # nothing jumps
    assert_drawn(page, hooked(trained, page.evaluate("sagan.face.seed_a"))[START])


@pytest.mark.one_page
def test_blocks_are_chosen_with_the_keyboard(tab):
    start = part(tab, f'button[data-block="{START}"]')
    start.focus()
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_selector('#inside-view [data-block="generator/attention 16x16"][data-seed]')
    pressed = part(tab, 'button[aria-pressed="true"]')
    assert pressed.evaluate_all("all => all.map((b) => b.dataset.block)") == ["generator/attention 16x16"]
    assert pressed.evaluate("b => b === document.activeElement")
    assert part(tab, ".name").text_content() == "Generator: attention 16x16"


def test_only_attention_blocks_open_in_attention(tab):
    button = part(tab, ".open")
    assert not button.is_visible()
    choose(tab, "discriminator/attention 8x8")
    assert button.is_visible()
    choose(tab, "discriminator/4x4")
    assert not button.is_visible()
    choose(tab, "generator/attention 16x16")
    button.click()
    tab.wait_for_selector('[role=tab][data-tab-id="attention"][aria-selected="true"]', timeout=WAIT)
    tab.locator("#attention-view .picture").first.wait_for()
    focused = tab.locator("#attention-view .in-focus").get_attribute("data-layer")
    assert focused == "16x16"  # and not the finest, as at first


@pytest.mark.one_page
def test_a_layer_of_the_discriminator_opens_in_its_network(tab):
    choose(tab, "discriminator/attention 4x4")
    part(tab, ".open").click()
    focused = tab.locator("#attention-view .in-focus")
    focused.wait_for()
    assert focused.get_attribute("data-layer") == "discriminator 4x4"
    tab.wait_for_function("document.activeElement.matches('#attention-view .in-focus .picture')")


@pytest.mark.one_page
def test_where_pictures_come_out_and_go_in_stands_the_current_face(tab):
    before = tab.evaluate("sagan.face.seed_a")
    tab.locator("#dice").click()
    tab.wait_for_function("before => sagan.face.seed_a !== before", arg=before)
    tab.evaluate(
        """() => {
            const canvas = Object.assign(document.createElement('canvas'), { width: 96, height: 96 });
            sagan.draw(canvas, sagan.face.picture);
            document.body.append(canvas);
        }"""
    )
    face, thumbs = tab.locator("body > canvas"), part(tab, ".thumb").all()
    assert len(thumbs) == 2
    for thumb in thumbs:
        np.testing.assert_array_equal(painted(thumb), painted(face))
    face.evaluate("canvas => canvas.remove()")


def test_without_an_attention_tab_there_is_nothing_to_open(new_page, serve):
    config = SaganConfig(image_size=32, g_width=4, d_width=4, z_dim=8, g_attention=(), d_attention=(4,))
    networks = Generator(config, spectral=False).eval(), Discriminator(config, spectral=False)
    page = new_page(serve(Sampler(*networks)))
    open_inside(page)
    assert part(page, "button.attention").count() == 1
    choose(page, "discriminator/attention 4x4")
    assert not part(page, ".open").is_visible()


def test_a_face_that_cannot_be_looked_into_says_why_and_the_next_one_is_shown(
    new_page, trained_address, trained, monkeypatch
):
    page = new_page(trained_address)
    page.wait_for_selector("#attention-view [data-drawn]", timeout=WAIT)

    def refuse(*_):
        raise ValueError("This face is <b>too</b> large.")

    with monkeypatch.context() as broken:
        broken.setattr(trained, "discriminator_activations", refuse)
        page.get_by_role("tab", name="Inside", exact=True).click()
        page.wait_for_selector("#inside-view p.error:not(:empty)", timeout=WAIT)
    assert part(page, "p.error").text_content() == "This face is <b>too</b> large."
    page.locator("#dice").click()
    page.wait_for_selector("#inside-view [data-block][data-seed]", timeout=WAIT)
    assert part(page, "p.error").text_content() == ""


# Spectral norm


def corners(page, name: str) -> np.ndarray:
    """The corners of a drawn curve, (n, 2)."""
    d = norm(page, f".values path.{name}").get_attribute("d")
    return np.array([pair.split() for pair in d.removeprefix("M").split("L")], float)


def said_number(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.one_page
@pytest.mark.parametrize("layer", ["generator/blocks.1.conv", "discriminator/attention.8x8.value"])
def test_the_curves_are_the_singular_values_before_and_after(tab, trained, layer):
    spectrum_of(tab, layer, trained)
    before, after = singular_values(trained, layer)
    ranks = np.log(np.arange(1, len(after) + 1))
    drawn_before, drawn_after = corners(tab, "before"), corners(tab, "after")
    assert len(drawn_before) == len(drawn_after) == len(after)
    shown = np.maximum(np.concatenate([before, after]), before[0] / 1e4)  # what is smaller lies on the edge
    both = np.concatenate([drawn_before, drawn_after])
    slope, start = np.polyfit(np.log(shown), both[:, 1], 1)
    assert slope < 0  # larger is higher
    np.testing.assert_allclose(both[:, 1], start + slope * np.log(shown), atol=0.2)
    slope, start = np.polyfit(ranks, drawn_after[:, 0], 1)
    np.testing.assert_allclose(both[:, 0], start + slope * np.concatenate([ranks, ranks]), atol=0.02)
    marks = [said_number(norm(tab, f".mark.{name}").text_content()) for name in ("before", "after")]
    assert marks == pytest.approx([before[0], 1], rel=0.006)
    rows, columns = matrix(trained, layer).shape
    assert f"{rows} × {columns}" in norm(tab, ".matrix").text_content()
    assert "not known" not in norm(tab, ".said").text_content()


def test_where_the_values_before_are_not_known_it_says_why(page, sampler):
    open_inside(page)
    spectrum_of(page, "generator/attention.32x32.value", sampler)
    after = np.linalg.svd(matrix(sampler, "generator/attention.32x32.value"), compute_uv=False)
    assert len(corners(page, "after")) == len(after)
    assert norm(page, ".values path.before").get_attribute("d") == ""
    assert not norm(page, ".mark.before").is_visible() and not norm(page, ".lines .before").is_visible()
    assert said_number(norm(page, ".mark.after").text_content()) == pytest.approx(after[0], rel=0.006)
    assert "keeps only normalised weights" in norm(page, ".said").text_content()


def iterated(weight: np.ndarray, seed: int, rounds: int) -> list[tuple[float, float]]:
    """(sigma, angle in degrees) after each round of the algebra on the page, number by number."""
    first = np.linalg.svd(weight)[0][:, 0]
    u = np.random.default_rng(seed).normal(size=len(weight))
    found = []
    for _ in range(rounds):
        v = weight.T @ u
        v /= math.hypot(*v)
        u = weight @ v
        u /= math.hypot(*u)
        angle = math.degrees(math.acos(min(1, abs(u @ first))))
        found.append((u @ weight @ v, angle))
    return found


def moment(page) -> dict[str, float]:
    data = page.locator("#spectrum-view [data-moment]").evaluate("e => ({...e.dataset})")
    return {name: float(data[name]) for name in ("moment", "round", "line", "angle", "sigma") if data[name]}


@pytest.mark.one_page
def test_step_by_step_the_line_that_acts_lights_up_and_the_numbers_are_those_of_the_algebra(tab, trained):
    layer = "generator/blocks.2.conv"
    spectrum_of(tab, layer, trained)
    before, _ = singular_values(trained, layer)
    # In proportion to the largest: shipped weights are a little rounded.
    weight = matrix(trained, layer) * before[0]
    rounds = iterated(weight, 1, 30)
    lit = norm(tab, ".algebra li[aria-current]")
    assert lit.count() == 0 and "sigma" not in moment(tab)
    for i in range(3):
        for line in (1, 2, 3):
            norm(tab, ".step").click()
            assert norm(tab, ".moment").text_content() == f"Round {i + 1} of 30, line {line}"
            assert lit.evaluate_all("all => all.map((li) => [...li.parentNode.children].indexOf(li))") == [
                line - 1
            ]
        sigma, angle = rounds[i]
        assert moment(tab)["sigma"] == pytest.approx(sigma, rel=1e-3)
        assert moment(tab)["angle"] == pytest.approx(angle, abs=0.05)
        shown = norm(tab, ".algebra .now").all_text_contents()
        assert said_number(shown[2]) == pytest.approx(sigma, rel=0.006)
        assert said_number(shown[1].split("°")[0]) == pytest.approx(angle, abs=0.1)
        assert said_number(shown[3].split()[-1]) == pytest.approx(before[0] / sigma, rel=0.006)
        percent = norm(tab, ".estimate .reading").text_content().split(", ")[1].split()[0]
        assert float(percent) == pytest.approx(100 * sigma / before[0], abs=0.15)
    norm(tab, "input").focus()
    tab.keyboard.press("End")
    assert norm(tab, ".moment").text_content() == "After 30 rounds, line 5"
    assert norm(tab, "input").get_attribute("aria-valuetext") == "After 30 rounds, line 5"
    assert moment(tab)["sigma"] == pytest.approx(rounds[-1][0], rel=1e-3)
    d = norm(tab, ".estimate path").get_attribute("d")
    heights = np.array([pair.split()[1] for pair in d.removeprefix("M").split("L")], float)
    expected = 100 - 100 * np.array([sigma for sigma, _ in rounds]) / (1.1 * before[0])
    np.testing.assert_allclose(heights, expected, atol=0.1)


@pytest.mark.one_page
def test_a_step_is_spoken_of_and_after_the_last_one_it_begins_again(tab, trained):
    spectrum_of(tab, "generator/to_image", trained)
    spoken = norm(tab, ".spoken")
    norm(tab, "input").fill("91")
    norm(tab, ".step").click()
    assert spoken.text_content().strip() == "After 30 rounds, line 5"
    norm(tab, ".step").click()
    assert moment(tab)["moment"] == 0
    for line in (1, 2):
        norm(tab, ".step").click()
        now = norm(tab, ".algebra .now").nth(line - 1).text_content()
        assert spoken.text_content() == f"Round 1 of 30, line {line} {now}"
    before = spoken.text_content()
    norm(tab, "input").fill("40")  # a slider says itself where it is
    assert spoken.text_content() == before


@pytest.mark.one_page
@pytest.mark.parametrize("what", ["slider", "step", "layer"])
def test_the_power_iteration_stops_playing_where_something_else_is_chosen(tab, trained, what):
    spectrum_of(tab, "generator/to_image", trained)
    norm(tab, "input").fill("0")
    norm(tab, ".play").click()
    tab.wait_for_selector('#spectrum-view [data-moment="1"]', timeout=WAIT)
    if what == "slider":
        norm(tab, "input").fill("50")
    elif what == "step":
        norm(tab, ".step").click()
    else:
        norm(tab, "select").select_option("0")
    assert norm(tab, ".play").text_content() == texts.SPECTRUM["play"]


@pytest.mark.one_page
def test_arrow_dot_and_ticks_stand_where_the_numbers_say(tab, trained):
    layer = "generator/blocks.1.conv"
    spectrum_of(tab, layer, trained)
    norm(tab, "input").fill("7")
    at = moment(tab)
    turned = norm(tab, "g.u").get_attribute("transform")
    assert float(turned.removeprefix("rotate(-").split()[0]) == pytest.approx(at["angle"])
    said = norm(tab, ".dial svg").get_attribute("aria-label"), norm(tab, ".dial .reading").text_content()
    assert said[1].removesuffix("°") in said[0]
    corners_drawn = norm(tab, ".estimate path").get_attribute("d").removeprefix("M").split("L")
    dot = norm(tab, ".estimate .dot").evaluate("({ style }) => [style.left, style.top]")
    last = [float(share) for share in corners_drawn[-1].split()]
    assert [float(share.removesuffix("%")) for share in dot] == pytest.approx(last, abs=0.01)
    assert at["sigma"] > 0 and norm(tab, ".estimate .plot").get_attribute("aria-label")
    after, (before, _) = corners(tab, "after"), singular_values(trained, layer)
    assert norm(tab, ".values .plot").get_attribute("aria-label").endswith(norm(tab, ".said").text_content())
    slope, start = np.polyfit(np.log(before[:5]), corners(tab, "before")[:5, 1], 1)
    ticks = """all => all.map(({ textContent, style: { top, left } }) =>
        [textContent, parseFloat(top || left)])"""
    heights = norm(tab, ".heights span").evaluate_all(ticks)
    assert len(heights) > 1
    for text, place in heights:
        assert place == pytest.approx(start + slope * math.log(float(text)), abs=0.2)
    ranks = norm(tab, ".values .ticks span").evaluate_all(ticks)
    assert [place for _, place in ranks] == pytest.approx([after[int(r) - 1, 0] for r, _ in ranks], abs=0.01)


def test_a_new_random_vector_starts_elsewhere_and_comes_to_the_same(tab, trained):
    layer = "generator/blocks.1.conv"
    spectrum_of(tab, layer, trained)
    angle = moment(tab)["angle"]
    norm(tab, ".step").click()
    norm(tab, ".again").click()
    tab.wait_for_selector('#spectrum-view [data-moment="0"]:not([data-seed="1"])', timeout=WAIT)
    seed = int(tab.locator("#spectrum-view [data-seed]").get_attribute("data-seed"))
    assert moment(tab)["angle"] != angle
    norm(tab, "input").fill("90")
    sigma, angle = iterated(matrix(trained, layer), seed, 30)[-1]
    scale = singular_values(trained, layer)[0][0]
    assert moment(tab)["sigma"] == pytest.approx(sigma * scale, rel=2e-3)
    assert moment(tab)["angle"] == pytest.approx(angle, abs=0.2)


def test_play_runs_to_the_end_without_a_request_and_stops_when_the_tab_is_left(tab, trained):
    spectrum_of(tab, "generator/to_image", trained)
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    norm(tab, "input").fill("84")
    norm(tab, ".play").click()
    assert norm(tab, ".play").text_content() == "Pause"
    tab.wait_for_selector('#spectrum-view [data-moment="92"]', timeout=WAIT)
    assert norm(tab, ".play").text_content() == "Play"
    assert requests == []
    norm(tab, ".play").click()
    tab.wait_for_selector('#spectrum-view [data-moment="1"]', timeout=WAIT)
    tab.get_by_role("tab", name="Faces", exact=True).click()
    tab.wait_for_function("document.querySelector('#spectrum-view .play').textContent === 'Play'")
    assert moment(tab)["moment"] < 92  # at its end it stops anyway


@pytest.mark.one_page
def test_a_chosen_block_shows_its_layer(tab, trained):
    titles = {layer["block"]: layer["title"] for layer in reversed(all_layers(trained))}
    for block in (START, "discriminator/attention 4x4", "discriminator/score"):
        choose(tab, block)
        tab.locator("#spectrum-view").scroll_into_view_if_needed()
        shown = norm(tab, "select").evaluate("s => s.selectedOptions[0].textContent")
        assert shown == titles[block]
        number = [layer["title"] for layer in all_layers(trained)].index(shown)
        tab.wait_for_selector(f'#spectrum-view [data-layer="{number}"]', timeout=WAIT)
    assert norm(tab, ".said").text_content().startswith("One output, one singular value")


def test_a_layer_that_fails_says_so_and_another_one_is_asked_for(tab, trained, monkeypatch):
    spectrum_of(tab, "generator/blocks.0.conv", trained)
    with monkeypatch.context() as broken:
        broken.setattr(spectrum, "describe", lambda *_: 1 / 0)
        norm(tab, "select").select_option("1")
        tab.wait_for_selector("#spectrum-view p.error:not(:empty)", timeout=WAIT)
    assert "again" in norm(tab, "p.error").text_content()
    spectrum_of(tab, "generator/blocks.2.conv", trained)
    assert norm(tab, "p.error").text_content() == ""


@pytest.mark.parametrize("name", ["layer", "seed", "number"])
def test_what_the_browser_tells_of_a_layer_is_checked_on_the_server_too(trained, name):
    app = build_app(trained)
    view = next(i for i, block in app.blocks.items() if block.elem_id == "spectrum-view")
    want = next(event.fn for event in app.fns.values() if (view, "want") in event.targets)
    most = {"layer": len(trained.spectra) - 1, "seed": 2**32 - 1, "number": 2**53 - 1}[name]

    def ask(value: object) -> dict:
        event = SimpleNamespace(**{"number": 1, "layer": 0, "seed": 0} | {name: value})
        with ThreadPoolExecutor(1) as thread:  # in this one the browser's event loop runs
            return thread.submit(asyncio.run, want(event)).result()

    assert ask(most)[name] == most
    for value in (-1, most + 1, 0.5, "1", None, [0], True):
        with pytest.raises(gr.Error) as refusal:
            ask(value)
        assert f"{name} must be an integer from 0 to {most}, but was {value!r}." in str(refusal.value)


@pytest.mark.one_page
def test_the_focus_goes_on_to_the_face_that_is_opened_in_attention(tab):
    choose(tab, "generator/attention 16x16")
    part(tab, ".open").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => document.activeElement.matches('#attention-view .picture')")


BEYOND = """() => [...document.querySelectorAll('#inside-view li, #inside-view figcaption')]
    .filter((part) => part.offsetParent)
    .filter((part) => part.scrollWidth > part.clientWidth + 1 ||
        part.getBoundingClientRect().right > innerWidth)
    .map((part) => part.textContent.trim())"""  # what is clipped makes no page wider


def test_before_there_are_numbers_the_page_says_so_and_no_arrow_points_anywhere(
    new_page, trained, trained_address
):
    page = new_page(trained_address, height=300)
    page.get_by_role("tab", name="Inside", exact=True).click()
    page.wait_for_selector("#inside-view button.block")
    assert norm(page, "g.u").get_attribute("hidden") is not None
    waiting = norm(page, ".computing")
    assert waiting.text_content() == texts.SPECTRUM["waiting"] and waiting.is_visible()
    page.evaluate("sagan.emit('failed', 'spectrum-view')")
    assert norm(page, ".said").text_content() == "" and not waiting.is_visible()
    spectrum_of(page, "generator/to_image", trained)
    page.wait_for_selector("#spectrum-view [data-moment]", timeout=WAIT)
    assert norm(page, "g.u").get_attribute("hidden") is None
    assert norm(page, ".said").text_content() != "" and not waiting.is_visible()


def test_no_block_and_no_number_is_cut_off_on_any_screen(new_page, trained_address):
    page = new_page(trained_address, width=1280)
    open_inside(page)
    assert page.evaluate("document.querySelectorAll('#inside-view figcaption').length") > 0
    for width in (1280, 1120, 1024, 912, 844, 768):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(300)
        assert page.evaluate(BEYOND) == [], width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_screen_shows_both_networks_beside_each_other_and_never_scrolls_sideways(
    new_page, trained_address, theme
):
    page = new_page(f"{trained_address}?__theme={theme}", width=390, height=844)
    open_inside(page)
    page.locator("#spectrum-view").scroll_into_view_if_needed()
    page.wait_for_selector("#spectrum-view [data-layer]", timeout=WAIT)
    fits_the_width(page)
    boxes = [network.bounding_box() for network in part(page, ".network").all()]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    tops = (
        part(page, ".network")
        .first.locator("button")
        .evaluate_all("all => all.map((b) => b.getBoundingClientRect().top)")
    )
    assert tops == sorted(set(tops))  # from top to bottom
    heights = part(page, "button.block").evaluate_all(
        "all => all.map((b) => b.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44  # large enough for a finger


@pytest.mark.parametrize("both", [True, False])
def test_spectral_norm_is_claimed_only_of_the_networks_that_have_it(new_page, serve, both):
    config = SaganConfig(g_width=8, d_width=8, z_dim=16, d_spectral_norm=both)
    networks = Generator(config, spectral=False).eval(), Discriminator(config, spectral=False)
    page = new_page(serve(Sampler(*networks)))
    page.get_by_role("tab", name="Inside", exact=True).click()
    said = page.locator("#spectrum-view .help").first.text_content()
    assert said.strip() == texts.SPECTRUM["what" if both else "what_generator"]
