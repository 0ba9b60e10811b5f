"""The Faces tab: a sheet of consecutive seeds; a click makes a face the current one."""

from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from sagan import latents
from sagan.ui import pictures, texts
from sagan.ui.components import view
from sagan.ui.controls import MAX_SEED, Controls, any_seed, inline_button, seed_slider
from sagan.ui.current import pictures_of
from sagan.ui.work import CHOICE, HEAVY, INTERACTIVE, answered, failed, in_worker, number_of, within

if TYPE_CHECKING:
    from sagan.sampler import Sampler

MOST = 64
COUNT = 24  # faces on the sheet of a first visit


def faces_tab(controls: Controls) -> None:
    """Build the tab and its events."""
    sampler = controls.sampler
    with gr.Tab(texts.FACES_TAB, id="faces"):
        sheet = view("sheet", texts=texts.SHEET, count=COUNT)
        with gr.Row():
            first = seed_slider(0, texts.FIRST_SEED, "first-seed")
            count = gr.Slider(
                1, MOST, COUNT, step=1, precision=0, label=texts.COUNT, elem_id="count", min_width=160
            )
            dice = inline_button(texts.SHEET_DICE, "sheet-dice")

    def make(first: int, count: int, psi: float, label: int | None) -> dict:
        images = faces_from(sampler, first, count, psi, label)
        seeds = latents.sheet_seeds(first, count)
        return {"seeds": seeds, "label": label, "images": [pictures.png_uri(image) for image in images]}

    async def want(event: gr.EventData, first: int, count: int, psi: float, label: int | None) -> dict:
        return await in_worker(answered, number_of(event, "number"), make, first, count, psi, label)

    async def pick(event: gr.EventData, asked: float, seed_b: int, psi: float, label: int | None) -> tuple:
        seed = number_of(event, "seed", MAX_SEED)
        return seed, *await controls.show_seed(asked, seed, seed_b, psi, label)

    wanted = [first, count, controls.psi, controls.label]
    sheet.want(want, wanted, sheet, js=within(wanted), **HEAVY).failure(None, js=failed(sheet))
    others = [controls.seed_b, controls.psi, controls.label]
    controls.new_face(sheet.pick, pick, others, [controls.seed, controls.t], **CHOICE)
    dice.click(any_seed, None, first, **INTERACTIVE)
    usable = f"first !== null && 1 <= count && count <= {MOST}"  # not while it is being retyped
    gr.on(
        [first.change, count.change],
        None,
        [first, count],
        js=f"(first, count) => {{ if ({usable}) sagan.emit('sheet', count); }}",
    )


def faces_from(sampler: "Sampler", first: int, count: int, psi: float, label: int | None) -> np.ndarray:
    """The faces of `count` seeds from `first` on, uint8 (N, S, S, 3). Raises ValueError."""
    if count not in range(1, MOST + 1):
        raise ValueError(f"A sheet holds 1 to {MOST} faces, but the count was {count!r}.")
    z = latents.from_seeds(latents.sheet_seeds(first, count), sampler.config.z_dim)
    return pictures_of(sampler, z, psi, label)
