"""Train a Self-Attention GAN on a folder or zip of images.

    python train.py --data faces/ --out runs/faces
    python train.py --data faces/ --out runs/faces --resume
    torchrun --nproc-per-node 4 train.py --data faces/ --out runs/faces    # on four GPUs

Everything but the decoded images, which .cache/images keeps, lands in the --out folder: checkpoint/ (what the
app and `python -m sagan.sample` load, and what --resume needs), best/ (with --measure-every), samples/,
curves.png and history.csv. Ctrl-C, or closing the terminal, saves and leaves; a second Ctrl-C leaves at once.
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from sagan import checkpoint
from sagan.card import summary
from sagan.classes import Classes
from sagan.commands import count, refusal, run_program
from sagan.data import WORKERS, DataError, load_images
from sagan.device import OUT_OF_MEMORY, DeviceError, is_lack_of_memory, make_deterministic, pick_device
from sagan.learner import TrainingError
from sagan.metrics import INCEPTION, MOST_BY_DEFAULT, Measurement, MetricsError, load_features
from sagan.networks import IMAGE_SIZES, SaganConfig
from sagan.parallel import Processes, processes
from sagan.recipe import LOSSES, PRECISIONS, PRESETS, Intervals, Recipe
from sagan.resuming import alone_in, check_same_reference, refuse_checkpoint, refuse_to_replace
from sagan.settings import Plan, plan_run
from sagan.trainer import Trainer


def build_parser() -> argparse.ArgumentParser:
    """All options; one that is not given is absent, so that presets and --resume can fill it in."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    model, recipe = SaganConfig(), Recipe()

    add = parser.add_argument_group("data and run folder").add_argument
    add("--data", nargs="+", metavar="SOURCE", help="folders (any depth; jpg, png, webp, avif) or .zip files")
    add("--out", type=Path, metavar="FOLDER", required=True, help="run folder, made if missing")
    again = "go on with the run in --out as it was set up; --device, --workers and --no-capture are not kept"
    add("--resume", action="store_true", default=False, help=again)
    add(
        "--crop",
        type=int,
        metavar="PIXELS",
        help="centre square before the resize (default the shorter side)",
    )
    add(
        "--labels", metavar="CSV", help="class labels; the first column is the file name (default no classes)"
    )
    add(
        "--label-columns",
        metavar="NAMES",
        help="columns of --labels, 1 for yes, 0 or -1 for no; Male,Smiling gives four classes",
    )

    add = parser.add_argument_group("networks").add_argument
    add(
        "--start-from",
        metavar="CHECKPOINT",
        help='weights to begin with: a checkpoint or run folder, or a Hub id "owner/name"; the optimisers '
        "start anew, so lower rates keep more of what was learned (default none)",
    )
    add("--image-size", type=int, choices=IMAGE_SIZES, help=f"in pixels (default {model.image_size})")
    add("--z-dim", type=int, metavar="N", help=f"dimensions of the latent (default {model.z_dim})")
    add(
        "--g-width",
        type=int,
        metavar="N",
        help=f"channels of G's largest feature map (default {model.g_width})",
    )
    add(
        "--d-width",
        type=int,
        metavar="N",
        help=f"channels of D's largest feature map (default {model.d_width})",
    )
    add(
        "--g-attention",
        type=_sides,
        metavar="SIDES",
        help="feature maps on which G attends, '' for none (default 16,32; 8,16 for images of 32 pixels)",
    )
    add("--d-attention", type=_sides, metavar="SIDES", help="feature maps on which D attends (default 8,4)")
    for name in "gd":
        where = (
            f"feature maps that residual blocks refine in {name.upper()}, one block each time a side is "
            "named; with --start-from, those of the checkpoint and any more, which change nothing at first "
            "(default none)"
        )
        add(f"--{name}-residual", type=_integers, metavar="SIDES", help=where)

    group = parser.add_argument_group("recipe")
    add = group.add_argument
    add("--preset", choices=tuple(PRESETS), help="tutorial: no rate decay, no flips (default sagan)")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"images in a batch, over all processes (default {recipe.batch_size})",
    )
    length = group.add_mutually_exclusive_group().add_argument
    length("--steps", type=int, metavar="N", help=f"length of the run in G updates (default {recipe.steps})")
    length("--minutes", type=float, metavar="N", help="length of the run in minutes, instead of --steps")
    add("--loss", choices=LOSSES, help="wgan-gp turns D's spectral norm off: the two fight (default hinge)")
    add("--g-lr", type=float, metavar="RATE", help=f"learning rate of G (default {recipe.g_lr})")
    add("--d-lr", type=float, metavar="RATE", help=f"learning rate of D (default {recipe.d_lr})")
    add("--betas", type=_numbers, metavar="B1,B2", help="Adam's betas (default 0.0,0.9)")
    decay = f"last share of the run, over which both rates fall to 0; 0: constant (default {recipe.lr_decay})"
    add("--lr-decay", type=float, metavar="SHARE", help=decay)
    add("--d-steps", type=int, metavar="N", help=f"D updates for each G update (default {recipe.d_steps})")
    add(
        "--lambda-gp",
        type=float,
        metavar="W",
        help=f"gradient penalty's weight (default {recipe.lambda_gp:g})",
    )
    move = (
        "weight of consistency regularization: D is to score images, real and generated, the same when "
        f"they are shifted a little and mirrored (default {recipe.consistency:g}: none)"
    )
    add("--consistency", type=float, metavar="W", help=move)
    change = (
        "probability of each kind of change to what D sees, real and generated images: a shift with a zoom; "
        f"brightness, saturation and contrast; a hole (default {recipe.augment:g}: none)"
    )
    add("--augment", type=float, metavar="P", help=change)
    half_life = (
        "half-life of the averaged generator in thousands of images, at most 5 percent of those shown so far "
        "(default 10/32 of the batch size)"
    )
    add("--ema-kimg", type=float, metavar="KIMG", help=half_life)
    add(
        "--sync-batch-norm",
        action="store_true",
        help="batch norm over the whole batch where several GPUs share it (default each GPU its own part)",
    )
    add("--precision", choices=PRECISIONS, help="auto: bf16 where the hardware has it (default auto)")
    add("--seed", type=int, metavar="N", help=f"of weights, data order, flips, noise (default {recipe.seed})")
    add("--deterministic", action="store_true", help="a GPU repeats itself bit for bit; slower")

    add = parser.add_argument_group("measuring").add_argument
    often = (
        "compare this often with --measure-reference, and keep the best checkpoint in best/; 0, with "
        "--resume, ends it (default never)"
    )
    add("--measure-every", type=_from_zero, metavar="KIMG", help=often)
    add(
        "--measure-reference",
        nargs="+",
        metavar="SOURCE",
        help="real images that training does not use: folders or .zip files",
    )
    add(
        "--measure-features",
        metavar="NETWORK",
        help="as in `python -m sagan.metrics --help`; code of your own must be named again on --resume "
        f"(default {INCEPTION})",
    )
    add(
        "--measure-count",
        type=count,
        metavar="N",
        help=f"images on each side (default half the reference, at most {MOST_BY_DEFAULT:,})",
    )

    add = parser.add_argument_group("machine and intervals").add_argument
    add("--device", default="auto", help="cpu, cuda or cuda:N (default auto: cuda where there is one)")
    launching = (
        "launch each of a GPU's kernels by itself (default: where one process trains, a step is recorded "
        "once as a CUDA graph and launched as a whole, which is faster and computes the same)"
    )
    add("--no-capture", dest="capture", action="store_false", default=None, help=launching)
    add(
        "--workers",
        type=count,
        default=WORKERS,
        metavar="N",
        help="threads that decode images (default all cores, at most 32)",
    )
    every = Intervals()
    add("--log-every", type=count, metavar="STEPS", help=f"history row and bar (default {every.log_every})")
    add("--sample-every", type=count, metavar="STEPS", help=f"pictures (default {every.sample_every})")
    add("--save-every", type=count, metavar="STEPS", help=f"checkpoint (default {every.save_every})")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is 0 where the run is complete, 130 after Ctrl-C, 143 after SIGTERM, 129
    where the terminal was closed.
    """

    received = []  # signals

    def leave(number: int, _: object) -> None:
        received.append(number)
        sys.exit(128 + number)

    words = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(words, argparse.Namespace(words=words))
    # Until training starts, SIGTERM raises SystemExit, so that context managers clean up; from then on
    # `Trainer.train` saves and leaves.
    usual = signal.signal(signal.SIGTERM, leave)
    try:
        with processes(options.device) as (team, device):
            return run(options, team, device, received)
    except (DataError, DeviceError, MetricsError, TrainingError, checkpoint.CheckpointError) as error:
        sentence = str(error)
    except torch.OutOfMemoryError:  # before the first step; later ones know more
        sentence = OUT_OF_MEMORY
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        sentence = (
            "There is too little memory for these networks: choose smaller ones, or close other programs."
        )
    except OSError as error:
        sentence = refusal(error)
    finally:
        if signal.getsignal(signal.SIGTERM) is leave:  # else the run ignores it until it has said why it ends
            signal.signal(signal.SIGTERM, usual)
    number = os.environ.get("RANK", "0")
    print(f"train.py{f' (process {number})' if number != '0' else ''}: {sentence}", file=sys.stderr)
    return 2


def run(options: argparse.Namespace, team: Processes, device: str, received: Sequence[int]) -> int:
    """Train as one of the processes of `team`; only the first reports progress. Returns the exit code.

    `received` are the signals that came before; none of them lets the training begin.
    """
    say = print if team.leads else lambda *_, **__: None
    trainer = None
    try:
        with ExitStack() as held:
            trainer, plan = start(options, team, device, held)
            if received:  # Python drops what a handler raises while something is finalised
                sys.exit(128 + received[0])
            say(summary(trainer))
            complete = trainer.train(**vars(plan.intervals))
    except KeyboardInterrupt:
        say("Stopped at once; what was not saved yet is lost.", file=sys.stderr)
        return 128 + ((trainer and trainer.stopped_by) or signal.SIGINT)
    say(f"Step {trainer.step}, {trainer.images:,} images shown; the checkpoint is in '{options.out}'.")
    if not complete:
        say("Stopped before the end; go on with --resume.")
    return 0 if complete else 128 + trainer.stopped_by


def start(options: argparse.Namespace, team: Processes, device: str, held: ExitStack) -> tuple[Trainer, Plan]:
    """The trainer that the options describe, and their plan; its folder is locked while `held`."""
    refuse_checkpoint(options.out)
    if not options.resume or options.out.is_dir():
        refused = TrainingError(f"'{options.out}' is not for this run; the first process says why.")
        team.by_leader(lambda: held.enter_context(alone_in(options.out)), refused)
    if not options.resume:
        refuse_to_replace(options.out)
    plan = plan_run(vars(options))
    if plan.recipe.deterministic:
        make_deterministic()  # before the first matrix product, which may be one of measuring
    refused = TrainingError("The reference images cannot be used; the first process says why.")
    measurement = team.by_leader(lambda: _measurement(plan, device, options.workers), refused)
    labels = plan.labels, plan.label_columns
    with team.leader_first():
        data = load_images(plan.data, plan.config.image_size, plan.crop, *labels, options.workers)
    trainer = Trainer(
        plan.config,
        plan.recipe,
        data,
        options.out,
        device,
        plan.about | ({"measure_count": measurement.count} if measurement else {}),
        team,
        measure=measurement and partial(measurement, classes=Classes(data.class_names, data.class_counts)),
        measure_kimg=plan.measuring and plan.measuring.kimg,
        capture=options.capture,
    )
    if plan.start_from:
        trainer.start_from(*plan.start_from)
    if options.resume:
        trainer.resume()
        if plan.measuring:
            refused = TrainingError("The reference images have changed, as the first process says.")
            known = trainer.history, trainer.inherited
            team.by_leader(lambda: check_same_reference(*known, measurement.floor), refused)
    return trainer, plan


def _measurement(plan: Plan, device_name: str, workers: int) -> Measurement | None:
    """What the run is measured against; None: nothing."""
    if plan.measuring is None:
        return None
    device = pick_device(device_name)
    features = load_features(plan.measuring.features, device)
    reference = load_images(plan.measuring.reference, plan.config.image_size, plan.crop, workers=workers)
    return Measurement(features, reference.images, plan.measuring.count, device)


def _from_zero(text: str) -> float:
    try:
        if 0 <= float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")


def _sides(text: str) -> tuple[int, ...]:
    return tuple(sorted(set(_integers(text))))


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted(int(part) for part in text.split(",") if part.strip()))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 8,4") from error


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0.0,0.9") from error


if __name__ == "__main__":
    run_program(main)
