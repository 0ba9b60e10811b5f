"""What each part of the recipe is worth: one run per variant, all shown the same number of images.

    python -m benchmarks.ablations --data faces.zip --reference held_out.zip --out runs/ablations --kimg 60

Runs that are complete are not trained again, and one that was stopped goes on; one of another length, whose
learning rates fell or would fall at other steps, is refused. Every variant leaves a run folder; beside them
table.csv holds how long a training step takes for each image, as a multiple of the fastest variant's, the
gammas, and the figures of `python -m sagan.metrics`, or without a reference those of attention alone; and
NAME.png the faces of each, from the same seeds for all. Differences between runs with other seeds are the
yardstick: repeat one with --seed.
"""

import argparse
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import train
from benchmarks.common import add_measuring, elapsed, measuring, random_images
from sagan import checkpoint, heatmaps
from sagan.classes import Classes
from sagan.commands import refusal, run_program
from sagan.data import ImageSet
from sagan.device import pick_device
from sagan.learner import Learner
from sagan.metrics import ATTENTION_FACES, Measurement, attention_figures, generate
from sagan.networks import SaganConfig, learned_gammas
from sagan.recipe import Recipe
from sagan.resuming import read_state_info

OURS = ("--batch-size", "32", "--g-lr", "2e-4")  # what short runs on a CPU do best with
FACES = 24  # on the picture of a variant
SEEDS = range(ATTENTION_FACES)  # whose attention is measured where nothing else is
TIMED_STEPS = 6


@dataclass(frozen=True)
class Variant:
    """One row of the table; raw: also measure the weights without averaging."""

    name: str
    options: tuple[str, ...]
    raw: bool = False

    def batch_size(self) -> int:
        arguments = ["--out", "-", *self.options]
        return getattr(train.build_parser().parse_args(arguments), "batch_size", Recipe().batch_size)

    def steps(self, kimg: float) -> int:
        """Over how many steps it is shown so many thousand images."""
        return round(1000 * kimg / self.batch_size())


VARIANTS = (
    Variant("tutorial", ("--preset", "tutorial"), raw=True),
    Variant("decay-and-flips", ("--preset", "sagan")),
    Variant("small-batches", OURS),  # attention of G at 16 and 32, of D at 8 and 4
    Variant("no-attention", (*OURS, "--g-attention", "", "--d-attention", "")),
    Variant("only-16", (*OURS, "--g-attention", "16")),
    Variant("only-32", (*OURS, "--g-attention", "32")),
    Variant("d-at-32", (*OURS, "--d-attention", "32")),
    Variant("residual", (*OURS, "--g-residual", "16,32,32", "--d-residual", "8,16,32")),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, train what is not trained yet, measure everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="SOURCE", help="training images")
    add("--out", type=Path, required=True, metavar="FOLDER")
    add_measuring(parser)
    add("--kimg", type=_kimg, default=60, help="thousand images shown to each (default 60)")
    add("--seed", type=int, default=0, help="of all runs (default 0)")
    add(
        "--only",
        nargs="+",
        choices=[v.name for v in VARIANTS],
        metavar="NAME",
        help=f"some of {', '.join(v.name for v in VARIANTS)} (default all)",
    )
    options = parser.parse_args(arguments)
    chosen = [v for v in VARIANTS if options.only is None or v.name in options.only]
    try:  # all that can be refused, before the first one trains for hours
        for variant in chosen:
            check_length(variant, options)
        measurement = measuring(options, SaganConfig().image_size)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(refusal(error))
    for variant in chosen:
        run(variant, options)
    compare(chosen, options, measurement)


def _kimg(text: str) -> float:
    try:
        if 0 < 1000 * float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, in thousands of images")


def check_length(variant: Variant, options: argparse.Namespace) -> None:
    """Raise ValueError where a variant was trained for another --kimg, which --resume does not mind."""
    folder, steps = checkpoint.find_local(options.out / variant.name), variant.steps(options.kimg)
    if folder and (there := read_state_info(folder)["recipe"].get("steps")) != steps:
        raise ValueError(
            f"The run in '{options.out / variant.name}' is {there} steps long, but --kimg {options.kimg:g} "
            f"makes {steps}: name another --out."
        )


def run(variant: Variant, options: argparse.Namespace) -> None:
    """Train one variant, as far as it is not trained yet."""
    out = options.out / variant.name
    steps = variant.steps(options.kimg)
    arguments = ["--out", str(out), "--steps", str(steps), "--device", options.device]
    # A run that has another seed, other options or other images is refused.
    arguments += ["--seed", str(options.seed), "--data", *options.data, *variant.options]
    if options.crop is not None:
        arguments += ["--crop", str(options.crop)]
    if checkpoint.find_local(out):
        arguments.append("--resume")
    print(f"{variant.name}: {' '.join(arguments)}", flush=True)
    stopped = []  # by Ctrl-C, which the training hears too, and saves
    usual = signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    try:
        with subprocess.Popen([sys.executable, train.__file__, *arguments]) as training:
            code = training.wait()
    finally:
        signal.signal(signal.SIGINT, usual)
    if code or stopped:
        sys.exit(code or 128 + signal.SIGINT)


def compare(
    variants: list[Variant], options: argparse.Namespace, measurement: Measurement | None = None
) -> None:
    """Write table.csv and a picture of each."""
    device, rows = pick_device(options.device), []
    times = relative_times(variants, options.out, str(device))
    for variant in variants:
        folder = checkpoint.find(options.out / variant.name)
        history = checkpoint.read_history(folder)[-1]
        kinds = [("ema", checkpoint.GENERATOR)] + [("raw", checkpoint.RAW_GENERATOR)] * variant.raw
        for weights, name in kinds:
            generator = checkpoint.load_generator(folder, name).to(device)
            known = {"variant": variant.name, "weights": weights, "images": int(history["images"])}
            known |= {"time": times[variant.name]}
            known |= {
                f"gamma_{layer}": round(gamma.item(), 3) for layer, gamma in learned_gammas(generator).items()
            }
            if measurement:
                figures = measurement(generator, Classes())  # no variant has any
            else:
                figures = attention_figures(generator, SEEDS, None)
            rows.append(known | figures)
            print(rows[-1], flush=True)
            faces = torch.cat(list(generate(generator, range(FACES), None))).permute(0, 2, 3, 1).numpy()
            picture = variant.name + ("-raw" if weights == "raw" else "")
            heatmaps.sheet(faces, columns=FACES // 2).save(options.out / f"{picture}.png")
    checkpoint.write_history(options.out / "table.csv", rows)


def relative_times(variants: list[Variant], runs: Path, device: str) -> dict[str, float]:
    """Seconds a training step takes for each image, over those of the fastest variant; they take turns.

    Only on a machine that does nothing else do they mean anything.
    """
    images, steps = ImageSet(random_images()), {}
    for variant in variants:
        config, _ = checkpoint.load_config(checkpoint.find(runs / variant.name))
        recipe = Recipe(batch_size=variant.batch_size())
        steps[variant] = Learner(config, recipe, images, device).train_step
    for step in steps.values():
        step()
    best = dict.fromkeys(steps, math.inf)
    for _ in range(TIMED_STEPS):
        for variant, step in steps.items():
            best[variant] = min(best[variant], elapsed(step, 1, device) / variant.batch_size())
    return {variant.name: round(time / min(best.values()), 2) for variant, time in best.items()}


if __name__ == "__main__":
    run_program(main)
