"""Augmentation that gradients pass: what the discriminator sees of every image, real or generated.

A discriminator that seldom sees an image as it is can hardly learn the training set by heart (Zhao et al.
2020, arXiv:2006.10738; Karras et al. 2020, arXiv:2006.06676). It sees generated images changed in the same
ways, and so the generator has no reason to draw the changes, as long as each kind is absent from many images:
its probability is well below 1.

`move` is what consistency regularization compares an image with, and is always done.
"""

import torch
from torch import Tensor

SHIFT = 1 / 8  # of the side, at most, down or up and to either side
ZOOM = 1 / 4  # in octaves, at most, in or out
BRIGHTNESS = 0.5  # added or subtracted at most, of the range from -1 to 1
SATURATION = 1.0  # the distance from grey times 0 to 2
CONTRAST = 0.5  # the distance from the mean times 0.5 to 1.5
HOLE = 1 / 2  # of the side
NUMBERS = 9  # that describe the change of an image


def draw_changes(count: int, probability: float, random: torch.Generator) -> Tensor:
    """Changes (count, 9) of so many images, on the device of `random`.

    Each of three kinds has this probability, independent of the others: a shift with a zoom; brightness,
    saturation and contrast; a hole.
    """
    numbers = torch.rand((3 + NUMBERS - 1, count), generator=random, device=random.device)
    moved, coloured, holed = (numbers[:3] < probability).float()
    zoom, down, right, brightness, saturation, contrast = 2 * numbers[3:9] - 1
    places = numbers[9:] * (1 + HOLE) - HOLE / 2  # of the middle of the hole: any part of it may be outside
    return torch.stack(
        [
            torch.exp2(ZOOM * zoom * moved),
            *(SHIFT * shift * moved for shift in (down, right)),
            BRIGHTNESS * brightness * coloured,
            1 + SATURATION * saturation * coloured,
            1 + CONTRAST * contrast * coloured,
            *places,
            HOLE / 2 * holed,
        ],
        dim=1,
    )


def augment(images: Tensor, changes: Tensor) -> Tensor:
    """Change images (N, C, S, S) in [-1, 1], each in its own way (N, 9): see `draw_changes`; the same shape.

    What a shift or a zoom brings in is the image reflected at its edge; a hole is grey. Values may leave the
    range, as colours are not clipped.
    """
    zoom, down, right, *colour, row, column, radius = changes[:, :, None].unbind(1)  # (N, 1) each
    side = images.shape[-1]
    rows, columns = (_resampling(side, zoom, shift)[:, None] for shift in (down, right))  # (N, 1, S, S)
    images = rows @ images @ columns.transpose(2, 3)

    brightness, saturation, contrast = (number[:, :, None, None] for number in colour)
    grey = images.mean(1, keepdim=True)
    images = grey + saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + contrast * (images - mean) + brightness

    places = (torch.arange(side, device=images.device) + 0.5) / side
    inside = ((places - row).abs() < radius)[:, None, :, None] & ((places - column).abs() < radius)[
        :, None, None, :
    ]
    return images.masked_fill(inside, 0).contiguous(memory_format=torch.channels_last)


def _resampling(side: int, zoom: Tensor, shift: Tensor) -> Tensor:
    """Matrices (N, S, S) that zoom and shift the columns of an image, by linear interpolation.

    zoom and shift are (N, 1); the shift is a share of the side.
    """
    places = torch.arange(side, device=zoom.device)
    middle = (side - 1) / 2
    sources = (places - middle - shift * side) / zoom + middle  # (N, S): whence each comes
    return (1 - (_reflected(sources, side)[:, :, None] - places).abs()).clamp(min=0)


def move(images: Tensor, moves: Tensor) -> Tensor:
    """Shift images (N, C, S, S) by whole pixels and mirror some, each in its own way; the same shape.

    moves (N, 3) of integers: how far down, how far to the right, and whether it is mirrored first (0 or 1).
    What comes in at an edge is the image reflected there, so shifts are less than S.
    """
    side = images.shape[-1]
    down, right, mirrored = moves[:, :, None].unbind(1)  # (N, 1) each
    places = torch.arange(side, device=images.device)
    rows, columns = (_reflected(places - shift, side) for shift in (down, right))  # (N, S): whence each comes
    columns = torch.where(mirrored > 0, side - 1 - columns, columns)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    last = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]  # (N, S, S, C)
    return last.permute(0, 3, 1, 2)


def _reflected(places: Tensor, side: int) -> Tensor:
    """Places outside of 0 to side - 1, as far inside as they were outside; the edge is not repeated."""
    return side - 1 - (side - 1 - places.abs()).abs()
