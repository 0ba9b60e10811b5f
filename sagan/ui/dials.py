"""The gamma dials of the Attention tab: the face without attention, as dialled, and the difference."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from sagan.ui import pictures, texts
from sagan.ui.components import view
from sagan.ui.controls import Controls
from sagan.ui.current import CurrentFace, labels_of
from sagan.ui.lab import MOST_TIMES
from sagan.ui.work import CHOICE, failed, in_worker, told, told_list

if TYPE_CHECKING:
    from sagan.sampler import Sampler

MOST_FACTOR = 64  # of the difference
GREY = 128


def gamma_dials(controls: Controls) -> None:
    """Build the section and its event."""
    sampler = controls.sampler
    dials = view(
        "dials",
        texts=texts.DIALS,
        dials=[
            {"name": name, "title": texts.DIALS["dial"].format(name=name), "gamma": sampler.gammas[name]}
            for name in sampler.layers
        ],
        most=MOST_TIMES,
    )

    count = len(sampler.layers)

    async def want(
        event: gr.EventData, seed: int, seed_b: int, t: float, psi: float, label: int | None
    ) -> dict[str, Any]:
        number = told(event, "number")
        times = told_list(event, "times", MOST_TIMES, range(count, count + 1), whole=False)
        face = CurrentFace(seed, seed_b, t, psi, label)
        return {"number": number} | await in_worker(compare, sampler, face, times)

    dials.want(want, controls.inputs, dials, js="() => sagan.values()", **CHOICE).failure(
        None, js=failed(dials)
    )


def compare(sampler: "Sampler", face: CurrentFace, times: list[float]) -> dict[str, Any]:
    """Three pictures of a face: attention off, every gamma `times` the learned one, and their difference.

    Also the factor that the difference was amplified by, and its mean over pixels in grey levels. Raises
    ValueError for a face that cannot be.
    """
    gammas = (factor * sampler.gammas[name] for name, factor in zip(sampler.layers, times, strict=True))
    without, with_it = _without(sampler, face), _made(sampler, face, *gammas)
    difference, factor = amplified(without, with_it)
    change = float(np.abs(with_it.astype(int) - without).mean())
    shown = {"off": without, "dialled": with_it, "difference": difference}
    return {name: pictures.png_uri(image) for name, image in shown.items()} | {
        "factor": factor,
        "change": change,
    }


def _made(sampler: "Sampler", face: CurrentFace, *gammas: float) -> np.ndarray:
    """A face with one gamma for each layer, uint8 (S, S, 3)."""
    z, label = face.inputs(sampler.config)
    return sampler.faces(z[None], labels_of(label), dict(zip(sampler.layers, gammas, strict=True)))[0]


@lru_cache(maxsize=32)
def _without(sampler: "Sampler", face: CurrentFace) -> np.ndarray:
    """A face with attention off, which stays while its dials turn."""
    return _made(sampler, face, *(0.0 for _ in sampler.layers))


def amplified(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, int]:
    """after - before around middle grey, times the largest power of 2 from 1 to 64 that clips nothing.

    uint8 (S, S, 3) and the factor. At factor 1 half the range or more is clipped all the same.
    """
    difference = after.astype(int) - before
    factor = MOST_FACTOR
    while factor > 1 and factor * np.abs(difference).max() >= GREY:
        factor //= 2
    return np.clip(GREY + factor * difference, 0, 255).astype(np.uint8), factor
