"""The public endpoints: what the page shows, for programs (`gradio_client`, or plain HTTP)."""

from typing import TYPE_CHECKING

import gradio as gr

from sagan import heatmaps, latents
from sagan.networks import side_of
from sagan.ui import texts
from sagan.ui.controls import MAX_SEED, START_SEED, START_SEED_B
from sagan.ui.current import CurrentFace, first_class
from sagan.ui.faces import MOST, faces_from
from sagan.ui.walk import MOST_STEPS, STRIP, way
from sagan.ui.work import PROGRAMS, in_worker

if TYPE_CHECKING:
    from sagan.sampler import Sampler


def public_endpoints(sampler: "Sampler") -> None:
    """Add /faces, /walk and /attention; their components are never on screen."""

    async def faces(seed: int, count: int, truncation: float, label: int | None) -> list:
        images = await in_worker(faces_from, sampler, seed, count, truncation, label)
        return list(images)

    async def walk(seed_a: int, seed_b: int, steps: int, truncation: float, label: int | None) -> list:
        return list(await in_worker(way, sampler, seed_a, seed_b, steps, truncation, label))

    async def attention(
        seed: int, layer: str, x: float, y: float, truncation: float, label: int | None
    ) -> dict:
        return await in_worker(attention_row, sampler, seed, layer, x, y, truncation, label)

    with gr.Column(visible=False):
        seed, seed_a, seed_b = (
            gr.Number(value, precision=0, minimum=0, maximum=MAX_SEED, label=name)
            for name, value in (("seed", START_SEED), ("seed_a", START_SEED), ("seed_b", START_SEED_B))
        )
        count = gr.Number(1, precision=0, minimum=1, maximum=MOST, label="count")
        steps = gr.Number(STRIP, precision=0, minimum=2, maximum=MOST_STEPS, label="steps")
        truncation, x, y = (
            gr.Number(value, minimum=0, maximum=1, label=name)
            for name, value in (("truncation", 1), ("x", 0.5), ("y", 0.5))
        )
        # Without classes it changes nothing.
        label = gr.Number(first_class(sampler) or 0, precision=0, label="label")
        layer = gr.Dropdown(list(sampler.layers), value=next(iter(sampler.layers), None), label="layer")
        pictures = gr.Gallery(format="png", label="faces")
        numbers = gr.JSON(label="attention")
        for function, inputs, output in (
            (faces, [seed, count, truncation, label], pictures),
            (walk, [seed_a, seed_b, steps, truncation, label], pictures),
            (attention, [seed, layer, x, y, truncation, label], numbers),
        ):
            name = function.__name__
            gr.Button().click(
                function, inputs, output, api_name=name, api_description=texts.API[name], **PROGRAMS
            )


def attention_row(
    sampler: "Sampler", seed: int, layer: str, x: float, y: float, truncation: float, label: int | None
) -> dict:
    """What the point (x, y), shares of the picture from 0 to 1, attends to in a layer. Raises ValueError."""
    point = latents.check_share("x", x), latents.check_share("y", y)
    latent, label = CurrentFace(seed, seed, psi=truncation, label=label).inputs(sampler.config)
    maps = sampler.attention(latent, layer, label)
    side = side_of(layer)
    column, row = heatmaps.cell(point, side)
    weights = maps[row * side + column]
    return {
        "layer": layer,
        "side": side,
        "query": row * side + column,
        "weights": weights.tolist(),
        "gamma": sampler.gammas[layer],
        "times_uniform": float(heatmaps.times_uniform(weights).max()),
        "strongest_key": int(weights.argmax()),
        "entropy_bits": heatmaps.entropy_bits(weights),
    }
