"""Train a Self-Attention GAN on a folder or zip of images.

    python train.py --data faces/ --out runs/faces
    python train.py --data faces/ --out runs/faces --resume
    torchrun --nproc-per-node 4 train.py --data faces/ --out runs/faces    # on four GPUs

Everything but the decoded images, which .cache/images keeps, lands in the --out folder: checkpoint/ (what the
app and `python -m sagan.sample` load, and what --resume needs), best/ (with --measure-every), samples/,
curves.png and history.csv. Ctrl-C, or closing the terminal, saves and leaves; a second Ctrl-C leaves at once.
"""

import argparse
import dataclasses
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from sagan import checkpoint
from sagan.card import summary
from sagan.commands import refusal, run_program
from sagan.data import WORKERS, DataError, class_names, load_images, reads
from sagan.device import OUT_OF_MEMORY, DeviceError, is_lack_of_memory, make_deterministic, pick_device
from sagan.learner import TrainingError
from sagan.metrics import INCEPTION, MOST_BY_DEFAULT, Measurement, MetricsError, load_features
from sagan.networks import IMAGE_SIZES, SaganConfig, includes
from sagan.parallel import Processes, processes
from sagan.recipe import LOSSES, PRECISIONS, PRESETS, Recipe
from sagan.resuming import check_same_classes, read_state_info, refuse_to_replace
from sagan.trainer import INTERVALS, Trainer

Made = TypeVar("Made")

LOCK = ".lock"  # in the run folder, held while a run trains there
RESIDUAL_OPTIONS = ("g_residual", "d_residual")
MODEL_OPTIONS = (
    *("image_size", "z_dim", "g_width", "d_width", "g_attention", "d_attention"),
    *RESIDUAL_OPTIONS,
)
DATA_OPTIONS = ("data", "crop", "labels", "label_columns")
RECIPE_OPTIONS = tuple(field.name for field in dataclasses.fields(Recipe))
WHETHER_MEASURED, HOW_MEASURED = ("measure_every", "measure_reference"), ("measure_features", "measure_count")
MEASURE_OPTIONS = (*WHETHER_MEASURED, *HOW_MEASURED)
PATH_OPTIONS = ("--data", "--out", "--labels", "--start-from", "--measure-reference")
SETTINGS = (*MODEL_OPTIONS, *RECIPE_OPTIONS, *DATA_OPTIONS, *MEASURE_OPTIONS, *INTERVALS)
# On --resume: the length, where the images lie, and what never changes what is learned.
MAY_CHANGE = ("steps", "minutes", "data", "labels", "measure_every", "measure_reference", *INTERVALS)


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
    again = "go on with the run in --out as it was set up; --device, --workers and --no-capture are said anew"
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
        help="its columns of 1 for yes, 0 or -1 for no; Male,Smiling gives four classes",
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
            f"feature maps that residual blocks refine in {name.upper()}, one for each time that a side is "
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
        "weight of consistency regularization: D shall give images, real and generated, the scores that "
        f"they have when shifted a little and mirrored (default {recipe.consistency:g}: none)"
    )
    add("--consistency", type=float, metavar="W", help=move)
    change = (
        "probability of each kind of change of what D sees, real and generated images: a shift with a zoom; "
        f"brightness, saturation and contrast; a hole (default {recipe.augment:g}: none)"
    )
    add("--augment", type=float, metavar="P", help=change)
    half_life = (
        "half-life of the averaged generator in thousand images, at most 5 percent of those shown so far "
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
    every = (
        "compare so often with --measure-reference, and keep the best checkpoint in best/; 0, with --resume, "
        "ends it (default never)"
    )
    add("--measure-every", type=_from_zero, metavar="KIMG", help=every)
    add(
        "--measure-reference",
        nargs="+",
        metavar="SOURCE",
        help="real images that training does not use: folders or .zip files",
    )
    add(
        "--measure-features",
        metavar="NETWORK",
        help=f"as in `python -m sagan.metrics --help` (default {INCEPTION})",
    )
    add(
        "--measure-count",
        type=_count,
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
        type=_count,
        default=WORKERS,
        metavar="N",
        help="threads that decode images (default all cores, at most 32)",
    )
    default = {name: f"(default {steps})" for name, steps in INTERVALS.items()}
    add("--log-every", type=_count, metavar="STEPS", help=f"history row and bar {default['log_every']}")
    add("--sample-every", type=_count, metavar="STEPS", help=f"pictures {default['sample_every']}")
    add("--save-every", type=_count, metavar="STEPS", help=f"checkpoint {default['save_every']}")
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
            "There is too little memory for these networks: choose smaller ones, or end what else uses it."
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
            trainer = start(options, team, device, held)
            if received:  # Python drops what a handler raises while something is finalised
                sys.exit(128 + received[0])
            say(summary(trainer))
            complete = trainer.train(**{name: trainer.about[name] for name in INTERVALS})
    except KeyboardInterrupt:
        say("Stopped at once; what was not saved yet is lost.", file=sys.stderr)
        return 128 + ((trainer and trainer.stopped_by) or signal.SIGINT)
    say(f"Step {trainer.step}, {trainer.images:,} images shown; the checkpoint is in '{options.out}'.")
    if not complete:
        say("Stopped before the end; go on with --resume.")
    return 0 if complete else 128 + trainer.stopped_by


def start(options: argparse.Namespace, team: Processes, device: str, held: ExitStack) -> Trainer:
    """The trainer that the options describe, resumed where they say so; its folder is locked while `held`."""
    if (options.out / checkpoint.CONFIG).is_file():
        whole = options.out.resolve()
        inside = whole.name in (checkpoint.RUN_CHECKPOINT, checkpoint.RUN_BEST)
        instead = f"its run folder is '{whole.parent}'" if inside else "name another --out"
        raise TrainingError(f"'{options.out}' is a checkpoint, not a run folder: {instead}.")
    if not options.resume or options.out.is_dir():
        held.enter_context(_alone_in(options.out, team))
    stored = _stored(options.out) if options.resume else {}
    if not options.resume:
        refuse_to_replace(options.out)
    settings = _settings(options, stored)
    start_from = vars(options).get("start_from")
    source, networks = _source(start_from, options, settings)
    settings |= networks
    _check_place(options.out, settings)
    try:
        config = SaganConfig(**{name: settings[name] for name in MODEL_OPTIONS if name in settings})
        recipe = Recipe(**{name: settings[name] for name in RECIPE_OPTIONS if name in settings})
    except TypeError as error:  # text where a number belongs
        raise TrainingError(f"The recipe of the run in '{options.out}' is damaged: {error}.") from error
    except ValueError as error:
        raise TrainingError(str(error)) from error
    if recipe.deterministic:
        make_deterministic()  # before the first matrix product, which may be one of measuring
    measurement = _by_leader(
        team,
        partial(_measurement, settings, config, options, device),
        "The reference images cannot be used; the first process says why.",
    )
    with team.leader_first():
        data = load_images(
            [Path(source) for source in settings["data"]],
            config.image_size,
            settings.get("crop"),
            settings.get("labels"),
            _label_columns(settings),
            options.workers,
        )
    about = {"command": _command(options.words, stored)}
    about |= {name: settings.get(name) for name in (*DATA_OPTIONS, *INTERVALS)}
    about |= {name: settings[name] for name in MEASURE_OPTIONS if name in settings}
    measuring = {}
    if "measure_every" in settings:
        measuring["measure_kimg"] = settings["measure_every"]
    if measurement is not None:
        about["measure_count"] = measurement.count
        measuring["measure"] = partial(measurement, class_counts=data.class_counts)
    trainer = Trainer(
        config,
        recipe,
        data,
        options.out,
        device,
        about,
        team,
        capture=options.capture,
        **measuring,
    )
    if options.resume:
        trainer.resume()
        refused = "The reference images are others than before, as the first process says."
        _by_leader(team, partial(_check_reference, trainer, measurement), refused)
    elif source:
        named = Path(start_from).resolve().name if Path(start_from).exists() else start_from
        trainer.start_from(source, named)
    return trainer


def _settings(options: argparse.Namespace, stored: dict) -> dict[str, Any]:
    """All settings: as the command line has them, else its --preset, else as `stored`, else by default."""
    given = vars(options)
    settings = PRESETS[given["preset"]] if "preset" in given else {}
    settings = settings | {name: given[name] for name in SETTINGS if name in given}
    for name, value in settings.items():
        if name in stored and name not in MAY_CHANGE and json.dumps(value) != json.dumps(stored[name]):
            before = "its default" if stored[name] is None else stored[name]
            by = "" if name in given else f" by --preset {given['preset']}"
            raise TrainingError(
                f"--{name.replace('_', '-')} is {value} now{by}, but the run in '{options.out}' was started "
                f"with {before}: leave it out, or start a new run."
            )
    if "minutes" in given or "steps" in given:
        settings = {"steps": None, "minutes": None} | settings
    if settings.get("measure_every") == 0:
        del settings["measure_every"]
        stored = {name: value for name, value in stored.items() if name not in WHETHER_MEASURED}
    settings = PRESETS["sagan"] | INTERVALS | stored | settings
    if settings.keys() & {*MEASURE_OPTIONS}:
        settings = {"measure_features": INCEPTION} | settings
    if not settings.get("data"):
        raise TrainingError("Say which images to train on: --data FOLDER_OR_ZIP.")
    return settings


def _check_place(out: Path, settings: dict) -> None:
    """Refuse a run folder that could not be read again, or whose pictures would be taken for data."""
    try:
        str(out.resolve()).encode()
    except UnicodeEncodeError as error:
        raise TrainingError(f"--out {str(out)!r} is not text in UTF-8, as checkpoints want it.") from error
    for source in [*settings["data"], *(settings.get("measure_reference") or ())]:
        if reads(source, out):
            raise TrainingError(
                f"The run folder '{out}' is inside '{source}', where its pictures would be taken for data: "
                "let it be elsewhere."
            )


def _label_columns(settings: dict) -> list[str]:
    return [name.strip() for name in (settings.get("label_columns") or "").split(",") if name.strip()]


def _command(words: Sequence[str], stored: dict) -> str:
    """This command after those that the run had before, for the model card; a repeated one stands once."""
    program = Path(__file__).name
    command, earlier = shlex.join(["python", program, *_without_folders(words)]), stored.get("command") or ""
    if command in earlier.split(" && "):
        return earlier
    return f"{earlier} && {command}" if earlier else command


def _source(
    given: str | None, options: argparse.Namespace, settings: dict
) -> tuple[Path | None, dict[str, Any]]:
    """The checkpoint folder of --start-from, and the settings of its networks that are not given."""
    if given is None:
        return None, {}
    if options.resume:
        raise TrainingError("--resume goes on with the weights of the run: leave out --start-from.")
    folder = checkpoint.find(given)
    config, classes = checkpoint.load_config(folder)
    check_same_classes(folder, classes, class_names(settings.get("labels"), _label_columns(settings)))
    networks = {}
    for name in MODEL_OPTIONS:
        value = getattr(config, name)
        if name in RESIDUAL_OPTIONS and name in settings:
            if not includes(settings[name], value):
                raise TrainingError(
                    f"--{name.replace('_', '-')} is {_named(settings[name])}, but must name all that "
                    f"'{given}' was trained with, {_named(value)}, before any more."
                )
            continue
        if name in settings and settings[name] != value:
            raise TrainingError(
                f"--{name.replace('_', '-')} is {settings[name]}, but '{given}' was trained with {value}: "
                "leave it out."
            )
        networks[name] = value
    return folder, networks


def _measurement(
    settings: dict, config: SaganConfig, options: argparse.Namespace, device_name: str
) -> Measurement | None:
    """What the run is measured against; None: nothing."""
    # A run that is no longer measured keeps the features and the count, for when it is again.
    if not settings.keys() & {*WHETHER_MEASURED} and not vars(options).keys() & {*HOW_MEASURED}:
        return None
    if "measure_every" not in settings or "measure_reference" not in settings:
        raise TrainingError(
            "Measuring needs both --measure-every KIMG and --measure-reference FOLDER_OR_ZIP."
        )
    device = pick_device(device_name)
    features = load_features(settings["measure_features"], device)
    sources = [Path(source) for source in settings["measure_reference"]]
    reference = load_images(sources, config.image_size, settings.get("crop"), workers=options.workers)
    return Measurement(features, reference.images, settings.get("measure_count"), device)


def _by_leader(team: Processes, make: Callable[[], Made], refused: str) -> Made | None:
    """What the first process makes; the others have None, and leave with this sentence where it fails."""
    made = failure = None
    if team.leads:
        try:
            made = make()
        except Exception as error:
            failure = error
    if any(team.most(failure is not None)):
        raise failure or TrainingError(refused)
    return made


@contextmanager
def _alone_in(out: Path, team: Processes) -> Iterator[None]:
    """Make the run folder if it is missing, and keep other runs out: they would replace each other's files.

    The first process does it, and all of them learn how it went. New folders that stay empty are removed.
    """
    refused = f"'{out}' is not for this run; the first process says why."
    with ExitStack() as held:
        _by_leader(team, lambda: held.enter_context(_locked(out)), refused)
        yield


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("a")
    except OSError as error:
        raise TrainingError(f"--out '{out}' cannot be a folder: {error.strerror}.") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with this process, however that ends
        except BlockingIOError as error:
            raise TrainingError(f"Another process is training in '{out}': name another --out.") from error
        except (OSError, ImportError):  # a system, or a file system, without such locks
            pass
        try:
            yield
        finally:
            with suppress(OSError):  # up to the first that holds something else
                if new and [path.name for path in out.iterdir()] == [LOCK]:
                    (out / LOCK).unlink()
                    for folder in new:
                        folder.rmdir()


def _check_reference(trainer: Trainer, measurement: Measurement | None) -> None:
    """Refuse a reference of other images than the run was measured against: the best could not be told."""
    own = (row for row in trainer.history if row.get("step", 0) > trainer.inherited.step)
    floors = [row["floor_frechet_distance"] for row in own if "floor_frechet_distance" in row]
    if measurement is None or not floors:
        return
    floor = measurement.floor["frechet_distance"]
    comparable = math.isfinite(floor) and math.isfinite(floors[-1])
    alike = math.isclose(floors[-1], floor, rel_tol=0.01, abs_tol=1e-6)  # devices differ by less
    if comparable and not alike:
        raise TrainingError(
            "--measure-reference holds other images than this run was measured against: their two halves are "
            f"{floor:.4g} apart, those were {floors[-1]:.4g}."
        )


def _stored(out: Path) -> dict:
    """The settings with which the run in `out` was started."""
    folder = checkpoint.find(out.absolute())  # never a Hub id
    info = read_state_info(folder)
    config, _ = checkpoint.load_config(folder)
    model = {name: getattr(config, name) for name in MODEL_OPTIONS}
    about = {name: info["about"].get(name) for name in (*DATA_OPTIONS, "command")}
    # A run that never measured has nothing stored of it, and may begin; one from Python may lack intervals.
    about |= {name: info["about"][name] for name in (*MEASURE_OPTIONS, *INTERVALS) if name in info["about"]}
    for name in INTERVALS:
        if name in about and not (type(about[name]) is int and about[name] >= 1):
            raise TrainingError(f"The {name} of the run in '{out}' is damaged: it is {about[name]!r}.")
    recipe = dataclasses.asdict(Recipe()) | info["recipe"]  # an older run trained with no newer option
    return recipe | model | about


def _without_folders(words: Sequence[str]) -> Iterator[str]:
    """--out=/somewhere/run -> --out=run: a model card names no places of this machine.

    Only what stands at an option that takes a path, and is one there, is shortened.
    """
    named = ""
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        named = option or named
        is_place = any(path.startswith(named) for path in PATH_OPTIONS) and os.sep in value  # "--measure-r"
        yield f"{option}{equals}{_last_part(value) if is_place and Path(value).exists() else value}"


def _last_part(path: str) -> str:
    return Path(os.path.abspath(path)).name or path  # noqa: PTH100 - what a link is called, not what it leads to


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _from_zero(text: str) -> float:
    try:
        if 0 <= float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")


def _sides(text: str) -> tuple[int, ...]:
    return tuple(sorted(set(_integers(text))))


def _named(sides: Iterable[int]) -> str:
    """As an option takes them: (8, 16, 16) -> "8,16,16"."""
    return ",".join(map(str, sides)) or "''"


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
