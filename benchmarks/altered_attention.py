"""What attention does in a trained generator: the same faces with other attention maps in its layers.

    python -m benchmarks.altered_attention --checkpoint checkpoints/celeba64 --out runs/altered

Every alteration replaces the maps of all attention layers, or of one, and leaves queries, keys, values and
gammas as they were learned. sheet.png shows the same seeds with each; table.csv says how like the unaltered
faces they are and, with --reference, holds the figures of `python -m sagan.metrics`.

The batch norms behind the layers are measured anew for each, so that none of it is only a matter of scale.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sagan import average_maps, checkpoint, heatmaps
from sagan.data import load_images, refusal
from sagan.device import pick_device
from sagan.export import measure_batch_norm
from sagan.layers import SelfAttention
from sagan.metrics import INCEPTION, Measurement, generate, load_features
from sagan.networks import Generator

Change = Callable[[Tensor], Tensor]  # the maps of a batch, (B, H*W, H*W), -> as many others

SHOWN = 12  # faces of a row of the sheet
COMPARED = 200  # faces that are compared with the unaltered ones
SQUARE = 8  # pixels: the side of the squares whose means are the light of a face
AVERAGED = 256  # faces whose maps `by place` is the mean of


def none(maps: Tensor) -> Tensor:
    """Nothing is attended to, as with gamma 0."""
    return torch.zeros_like(maps)


def uniform(maps: Tensor) -> Tensor:
    """Every position attends to all alike."""
    return torch.full_like(maps, 1 / maps.shape[2])


def one_row(maps: Tensor) -> Tensor:
    """Every position attends as all of this face do on average: what is left does not depend on the query."""
    return maps.mean(1, keepdim=True).expand_as(maps)


def another(maps: Tensor) -> Tensor:
    """Every position attends as in the face of the seed before (the first of a batch: of its last)."""
    return maps.roll(1, 0)


def strongest(maps: Tensor) -> Tensor:
    """Every position attends to its strongest key alone."""
    return F.one_hot(maps.argmax(2), maps.shape[2]).to(maps.dtype)


def itself(maps: Tensor) -> Tensor:
    """Every position attends to itself alone: a 1x1 convolution."""
    return torch.eye(maps.shape[2]).to(maps).expand_as(maps)


def fixed(place: Tensor) -> Change:
    """Every position attends as the rows of this map, (H*W, H*W), say, whatever the face."""
    return lambda maps: place.expand_as(maps)


def alter(layer: SelfAttention, change: Change) -> RemovableHandle:
    """Let a layer compute `x + gamma * (changed maps @ values)` until the handle is removed.

    Where a call asks for its maps, it gets the changed ones.
    """

    def altered(layer: SelfAttention, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        x, *rest = inputs
        gamma = rest[0] if rest and rest[0] is not None else layer.gamma
        _, (_, q, k, v) = layer.forward(x, extras="parts")  # .forward: hooks, as this one, are for calls
        maps = change(torch.softmax(q @ k.transpose(1, 2), dim=-1))
        y = x + gamma * (maps @ v).transpose(1, 2).reshape(x.shape)
        if isinstance(output, Tensor):
            return y
        return y, maps if isinstance(output[1], Tensor) else output[1]

    return layer.register_forward_hook(altered)


def alter_all(generator: Generator, changes: Mapping[str, Change]) -> list[RemovableHandle]:
    """Alter some layers of a generator and measure its batch norm anew; the handles undo the former."""
    handles = [alter(generator.attention[layer], change) for layer, change in changes.items()]
    if handles:
        measure_batch_norm(generator)
    return handles


def rows(layers: Sequence[str], places: Mapping[str, Tensor]) -> dict[str, dict[str, Change]]:
    """What is tried, {name: {layer: change}}: each change in all layers, two also in each by itself.

    places holds the map of each layer, (H*W, H*W), that `by place` puts in the place of every face's own.
    """
    table = {
        "as learned": {},
        "none": dict.fromkeys(layers, none),
        "uniform": dict.fromkeys(layers, uniform),
        "one row": dict.fromkeys(layers, one_row),
        "by place": {layer: fixed(place) for layer, place in places.items()},
        "another face's": dict.fromkeys(layers, another),
        "strongest key": dict.fromkeys(layers, strongest),
        "itself": dict.fromkeys(layers, itself),
    }
    if len(layers) > 1:
        for name, change in (("none", none), ("another face's", another)):
            table |= {f"{name}, {layer} only": {layer: change} for layer in layers}
    return table


def average_by_place(folder: Path, generator: Generator) -> dict[str, Tensor]:
    """The mean map of each layer over many faces, (H*W, H*W)."""
    counts = checkpoint.load_class_counts(folder)
    discriminator = checkpoint.load_discriminator(folder)
    maps = average_maps.average(
        checkpoint.load_generator(folder), discriminator, range(AVERAGED), class_counts=counts
    )
    like = next(generator.parameters())
    return {layer: torch.from_numpy(maps[layer]).to(like) for layer in generator.attention}


def against(faces: Tensor, others: Tensor) -> dict[str, float]:
    """How like faces, uint8 (N, 3, S, S), are to others of the same seeds, in light and in detail.

    The light is the means of squares of 8x8 pixels, the detail what differs from them; of both the mean face
    is taken off. alike: the correlation over all pixels, 1 for the same faces and near 0 for those of other
    seeds. contrast: how far they spread, as a multiple of the others.
    """
    figures = {}
    for (name, a), b in zip(_parts(faces).items(), _parts(others).values(), strict=True):
        figures[f"{name} alike"] = round(((a * b).sum() / (a.norm() * b.norm())).item(), 2)
        figures[f"{name} contrast"] = round((a.norm() / b.norm()).item(), 2)
    return figures


def _parts(faces: Tensor) -> dict[str, Tensor]:
    faces = faces.float() - faces.float().mean(0)
    light = F.interpolate(F.avg_pool2d(faces, SQUARE), scale_factor=SQUARE)
    return {"light": light, "detail": faces - light}


def sheet(faces: dict[str, Tensor], path: Path) -> None:
    """Save one row of faces, uint8 (N, 3, S, S), for each name."""
    figure = Figure(figsize=(1.7 + SHOWN, 1.02 * len(faces)), layout="constrained")
    every_axes = figure.subplots(len(faces))
    for axes, (name, some) in zip(every_axes, faces.items(), strict=True):
        axes.imshow(heatmaps.sheet(some[:SHOWN].permute(0, 2, 3, 1).numpy(), columns=SHOWN))
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    checkpoint.replace_file(path, lambda new: figure.savefig(new, dpi=70, bbox_inches="tight"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, alter, draw and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="SOURCE", help="as in `python app.py --help`")
    add("--out", type=Path, required=True, metavar="FOLDER")
    add("--reference", nargs="+", type=Path, metavar="SOURCE", help="held-out images; without, no figures")
    add("--features", default=INCEPTION, metavar="NETWORK", help="as in `python -m sagan.metrics --help`")
    add("--count", type=int, metavar="N", help="images on each side, as there")
    add("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(refusal(error))


@torch.inference_mode()
def run(options: argparse.Namespace) -> None:
    """Write table.csv and sheet.png."""
    folder, device = checkpoint.find(options.checkpoint), pick_device(options.device)
    generator = checkpoint.load_generator(folder).to(device)
    if not generator.attention:
        raise ValueError(f"The generator in '{folder}' has no attention to alter.")
    counts = checkpoint.load_class_counts(folder)
    measurement = None
    if options.reference:
        images = load_images(options.reference, generator.config.image_size).images
        measurement = Measurement(load_features(options.features, device), images, options.count, device)
    options.out.mkdir(parents=True, exist_ok=True)
    learned = {key: value.clone() for key, value in generator.state_dict().items()}
    pictures, table = {}, []
    for name, changes in rows(list(generator.attention), average_by_place(folder, generator)).items():
        handles = alter_all(generator, changes)
        pictures[name] = torch.cat(list(generate(generator, range(COMPARED))))
        figures = against(pictures[name], pictures["as learned"])
        if measurement:
            figures |= measurement(generator, counts)
        for handle in handles:
            handle.remove()
        generator.load_state_dict(learned)  # its batch norm
        table.append({"maps": name} | figures)
        print(table[-1], flush=True)
    sheet(pictures, options.out / "sheet.png")
    checkpoint.write_history(options.out / "table.csv", table)


if __name__ == "__main__":
    main()
