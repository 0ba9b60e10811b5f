"""The Walk tab: from seed A to seed B, under a slider or played by the browser."""

from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from sagan import latents
from sagan.ui import pictures, texts
from sagan.ui.components import view
from sagan.ui.controls import Controls, any_seed, inline_button
from sagan.ui.current import CurrentFace, pictures_of
from sagan.ui.work import CHOICE, HEAVY, answered, in_worker, number_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

FRAMES = 33  # pictures that the browser plays
MOST_STEPS = 64
STRIP = 9  # pictures of the strip: every fourth frame


def walk_tab(controls: Controls) -> None:
    """Build the tab and its events."""
    sampler = controls.sampler
    with gr.Tab(texts.WALK_TAB, id="walk"):
        walk = view(
            "walk", texts=texts.WALK | {"help": texts.WALK["help"].format(frames=FRAMES)}, count=STRIP
        )
        controls.t.render()
        with gr.Row():
            controls.seed_b.render()
            dice = inline_button(texts.SEED_B_DICE, "dice-b")
            swap = inline_button(texts.SWAP, "swap", min_width=140)

    def make(face: CurrentFace) -> dict:
        ends = {"seed_a": face.seed_a, "seed_b": face.seed_b, "psi": face.psi, "label": face.label}
        frames = way(sampler, steps=FRAMES, **ends)
        return {"frames": FRAMES, "image": pictures.webp_uri(np.concatenate(frames))} | ends

    async def want(event: gr.EventData, face: CurrentFace) -> dict:
        return await in_worker(answered, number_of(event, "number"), make, face)

    async def jump(
        event: gr.EventData, asked: float, seed: int, seed_b: int, psi: float, label: int | None
    ) -> tuple:
        t = number_of(event, "t", 1, float)
        return t, await controls.show(asked, seed, seed_b, t, psi, label)

    async def roll(asked: float, seed: int, t: float, psi: float, label: int | None) -> tuple:
        seed_b = any_seed()
        return seed_b, await controls.show(asked, seed, seed_b, t, psi, label)

    seed, seed_b, t, psi, label = controls.inputs
    ends = [seed, seed_b, psi, label]
    controls.about_face(walk.want, want, walk, **HEAVY)
    controls.new_face(walk.jump, jump, ends, [t], **CHOICE)
    # While the way plays, only the browser moves the slider; a tick that comes after the end moves nothing.
    walk.tick(None, t, t, js="(t) => sagan.t ?? t")
    controls.new_face(dice.click, roll, [seed, t, psi, label], [seed_b], **CHOICE)
    # The browser turns them itself, so that a second click turns back what the first one turned.
    turned = "(a, b, t) => [b, a, Math.round(100 * (1 - t)) / 100]"
    turn = swap.click(None, [seed, seed_b, t], [seed, seed_b, t], js=turned, **CHOICE)
    controls.new_face(turn.then, controls.show, controls.inputs, **CHOICE)


def way(
    sampler: "Sampler", seed_a: int, seed_b: int, steps: int, psi: float, label: int | None
) -> np.ndarray:
    """`steps` evenly spaced faces from seed_a to seed_b, uint8 (steps, S, S, 3). Raises ValueError."""
    if steps not in range(2, MOST_STEPS + 1):
        raise ValueError(f"A walk has 2 to {MOST_STEPS} faces, but steps was {steps!r}.")
    a, b = (latents.from_seed(seed, sampler.config.z_dim) for seed in (seed_a, seed_b))
    return pictures_of(sampler, latents.walk(a, b, steps), psi, label)
