"""Spectral norm on the Inside tab: a layer's singular values, and the power iteration that finds one."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from sagan.ui import texts
from sagan.ui.components import view
from sagan.ui.controls import MAX_SEED
from sagan.ui.pictures import base64_floats
from sagan.ui.work import HEAVY, answered, failed, in_worker, number_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

ROUNDS = 30  # of the power iteration


def spectral_norm(sampler: "Sampler", networks: list[dict[str, Any]], first: str) -> None:
    """Build the part of the tab and its events; it opens with the layer of the block `first`.

    networks are those of the diagram, with the normalised layers of every block.
    """
    layers, both = normalised_layers(networks), sampler.config.d_spectral_norm
    spectrum = view(
        "spectrum",
        texts=texts.SPECTRUM | ({} if both else {"what": texts.SPECTRUM["what_generator"]}),
        layers=layers,
        first=[layer["block"] for layer in layers].index(first),
    )

    def make(layer: int, seed: int) -> dict[str, Any]:
        return {"layer": layer, "seed": seed} | describe(sampler, layers[layer]["name"], seed)

    async def want(event: gr.EventData) -> dict[str, Any]:
        number, layer = number_of(event, "number"), number_of(event, "layer", len(layers) - 1)
        return await in_worker(answered, number, make, layer, number_of(event, "seed", MAX_SEED))

    spectrum.want(want, None, spectrum, **HEAVY).failure(None, js=failed(spectrum))


def normalised_layers(networks: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The normalised layers of the diagram's blocks, each with its name, its title and its block's id."""
    layers = []
    for network in networks:
        for block in network["blocks"]:
            whole = texts.INSIDE["chosen"].format(network=network["title"], block=block["long"])
            for name, part in block["layers"].items():
                title = whole
                if part:
                    title = texts.SPECTRUM["part"].format(block=whole, part=part)
                layers.append({"name": name, "title": title, "block": block["id"]})
    return layers


def describe(sampler: "Sampler", layer: str, seed: int) -> dict[str, Any]:
    """What the page shows of a normalised layer. Raises ValueError where there is none of that name.

    shape   of its weight, and matrix: rows and columns of that as a matrix
    after   its singular values as base64 of float32, and before: those of the weight as trained, or None
    sigmas  the estimates of a power iteration from this seed on, before the first round and after each; if
            `before` is known, those of the weight as trained
    angles  in degrees, between its u and the true first singular vector
    """
    sigmas, angles = sampler.power_iteration(layer, seed, ROUNDS)
    known = sampler.spectra[layer]
    before, after = known["before"], known["after"]
    if before is not None:
        sigmas = sigmas * (before[0] / after[0])
    return {
        "shape": list(known["shape"]),
        "matrix": list(known["matrix"]),
        "before": None if before is None else base64_floats(before),
        "after": base64_floats(after),
        "sigmas": sigmas.tolist(),
        "angles": angles.tolist(),
    }
