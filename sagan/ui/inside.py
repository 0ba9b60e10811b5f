"""The Inside tab: both networks, what the current face looks like in their blocks, and spectral norm."""

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from sagan import heatmaps, inside
from sagan.networks import layer_name
from sagan.ui import texts
from sagan.ui.components import view
from sagan.ui.controls import Controls
from sagan.ui.current import CurrentFace, labels_of
from sagan.ui.pictures import base64_bytes
from sagan.ui.spectrum import spectral_norm
from sagan.ui.work import CHOICE, INTERACTIVE, answered, in_worker, number_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler


def inside_tab(controls: Controls, tabs: gr.Tabs) -> None:
    """Build the tab and its events; `tabs` are those of the page, so that a block can open Attention."""
    sampler = controls.sampler
    networks = [network(sampler, name) for name in ("generator", "discriminator")]
    last = [
        [block["id"] for block in network["blocks"] if block["kind"] == "convolution"][-1]
        for network in networks
    ]
    first = last[0]  # of the maps that are not a picture yet, the largest show most
    with gr.Tab(texts.INSIDE_TAB, id="inside"):
        blocks = view(
            "inside",
            texts=texts.INSIDE,
            networks=networks,
            first=first,
            cells=list(range(1, inside.SHOWN + 1)),
            table=base64_bytes(heatmaps.colour_table()),
            can_open=bool(sampler.layers),
        )
        # In the discriminator, since what it bounds there no batch norm sets anew.
        spectral_norm(sampler, networks, last[sampler.config.d_spectral_norm])

    async def want(event: gr.EventData, face: CurrentFace) -> str:
        number = number_of(event, "number")
        # As one string, which is cheap to compare with the last one.
        return await in_worker(lambda: json.dumps(answered(number, activations, sampler, face)))

    controls.about_face(blocks.want, want, blocks, **CHOICE)
    blocks.attend(lambda: gr.Tabs(selected="attention"), None, tabs, **INTERACTIVE)


# The diagram


def network(sampler: "Sampler", name: str) -> dict[str, Any]:
    """All that the page says of a network before a face is in it: its words, where it starts, its blocks."""
    config = sampler.config
    starts = {
        "generator": (texts.INSIDE["latent"], texts.INSIDE["numbers"].format(numbers=config.z_dim)),
        "discriminator": (texts.INSIDE["face"], _shape((3, config.image_size, config.image_size))),
    }
    return {
        "name": name,
        "title": texts.INSIDE[name],
        "how": texts.INSIDE[f"{name}_how"].format(numbers=config.z_dim),
        "start": dict(zip(("title", "shape"), starts[name], strict=True)),
        "sees_face": name == "discriminator",
        "blocks": [
            block | _words(sampler, name, block, first=i == 0)
            for i, block in enumerate(blocks_of(sampler, name))
        ],
    }


def blocks_of(sampler: "Sampler", network: str) -> list[dict[str, Any]]:
    """The blocks of a network in the order data meets them, known without a forward.

    name     that of `Sampler.activations`
    kind     "convolution", "attention", "image" or "score"
    shape    (C, H, W) of all that it puts out
    id       network and name, "generator/attention 16x16"
    layers   its normalised layers, {name: part}: the names are those of `Sampler.spectra`, the part is "" for
             the layer that the block is named after, or what the page calls it
    residual how many residual blocks follow the convolution and are part of this one
    """
    config, of_generator = sampler.config, network == "generator"
    width = config.g_width if of_generator else config.d_width
    residual = Counter(config.g_residual if of_generator else config.d_residual)
    parts = texts.SPECTRUM["parts"]
    attention = sampler.layers if of_generator else sampler.discriminator_layers
    normalised = of_generator or config.d_spectral_norm

    def block(
        name: str, kind: str, shape: tuple[int, ...], layers: dict[str, str], residual: int = 0
    ) -> dict[str, Any]:
        layers = {f"{network}/{layer}": part for layer, part in layers.items()} if normalised else {}
        whose = {"id": f"{network}/{name}", "name": name}
        return whose | {"kind": kind, "shape": shape, "layers": layers, "residual": residual}

    blocks = []
    for i, side in enumerate(config.sides if of_generator else reversed(config.sides)):
        name, shape = layer_name(side), (config.channels(width, side), side, side)
        convolution = f"blocks.{i}.conv" if of_generator else f"blocks.{i}"
        refining = {
            f"residual.{name}.{number}.{part}": parts[part].format(number=number + 1)
            for number in range(residual[side])
            for part in ("first", "second")
        }
        blocks.append(block(name, "convolution", shape, {convolution: ""} | refining, residual[side]))
        if name in attention:
            projections = {f"attention.{name}.{part}": parts[part] for part in ("query", "key", "value")}
            blocks.append(block(f"attention {name}", "attention", shape, projections))
    if of_generator:
        return [*blocks, block("image", "image", (3, config.image_size, config.image_size), {"to_image": ""})]
    embedding = {"embedding": parts["embedding"]} if config.num_classes else {}
    return [*blocks, block("score", "score", (1, 1, 1), {"to_score": ""} | embedding)]


def _words(sampler: "Sampler", network: str, block: dict[str, Any], first: bool) -> dict[str, Any]:
    """What the page says of a block, and how it draws its box; {gamma} in `does` is filled in by the page."""
    kind, (maps, side, _) = block["kind"], block["shape"]
    long = short = block["name"]
    if kind == "attention":
        short = block["name"].removeprefix("attention ")
        long = texts.INSIDE["attention"].format(side=short)
    elif kind in texts.INSIDE:
        long = short = texts.INSIDE[kind]
    does = texts.INSIDE["does"][f"{network} {'first' if first else kind}"].format(
        numbers=sampler.config.z_dim, maps=maps, side=side, places=side * side, gamma="{gamma}"
    )
    if kind == "score" and sampler.config.num_classes:
        does = f"{does} {texts.INSIDE['does']['projection']}"
    what = texts.INSIDE["kinds"][kind]
    if count := block["residual"]:
        number = "residual" if count == 1 else "residuals"
        does = f"{does} {texts.INSIDE['does'][number].format(count=count)}"
        what = texts.INSIDE[f"and_{number}"].format(kind=what, count=count)
    how_many = "maps" if maps > inside.SHOWN else "all_maps"
    counted = texts.INSIDE[how_many].format(shown=inside.SHOWN, all=maps)
    return {
        "title": short,
        "long": long,
        "what": what,
        "size": texts.INSIDE["one_number"] if kind == "score" else _shape(block["shape"]),
        "is_attention": kind == "attention",
        "is_image": kind == "image",
        "does": does,
        "counted": "" if kind == "score" else counted,
        "box": f"--tall: {math.log2(side):.2f}; --wide: {math.log2(maps):.2f}",
    }


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


# The current face


def activations(sampler: "Sampler", face: CurrentFace) -> dict[str, Any]:
    """What the page draws of a face in every block, by the ids of `blocks_of`. Raises ValueError.

    The discriminator sees the face as it is on screen.
    """
    z, label = face.inputs(sampler.config)
    image = sampler.faces(z[None], labels_of(label))[0]
    networks = {
        "generator": (sampler.activations(z, label), sampler.gammas),
        "discriminator": (sampler.discriminator_activations(image, label), sampler.discriminator_gammas),
    }
    drawn = {
        f"{name}/{block}": levels(maps)
        for name, (blocks, _) in networks.items()
        for block, maps in blocks.items()
    }
    for name, (_, gammas) in networks.items():
        for layer, gamma in gammas.items():
            drawn[f"{name}/attention {layer}"]["gamma"] = gamma
    return {"seed": face.seed_a, "t": face.t, "blocks": drawn}


def levels(maps: np.ndarray) -> dict[str, Any]:
    """Maps (N, H, W) in 256 levels, each from its smallest value `low`, level 0, to its largest `high`.

    A map that is the same everywhere has level 0.
    """
    maps = maps.astype(np.float64)
    low, high = maps.min((1, 2)), maps.max((1, 2))
    spread = np.where(high > low, high - low, 1)
    scaled = np.round(255 * (maps - low[:, None, None]) / spread[:, None, None]).astype(np.uint8)
    return {"low": low.tolist(), "high": high.tolist(), "levels": base64_bytes(scaled)}
