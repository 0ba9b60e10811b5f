"""The Attention tab: what a point of the face attends to in every layer, drawn by the browser."""

import base64

import gradio as gr

from sagan import heatmaps
from sagan.ui import texts
from sagan.ui.components import view
from sagan.ui.controls import START_QUERY, Controls
from sagan.ui.current import CurrentFace
from sagan.ui.work import CHOICE

OPACITY = 0.75


def attention_tab(controls: Controls) -> None:
    """Build the tab and its events."""
    sampler = controls.sampler
    layers = [
        {
            "name": name,
            "side": int(name.partition("x")[0]),
            "title": texts.ATTENTION["layer"].format(name=name),
            "label": texts.ATTENTION["picture"].format(name=name),
        }
        for name in sampler.layers
    ]
    with gr.Tab(texts.ATTENTION_TAB, id="attention"):
        attention = view(
            "attention",
            texts=texts.ATTENTION,
            layers=layers,
            table=base64.b64encode(heatmaps.colour_table().tobytes()).decode(),
            query=list(START_QUERY),
            opacity=OPACITY,
            curated=[{"seed": face.seed, "text": face.text} for face in sampler.curated],
        )
        opacity = gr.Slider(0, 1, OPACITY, step=0.01, label=texts.OPACITY, elem_id="opacity")

    async def curated(event: gr.EventData, asked: float, seed_b: int, label: int | None) -> tuple:
        seed, query, text = sampler.curated[event.index]
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
