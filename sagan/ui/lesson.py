"""The Lesson tab: a guided tour of nine steps on the page itself, and a worksheet for a class."""

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from sagan import heatmaps
from sagan.networks import side_of
from sagan.ui import texts, worksheet
from sagan.ui.components import view
from sagan.ui.controls import MAX_SEED, START_QUERY, START_SEED, Controls, other_end
from sagan.ui.current import CurrentFace, class_name, first_class
from sagan.ui.dials import compare
from sagan.ui.lab import COMBINED, MOST_PINS, Pin
from sagan.ui.work import CHOICE, failed, in_worker, number_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

OFF = "off"  # for all dials


@dataclass(frozen=True)
class Step:
    """A step of the tour: its name among the texts, and how the page is set for it.

    shows  what it is about, as a CSS selector: the page scrolls there and marks it
    tab    the id of the tab that holds it
    face   which of the curated faces is the current one; its query is pinned
    most   whether instead what receives most in the coarsest layer is pinned
    lab    what is not as on a first visit in the state of the lab (static/lab.js)
    unfold the id of the view whose fold is open
    dice   whether the card has a button for a new face
    """

    name: str
    shows: str
    tab: str = "attention"
    face: int = 0
    most: bool = False
    lab: dict[str, Any] = field(default_factory=dict)
    unfold: str = ""
    dice: bool = False


STEPS = (
    Step("short_sight", "#attention-view .layers"),
    Step("query_key_value", "#numbers-view", unfold="numbers-view"),
    Step("softmax", "#attention-view .layers"),
    Step("two_scales", "#attention-view .layers", face=1, lab={"layer": COMBINED}),
    Step("gamma", "#dials-view", lab={"gammas": OFF}, unfold="dials-view"),
    Step("everybody", "#attention-view .pins", most=True, lab={"direction": "backward"}, unfold="dials-view"),
    Step("meaning", "#attention-view .layers", face=2, lab={"average": True}),
    Step("discriminator", "#attention-view .layers", lab={"network": "discriminator"}, dice=True),
    Step("spectral_norm", "#spectrum-view .iteration", tab="inside"),
)


def steps(sampler: "Sampler") -> list[Step]:
    """The steps that this model has something to show for."""
    left_out = set()
    if len(sampler.layers) != 2:
        left_out.add("two_scales")
    if not sampler.config.d_spectral_norm:
        left_out.add("spectral_norm")
    if not sampler.discriminator_layers:
        left_out.add("discriminator")
    return [step for step in STEPS if step.name not in left_out]


def looked_at(sampler: "Sampler") -> list[tuple[int, tuple[float, float]]]:
    """Seeds and queries that the tour and the worksheet look at, one at least."""
    return [(face.seed, face.query) for face in sampler.curated] or [(START_SEED, START_QUERY)]


def setting(sampler: "Sampler", step: Step) -> dict[str, Any]:
    """How the browser sets the page for a step, without the current face."""
    _, query = _face_of(sampler, step)
    lab, dice = dict(step.lab), step.dice
    if lab.get("gammas") == OFF:
        lab["gammas"] = dict.fromkeys(sampler.layers, 0)
    if sampler.average_maps is None and lab.pop("average", False):
        dice = True  # the words ask for other faces then
    pins = (
        _receiving_most(sampler, step)[0] if step.most else [heatmaps.cell(query, sampler.config.image_size)]
    )
    words = {"shows": step.shows, "tab": step.tab, "unfold": step.unfold}
    return words | {"dice": dice, "lab": lab, "pins": pins}


def _face_of(sampler: "Sampler", step: Step) -> tuple[int, tuple[float, float]]:
    choices = looked_at(sampler)
    return choices[step.face % len(choices)]


def words_of(sampler: "Sampler", step: Step) -> dict[str, str]:
    """The words of a step, with what is known of the model filled in."""
    sides = [side_of(name) for name in sampler.layers]
    size = sampler.config.image_size
    known = {
        "all": f"{max(sides) ** 2:,}",
        "even": f"{100 - 900 / max(sides) ** 2:.0f}",
        "bits": 2 * (max(sides).bit_length() - 1),
        "coarse": min(sampler.layers, key=side_of),
        "fine": max(sampler.layers, key=side_of),
        "coarse_cell": size // min(sides),
        "fine_cell": size // max(sides),
    }
    words = dict(texts.LESSON["steps"][step.name])
    if find_out := OF_MODEL.get(step.name):
        known |= find_out(sampler, step)
    without = words.pop("do_without_average", None)
    if without and sampler.average_maps is None:
        words["do"] = without
    return {part: text.format(**known) for part, text in words.items()}


def _compared(sampler: "Sampler", step: Step) -> dict[str, str]:
    """Of two layers: the step's face, and at how many percent of its places the coarse one looks farther."""
    (seed, _), label = _face_of(sampler, step), first_class(sampler)
    latent = CurrentFace(seed, seed).latent(sampler.config.z_dim)

    def distances(layer: str) -> np.ndarray:
        rows, side = sampler.attention(latent, layer, label), side_of(layer)
        size = sampler.config.image_size
        every = [heatmaps.mean_distance(row, query, side, size) for query, row in enumerate(rows)]
        return np.reshape(every, (side, side))

    coarse, fine = (distances(layer) for layer in sorted(sampler.layers, key=side_of))
    cells = len(fine) // len(coarse)
    farther = coarse.repeat(cells, 0).repeat(cells, 1) > fine
    face = texts.FACE["seed"].format(seed=seed).lower()
    name = class_name(sampler, label)
    return {"face": f"{face}, {name}," if name else face, "farther": f"{100 * farther.mean():.0f}"}


def _receiving_most(sampler: "Sampler", step: Step) -> tuple[list[Pin], float]:
    """What receives most in the coarsest layer of a step's face: its pixels, its share of all attention."""
    (seed, _), layer = _face_of(sampler, step), min(sampler.layers, key=side_of)
    side, size = side_of(layer), sampler.config.image_size
    latent = CurrentFace(seed, seed).latent(sampler.config.z_dim)
    attention = sampler.attention(latent, layer, first_class(sampler))  # (n*n, n*n)
    most = heatmaps.receiving_most(attention, MOST_PINS)
    pins = [heatmaps.cell(((at % side + 0.5) / side, (at // side + 0.5) / side), size) for at in most]
    return pins, float(attention[:, most].sum(1).mean())


def _without_most(sampler: "Sampler", step: Step) -> dict[str, str]:
    """What a step tells of what receives most in its face: its share, and how much changes without it."""
    pins, share = _receiving_most(sampler, step)
    (seed, _), cells = _face_of(sampler, step), min(map(side_of, sampler.layers)) ** 2
    face = CurrentFace(seed, seed, label=first_class(sampler))
    moved = compare(sampler, face, [1] * len(sampler.layers), "masked", pins)["other"]
    return {
        "cells": f"{cells:,}",
        "share": f"{100 * share:.0f}",
        "alike": f"{100 * len(pins) / cells:.0f}",
        "moved": f"{moved:.1f}",
    }


OF_MODEL = {"two_scales": _compared, "everybody": _without_most}  # what their words say of the model's faces


def tour(sampler: "Sampler") -> gr.HTML:
    """The card that leads through the steps; it stands above the tabs and is hidden until somebody starts."""
    return view(
        "tour",
        texts=texts.TOUR | {"dice": texts.DICE},
        steps=[words_of(sampler, step) | setting(sampler, step) for step in steps(sampler)],
    )


def lesson_tab(controls: Controls, tabs: gr.Tabs, card: gr.HTML) -> None:
    """Build the tab, its events and those of the `tour` card, which opens any of `tabs`."""
    sampler = controls.sampler
    chosen = steps(sampler)
    with gr.Tab(texts.LESSON_TAB, id="lesson"):
        lesson = view(
            "lesson",
            texts=texts.LESSON,
            steps=[{"title": texts.LESSON["steps"][step.name]["title"]} for step in chosen],
        )

    async def go(event: gr.EventData, asked: float, seed_b: int, label: int | None) -> tuple:
        index = number_of(event, "index", len(chosen) - 1)
        step = chosen[index]
        seed, _ = _face_of(sampler, step)
        seed_b = other_end(sampler, seed, seed_b)
        face = CurrentFace(seed, seed_b, label=first_class(sampler) if step.most else label)
        shown = await controls.describe(asked, face, step=index)
        return *face.values, shown

    async def leave(event: gr.EventData, asked: float) -> tuple:
        num_classes = sampler.config.num_classes
        seeds = [number_of(event, name, MAX_SEED) for name in ("seed_a", "seed_b")]
        shares = [number_of(event, name, 1, float) for name in ("t", "psi")]
        label = number_of(event, "label", num_classes - 1) if num_classes else None
        face = CurrentFace(*seeds, *shares, label)
        return *face.values, await controls.describe(asked, face)

    @cache  # the same for everybody
    def sheet() -> str:
        return worksheet.page(sampler, looked_at(sampler)[0])

    async def want(event: gr.EventData) -> dict[str, Any]:
        return {"number": number_of(event, "number"), "html": await in_worker(sheet)}

    controls.new_face(card.go, go, [controls.seed_b, controls.label], controls.inputs, card, **CHOICE)
    controls.new_face(card.leave, leave, outputs=controls.inputs, teller=card, **CHOICE)
    # Without the server, whose answers may overtake each other.
    wanted = "document.querySelector('#tour-view .card').dataset.tab"
    card.turn(None, None, tabs, js=f"() => ({{ __type__: 'update', selected: {wanted} }})", **CHOICE)
    lesson.want(want, None, lesson, **CHOICE).failure(None, js=failed(lesson))
