"""Numbers, colours and pictures of attention rows."""

import math

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sagan.heatmaps import (
    colour,
    colour_table,
    enlarge,
    entropy_bits,
    full_scale,
    overlay,
    sheet,
    times_uniform,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def random_row(rng: np.random.Generator, positions: int) -> np.ndarray:
    return rng.dirichlet(np.full(positions, 0.3)).astype(np.float32)


def flat_face(level: int, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


# Numbers


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


def test_the_full_scale_of_a_nearly_uniform_row_is_four_times_uniform(rng):
    row = random_row(rng, 256)
    row[rng.integers(256)] += 1
    assert full_scale(row / row.sum()) == pytest.approx((row / row.sum()).max())
    assert full_scale(np.full(256, 1 / 256)) == pytest.approx(4 / 256)


# Colours


@pytest.mark.parametrize("name", ["inferno", "viridis"])
def test_the_colour_table_is_matplotlibs(name):
    table = colour_table(name)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    for i in (0, 1, 100, 255):
        np.testing.assert_allclose(table[i], 255 * np.array(matplotlib.colormaps[name].colors[i]), atol=1)
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


def test_weights_run_through_the_map_from_0_to_vmax_and_stay_inside(rng):
    vmax = rng.uniform(0.01, 0.5)
    colours = colour(np.array([[-0.1, 0, vmax / 2], [vmax, 2 * vmax, vmax * 60 / 255]]), vmax)
    table = colour_table()
    assert (colours.shape, colours.dtype) == ((2, 3, 3), np.uint8)
    expected = [[table[0], table[0], table[128]], [table[255], table[255], table[60]]]
    np.testing.assert_array_equal(colours, expected)


# Overlays


def test_at_no_opacity_an_overlay_is_the_enlarged_face_with_the_query_cell_marked(rng):
    face = rng.integers(0, 256, (64, 64, 3), np.uint8)
    row, column = rng.integers(1, 15, 2)
    picture = np.asarray(overlay(face, random_row(rng, 256), row * 16 + column, opacity=0))
    expected = np.asarray(Image.fromarray(face).resize((256, 256), Image.Resampling.BICUBIC))
    changed = np.argwhere((picture != expected).any(-1))
    assert picture.shape == (256, 256, 3)
    # The white square is the cell, 16 pixels wide; a black line around it keeps it visible on white.
    assert changed.min(0).tolist() == [row * 16 - 1, column * 16 - 1]
    assert changed.max(0).tolist() == [row * 16 + 16, column * 16 + 16]
    cell = picture[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
    for edge in (cell[0], cell[-1], cell[:, 0], cell[:, -1]):
        assert (edge == 255).all()
    inside = expected[row * 16 + 1 : row * 16 + 15, column * 16 + 1 : column * 16 + 15]
    np.testing.assert_array_equal(cell[1:-1, 1:-1], inside)


@pytest.mark.parametrize("side", [4, 16, 32])
def test_the_brightest_spot_lies_over_the_key_that_gets_most(rng, side):
    row = np.full((side, side), 0.1)
    y, x = rng.integers(side, size=2)
    row[y, x] = 10
    query = 0 if y > 0 else side * side - 1  # its white square is out of the way
    picture = np.asarray(overlay(flat_face(60), row / row.sum(), query, opacity=1)).sum(-1, dtype=int)
    cell = 256 // side
    top, left = query // side * cell, query % side * cell
    picture[max(0, top - 1) : top + cell + 1, max(0, left - 1) : left + cell + 1] = 0
    brightest = np.argwhere(picture == picture.max())
    assert set(map(tuple, brightest // cell)) == {(y, x)}


def test_opacity_mixes_the_face_with_the_map():
    level, uniform = 200, np.full(64, 1 / 64)
    picture = np.asarray(overlay(flat_face(level), uniform, 0, opacity=0.25, vmax=1 / 64))
    expected = 0.75 * level + 0.25 * colour_table()[255].astype(float)
    np.testing.assert_allclose(picture[128, 128], expected, atol=1)


def test_a_shared_vmax_makes_a_weaker_row_darker():
    row = np.full(64, 1 / 64)
    alone = np.asarray(overlay(flat_face(0), row, 0, vmax=1 / 64))[128, 128].sum(dtype=int)
    beside_stronger = np.asarray(overlay(flat_face(0), row, 0, vmax=1 / 8))[128, 128].sum(dtype=int)
    assert beside_stronger < alone


def test_the_field_between_two_cells_is_smooth():
    row = np.zeros((8, 8))
    row[:, 4:] = 1 / 32
    levels = np.asarray(overlay(flat_face(0), row.ravel(), 0, opacity=1, vmax=1 / 32))[200].sum(-1, dtype=int)
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
