"""The Walk tab: from seed A to seed B, under a slider or played by the browser."""

from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from sagan.ui import pictures, texts
from sagan.ui.components import view
from sagan.ui.controls import Controls, any_seed
from sagan.ui.current import CurrentFace, pictures_of
from sagan.ui.work import HEAVY, INTERACTIVE, in_worker

if TYPE_CHECKING:
    from sagan.sampler import Sampler

FRAMES = 33  # pictures that the browser plays
MOST_STEPS = 64
STRIP = 9  # pictures of the strip: every fourth frame


def walk_tab(controls: Controls) -> None:
    """Build the tab and its events."""
    sampler = controls.sampler
    with gr.Tab(texts.WALK_TAB, id="walk"):
        walk = view("walk", texts=texts.WALK, count=STRIP)
        controls.t.render()
        with gr.Row():
            controls.seed_b.render()
            dice = gr.Button(
                texts.SEED_B_DICE,
                elem_id="dice-b",
                size="md",
                elem_classes="inline-button",
                min_width=120,
                scale=0,
            )
            swap = gr.Button(
                texts.SWAP, elem_id="swap", size="md", elem_classes="inline-button", min_width=140, scale=0
            )

    def make(number: int, seed_a: int, seed_b: int, psi: float, label: int | None) -> dict:
        ends = {"seed_a": seed_a, "seed_b": seed_b, "psi": psi, "label": label}
        try:
            frames = way(sampler, seed_a, seed_b, FRAMES, psi, label)
        except ValueError as error:
            return {"number": number, "error": str(error)}
        return {
            "number": number,
            **ends,
            "frames": FRAMES,
            "image": pictures.webp_uri(np.concatenate(frames)),
        }

    async def want(event: gr.EventData, seed: int, seed_b: int, psi: float, label: int | None) -> dict:
        return await in_worker(make, event.number, seed, seed_b, psi, label)

    async def jump(event: gr.EventData, seed: int, seed_b: int, psi: float, label: int | None) -> tuple:
        return event.t, await controls.show(seed, seed_b, event.t, psi, label)

    async def roll(seed: int, t: float, psi: float, label: int | None) -> tuple:
        seed_b = any_seed()
        return seed_b, await controls.show(seed, seed_b, t, psi, label)

    async def turn(seed: int, seed_b: int, t: float, psi: float, label: int | None) -> tuple:
        t = round(1 - t, 2)
        return seed_b, seed, t, await controls.show(seed_b, seed, t, psi, label)

    seed, seed_b, t, psi, label = controls.inputs
    walk.want(want, [seed, seed_b, psi, label], walk, **HEAVY)
    walk.jump(jump, [seed, seed_b, psi, label], [t, controls.face], **INTERACTIVE)
    # While the way plays, only the browser moves the slider.
    walk.tick(None, None, t, js="() => sagan.t")
    dice.click(roll, [seed, t, psi, label], [seed_b, controls.face], **INTERACTIVE)
    swap.click(turn, controls.inputs, [seed, seed_b, t, controls.face], **INTERACTIVE)


def way(
    sampler: "Sampler", seed_a: int, seed_b: int, steps: int, psi: float, label: int | None
) -> np.ndarray:
    """`steps` evenly spaced faces from seed_a to seed_b, uint8 (steps, S, S, 3). Raises ValueError."""
    if not 2 <= steps <= MOST_STEPS:
        raise ValueError(f"A walk has 2 to {MOST_STEPS} faces, but {steps} were asked for.")
    shares = [i / (steps - 1) for i in range(steps)]
    return pictures_of(sampler, [CurrentFace(seed_a, seed_b, t, psi, label) for t in shares])
