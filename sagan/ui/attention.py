"""The Attention tab: what a point of the face attends to in every layer, drawn by the browser."""

import base64
from typing import TYPE_CHECKING, Any

import gradio as gr

from sagan import heatmaps
from sagan.ui import texts
from sagan.ui.components import view
from sagan.ui.controls import START_QUERY, Controls
from sagan.ui.current import CurrentFace
from sagan.ui.work import CHOICE, told

if TYPE_CHECKING:
    from sagan.sampler import Sampler

OPACITY = 0.75


def layer_props(sampler: "Sampler") -> dict[str, Any]:
    """What the shared part "layers" needs besides its texts: the layers, the colours and the first query."""
    layers = [
        {
            "name": name,
            "side": int(name.partition("x")[0]),
            "title": texts.ATTENTION["layer"].format(name=name),
            "label": texts.ATTENTION["picture"].format(name=name),
        }
        for name in sampler.layers
    ]
    table = base64.b64encode(heatmaps.colour_table().tobytes()).decode()
    return {"layers": layers, "table": table, "query": list(START_QUERY)}


def attention_tab(controls: Controls) -> None:
    """Build the tab and its events."""
    sampler = controls.sampler
    with gr.Tab(texts.ATTENTION_TAB, id="attention"):
        attention = view(
            "attention",
            "layers",
            texts=texts.ATTENTION,
            **layer_props(sampler),
            opacity=OPACITY,
            curated=[{"seed": face.seed, "text": face.text} for face in sampler.curated],
        )
        opacity = gr.Slider(0, 1, OPACITY, step=0.01, label=texts.OPACITY, elem_id="opacity")

    async def curated(event: gr.EventData, asked: float, seed_b: int, label: int | None) -> tuple:
        seed, query, text = sampler.curated[told(event, "index", len(sampler.curated) - 1)]
        face = CurrentFace(seed, seed_b, label=label)
        return seed, 0, 1, await controls.describe(asked, face, query=query, text=text)

    attention.curated(
        curated,
        outputs=[controls.seed, controls.t, controls.psi, controls.face],
        **controls.asking(controls.seed_b, controls.label),
        **CHOICE,
    )
    opacity.change(
        None,
        opacity,
        js="(value) => { document.body.style.setProperty('--heat', value); return []; }",
    )
