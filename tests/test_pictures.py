"""The pictures of a run: whose faces they show, what lies over them, and that they appear whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from randomness import fresh_rng
from torch import nn

from sagan import heatmaps, pictures
from sagan.classes import Classes
from sagan.latents import from_seed
from sagan.networks import Generator, SaganConfig

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, num_classes=3)


def make_generator(config: SaganConfig) -> Generator:
    """A generator in eval mode whose faces differ and whose attention is strong."""
    generator = Generator(config, spectral=False)
    for name, parameter in generator.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    return generator.eval()


def face(generator: Generator, seed: int, extras: str | None = None, classes=(0, 1, 2)):
    """The face of a seed, uint8 (S, S, 3), and its extras; the seeds go through `classes` in turn."""
    config = generator.config
    labels = torch.tensor([classes[seed % len(classes)]]) if config.num_classes else None
    with torch.no_grad():
        answer = generator(torch.from_numpy(from_seed(seed, config.z_dim))[None], labels, extras=extras)
    image, collected = (answer, {}) if extras is None else answer
    pixels = np.round(127.5 * (image[0].permute(1, 2, 0).numpy().astype(np.float64) + 1))
    return pixels.astype(np.uint8), collected


def classes_of(config: SaganConfig) -> Classes:
    return Classes(tuple(map(str, range(config.num_classes))))


def close(one: np.ndarray, other: np.ndarray, levels: int = 1) -> bool:
    """Equal up to one grey level, which a batch can cost, or two, which enlarging can make of one."""
    return bool((np.abs(one.astype(int) - other.astype(int)) <= levels).all())


@pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_faces_are_those_of_seeds_0_to_63_row_by_row(tmp_path, config):
    generator = make_generator(config)
    pictures.faces(generator, tmp_path / "faces.png", classes_of(config))
    sheet = np.asarray(Image.open(tmp_path / "faces.png"))
    assert sheet.shape == (8 * 34 + 2, 8 * 34 + 2, 3)
    for seed in range(64):
        y, x = (2 + 34 * i for i in divmod(seed, 8))
        assert close(sheet[y : y + 32, x : x + 32], face(generator, seed)[0]), seed


@pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_under_eight_faces_lie_their_maps_of_one_query_a_row_for_each_layer(tmp_path, config):
    generator = make_generator(config)
    pictures.attention(generator, tmp_path / "attention.png", classes_of(config))
    sheet = np.asarray(Image.open(tmp_path / "attention.png"))
    assert sheet.shape == (3 * 128, 8 * 128, 3)
    for seed in range(8):
        pixels, maps = face(generator, seed, "maps")
        column = sheet[:, 128 * seed : 128 * (seed + 1)]
        plain = Image.fromarray(pixels).resize((128, 128), Image.Resampling.BICUBIC)
        assert close(column[:128], np.asarray(plain), 2)
        for row, (name, attention) in enumerate(maps.items(), start=1):
            side = int(name.partition("x")[0])
            query = int(0.52 * side) * side + int(0.37 * side)  # the left eye of an aligned face
            expected = heatmaps.overlay(pixels, attention[0, query].numpy(), query, size=128)
            difference = np.abs(column[128 * row : 128 * (row + 1)].astype(int) - np.asarray(expected))
            assert difference.max() <= 4 and difference.mean() < 0.5  # a colour map can double a rounding


def test_maps_are_made_of_one_face_at_a_time(tmp_path):
    generator = make_generator(PLAIN)
    seen = []
    generator.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    pictures.attention(generator, tmp_path / "attention.png", Classes())
    assert seen == [1] * 8


def test_classes_without_training_images_are_in_neither_picture(tmp_path):
    generator, classes = make_generator(CONDITIONAL), Classes(tuple("abc"), (3, 0, 1))
    pictures.faces(generator, tmp_path / "faces.png", classes)
    sheet = np.asarray(Image.open(tmp_path / "faces.png"))
    pictures.attention(generator, tmp_path / "attention.png", classes)
    attention = np.asarray(Image.open(tmp_path / "attention.png"))
    for seed in range(8):
        expected, _ = face(generator, seed, classes=(0, 2))
        x = 2 + 34 * seed
        assert close(sheet[2:34, x : x + 32], expected), seed
        plain = Image.fromarray(expected).resize((128, 128), Image.Resampling.BICUBIC)
        assert close(attention[:128, 128 * seed : 128 * (seed + 1)], np.asarray(plain), 2), seed


def test_a_generator_without_attention_has_its_faces_alone(tmp_path):
    generator = make_generator(SaganConfig(image_size=32, z_dim=12, g_width=8, g_attention=()))
    pictures.attention(generator, tmp_path / "attention.png", Classes())
    assert Image.open(tmp_path / "attention.png").size == (8 * 128, 128)


def test_drawing_changes_neither_the_generator_nor_the_global_random_numbers(tmp_path):
    generator = make_generator(PLAIN)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    random_numbers = torch.get_rng_state()
    pictures.faces(generator, tmp_path / "faces.png", Classes())
    pictures.attention(generator, tmp_path / "attention.png", Classes())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_numbers)


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved."""
    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))[1]
    )
    return figures


def test_curves_show_losses_scores_and_gammas_over_thousands_of_images(tmp_path, drawn):
    rng = fresh_rng()
    names = ("d_loss", "g_loss", "penalty", "d_real", "d_fake", "g_gamma_8x8", "d_gamma_4x4")
    history = [
        {"step": i, "images": 640 * i, "seconds": i, "g_lr": 1e-4, **{name: rng.normal() for name in names}}
        for i in range(1, 6)
    ]
    pictures.curves(history, tmp_path / "curves.png")
    panels = [{line.get_label(): line.get_data() for line in axes.lines} for axes in drawn[0].axes]
    assert [set(panel) for panel in panels] == [
        {"d loss", "g loss", "penalty"},
        {"d real", "d fake"},
        {"g gamma 8x8", "d gamma 4x4"},
    ]
    for name in names:
        x, y = next(panel[name.replace("_", " ")] for panel in panels if name.replace("_", " ") in panel)
        np.testing.assert_allclose(x, [0.64 * i for i in range(1, 6)])
        np.testing.assert_allclose(y, [row[name] for row in history])
    assert "kimg" in drawn[0].axes[-1].get_xlabel()
    assert Image.open(tmp_path / "curves.png").size == (900, 900)


def test_curves_show_what_was_measured_now_and_then_beside_what_real_images_reach(tmp_path, drawn):
    rng = fresh_rng()
    figures = ("frechet_distance", "precision", "recall")
    floors = {f"floor_{name}": rng.random() for name in figures}
    history = [{"step": i, "images": 640 * i, "d_loss": 2.0, "d_real": 0.5} for i in range(1, 8)]
    for row in (history[1], history[4]):
        row.update({name: rng.random() for name in figures} | floors)
    pictures.curves(history, tmp_path / "curves.png")
    panels = [{line.get_label(): line for line in axes.lines} for axes in drawn[0].axes]
    labels = [{"frechet distance"}, {"precision", "recall"}]
    assert [set(panel) for panel in panels[2:]] == [
        names | {f"{name} of real images" for name in names} for names in labels
    ]
    for name in figures:
        label = name.replace("_", " ")
        panel = next(panel for panel in panels if label in panel)
        np.testing.assert_allclose(panel[label].get_xdata(), [1.28, 3.2])
        np.testing.assert_allclose(panel[label].get_ydata(), [history[1][name], history[4][name]])
        assert panel[label].get_marker() == "."
        floor = panel[f"{label} of real images"]
        assert set(floor.get_ydata()) == {floors[f"floor_{name}"]} and floor.get_linestyle() == "--"
        assert floor.get_color() == panel[label].get_color()


def test_networks_without_attention_have_no_panel_of_gammas(tmp_path, drawn):
    rows = [{"step": i, "images": 64 * i, "d_loss": 2.0 / i, "d_real": 0.1, "d_fake": 0.2} for i in (1, 2)]
    pictures.curves(rows, tmp_path / "curves.png")
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["loss", "score"]


def test_a_column_that_older_rows_lack_leaves_a_gap(tmp_path, drawn):
    rows = [{"step": 1, "images": 64}, {"step": 2, "images": 128, "penalty": 2.0}]
    pictures.curves(rows, tmp_path / "curves.png")
    penalty = next(line for line in drawn[0].axes[0].lines if line.get_label() == "penalty")
    assert np.isnan(penalty.get_ydata()[0]) and penalty.get_ydata()[1] == 2


def test_what_the_last_row_lacks_is_drawn_as_far_as_it_is_known(tmp_path, drawn):
    rows = [{"step": 1, "images": 64, "d_loss": 2.0}, {"step": 2, "images": 128, "g_loss": 1.0}]
    pictures.curves(rows, tmp_path / "curves.png")
    assert [line.get_label() for line in drawn[0].axes[0].lines] == ["d loss", "g loss"]


def test_a_history_of_one_figure_is_one_panel_and_rows_without_a_place_are_left_out(tmp_path, drawn):
    rows = [{"frechet_distance": 9.0}, {"step": 1, "images": 64, "frechet_distance": 5.0}, {"images": 128}]
    pictures.curves(rows, tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    (line,) = axes.lines
    assert (line.get_xdata(), line.get_ydata()) == ([0.064], [5.0])


def test_a_history_that_tells_nothing_of_it_draws_nothing(tmp_path, drawn):
    pictures.curves([{"step": 1, "images": 64, "fid": 20.0}], tmp_path / "curves.png")
    assert drawn == [] and list(tmp_path.iterdir()) == []


def test_a_picture_appears_whole_or_the_old_one_stays(tmp_path, monkeypatch):
    generator = make_generator(PLAIN)
    pictures.faces(generator, tmp_path / "faces.png", Classes())
    before = (tmp_path / "faces.png").read_bytes()
    save = Image.Image.save

    def save_half(image: Image.Image, path: Path) -> None:
        save(image, path)
        path.write_bytes(path.read_bytes()[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", save_half)
    with pytest.raises(OSError, match="No space left"):
        pictures.faces(generator, tmp_path / "faces.png", Classes())
    assert (tmp_path / "faces.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["faces.png"]
