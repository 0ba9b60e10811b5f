"""The numbers of the Attention tab: how one point of a layer arrives at its output."""

from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from sagan.networks import side_of
from sagan.ui import texts
from sagan.ui.components import view
from sagan.ui.controls import Controls
from sagan.ui.current import CurrentFace
from sagan.ui.work import CHOICE, in_worker, number_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

CHANNELS = 8  # that are shown of vectors as wide as the feature map


def the_numbers(controls: Controls) -> None:
    """Build the section and its event."""
    sampler = controls.sampler
    sides = [side_of(name) for name in sampler.layers]
    layers = [{"name": name, "side": side} for name, side in zip(sampler.layers, sides, strict=True)]
    numbers = view(
        "numbers",
        texts=texts.NUMBERS,
        layers=layers,
        size=sampler.config.image_size,
        channels=CHANNELS,
    )

    async def want(event: gr.EventData, face: CurrentFace) -> dict[str, Any]:
        number, layer = number_of(event, "number"), number_of(event, "layer", len(layers) - 1)
        query = number_of(event, "query", sides[layer] ** 2 - 1)
        answer = await in_worker(computed, sampler, face, sampler.layers[layer], query)
        return {"number": number, "layer": layer, "query": query} | answer

    controls.about_face(numbers.want, want, numbers, **CHOICE)


def computed(sampler: "Sampler", face: CurrentFace, layer: str, query: int) -> dict[str, Any]:
    """`Sampler.computation` as lists, the first 8 channels of what has as many as the feature map.

    Also `width`, how many those are, and of all of them `added`: how many times as long as x what gamma adds
    to it is, None where x is 0. Raises ValueError.
    """
    z, label = face.inputs(sampler.config)
    made = sampler.computation(z, layer, query, label)
    whole = {name: getattr(made, name) for name in ("q", "keys", "k", "logits", "weights")}
    first = {name: getattr(made, name)[..., :CHANNELS] for name in ("values", "attended", "x", "y")}
    lists = {name: np.asarray(array).tolist() for name, array in (whole | first).items()}
    length, gathered = (float(np.linalg.norm(vector)) for vector in (made.x, made.attended))
    added = abs(made.gamma) * gathered / length if length else None
    return lists | {"gamma": made.gamma, "width": made.values.shape[-1], "added": added}
