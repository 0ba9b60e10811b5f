"""The film of a training: what eight seeds looked like, and attended to, at moments along the way.

`film.safetensors` in the checkpoint folder, a companion file of its generator, holds of M moments

    step, images        int64 (M,)
    faces               uint8 (M, 8, S, S, 3), of the seeds 0 to 7; classes in turn (`Classes.in_turn`)
    LAYER/q, LAYER/k    float16 (M, 8, n*n, d) of each attention layer of the generator, as in "16x16/q"
    LAYER/gamma         float32 (M,)
    other_run           uint8 (M,), 1 where the moment is of another run of the same recipe; where this is
                        missing, all are of one run

Every moment is the averaged generator as it would have been shipped then; the last is the checkpoint's own.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagan import checkpoint
from sagan.checkpoint import CheckpointError
from sagan.classes import Classes
from sagan.data import to_uint8
from sagan.networks import Generator, SaganConfig, layer_name, learned_gammas
from sagan.seeds import inputs

SEEDS = tuple(range(8))
MOST_MOMENTS = 20
MAX_BYTES = 10_000_000  # so that no large-file storage is needed
HEADER_BYTES = 1 << 14  # enough for names and shapes
OTHER_RUN = "other_run"
FIRST_STEP = 16  # the first moment after step 0: before it there is nothing to see

Moment = dict[str, np.ndarray]


class Film:
    """The moments of one run so far, each a dictionary with the arrays named above, without their first axis.

    A run films the steps of `is_moment` and, whenever it is saved, the step it is at. How long it will be is
    not known, so it drops moments as it goes, until those left fit: each time the one whose neighbours are
    closest to each other in log2(1 + step / 16), which keeps them evenly spread. What is left at a step
    depends on that step alone, not on when the run was saved or resumed.
    """

    def __init__(self, config: SaganConfig, moments: Sequence[Moment] = ()) -> None:
        self.config, self.moments = config, list(moments)

    @classmethod
    def load(cls, folder: Path, config: SaganConfig) -> "Film | None":
        """The film of a checkpoint; None where there is none or, with a warning, one that cannot be used."""
        return checkpoint.read_companion(
            folder, checkpoint.FILM, "The film is", lambda path: cls(config, _read(path, config))
        )

    def record(self, step: int, images: int, generator: Generator, classes: Classes) -> None:
        """Add the moment of this step, if it is one, from a plain generator in eval mode."""
        if is_moment(step) and step not in self.steps:
            self.moments.append(shoot(generator, step, images, classes))
            self._thin()

    def ending_with(
        self, step: int, images: int, generator: Generator, classes: Classes
    ) -> dict[str, Tensor]:
        """The tensors of film.safetensors, with this step as its last moment; the film stays as it is."""
        last = [] if step in self.steps else [shoot(generator, step, images, classes)]
        moments = [*self.moments, *last]
        stacked = {name: np.stack([moment[name] for moment in moments]) for name in moments[0]}
        return {name: torch.from_numpy(array).contiguous() for name, array in stacked.items()}

    def going_on(self) -> "Film":
        """The film as the run had it when it was saved: without a last moment that was only the save's."""
        film = Film(self.config, [moment for moment in self.moments if is_moment(int(moment["step"]))])
        film._thin()  # where the save's was a moment of the run as well, it has come sooner than `record`
        return film

    @property
    def steps(self) -> list[int]:
        return [int(moment["step"]) for moment in self.moments]

    def _thin(self) -> None:
        while len(self.moments) >= most_moments(self.config):  # the moment of a save has to fit as well
            place = [math.log2(1 + step / FIRST_STEP) for step in self.steps]
            room = [after - before for before, after in zip(place, place[2:], strict=False)]
            del self.moments[1 + room.index(min(room)) if room else -1]


def is_moment(step: int) -> bool:
    """Whether a run films this step: 0, 16, 24, 32, 48, 64 and so on, two for each doubling."""
    if step < FIRST_STEP:
        return step == 0
    trailing = step.bit_length() - 2
    return step >> trailing << trailing == step


def most_moments(config: SaganConfig) -> int:
    """How many moments of these networks stay below 10 MB: at most 20, and never fewer than 2."""
    return max(2, min(MOST_MOMENTS, (MAX_BYTES - HEADER_BYTES) // _moment_bytes(config)))


@torch.inference_mode()
def shoot(generator: Generator, step: int, images: int, classes: Classes) -> Moment:
    """One moment of a plain generator in eval mode, after `step` updates and `images` real images shown."""
    shown = inputs(generator, SEEDS, classes.in_turn(SEEDS))
    faces, queries_keys = generator(*shown, extras="queries_keys")
    moment = {
        "step": np.array(step),
        "images": np.array(images),
        "faces": to_uint8(faces),
        OTHER_RUN: np.array(0, np.uint8),
    }
    largest = torch.finfo(torch.float16).max
    for layer, (q, k) in queries_keys.items():
        for name, vectors in (("q", q), ("k", k)):
            moment[f"{layer}/{name}"] = vectors.clamp(-largest, largest).half().cpu().numpy()
        moment[f"{layer}/gamma"] = learned_gammas(generator)[layer].cpu().numpy()
    return moment


def _read(path: Path, config: SaganConfig) -> list[Moment]:
    most = most_moments(config)
    tensors = checkpoint.load_tensors(path, max_bytes=most * _moment_bytes(config) + HEADER_BYTES)
    count = next((len(tensor) for tensor in tensors.values() if tensor.ndim), 0)
    if not 1 <= count <= most:
        raise CheckpointError(f"'{path}' holds {count} moments, but must hold 1 to {most}.")
    tensors.setdefault(OTHER_RUN, torch.zeros(count, dtype=torch.uint8))
    expected = {name: (dtype, (count, *shape)) for name, (dtype, shape) in _layout(config).items()}
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    checkpoint.check_fits(path, found, expected)
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise CheckpointError(f"'{path}' holds numbers that are not finite.")
    for name in ("step", "images"):
        if tensors[name][0] < 0 or not bool((tensors[name].diff() > 0).all()):
            raise CheckpointError(
                f"'{path}' has moments that are not in order: '{name}' must grow from 0 on."
            )
    return [{name: tensor[i].numpy() for name, tensor in tensors.items()} for i in range(count)]


def _layout(config: SaganConfig) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """The type and shape of every array of a moment."""
    size, count = config.image_size, len(SEEDS)
    layout = {
        "step": (torch.int64, ()),
        "images": (torch.int64, ()),
        "faces": (torch.uint8, (count, size, size, 3)),
        OTHER_RUN: (torch.uint8, ()),
    }
    for side in config.g_attention:
        inner = max(1, config.channels(config.g_width, side) // 8)
        for name in ("q", "k"):
            layout[f"{layer_name(side)}/{name}"] = (torch.float16, (count, side * side, inner))
        layout[f"{layer_name(side)}/gamma"] = (torch.float32, ())
    return layout


def _moment_bytes(config: SaganConfig) -> int:
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in _layout(config).values())
