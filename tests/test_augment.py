"""Augmentation: each change against PyTorch's own or plain arithmetic, its share, its gradient."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sagan.augment import NUMBERS, augment, draw_changes, move

SIDE = 16
UNCHANGED = {"zoom": 1, "down": 0, "right": 0, "brightness": 0, "saturation": 1, "contrast": 1}
UNCHANGED |= {"row": 0.5, "column": 0.5, "radius": 0}


def images(count: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, dtype=dtype) * 2 - 1


def change(count: int = 4, **numbers: float | list[float]) -> Tensor:
    """The same change of all images, but where a list has one for each."""
    values = UNCHANGED | numbers
    assert len(values) == NUMBERS
    return torch.stack([torch.tensor(value).float().expand(count) for value in values.values()], dim=1)


def drawn(probability: float, count: int = 20_000) -> dict[str, Tensor]:
    changes = draw_changes(count, probability, torch.Generator())
    return dict(zip(UNCHANGED, changes.T, strict=True))


def test_without_a_change_images_stay_as_they_are():
    x = images()
    torch.testing.assert_close(augment(x, change()), x)
    torch.testing.assert_close(augment(x, draw_changes(4, 0.0, torch.Generator())), x)


def test_images_shift_by_shares_of_their_side_reflected_at_the_edges():
    x, down, right = images(), [0, 2, -1, 4], [3, -3, 0, 1]
    changes = change(down=[d / SIDE for d in down], right=[r / SIDE for r in right])
    expected = move(x, torch.tensor([down, right, [0] * 4]).T)
    torch.testing.assert_close(augment(x, changes), expected)


def test_shifts_and_zooms_are_those_of_grid_sample():
    x, zoom = images(), torch.tensor([0.85, 1.2, 1.0, 0.9])
    down, right = torch.tensor([0.03, -0.1, 0.07, 0.0]), torch.tensor([-0.12, 0.05, 0.01, 0.1])
    middle = (SIDE - 1) / 2
    theta = torch.zeros(4, 2, 3)
    for axis, shift in enumerate((right, down)):
        theta[:, axis, axis] = 1 / zoom
        theta[:, axis, 2] = -shift * SIDE / zoom / middle
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    expected = F.grid_sample(x, grid, padding_mode="reflection", align_corners=True)
    changed = augment(x, change(zoom=zoom.tolist(), down=down.tolist(), right=right.tolist()))
    torch.testing.assert_close(changed, expected, rtol=1e-4, atol=1e-5)


def test_colours_change_by_their_formulas():
    x = images(3)
    brightness, saturation, contrast = [0.2, -0.4, 0.0], [0.5, 1.7, 0.0], [1.3, 0.6, 1.0]
    changed = augment(x, change(3, brightness=brightness, saturation=saturation, contrast=contrast))
    for image, result, b, s, c in zip(x, changed, brightness, saturation, contrast, strict=True):
        vivid = torch.stack([(1 - s) * image.mean(0) + s * channel for channel in image])
        torch.testing.assert_close(result, (1 - c) * vivid.mean() + c * vivid + b)


def test_a_hole_is_a_grey_square_of_half_the_side_also_across_an_edge():
    x = images(2)
    nearly = 0.5 - 0.4 / SIDE  # of the same pixels: what counts is where their middles are
    changed = augment(x, change(2, row=[nearly, 0.0], column=[nearly, 0.75], radius=0.25))
    quarter = SIDE // 4
    holes = (
        (slice(quarter, 3 * quarter), slice(quarter, 3 * quarter)),
        (slice(0, quarter), slice(2 * quarter, 4 * quarter)),
    )
    for image, result, (rows, columns) in zip(x, changed, holes, strict=True):
        assert (result[:, rows, columns] == 0).all()
        rest = torch.ones(SIDE, SIDE, dtype=bool)
        rest[rows, columns] = False
        torch.testing.assert_close(result[:, rest], image[:, rest])


def test_a_hole_stays_grey_whatever_the_colours():
    changed = augment(images(3), change(3, radius=0.25, brightness=[0.4, -0.4, 0.1], contrast=1.4))
    quarter = SIDE // 4
    assert (changed[:, :, quarter : 3 * quarter, quarter : 3 * quarter] == 0).all()


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_kind_of_change_has_its_probability_whatever_the_others_do(probability):
    numbers = drawn(probability)
    kinds = [numbers["zoom"] != 1, numbers["contrast"] != 1, numbers["radius"] != 0]
    tolerance = 0.02 if 0 < probability < 1 else 0
    for kind in kinds:
        assert kind.float().mean() == pytest.approx(probability, abs=tolerance)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (kinds[a] & kinds[b]).float().mean() == pytest.approx(probability**2, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "low", "middle", "high"),
    [
        ("zoom", 2**-0.25, 1, 2**0.25),
        ("down", -0.125, 0, 0.125),
        ("right", -0.125, 0, 0.125),
        ("brightness", -0.5, 0, 0.5),
        ("saturation", 0, 1, 2),
        ("contrast", 0.5, 1, 1.5),
        ("row", -0.25, 0.5, 1.25),
        ("column", -0.25, 0.5, 1.25),
        ("radius", 0.25, 0.25, 0.25),
    ],
)
def test_changes_fill_their_ranges(name, low, middle, high):
    numbers, width = drawn(1.0)[name], high - low
    assert low <= numbers.min() <= low + 0.01 * width and high - 0.01 * width <= numbers.max() <= high
    assert numbers.median() == pytest.approx(middle, abs=0.03 * width + 1e-6)


def test_what_a_change_draws_is_independent_of_the_rest_of_it():
    numbers = torch.stack([values for name, values in drawn(1.0).items() if name != "radius"])
    torch.testing.assert_close(numbers.corrcoef(), torch.eye(len(numbers)), rtol=0, atol=0.05)


def test_changes_are_those_of_their_generator():
    random = [torch.Generator().manual_seed(seed) for seed in (3, 3, 4)]
    one, same, other = (draw_changes(9, 0.5, generator) for generator in random)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (9, NUMBERS)


def test_gradients_pass_every_change():
    changes = draw_changes(3, 1.0, torch.Generator().manual_seed(1)).double()
    x = images(3, torch.float64)[:, :, :6, :6].requires_grad_()
    assert torch.autograd.gradcheck(lambda y: augment(y, changes), x)


def moved_by_hand(image: np.ndarray, down: int, right: int, mirrored: int) -> np.ndarray:
    """An image (C, S, S) through NumPy's own reflection at the edges."""
    side, image = image.shape[1], image[:, :, ::-1] if mirrored else image
    padded = np.pad(image, ((0, 0), (side - 1,) * 2, (side - 1,) * 2), mode="reflect")
    top, left = side - 1 - down, side - 1 - right
    return padded[:, top : top + side, left : left + side]


def test_images_are_moved_each_in_its_own_way_and_reflected_at_the_edges(rng):
    images = rng.normal(size=(40, 3, 9, 9)).astype(np.float32)
    moves = np.stack([*rng.integers(-8, 9, (2, 40)), rng.integers(0, 2, 40)], axis=1)
    moves[:3] = [(8, -8, 1), (0, 0, 0), (0, 0, 1)]
    moved = move(torch.from_numpy(images), torch.from_numpy(moves))
    assert moved.is_contiguous(memory_format=torch.channels_last)
    for image, how, got in zip(images, moves, moved.numpy(), strict=True):
        np.testing.assert_array_equal(got, moved_by_hand(image, *how))


def test_moving_images_hands_the_gradient_back_to_the_pixels_that_are_seen():
    images = torch.zeros(1, 1, 4, 4, requires_grad=True)
    move(images, torch.tensor([[1, 0, 0]])).sum().backward()
    # One down: the last row is gone; row 1 comes in at the top, reflected.
    assert images.grad[0, 0].tolist() == [[1] * 4, [2] * 4, [1] * 4, [0] * 4]
