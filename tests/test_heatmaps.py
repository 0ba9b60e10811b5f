"""Numbers, colours and pictures of attention rows."""

import io
import math
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sagan import heatmaps
from sagan.heatmaps import (
    PIN_COLOURS,
    attention_figure,
    cell,
    colour,
    colour_table,
    enlarge,
    entropy_bits,
    full_scale,
    mean_distance,
    overlay,
    receiving_most,
    share_outside,
    sheet,
    times_uniform,
)


def random_row(rng: np.random.Generator, positions: int) -> np.ndarray:
    return rng.dirichlet(np.full(positions, 0.3)).astype(np.float32)


def flat_face(level: int, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


# Numbers


def test_a_point_lies_in_the_cell_below_it_and_the_last_edge_in_the_last_cell():
    points = {(0, 0): (0, 0), (0.24, 0.26): (0, 1), (0.5, 0.99): (2, 3), (1, 0.3): (3, 1), (1, 1): (3, 3)}
    assert {point: cell(point, 4) for point in points} == points


def test_times_uniform_compares_with_equal_shares(rng):
    np.testing.assert_allclose(times_uniform(np.full(64, 1 / 64)), 1)
    row = random_row(rng, 256)
    np.testing.assert_allclose(times_uniform(row), [weight / (1 / 256) for weight in row.tolist()], rtol=1e-5)
    np.testing.assert_allclose(times_uniform(row.reshape(16, 16)).ravel(), times_uniform(row))


def test_entropy_runs_from_none_to_the_logarithm_of_the_positions(rng):
    one_key = np.zeros(64, np.float32)
    one_key[rng.integers(64)] = 1
    assert entropy_bits(one_key) == 0
    assert entropy_bits(np.full((32, 32), 1 / 1024, np.float32)) == pytest.approx(10)
    row = random_row(rng, 256)
    expected = -math.fsum(weight * math.log2(weight) for weight in row.tolist() if weight > 0)
    assert entropy_bits(row) == pytest.approx(expected)


def test_entropy_is_that_of_one_row_and_not_of_a_whole_map(rng):
    attention = np.stack([random_row(rng, 64) for _ in range(64)])
    with pytest.raises(ValueError, match="sum to 1, but these sum to 64"):
        entropy_bits(attention)
    with pytest.raises(ValueError, match=r"sum to 1, but these sum to 1\.02\."):
        entropy_bits(attention[0] * 1.02)


def test_the_full_scale_of_a_nearly_uniform_row_is_four_times_uniform(rng):
    row = random_row(rng, 256)
    row[rng.integers(256)] += 1
    assert full_scale(row / row.sum()) == pytest.approx((row / row.sum()).max())
    assert full_scale(np.full(256, 1 / 256)) == pytest.approx(4 / 256)


@pytest.mark.parametrize("side", [1, 4, 9])
def test_the_mean_distance_is_the_weighted_mean_of_the_ways_between_centres_of_cells(rng, side):
    row, query, size = (
        random_row(rng, side * side),
        int(rng.integers(side * side)),
        int(rng.integers(30, 130)),
    )
    expected = 0.0
    for key, weight in enumerate(row.tolist()):
        (y, x), (v, u) = ((cell // side, cell % side) for cell in (query, key))
        expected += weight * math.dist((x * size / side, y * size / side), (u * size / side, v * size / side))
    assert mean_distance(row, query, side, size) == pytest.approx(expected)
    assert mean_distance(row.reshape(side, side), query, side, image_size=size) == pytest.approx(expected)


def test_a_query_that_looks_at_one_key_looks_as_far_as_that_key():
    row = np.zeros(256, np.float32)
    row[3 * 16 + 10] = 1
    assert mean_distance(row, 3 * 16 + 2, 16, 64) == pytest.approx(8 * 4)
    assert mean_distance(row, 3 * 16 + 10, 16, 64) == 0


def test_the_share_outside_is_what_lies_beyond_the_neighbourhood_also_at_the_borders(rng):
    side = 6
    row = random_row(rng, side * side)
    for query in range(side * side):
        near = [
            row[y * side + x]
            for y in range(side)
            for x in range(side)
            if abs(y - query // side) <= 1 and abs(x - query % side) <= 1
        ]
        expected = 1 - math.fsum(float(weight) for weight in near)
        assert share_outside(row, query, side) == pytest.approx(expected, abs=1e-6)


def test_the_neighbourhood_is_3x3_and_does_not_reach_around_the_border():
    uniform = np.full((16, 16), 1 / 256)
    assert share_outside(uniform, 5 * 16 + 5, 16) == pytest.approx(1 - 9 / 256)
    assert share_outside(uniform, 0, 16) == pytest.approx(1 - 4 / 256)
    beyond = np.zeros(256)
    beyond[16] = 1  # the first cell of the second row comes after the last of the first, but lies far from it
    assert share_outside(beyond, 15, 16) == 1


@pytest.mark.parametrize("measure", [share_outside, lambda *args: mean_distance(*args, 64)])
def test_measures_refuse_a_row_of_another_layer_and_a_query_outside(rng, measure):
    with pytest.raises(ValueError) as refusal:
        measure(random_row(rng, 64), 0, 16)
    assert str(refusal.value) == "A layer 16 cells wide has 256 weights in a row, not 64."
    for query in (-1, 64):
        with pytest.raises(ValueError, match=f"The query is {query}, but this layer has positions 0 to 63"):
            measure(random_row(rng, 64), query, 8)


# Colours


def test_pins_have_five_of_the_colours_of_okabe_and_ito():
    assert len(set(PIN_COLOURS)) == 5
    okabe_ito = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000"}
    assert set(PIN_COLOURS) <= okabe_ito


def test_the_colour_table_is_matplotlibs():
    table = colour_table()
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    for i in (0, 1, 100, 255):
        np.testing.assert_allclose(
            table[i], 255 * np.array(matplotlib.colormaps["inferno"].colors[i]), atol=1
        )
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


def test_shares_run_through_the_map_from_0_to_1_and_stay_inside():
    colours = colour(np.array([[-0.1, 0, 1 / 2], [1, 2, 60 / 255]]))
    table = colour_table()
    assert (colours.shape, colours.dtype) == ((2, 3, 3), np.uint8)
    expected = [[table[0], table[0], table[128]], [table[255], table[255], table[60]]]
    np.testing.assert_array_equal(colours, expected)


# Overlays


def test_at_no_opacity_an_overlay_is_the_enlarged_face_with_the_query_cell_marked(rng, monkeypatch):
    monkeypatch.setattr(heatmaps, "OPACITY", 0)
    face = rng.integers(0, 256, (64, 64, 3), np.uint8)
    row, column = rng.integers(1, 15, 2)
    picture = np.asarray(overlay(face, random_row(rng, 256), row * 16 + column))
    expected = np.asarray(Image.fromarray(face).resize((256, 256), Image.Resampling.BICUBIC))
    changed = np.argwhere((picture != expected).any(-1))
    assert picture.shape == (256, 256, 3)
    # The white square is the cell, 16 pixels wide; a black line around it keeps it visible on white.
    assert changed.min(0).tolist() == [row * 16 - 1, column * 16 - 1]
    assert changed.max(0).tolist() == [row * 16 + 16, column * 16 + 16]
    cell = picture[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
    around = picture[row * 16 - 1 : row * 16 + 17, column * 16 - 1 : column * 16 + 17]
    for square, level in ((cell, 255), (around, 0)):
        for edge in (square[0], square[-1], square[:, 0], square[:, -1]):
            assert (edge == level).all()
    inside = expected[row * 16 + 1 : row * 16 + 15, column * 16 + 1 : column * 16 + 15]
    np.testing.assert_array_equal(cell[1:-1, 1:-1], inside)


@pytest.mark.parametrize("side", [4, 16, 32])
def test_the_brightest_spot_lies_over_the_key_that_gets_most(rng, monkeypatch, side):
    monkeypatch.setattr(heatmaps, "OPACITY", 1)
    row = np.full((side, side), 0.1)
    y, x = rng.integers(side, size=2)
    row[y, x] = 10
    query = 0 if y > 0 else side * side - 1  # its white square is out of the way
    picture = np.asarray(overlay(flat_face(60), row / row.sum(), query)).sum(-1, dtype=int)
    cell = 256 // side
    top, left = query // side * cell, query % side * cell
    picture[max(0, top - 1) : top + cell + 1, max(0, left - 1) : left + cell + 1] = 0
    brightest = np.argwhere(picture == picture.max())
    assert set(map(tuple, brightest // cell)) == {(y, x)}


def test_an_overlay_mixes_the_face_with_the_map():
    level, uniform = 200, np.full(64, 1 / 64)
    picture = np.asarray(overlay(flat_face(level), uniform, 0, vmax=1 / 64))
    expected = 0.4 * level + 0.6 * colour_table()[255].astype(float)
    np.testing.assert_allclose(picture[128, 128], expected, atol=1)


def test_a_shared_vmax_makes_a_weaker_row_darker():
    row = np.full(64, 1 / 64)
    alone = np.asarray(overlay(flat_face(0), row, 0, vmax=1 / 64))[128, 128].sum(dtype=int)
    beside_stronger = np.asarray(overlay(flat_face(0), row, 0, vmax=1 / 8))[128, 128].sum(dtype=int)
    assert beside_stronger < alone


def test_the_field_between_two_cells_is_smooth(monkeypatch):
    monkeypatch.setattr(heatmaps, "OPACITY", 1)
    row = np.zeros((8, 8))
    row[:, 4:] = 1 / 32
    levels = np.asarray(overlay(flat_face(0), row.ravel(), 0, vmax=1 / 32))[200].sum(-1, dtype=int)
    steps = np.abs(np.diff(levels))
    assert steps.max() < (levels.max() - levels.min()) / 4


def test_an_overlay_has_the_size_that_was_asked_for(rng):
    assert overlay(flat_face(9, 32), random_row(rng, 64), 5, size=100).size == (100, 100)
    assert enlarge(flat_face(9, 32), 77).size == (77, 77)


@pytest.mark.parametrize("query", [-1, 64])
def test_a_query_outside_the_layer_is_refused(rng, query):
    with pytest.raises(ValueError) as refusal:
        overlay(flat_face(9), random_row(rng, 64), query)
    assert str(refusal.value) == f"The query is {query}, but this layer has positions 0 to 63."


# Sheets


@pytest.mark.parametrize(
    ("count", "columns", "rows_and_columns"),
    [
        (1, None, (1, 1)),
        (7, None, (3, 3)),
        (12, None, (3, 4)),
        (64, None, (8, 8)),
        (5, 5, (1, 5)),
        (5, 2, (3, 2)),
    ],
)
def test_a_sheet_holds_every_face_in_reading_order(rng, count, columns, rows_and_columns):
    faces = rng.integers(0, 255, (count, 8, 8, 3), np.uint8)
    picture = sheet(faces, columns, gap=3)
    rows, across = rows_and_columns
    assert picture.size == (across * 11 + 3, rows * 11 + 3)
    pixels = np.asarray(picture).copy()
    for i, face in enumerate(faces):
        top, left = 3 + i // across * 11, 3 + i % across * 11
        np.testing.assert_array_equal(pixels[top : top + 8, left : left + 8], face)
        pixels[top : top + 8, left : left + 8] = 255
    assert (pixels == 255).all()


# Figures


def random_pins(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    return [tuple(pin) for pin in rng.uniform(0, 1, (count, 2)).tolist()]


def saved(figure, ending: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [1, 5])
def test_a_figure_holds_the_face_with_its_points_and_each_points_map(rng, count):
    face, pins = rng.integers(0, 256, (32, 32, 3), np.uint8), random_pins(rng, count)
    maps = [random_row(rng, side * side) for side in rng.choice([4, 8, 16], count)]
    figure = attention_figure(face, pins, maps)
    left, *others, bar = figure.axes
    np.testing.assert_array_equal(left.images[0].get_array(), np.asarray(enlarge(face, 512)))
    assert [(*line.get_xdata(), *line.get_ydata()) for line in left.lines] == pins
    assert [line.get_color() for line in left.lines] == list(PIN_COLOURS[:count])
    assert [text.get_text() for text in left.texts] == [str(i + 1) for i in range(count)]
    assert [text.get_position() for text in left.texts] == pins
    for axes in (left, *others):  # y grows downwards, as pins count it
        assert axes.images[0].origin == "upper" and axes.images[0].get_extent() == [0, 1, 1, 0]
        assert axes.get_ylim() == (1, 0)
    assert len(others) == count
    for i, (axes, row, (x, y)) in enumerate(zip(others, maps, pins, strict=True)):
        side = math.isqrt(row.size)
        (cell,) = axes.patches
        assert cell.get_bbox().bounds == pytest.approx(
            (math.floor(x * side) / side, math.floor(y * side) / side, 1 / side, 1 / side)
        )
        assert matplotlib.colors.to_hex(cell.get_edgecolor()).upper() == PIN_COLOURS[i]
        assert axes.get_title() == str(i + 1)
        frames = {matplotlib.colors.to_hex(spine.get_edgecolor()).upper() for spine in axes.spines.values()}
        assert frames == {PIN_COLOURS[i]}
        grid = Image.fromarray((row * row.size).reshape(side, side).astype(np.float32))
        times = np.asarray(grid.resize((512, 512), Image.Resampling.BICUBIC))
        share = np.log(np.clip(times, 1, 64)) / np.log(64)  # the page's scale
        heat = Image.fromarray(colour(share))
        expected = np.asarray(Image.blend(enlarge(face, 512), heat, 0.6)).astype(int)
        assert np.abs(np.asarray(axes.images[0].get_array()) - expected).max() <= 3  # a step of the colours
    of_bar = bar._colorbar.mappable
    assert of_bar.get_clim() == (1, 64) and of_bar.get_cmap().name == "inferno"
    assert bar.get_ylabel() == "times uniform"
    assert bar.get_ylim() == pytest.approx((1, 64)) and bar.get_yscale() == "log"
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["≤ 1", "4", "16", "≥ 64"]


def test_on_a_scale_of_its_own_each_map_has_a_bar_that_ends_at_its_largest_weight(rng):
    pins, maps = random_pins(rng, 3), [random_row(rng, 64), random_row(rng, 256), np.full(64, 1 / 64)]
    figure = attention_figure(flat_face(90), pins, maps, shared=False, unit="x 1/n")
    bars = figure.axes[4:]
    assert [bar.get_xlim()[1] for bar in bars] == pytest.approx([row.max() * row.size for row in maps])
    assert [bar.get_xlabel() for bar in bars] == ["x 1/n"] * 3
    assert [bar._colorbar.mappable.get_cmap().name for bar in bars] == ["inferno"] * 3
    assert [axes.get_title() for axes in figure.axes[1:4]] == ["1", "2", "3"]
    for axes, row in zip(figure.axes[1:4], maps, strict=True):
        expected = overlay(flat_face(90), row, 0, 512, vmax=row.max())
        different = (np.asarray(axes.images[0].get_array()) != np.asarray(expected)).any(-1)
        assert different.sum() <= 2 * 4 * (512 // math.isqrt(row.size) + 2)  # the square of its query


def test_a_figure_saves_as_png_and_svg(rng):
    figure = attention_figure(flat_face(90), random_pins(rng, 2), [random_row(rng, 64)] * 2)
    assert Image.open(io.BytesIO(saved(figure, "png"))).format == "PNG"
    root = ElementTree.fromstring(saved(figure, "svg"))
    assert root.tag.endswith("svg")
    text = ElementTree.tostring(root, encoding="unicode").lower()
    assert all(colour.lower() in text for colour in PIN_COLOURS[:2])


def test_a_pin_on_the_far_edge_is_in_the_last_cell():
    figure = attention_figure(flat_face(90), [(1.0, 1.0)], [np.full(64, 1 / 64)])
    assert figure.axes[1].patches[0].get_xy() == (7 / 8, 7 / 8)


@pytest.mark.parametrize(
    ("pins", "maps", "words"),
    [
        ([], [], "shows 1 to 5 pins with a map each, but was given 0 pins and 0 maps"),
        ([(0.5, 0.5)] * 6, [np.ones(4) / 4] * 6, "but was given 6 pins and 6 maps"),
        ([(0.5, 0.5)], [np.ones(4) / 4] * 2, "but was given 1 pins and 2 maps"),
        ([(0.5, 1.2)], [np.ones(4) / 4], "The pin (0.5, 1.2) is outside the picture"),
        ([(math.nan, 0.5)], [np.ones(4) / 4], "The pin (nan, 0.5) is outside the picture"),
        ([(0.5, 0.5)], [np.ones(5) / 5], "A map must be n*n finite weights, but one has 5 numbers"),
        ([(0.5, 0.5)], [np.full(4, math.nan)], "A map must be n*n finite weights"),
    ],
)
def test_a_figure_of_what_cannot_be_shown_is_refused(pins, maps, words):
    with pytest.raises(ValueError) as refusal:
        attention_figure(flat_face(90), pins, maps)
    assert words in str(refusal.value)


def test_the_keys_that_receive_most_come_first_and_of_equals_the_lower(rng):
    attention = rng.dirichlet(np.ones(9), 9)
    attention[:, 7] = attention[:, 2]
    received = [sum(row[key] for row in attention) for key in range(9)]
    wanted = sorted(range(9), key=lambda key: (-round(received[key], 9), key))
    assert receiving_most(attention, 4).tolist() == wanted[:4]
