"""What attention does in a trained generator: the same faces with other attention maps in its layers.

    python -m benchmarks.altered_attention --checkpoint checkpoints/celeba64 --out runs/altered

Every alteration replaces the maps of all attention layers, or of one, and leaves all weights as they were
learned; a layer that follows an altered one makes its queries, keys and values from what that gave. sheet.png
shows the same seeds with each; table.csv says how like the unaltered faces they are and, with --reference,
holds the figures of `python -m sagan.metrics`, those of attention itself only where nothing is altered.

What an altered layer puts out gets back, channel by channel, the mean and the standard deviation that it had,
and batch norm is measured anew, so that none of this is a matter of scale.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from benchmarks.common import add_measuring, carry_out, measuring, sheet
from sagan import average_maps, checkpoint
from sagan.classes import Classes
from sagan.commands import run_program
from sagan.device import pick_device
from sagan.export import measure_batch_norm
from sagan.layers import SMALLEST, Override, SelfAttention
from sagan.metrics import generate
from sagan.networks import Generator

Change = Callable[[Tensor], Tensor]  # the maps of a batch, (B, H*W, H*W), -> as many others
Moments = tuple[Tensor, Tensor]  # mean and standard deviation of each channel, (C, 1, 1)

SHOWN = 12  # faces of a row of the sheet
COMPARED = 200  # faces that are compared with the unaltered ones
SQUARE = 8  # pixels: the side of the squares whose means are the light of a face
AVERAGED = 256  # faces whose maps `by place` is the mean of
NOTHING = 1e-3  # a channel that varies by less than this share of what it did has nothing to be scaled
MAIN = 5  # keys
MATCHED = 500  # faces over which a layer gets back its mean and standard deviation
OF_ATTENTION = ("strength_", "entropy_")  # how the figures of `attention_figures` begin


def none(maps: Tensor) -> Tensor:
    """Nothing is attended to, as with gamma 0."""
    return torch.zeros_like(maps)


def uniform(maps: Tensor) -> Tensor:
    """Every position attends to all alike."""
    return torch.full_like(maps, 1 / maps.shape[2])


def same_for_all(maps: Tensor) -> Tensor:
    """Every position attends as all of this face do on average: the query no longer matters."""
    return maps.mean(1, keepdim=True).expand_as(maps)


def another(maps: Tensor) -> Tensor:
    """Every position attends as in the face of the seed before (the first of a batch: of its last)."""
    return maps.roll(1, 0)


def strongest(maps: Tensor) -> Tensor:
    """Every position attends to its strongest key alone."""
    return torch.zeros_like(maps).scatter_(2, maps.argmax(2, keepdim=True), 1)


def itself(maps: Tensor) -> Tensor:
    """Every position attends to itself alone, so that the layer adds a 1x1 convolution."""
    return torch.eye(maps.shape[2]).to(maps).expand_as(maps)


def without_main(maps: Tensor) -> Tensor:
    """Nobody attends to the five keys that receive most in this face; the others share in proportion."""
    main, _ = _main_and_others(maps)
    return _masked(maps, torch.zeros_like(maps[:, 0], dtype=torch.bool).scatter(1, main, True))


def without_as_much(maps: Tensor) -> Tensor:
    """The same of other keys, drawn at random, that together receive as much, or nearly.

    Never more than nine tenths of what all others receive, so that something is left to attend to besides
    the main keys where these receive more than half.
    """
    main, others = _main_and_others(maps)
    received = maps.sum(1)
    drawn = received.gather(1, others)
    most = torch.minimum(received.gather(1, main).sum(1), 0.9 * drawn.sum(1))
    out = drawn.cumsum(1) <= most[:, None]
    return _masked(maps, torch.zeros_like(received, dtype=torch.bool).scatter(1, others, out))


def main_swapped(maps: Tensor) -> Tensor:
    """Each of the five main keys trades its weights with another one, drawn at random."""
    main, others = _main_and_others(maps)
    others = others[:, :MAIN]
    taken = torch.arange(maps.shape[2], device=maps.device).repeat(len(maps), 1)
    taken = taken.scatter(1, main, others).scatter(1, others, main)
    return maps.gather(2, taken[:, None].expand_as(maps))


def _main_and_others(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The five keys that receive most in each face, (B, 5), and the others, (B, n - 5), in random order.

    Each face of a batch has an order of its own; batches of one size have the same ones.
    """
    received = maps.sum(1)
    main = received.topk(MAIN).indices
    drawn = torch.rand(received.shape, generator=torch.Generator().manual_seed(0)).to(maps.device)
    return main, drawn.scatter(1, main, -1).argsort(1, descending=True)[:, :-MAIN]


def _masked(maps: Tensor, out: Tensor) -> Tensor:
    """Maps (B, n, n) without the keys (B, n) that are `out`."""
    left = maps.masked_fill(out[:, None], 0)
    return left / left.sum(2, keepdim=True).clamp(min=SMALLEST)


def fixed(place: Tensor) -> Change:
    """Every position attends as the rows of this map, (H*W, H*W), say, whatever the face."""
    return lambda maps: place.to(maps).expand_as(maps)


@dataclass
class Altered:
    """A forward hook by which an attention layer computes `scale * (x + gamma * maps @ values) + shift`.

    The maps are its own after the change; a call that asks for them gets these. scale and shift have the
    shape (C, 1, 1).
    """

    change: Change
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0

    def __call__(
        self, layer: SelfAttention, args: tuple, options: dict, output: Tensor | tuple
    ) -> Tensor | tuple:
        x, *more = args
        override = options.get("override", more[0] if more else None) or Override()
        _, own = layer.forward(x, extras="maps")  # .forward: hooks, as this one, are for calls
        y, maps = layer.forward(x, override._replace(maps=self.change(own)), "maps")
        y = self.scale * y + self.shift
        if isinstance(output, Tensor):
            return y
        return y, maps if isinstance(output[1], Tensor) else output[1]


def alter(layer: SelfAttention, change: Change) -> tuple[Altered, RemovableHandle]:
    """Alter a layer until the handle is removed."""
    altered = Altered(change)
    return altered, layer.register_forward_hook(altered, with_kwargs=True)


def alter_all(
    generator: Generator,
    changes: Mapping[str, Change],
    learned: Mapping[str, Moments],
    classes: Classes,
) -> list[RemovableHandle]:
    """Alter layers of a generator in eval mode and let each give numbers as large as before; batch norm too.

    learned: the `moments` of the unaltered generator. The handles undo the alterations, not what was measured
    of batch norm.
    """
    handles = []
    for name in (name for name in generator.attention if name in changes):  # as data meets them
        altered, handle = alter(generator.attention[name], changes[name])
        handles.append(handle)
        (mean, std), (now_mean, now_std) = learned[name], moments(generator, classes)[name]
        varies = now_std > NOTHING * std
        altered.scale = torch.where(varies, std / now_std.where(varies, 1), 1)
        altered.shift = mean - altered.scale * now_mean
        measure_batch_norm(generator, classes)
    return handles


def moments(generator: Generator, classes: Classes) -> dict[str, Moments]:
    """The mean and the standard deviation of what each attention layer puts out, (C, 1, 1), over faces."""
    sums: dict[str, Tensor] = {}

    def note(name: str, y: Tensor) -> None:
        y = y.double()
        both = torch.stack([y.sum((0, 2, 3)), y.square().sum((0, 2, 3))]) / y[:, 0].numel()
        sums[name] = sums.get(name, 0) + len(y) / MATCHED * both

    hooks = [
        layer.register_forward_hook(lambda _, __, y, name=name: note(name, y))
        for name, layer in generator.attention.items()
    ]
    try:
        for _ in generate(generator, range(MATCHED), classes.in_proportion(MATCHED)):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: (mean.float()[:, None, None], (square - mean**2).clamp(min=0).sqrt().float()[:, None, None])
        for name, (mean, square) in sums.items()
    }


def rows(layers: Sequence[str], places: Mapping[str, np.ndarray]) -> dict[str, dict[str, Change]]:
    """What is tried, {name: {layer: change}}: each change in all layers, three also in each by itself.

    places holds the map of each layer, (H*W, H*W), that `by place` puts in the place of every face's own.
    """
    table = {
        "as learned": {},
        "none": dict.fromkeys(layers, none),
        "uniform": dict.fromkeys(layers, uniform),
        "same for all": dict.fromkeys(layers, same_for_all),
        "by place": {layer: fixed(torch.from_numpy(place)) for layer, place in places.items()},
        "another face's": dict.fromkeys(layers, another),
        "strongest key": dict.fromkeys(layers, strongest),
        "without main keys": dict.fromkeys(layers, without_main),
        "without as much": dict.fromkeys(layers, without_as_much),
        "main keys swapped": dict.fromkeys(layers, main_swapped),
        "itself": dict.fromkeys(layers, itself),
    }
    if len(layers) > 1:
        alone = {"none": none, "another face's": another, "without main keys": without_main}
        for name, change in alone.items():
            table |= {f"{name} at {layer}": {layer: change} for layer in layers}
    return table


def against(faces: Tensor, others: Tensor) -> dict[str, float]:
    """How like faces, uint8 (N, 3, S, S), are to others of the same seeds, in light and in detail.

    From each set its own mean face is taken off. The light is the means of squares of 8x8 pixels, the detail
    what differs from them. alike: the correlation over all pixels, 1 for the same faces and near 0 for those
    of other seeds. spread: the standard deviation, as a multiple of that of the others.
    """
    figures = {}
    for (name, a), b in zip(_parts(faces).items(), _parts(others).values(), strict=True):
        figures[f"{name} alike"] = round(((a * b).sum() / (a.norm() * b.norm())).item(), 2)
        figures[f"{name} spread"] = round((a.norm() / b.norm()).item(), 2)
    return figures


def _parts(faces: Tensor) -> dict[str, Tensor]:
    faces = faces.float() - faces.float().mean(0)
    light = F.interpolate(F.avg_pool2d(faces, SQUARE), scale_factor=SQUARE)
    return {"light": light, "detail": faces - light}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, alter, draw and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_measuring(parser)
    carry_out(run, parser, arguments)


@torch.inference_mode()
def run(options: argparse.Namespace) -> None:
    """Write table.csv and, in the end, sheet.png."""
    folder, device = checkpoint.find(options.checkpoint), pick_device(options.device)
    generator = checkpoint.load_generator(folder).to(device)
    if not generator.attention:
        raise ValueError(f"The generator in '{folder}' has no attention to alter.")
    (_, classes), seeds = checkpoint.load_config(folder), range(COMPARED)
    if options.crop is not None and not options.reference:
        raise ValueError("--crop says how to read the images of --reference: name them.")
    measurement = measuring(options, generator.config.image_size)
    options.out.mkdir(parents=True, exist_ok=True)
    state = {key: value.clone() for key, value in generator.state_dict().items()}
    learned = moments(generator, classes)
    places = average_maps.average(generator, None, range(AVERAGED), classes)
    pictures, table = {}, []
    for name, changes in rows(list(generator.attention), places).items():
        handles = alter_all(generator, changes, learned, classes)
        pictures[name] = torch.cat(list(generate(generator, seeds, classes.in_turn(seeds))))
        figures = against(pictures[name], pictures["as learned"])
        if measurement:
            measured = measurement(generator, classes)
            # Those of attention are taken one face at a time, which has no other beside it, and of what a
            # layer adds to its input, which scale and shift change.
            figures |= {k: v for k, v in measured.items() if not (changes and k.startswith(OF_ATTENTION))}
        for handle in handles:
            handle.remove()
        generator.load_state_dict(state)  # its batch norm
        table.append({"maps": name} | figures)
        print(table[-1], flush=True)
        checkpoint.write_history(options.out / "table.csv", table)
    unlike = against(pictures["as learned"].roll(1, 0), pictures["as learned"])
    checkpoint.write_history(options.out / "table.csv", [*table, {"maps": "faces of other seeds"} | unlike])
    shown = {name: some[:SHOWN].permute(0, 2, 3, 1).numpy() for name, some in pictures.items()}
    sheet(shown, options.out / "sheet.png")


if __name__ == "__main__":
    run_program(main)
