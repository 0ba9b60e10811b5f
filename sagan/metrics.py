"""How close generated images come to real ones: Frechet and kernel distance, precision and recall.

    python -m sagan.metrics --checkpoint runs/mine --reference held_out.zip

compares N generated images with N real ones by what one network sees in them. With the Inception network the
distances are FID (Heusel et al. 2017, arXiv:1706.08500) and KID (Binkowski et al. 2018, arXiv:1801.01401).
Beside every figure stands its floor: what N other real images reach, which for the distances is about the
best to hope for. Figures are comparable only at equal N, reference and network: Frechet distances fall as N
grows. Of a model with classes, each class is generated as often as it was in the training images.
"""

import argparse
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from sagan import checkpoint
from sagan.classes import Classes
from sagan.commands import add_checkpoint, refusal, run_program, short_name
from sagan.data import load_images, to_uint8
from sagan.device import OUT_OF_MEMORY, is_lack_of_memory, pick_device
from sagan.heatmaps import sheet
from sagan.latents import sheet_seeds, truncate
from sagan.networks import Generator, side_of
from sagan.seeds import Labels, inputs

INCEPTION = "inception"
BATCH = 100
ATTENTION_FACES = 64  # whose maps are looked at
LEAST_COUNT, MOST_BY_DEFAULT = 10, 5000  # images on each side
COPIED_FACES, NEIGHBOURS = 16, 7
PICTURE = "neighbours.png"

Features = Callable[[Tensor], Tensor]  # uint8 images (B, 3, S, S) on the device -> (B, D)


class MetricsError(ValueError):
    """A measurement that cannot be made, said in one sentence."""


# The figures, from features of real and generated images, (N, D) and (M, D) in float64


def compare(real: Tensor, fake: Tensor) -> dict[str, float]:
    """All four figures, to six digits; the distances are better when low, the shares when high."""
    precision, recall = precision_recall(real, fake)
    figures = {
        "frechet_distance": frechet_distance(real, fake),
        "kernel_distance": kernel_distance(real, fake),
        "precision": precision,
        "recall": recall,
    }
    return {name: float(f"{value:.6g}") for name, value in figures.items()}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), the Gaussians' squared distance.

    With cov_a = R^T R, the eigenvalues of cov_a cov_b are those of R cov_b R^T, which is symmetric.
    """
    x, y = ((t - t.mean(0)) / (len(t) - 1) ** 0.5 for t in (a, b))  # x^T x = cov_a
    half = torch.linalg.qr(x, mode="r").R @ y.T
    overlap = torch.linalg.eigvalsh(half @ half.T).clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return (means + x.square().sum() + y.square().sum() - 2 * overlap).item()


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """The squared maximum mean discrepancy under (x . y / D + 1)^3, without bias, over all pairs.

    The mean over random subsets that papers report estimates the same number, with more noise.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def mean(x: Tensor, y: Tensor) -> Tensor:
        return sum(kernel(part, y).sum() for part in x.split(1000)) / (len(x) * len(y))

    def mean_of_others(x: Tensor) -> Tensor:
        itself = ((x.square().mean(1) + 1) ** 3).mean()
        return (len(x) * mean(x, x) - itself) / (len(x) - 1)

    return (mean_of_others(a) + mean_of_others(b) - 2 * mean(a, b)).item()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """The share of fakes among the real images, and of real images among the fakes.

    x is among others if it is no farther from one of them than that one's k-th neighbour (Kynkaanniemi et al.
    2019, arXiv:1904.06991).
    """

    def reach(x: Tensor) -> Tensor:
        # The nearest of all is x itself. (kthvalue would not do: it has no deterministic kernel on a GPU.)
        parts = [torch.cdist(part, x).topk(k + 1, largest=False).values[:, -1] for part in x.split(1000)]
        return torch.cat(parts)

    def share_among(x: Tensor, others: Tensor) -> float:
        radii = reach(others)
        inside = [(torch.cdist(part, others) <= radii).any(1) for part in x.split(1000)]
        return torch.cat(inside).double().mean().item()

    return share_among(fake, real), share_among(real, fake)


# Features


def load_features(name: str, device: torch.device | str = "cpu") -> Features:
    """The network called "inception", or the one that "module:attribute" makes when called without arguments.

    Raises MetricsError where there is none.
    """
    if name == INCEPTION:
        network = _inception().to(device, memory_format=torch.channels_last)
        return lambda images: network(images)[0]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise MetricsError(
            f"There is no feature network '{name}': give {INCEPTION}, or module:attribute, a class or "
            "function that makes one."
        )
    try:
        make = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise MetricsError(f"The feature network '{name}' could not be imported: {error}.") from error
    if isinstance(make, nn.Module) or not callable(make):
        raise MetricsError(
            f"The feature network '{name}' must be a class or function that makes the network."
        )
    try:
        network = make()
    except TypeError as error:  # it wants arguments
        raise MetricsError(f"The feature network '{name}' could not be made: {error}.") from error
    if not callable(network):
        raise MetricsError(
            f"The feature network '{name}' makes {network!r}, which no images can be given to."
        )
    return network.to(device).eval() if isinstance(network, nn.Module) else network


def _inception() -> nn.Module:
    """The network of the FID paper, 2048 features an image."""
    instead = "or name another feature network, as module:attribute"
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MetricsError(
            f"The Inception network needs the package torch-fidelity: install it, {instead}."
        ) from error
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except (OSError, HTTPException) as error:
        raise MetricsError(
            f"The weights of the Inception network could not be downloaded ({error}): connect to the "
            f"internet once, {instead}."
        ) from error


@torch.inference_mode()
def describe(
    features: Features, batches: Iterable[Tensor], count: int, device: torch.device | str, label: str
) -> Tensor:
    """Features (count, D) in float64 of batches of uint8 images (B, 3, S, S), behind a progress bar.

    Raises MetricsError where the network gives anything but a row of finite numbers an image.
    """
    rows = []
    with tqdm(total=count, desc=label, unit="image", leave=False) as bar:
        for images in batches:
            try:
                described = features(images.to(device))
            except RuntimeError as error:
                if is_lack_of_memory(error):
                    raise
                said = [line for line in str(error).splitlines() if line.strip()]
                reason = said[-1].strip() if said else type(error).__name__  # TorchScript says it last
                raise MetricsError(
                    f"The feature network cannot take uint8 images (B, 3, S, S): {reason}"
                ) from error
            is_tensor = isinstance(described, Tensor)
            if not is_tensor or described.ndim != 2 or len(described) != len(images):
                gave = tuple(described.shape) if is_tensor else type(described).__name__
                raise MetricsError(
                    f"The feature network must map {len(images)} images to ({len(images)}, D), but gave "
                    f"{gave}."
                )
            if not described.isfinite().all():
                raise MetricsError("The feature network gave numbers that are not finite.")
            rows.append(described.double())
            bar.update(len(images))
    return torch.cat(rows)


def _batches(images: np.ndarray, indices: np.ndarray) -> Iterator[Tensor]:
    """Yield these of the images (N, S, S, 3) as (B, 3, S, S)."""
    for start in range(0, len(indices), BATCH):
        yield torch.from_numpy(images[indices[start : start + BATCH]]).permute(0, 3, 1, 2)


@torch.inference_mode()
def generate(
    generator: Generator, seeds: Sequence[int], labels: Labels | None, truncation: float = 1.0
) -> Iterator[Tensor]:
    """Yield the faces of these seeds, as uint8 (B, 3, S, S). Eval mode is expected.

    labels are those of `inputs`.
    """
    for start in range(0, len(seeds), BATCH):
        part = slice(start, start + BATCH)
        of_part = None if labels is None else labels[part]
        faces = to_uint8(generator(*inputs(generator, seeds[part], of_part, truncation)))
        yield torch.from_numpy(faces).permute(0, 3, 1, 2)


# Measuring


class Measurement:
    """What generators are measured against; call it with one in eval mode to get its figures and the floors.

    images are uint8 (M, S, S, 3). Two disjoint sets of `count` images each are described here, once: one to
    compare with, one for the floor. Raises MetricsError where they are too few.
    """

    def __init__(
        self,
        features: Features,
        images: np.ndarray,
        count: int | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        truncation: float = 1.0,
    ) -> None:
        """count: images on each side, by default half of them, at most 5,000; seed: of the first face."""
        half = len(images) // 2
        if half < LEAST_COUNT:
            raise MetricsError(
                f"The reference holds {len(images)} images, but two halves need at least {2 * LEAST_COUNT}."
            )
        count = min(half, MOST_BY_DEFAULT) if count is None else count
        if not LEAST_COUNT <= count <= half:
            raise MetricsError(
                f"The count is {count}, but must be from {LEAST_COUNT} to {half}, half of the {len(images)} "
                "reference images: the other half measures the floor."
            )
        self.count, self.seeds, self.truncation = count, sheet_seeds(seed, count), truncation
        self._features, self._device = features, device
        order = np.random.default_rng(0).permutation(len(images))  # one split, whatever the faces' seed
        self._real, other = (
            describe(features, _batches(images, np.sort(part)), count, device, "Real images")
            for part in (order[:count], order[count : 2 * count])
        )
        self.floor = compare(self._real, other)

    def __call__(self, generator: Generator, classes: Classes) -> dict[str, float]:
        """{figure: value} and {floor_figure: value}, the Frechet distance first, and `attention_figures`.

        Each class is generated as often as in training.
        """
        labels = classes.in_proportion(self.count)
        faces = generate(generator, self.seeds, labels, self.truncation)
        fake = describe(self._features, faces, self.count, self._device, "Generated images")
        figures = compare(self._real, fake) | {f"floor_{name}": value for name, value in self.floor.items()}
        some = slice(ATTENTION_FACES)
        of_some = None if labels is None else labels[some]
        return figures | attention_figures(generator, self.seeds[some], of_some, self.truncation)


@torch.inference_mode()
def attention_figures(
    generator: Generator, seeds: Sequence[int], labels: Labels | None, truncation: float = 1.0
) -> dict[str, float]:
    """How strong and how sharp each attention layer of a generator in eval mode is, over faces of `seeds`.

    labels are those of `inputs`.

    strength_LAYER: the median over positions and faces of |gamma * attended| / |x|, the lengths over channels
    of what the layer adds and of what it adds to. entropy_LAYER: the median entropy of a row, in bits.
    """
    parts: dict[str, list[Tensor]] = {}

    def note(name: str, x: Tensor, y: Tensor, maps: Tensor) -> None:
        added = (y - x).norm(dim=1) / x.norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)  # (B, H, W)
        bits = torch.special.entr(maps).sum(-1) / math.log(2)  # (B, H*W)
        parts.setdefault(f"strength_{name}", []).append(added.flatten())
        parts.setdefault(f"entropy_{name}", []).append(bits.flatten())

    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, name=name: note(name, inputs[0], *output))
        for name, layer in generator.attention.items()
    ]
    try:
        for i, seed in enumerate(seeds):  # one at a time: at 64x64 a map takes 64 MiB
            label = None if labels is None else labels[i : i + 1]
            generator(*inputs(generator, [seed], label, truncation), extras="maps")
    finally:
        for hook in hooks:
            hook.remove()
    return {name: float(f"{torch.cat(part).median().item():.6g}") for name, part in parts.items()}


def neighbours(
    features: Features, faces: np.ndarray, training: np.ndarray, device: torch.device | str = "cpu"
) -> Image.Image:
    """A row for each face: itself, then its 7 nearest training images by features; both uint8 (N, S, S, 3).

    The picture shows real people and must never be published.
    """
    ours, theirs = (
        describe(features, _batches(images, np.arange(len(images))), len(images), device, label)
        for images, label in ((faces, "Faces"), (training, "Training images"))
    )
    nearest = torch.cdist(ours, theirs).topk(min(NEIGHBOURS, len(training)), largest=False).indices
    rows = [
        np.concatenate([face[None], training[row]])
        for face, row in zip(faces, nearest.cpu().numpy(), strict=True)
    ]
    return sheet(np.concatenate(rows), columns=len(rows[0]))


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 130 after Ctrl-C. Options that cannot be met exit with status 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(run(options)) if options.json else table(run(options)))
    except ValueError as error:
        parser.error(str(error))
    except torch.OutOfMemoryError:
        parser.error(OUT_OF_MEMORY)
    except OSError as error:
        parser.error(refusal(error))
    except KeyboardInterrupt:
        print("Stopped before anything was measured.", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace) -> dict:
    """Measure what the options say; the settings and the figures."""
    folder = checkpoint.find(options.checkpoint)
    picture = _private_folder(folder) / PICTURE if options.neighbours else None
    device = pick_device(options.device)
    generator = _load_generator(folder, options.weights).to(device)
    _, classes = checkpoint.load_config(folder)
    truncate(np.zeros(1), options.truncation)  # refused now rather than after the reference was described
    features = load_features(options.features, device)
    size = generator.config.image_size
    reference = load_images(options.reference, size, options.crop).images
    training = load_images(options.neighbours, size, options.crop).images if picture else None
    measurement = Measurement(features, reference, options.count, device, options.seed, options.truncation)
    if picture:  # before the figures, which a disk that refuses it would take along
        seeds = sheet_seeds(options.seed, COPIED_FACES)
        faces = next(generate(generator, seeds, classes.in_turn(seeds), options.truncation))
        image = neighbours(features, faces.permute(0, 2, 3, 1).numpy(), training, device)
        try:
            checkpoint.replace_file(picture, image.save)
        except OSError as error:
            raise MetricsError(f"'{PICTURE}' could not be written: {error.strerror or error}.") from error
    result = {
        "checkpoint": short_name(options.checkpoint),
        "weights": options.weights,
        "truncation": options.truncation,
        "seed": options.seed,
        "count": measurement.count,
        "features": options.features,
        **measurement(generator, classes),
    }
    if picture:
        result["neighbours"] = str(picture)
    return result


def table(result: dict) -> str:
    """What `run` returns, for reading."""
    inception = result["features"] == INCEPTION
    titles = {
        "frechet_distance": "FID" if inception else "Frechet distance",
        "kernel_distance": "KID" if inception else "kernel distance",
        "precision": "precision",
        "recall": "recall",
    }
    n = f"{result['count']:,}"
    lines = [
        f"{n} images of {result['checkpoint']} ({result['weights']} weights, truncation "
        f"{result['truncation']:g}) against {n} real ones, by {result['features']} features",
        f"{'':18}{'generated':>12}{'other real':>12}",
    ]
    for name, title in titles.items():
        lines.append(f"{title:18}{result[name]:12.5g}{result[f'floor_{name}']:12.5g}")
    for layer in (name.removeprefix("strength_") for name in result if name.startswith("strength_")):
        bits = math.log2(side_of(layer) ** 2)
        lines.append(
            f"attention {layer}: adds {result[f'strength_{layer}']:.2f} of its input's length; "
            f"entropy of a row {result[f'entropy_{layer}']:.1f} of {bits:.0f} bits (medians)"
        )
    if "neighbours" in result:
        lines.append(f"Nearest training images: '{result['neighbours']}' (real people: never publish it)")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sagan.metrics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser)
    add = parser.add_argument
    add(
        "--reference",
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="real images, preferably not trained on: folders or .zip files",
    )
    add("--crop", type=int, metavar="PIXELS", help="as in training (default: the shorter side)")
    add(
        "--features",
        default=INCEPTION,
        metavar="NETWORK",
        help="inception, or module:attribute, a class or function that, called without arguments, makes a "
        "network from uint8 images (B, 3, S, S) to features (B, D) (default: %(default)s)",
    )
    add(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="the averaged generator, or the last step's, which only a run folder has (default: %(default)s)",
    )
    add(
        "--count",
        type=int,
        metavar="N",
        help=f"images on each side (default: half the reference, at most {MOST_BY_DEFAULT:,})",
    )
    add("--seed", type=int, default=0, help="seed of the first face; seeds count up from it (default: 0)")
    add("--truncation", type=float, default=1.0, help="0 to 1 (default: %(default)s, full variety)")
    add("--device", default="auto", help="cpu, cuda or cuda:N (default: auto, cuda where there is one)")
    add(
        "--neighbours",
        nargs="+",
        metavar="SOURCE",
        help=f"training images: draw the {NEIGHBOURS} nearest to each of {COPIED_FACES} faces into "
        f"{PICTURE} in the run folder (is it copying?)",
    )
    add("--json", action="store_true", help="print one line of JSON instead of a table")
    return parser


def _load_generator(folder: Path, weights: str) -> Generator:
    if weights == "ema":
        return checkpoint.load_generator(folder)
    if not (folder / checkpoint.RAW_GENERATOR).is_file():
        raise MetricsError(f"'{folder}' has no raw weights, which only run folders keep: use --weights ema.")
    return checkpoint.load_generator(folder, checkpoint.RAW_GENERATOR)


def _private_folder(folder: Path) -> Path:
    """The run folder of this checkpoint, if a picture of real people is safe there: nothing of it is shared.

    Raises MetricsError for a checkpoint outside a run, below a folder `checkpoints`, or where Git would
    take the picture in.
    """
    run = folder.resolve().parent
    why = None
    if not (run / checkpoint.HISTORY).is_file():
        why = "is not the checkpoint of a run folder"
    elif "checkpoints" in run.parts:
        why = "lies among the checkpoints that are shared"
    elif any((place / ".git").exists() for place in (run, *run.parents)) and not _ignored(run):
        why = "lies in a folder under version control"
    if why:
        raise MetricsError(
            f"--neighbours draws real people, and '{folder}' {why}: measure a run whose folder nobody else "
            "gets, for example one in runs/."
        )
    return run


def _ignored(folder: Path) -> bool:
    command = ["git", "check-ignore", "--quiet", str(folder)]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
    except OSError:  # no git here to ask
        return False


if __name__ == "__main__":
    run_program(main, prints_result=True)
