"""The Attention tab: what a point of the face attends to in every layer, drawn by the browser."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from sagan import heatmaps
from sagan.checkpoint import AVERAGE_MAPS
from sagan.networks import discriminator_key, side_of
from sagan.ui import save, texts
from sagan.ui.components import view
from sagan.ui.controls import START_QUERY, Controls, other_end
from sagan.ui.current import CurrentFace, first_class, labels_of, layers_of, signed
from sagan.ui.dials import gamma_dials
from sagan.ui.downloads import served
from sagan.ui.lab import COMBINED, MOST_PINS, pins_of
from sagan.ui.numbers import the_numbers
from sagan.ui.pictures import base64_bytes
from sagan.ui.work import CHOICE, HEAVY, failed, in_worker, number_of, numbers_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

OPACITY = 0.75


def layer_props(sampler: "Sampler") -> dict[str, Any]:
    """What the shared part "layers" needs besides its texts: the layers, the colours and the first query."""
    return {
        "layers": [_layer(name) for name in sampler.layers],
        "size": sampler.config.image_size,
        "table": base64_bytes(heatmaps.colour_table()),
        "colours": [{"fill": colour, "ink": _ink(colour)} for colour in heatmaps.PIN_COLOURS],
        "query": list(START_QUERY),
    }


def lab_props(sampler: "Sampler") -> dict[str, Any]:
    """The same for the lab: the layers of both networks, which take turns, and its switches."""
    layers = [
        *_lab_layers("generator", sampler.layers),
        *_lab_layers("discriminator", sampler.discriminator_layers),
    ]
    switches = [
        {"name": name, **words}
        for name, words in texts.LAB_SWITCHES.items()
        if name != "network" or sampler.discriminator_layers
    ]
    return layer_props(sampler) | {"layers": layers, "lab": True, "switches": switches}


def _lab_layers(network: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The attention layers of a network and, where these are several, their combined maps."""
    layers = [_layer(name) for name in names]
    if len(layers) > 1:
        layers.append(_combined(max(layer["side"] for layer in layers)))
    identify = str if network == "generator" else discriminator_key
    own = {"network": network, "hidden": network != "generator"}
    return [layer | own | {"id": identify(layer["name"])} for layer in layers]


def _combined(side: int) -> dict[str, Any]:
    title = texts.LAB["combined"]
    return {
        "name": COMBINED,
        "side": side,
        "title": title,
        "short": title,
        "label": texts.LAB["combined_picture"],
        "combined": texts.LAB["combined_how"].format(side=side),
    }


def _layer(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "side": side_of(name),
        "title": texts.ATTENTION["layer"].format(name=name),
        "short": name,
        "label": texts.ATTENTION["picture"].format(name=name),
    }


def _ink(colour: str) -> str:
    """Black or white, whichever reads better on a colour "#rrggbb" (WCAG's relative luminance)."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if light > 0.179 else "white"


def attention_tab(controls: Controls) -> None:
    """Build the tab and its events."""
    sampler = controls.sampler
    props = lab_props(sampler)
    with gr.Tab(texts.ATTENTION_TAB, id="attention"):
        attention = view(
            "attention",
            *("layers", "tools", "save", "pins"),
            texts=texts.ATTENTION | texts.LAB | {"score": score_sentence(sampler.history)},
            **props,
            opacity=OPACITY,
            averages=sampler.average_maps is not None,
            curated=[{"seed": face.seed, "text": face.text} for face in sampler.curated],
        )
        opacity = gr.Slider(0, 1, OPACITY, step=0.01, label=texts.OPACITY, elem_id="opacity")
        gamma_dials(controls)
        the_numbers(controls)

    async def curated(event: gr.EventData, asked: float, seed_b: int) -> tuple:
        seed, query, text = sampler.curated[number_of(event, "index", len(sampler.curated) - 1)]
        face = CurrentFace(seed, other_end(sampler, seed, seed_b), label=first_class(sampler))
        return *face.values, await controls.describe(asked, face, query=query, text=text)

    controls.new_face(attention.curated, curated, [controls.seed_b], controls.inputs, **CHOICE)
    opacity.change(
        None,
        opacity,
        js="(value) => { document.body.style.setProperty('--heat', value); return []; }",
    )
    _answers(controls, attention, props["layers"])


def score_sentence(history: list[dict[str, float]]) -> str:
    """The sentence on a score, and what real and generated pictures had at the end of training, if known."""
    last = history[-1] if history else {}
    means = {name: last.get(f"d_{name}", math.nan) for name in ("real", "fake")}
    if not all(map(math.isfinite, means.values())):
        return texts.LAB["score"]
    known = texts.LAB["score_known_changed" if last.get("augment", 0) > 0 else "score_known"]
    return f"{texts.LAB['score']} {known.format(**{name: signed(mean) for name, mean in means.items()})}"


def _answers(controls: Controls, attention: gr.HTML, layers: list[dict[str, Any]]) -> None:
    """The events by which the lab asks for more; they answer into its value.

    Each answer has the number of its request, because the browser is only told of a value that changed.
    """
    sampler = controls.sampler

    async def discriminator(event: gr.EventData, face: CurrentFace) -> dict[str, Any]:
        number = number_of(event, "number")
        return {"kind": "discriminator", "number": number} | await in_worker(judged, sampler, face)

    async def average(event: gr.EventData) -> dict[str, Any]:
        number, averages = number_of(event, "number"), sampler.files.get(AVERAGE_MAPS, b"")
        file = await in_worker(served, attention, averages, AVERAGE_MAPS)
        return {"kind": "average", "number": number, "file": file}

    async def figure(event: gr.EventData, face: CurrentFace) -> dict[str, Any]:
        number, layer = number_of(event, "number"), layers[number_of(event, "layer", len(layers) - 1)]
        colours = numbers_of(event, "colours", MOST_PINS - 1, range(1, MOST_PINS + 1))
        count = len(colours)
        pins = pins_of(event, sampler.config.image_size, range(count, count + 1))
        backward, own, svg = (bool(number_of(event, name, 1)) for name in ("backward", "own", "svg"))
        wanted = save.Wanted(layer["network"], layer["name"], pins, colours, backward, own)
        kind = "svg" if svg else "png"
        made = await in_worker(save.figure, sampler, face, wanted, kind)
        return await as_file(number, made, f"sagan-figure-{face.name}.{kind}")

    async def maps(event: gr.EventData, face: CurrentFace) -> dict[str, Any]:
        number = number_of(event, "number")
        made = await in_worker(save.raw_maps, sampler, face)
        return await as_file(number, made, f"sagan-maps-{face.name}.npz")

    async def as_file(number: int, data: bytes, name: str) -> dict[str, Any]:
        file = await in_worker(served, attention, data, name)
        return {"kind": "file", "number": number, "file": file}

    controls.about_face(attention.discriminator, discriminator, attention, **CHOICE)
    controls.about_face(attention.figure, figure, attention, **HEAVY)
    controls.about_face(attention.maps, maps, attention, **HEAVY)
    attention.average(average, None, attention, **CHOICE).failure(None, js=failed(attention))


def judged(sampler: "Sampler", face: CurrentFace) -> dict[str, Any]:
    """What the discriminator makes of a face: its score, queries, keys and gammas. Raises ValueError."""
    z, label = face.inputs(sampler.config)
    (image,) = sampler.faces(z[None], labels_of(label))
    score, vectors = sampler.score_and_queries_keys(image, label)
    return {
        "of": list(face.values),
        "score": score,
        "layers": layers_of(vectors, sampler.discriminator_gammas),
    }
