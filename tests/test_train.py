"""train.py as its user runs it: options, refusals, the run folder, signals, resuming."""

import argparse
import errno
import fcntl
import gc
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import train
from sagan import checkpoint, data, metrics, pictures, sample
from sagan.data import ImageSet
from sagan.latents import from_seed
from sagan.learner import Inherited, TrainingError
from sagan.networks import SaganConfig
from sagan.recipe import Intervals, Recipe
from sagan.resuming import check_same_reference
from sagan.sampler import Sampler

PROGRAM = Path(train.__file__)
TINY = ["--image-size", "32", "--z-dim", "12", "--g-width", "8", "--d-width", "8", "--batch-size", "4"]
TINY += ["--precision", "fp32", "--device", "cpu", "--workers", "1"]

DRAWN = {name: getattr(pictures, name) for name in ("FACES", "ATTENTION_FACES", "curves")}
PROGRESS = ("Decoding images", "Real images")
DATA_OPTIONS = ("--data", "--crop", "--labels", "--label-columns")
OPTIONS = (
    *(
        "--out",
        "--preset",
        "--image-size",
        "--batch-size",
        "--steps",
        "--minutes",
        "--loss",
        "--g-lr",
        "--d-lr",
    ),
    *(
        "--betas",
        "--lr-decay",
        "--d-steps",
        "--lambda-gp",
        "--consistency",
        "--augment",
        "--ema-kimg",
        "--z-dim",
        "--g-width",
        "--d-width",
    ),
    *("--d-attention", "--precision", "--device", "--workers", "--seed", "--resume", "--deterministic"),
    *("--g-attention", "--g-residual", "--d-residual", "--sync-batch-norm", "--no-capture"),
    *("--log-every", "--sample-every", "--save-every"),
    "--start-from",
    *("--measure-every", "--measure-reference", "--measure-features", "--measure-count"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch, quick) -> Path:
    """Run in an empty folder, where the cache of decoded images lands too; export and draw in less time."""
    monkeypatch.setattr(tqdm, "_lock", threading.RLock(), raising=False)  # a signal may leave it taken
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def all_drawn(here, monkeypatch) -> None:
    """Draw all pictures as they are for the user."""
    for name, value in DRAWN.items():
        monkeypatch.setattr(pictures, name, value)


def start(*options: object, data: str = "images", out: str = "runs/one") -> int:
    """The command on tiny networks; its exit code."""
    return train.main(["--data", data, "--out", out, *TINY, *map(str, options)])


def resume(*options: object, out: str = "runs/one") -> int:
    return train.main(["--out", out, "--resume", "--device", "cpu", "--workers", "1", *map(str, options)])


def complaint(capsys) -> str:
    """The only line on stderr, but for progress bars."""
    lines = re.split(r"[\r\n]+", capsys.readouterr().err)
    lines = [line for line in lines if line.strip() and not line.startswith(PROGRESS)]
    assert len(lines) == 1, lines
    return lines[0]


def refused_options(capsys, *options: object) -> str:
    """What argparse says of options that it refuses."""
    with pytest.raises(SystemExit) as stopped:
        start(*options)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# Options


def actions() -> dict[str, argparse.Action]:
    return {action.option_strings[0]: action for action in train.build_parser()._actions}


def test_there_are_exactly_the_options_that_were_planned():
    assert actions().keys() == {"-h", *DATA_OPTIONS, *OPTIONS}


@pytest.mark.parametrize("option", [*DATA_OPTIONS, *OPTIONS])
def test_help_gives_the_meaning_of_every_option_and_its_default(option):
    action = actions()[option]
    shown = train.build_parser().format_help()
    assert re.search(rf"^  {option}\b", shown, re.MULTILINE)
    assert len(action.help.split()) >= 3
    assert re.sub(r"[\s-]", "", action.help) in re.sub(r"[\s-]", "", shown)  # lines break at either
    switches = ("--resume", "--deterministic", "--sync-batch-norm", "--no-capture")
    without_default = ("--data", "--out", "--minutes", "--label-columns", "--measure-reference")
    without_default += ("--resume", "--deterministic")
    assert ("default" in action.help) == (option not in without_default)
    assert action.metavar or action.choices or option in (*switches, "--device")


def test_help_names_the_defaults_that_are_used():
    recipe, config = Recipe(), SaganConfig()
    values = {f"--{name.replace('_', '-')}": value for name, value in (vars(recipe) | vars(config)).items()}
    for option, action in actions().items():
        if option in values and isinstance(values[option], int | float) and action.nargs != 0:
            told = re.search(r"default ([\d.e-]+)", action.help)
            assert told and float(told[1]) == values[option], option
    assert "default 0.0,0.9" in actions()["--betas"].help
    assert "default 8,4" in actions()["--d-attention"].help
    for name, steps in vars(Intervals()).items():
        assert f"(default {steps})" in actions()[f"--{name.replace('_', '-')}"].help


class Seen(Exception):
    """Ends the command once it has handed everything on."""


@pytest.fixture
def handed_on(monkeypatch) -> dict:
    """What the command hands on: to load_images, to the Trainer, and to its train."""
    seen = {}

    def load_images(sources, image_size, crop, labels=None, label_columns=(), workers=1) -> ImageSet:
        if sources == (Path("held"), Path("out.zip")):
            seen.update(reference_crop=crop)
            return ImageSet(np.zeros((30, image_size, image_size, 3), np.uint8))
        seen.update(sources=sources, size=image_size, crop=crop, labels=labels, label_columns=label_columns)
        seen.update(workers=workers)
        return ImageSet(np.zeros((4, image_size, image_size, 3), np.uint8))

    monkeypatch.setattr(train, "make_deterministic", lambda: None)  # it would outlast the test

    class Trainer:
        def __init__(self, config, recipe, data, out, device, about, processes, **measuring) -> None:
            seen.update(vars(config) | vars(recipe), out=out, device=device, about=about, **measuring)
            seen.update(processes=processes)

        def train(self, log_every, sample_every, save_every) -> bool:
            seen.update(log_every=log_every, sample_every=sample_every, save_every=save_every)
            raise Seen

    monkeypatch.setattr(train, "load_images", load_images)
    monkeypatch.setattr(train, "Trainer", Trainer)
    monkeypatch.setattr(train, "summary", lambda _: "")
    return seen


def hand_on(*options: object) -> None:
    with pytest.raises(Seen):
        train.main(["--data", "images", "--out", "run", *map(str, options)])


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (("--crop", 148), "crop", 148),
        (("--labels", "l.csv"), "labels", "l.csv"),
        (("--label-columns", "Male, Smiling"), "label_columns", ("Male", "Smiling")),
        (("--workers", 3), "workers", 3),
        (("--image-size", 128), "image_size", 128),
        (("--image-size", 32), "size", 32),
        (("--z-dim", 77), "z_dim", 77),
        (("--g-width", 24), "g_width", 24),
        (("--d-width", 40), "d_width", 40),
        (("--g-attention", "32"), "g_attention", (32,)),
        (("--g-attention", ""), "g_attention", ()),
        (("--d-attention", "32"), "d_attention", (32,)),
        (("--d-attention", "16, 4"), "d_attention", (4, 16)),
        (("--d-attention", ""), "d_attention", ()),
        (("--batch-size", 9), "batch_size", 9),
        (("--steps", 12), "steps", 12),
        (("--minutes", 1.5), "minutes", 1.5),
        (("--minutes", 1.5), "steps", None),
        (("--loss", "wgan-gp"), "loss", "wgan-gp"),
        (("--g-lr", 3e-4), "g_lr", 3e-4),
        (("--d-lr", 5e-4), "d_lr", 5e-4),
        (("--betas", "0.5,0.99"), "betas", (0.5, 0.99)),
        (("--lr-decay", 0.25), "lr_decay", 0.25),
        (("--d-steps", 5), "d_steps", 5),
        (("--lambda-gp", 2.5), "lambda_gp", 2.5),
        (("--consistency", 0.5), "consistency", 0.5),
        (("--augment", 0.2), "augment", 0.2),
        (("--ema-kimg", 7.5), "ema_kimg", 7.5),
        (("--precision", "bf16"), "precision", "bf16"),
        (("--seed", 42), "seed", 42),
        (("--deterministic",), "deterministic", True),
        (("--sync-batch-norm",), "sync_batch_norm", True),
        (("--device", "cuda:1"), "device", "cuda:1"),
        (("--no-capture",), "capture", False),
        (("--log-every", 7), "log_every", 7),
        (("--sample-every", 8), "sample_every", 8),
        (("--save-every", 9), "save_every", 9),
        (("--preset", "tutorial"), "lr_decay", 0.0),
        (("--preset", "tutorial"), "flips", False),
        (("--preset", "tutorial", "--lr-decay", 0.5), "lr_decay", 0.5),
        (("--data", "a", "b.zip"), "sources", (Path("a"), Path("b.zip"))),
        (("--out", "elsewhere"), "out", Path("elsewhere")),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_every_option_arrives_where_it_is_used(handed_on, options, name, value):
    hand_on()
    default = handed_on[name]
    handed_on.clear()
    hand_on(*options)
    assert handed_on[name] == value != default


def test_algorithms_are_deterministic_before_the_first_work_on_a_device(handed_on, monkeypatch):
    calls, measurement = [], train._measurement
    monkeypatch.setattr(train, "make_deterministic", lambda: calls.append("deterministic"))
    monkeypatch.setattr(
        train, "_measurement", lambda *given: calls.append("measuring") or measurement(*given)
    )
    hand_on()
    assert calls == ["measuring"]
    hand_on("--deterministic")
    assert calls[1:] == ["deterministic", "measuring"]


def test_without_options_a_run_is_the_sagan_recipe_on_the_default_networks(handed_on):
    hand_on()
    recipe, config = Recipe(), SaganConfig()
    assert {name: handed_on[name] for name in vars(recipe)} == vars(recipe)
    assert {name: handed_on[name] for name in vars(config)} == vars(config)
    plain = dict(handed_on)
    hand_on("--preset", "sagan")
    assert {**handed_on, "about": None} == {**plain, "about": None}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--steps", "5", "--minutes", "5"), "argument --minutes: not allowed with argument --steps"),
        (("--steps", "many"), "argument --steps: invalid int value: 'many'"),
        (("--workers", "0"), "argument --workers: '0' is not a whole number from 1 up"),
        (("--measure-every", "-1"), "argument --measure-every: '-1' is not a number from 0 up"),
        (("--measure-every", "often"), "argument --measure-every: 'often' is not a number from 0 up"),
        (("--save-every", "-3"), "argument --save-every: '-3' is not a whole number from 1 up"),
        (("--betas", "a,b"), "argument --betas: 'a,b' is not a list of numbers such as 0.0,0.9"),
        (
            ("--d-attention", "8;4"),
            "argument --d-attention: '8;4' is not a list of whole numbers such as 8,4",
        ),
        (("--preset", "best"), "argument --preset: invalid choice: 'best'"),
        (("--image-size", "48"), "argument --image-size: invalid choice: 48"),
        (("--d_iters", "5"), "unrecognized arguments: --d_iters 5"),
    ],
    ids=str,
)
def test_options_that_cannot_be_read_are_refused(capsys, options, sentence):
    assert sentence in refused_options(capsys, *options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--steps", 0), "steps is 0, but must be more than 0"),
        (("--minutes", "nan"), "minutes is nan, but must be more than 0"),
        (("--g-lr", 2), "g_lr is 2.0, but must be from 0 to 1"),
        (("--seed", -1), "seed is -1, but must be from 0 to 4294967295"),
        (("--betas", "0.5"), "betas are (0.5,), but must be two numbers from 0 to below 1"),
        (("--g-width", 513), "g_width is 513, but must be an integer from 1 to 512"),
        (("--d-attention", "5"), "d_attention is (5,), but must be taken from (4, 8, 16)"),
        (("--crop", 0), "crop is 0, but must be a number of pixels from 1 up"),
        (("--device", "tpu"), "There is no device 'tpu' here: use cpu, cuda, or cuda:0 and so on."),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused_in_one_line(capsys, make_images, options, sentence):
    make_images(4)
    assert start(*options) == 2
    assert complaint(capsys) == f"train.py: {sentence}"


# Data that cannot be used


def write_labels(rows: list[str], header: str = "name,Male") -> None:
    Path("labels.csv").write_text("\n".join([header, *rows]) + "\n")


def broken_images(make_images) -> None:
    for path in list(make_images(20).iterdir())[:3]:
        path.write_bytes(b"not an image")


def one_name_twice(make_images) -> tuple:
    make_images(3), make_images(3, folder="more")
    write_labels([f"000{i}.png,1" for i in range(3)])
    return "--labels", "labels.csv", "--label-columns", "Male", "--data", "images", "more"


def labels_for_some(make_images) -> tuple:
    make_images(3)
    write_labels(["0000.png,1", "0002.png,0"])
    return "--labels", "labels.csv", "--label-columns", "Male"


BAD_DATA = {
    "data source images does not exist": lambda make_images: None,
    "data source images holds no images": lambda make_images: Path("images").mkdir(),
    "data source images/notes.txt is neither a folder nor a .zip": lambda make_images: (
        (make_images(1) / "notes.txt").write_text("x") and ("--data", "images/notes.txt")
    ),
    "data source broken.zip can't be read as a .zip": lambda make_images: (
        Path("broken.zip").write_bytes(b"PK") and ("--data", "broken.zip")
    ),
    "4 of 4 images are smaller than the crop of 40 pixels": lambda make_images: (
        make_images(4) and ("--crop", 40)
    ),
    "3 of 20 images can't be read, more than 1 percent": broken_images,
    "labels.csv has no row for 1 of 3 images, for example images/0001.png": labels_for_some,
    "images/0000.png and more/0000.png have the same file name": one_name_twice,
    "labels need both a CSV file and at least one of its columns": lambda make_images: (
        make_images(1) and ("--labels", "labels.csv")
    ),
}


@pytest.mark.parametrize("sentence", BAD_DATA)
def test_data_that_cannot_be_used_is_one_line_before_training_starts(
    capsys, monkeypatch, make_images, sentence
):
    options = BAD_DATA[sentence](make_images)
    monkeypatch.setattr(train, "Trainer", lambda *_: pytest.fail("training was set up"))
    assert start(*(options if isinstance(options, tuple) else ())) == 2
    line = complaint(capsys)
    assert line.startswith("train.py: ") and sentence in line
    assert not Path("runs").exists()


def test_no_data_at_all_is_said_in_one_line(capsys):
    assert train.main(["--out", "run"]) == 2
    assert complaint(capsys) == "train.py: Say which images to train on: --data FOLDER_OR_ZIP."


def test_a_path_that_this_user_may_not_see_is_one_line(capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "private/images")

    monkeypatch.setattr(train, "load_images", refuse)
    assert start() == 2
    assert complaint(capsys) == "train.py: 'private/images' cannot be used: Permission denied."


def test_a_few_unreadable_images_are_named_and_left_out(make_images):
    folder = make_images(150)
    (folder / "0007.png").write_bytes(b"not an image")
    with pytest.warns(UserWarning, match=r"left out 1 of 150 images as unreadable: images/0007.png"):
        assert start("--steps", 1) == 0
    assert "- Data: 149 images from images\n" in checkpoint.read_card(Path("runs/one/checkpoint"))


def test_an_out_that_cannot_be_a_folder_is_said_in_one_line(capsys, make_images):
    make_images(4)
    Path("file").write_text("mine")
    for out in ("file", "file/run"):
        assert start(out=out) == 2
        assert complaint(capsys).startswith(f"train.py: --out '{out}' cannot be a folder: ")
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    ("data", "out", "sentence"),
    [
        (
            "images",
            "images/run",
            "The pictures of the run folder 'images/run' would be inside 'images' and be taken for data",
        ),
        (
            ".",
            "runs/one",
            "The pictures of the run folder 'runs/one' would be inside '.' and be taken for data",
        ),
        ("", "runs/one", "a data source has an empty name; name a folder of images or a .zip"),
        (
            "images",
            os.fsdecode(b"caf\xe9"),
            r"--out 'caf\udce9' is not text in UTF-8, which checkpoints need.",
        ),
    ],
)
def test_a_run_folder_whose_pictures_would_be_data_or_that_cannot_be_read_is_refused(
    capsys, make_images, data, out, sentence
):
    make_images(4)
    assert start("--steps", 1, data=data, out=out) == 2
    assert complaint(capsys).startswith(f"train.py: {sentence}")
    assert not Path(out).exists()


def test_data_that_lie_where_the_pictures_of_a_run_would_are_left_alone(capsys, make_images):
    make_images(4, folder="faces/samples")
    before = sorted(Path("faces").rglob("*"))
    assert start("--steps", 1, data="faces/samples", out="faces") == 2
    sentence = "train.py: The pictures of the run folder 'faces' would be inside 'faces/samples' "
    assert complaint(capsys).startswith(sentence)
    assert sorted(path for path in Path("faces").rglob("*") if path.name != ".lock") == before


def test_a_run_folder_inside_the_reference_is_refused_and_a_hidden_one_inside_the_data_is_not(
    capsys, make_images
):
    make_images(4), make_images(20, folder="held_out")
    assert start("--steps", 1, *MEASURE, *COLOURS, out="held_out/run") == 2
    assert complaint(capsys).startswith(
        "train.py: The pictures of the run folder 'held_out/run' would be inside 'held_out' "
    )
    assert start("--steps", 1, "--measure-every", 1, "--measure-reference", "", *COLOURS) == 2
    assert complaint(capsys).startswith("train.py: a data source has an empty name; ")
    assert start("--steps", 1, out="images/.runs/one") == 0
    assert resume("--steps", 2, out="images/.runs/one") == 0


def test_a_run_folder_to_which_a_link_among_the_data_leads_is_refused(capsys, make_images):
    make_images(4)
    Path("other").mkdir()
    Path("images/link").symlink_to(Path("other").absolute())
    assert start("--steps", 1, out="other/run") == 2
    assert complaint(capsys).startswith(
        "train.py: The pictures of the run folder 'other/run' would be inside 'images' "
    )
    assert not Path("other/run").exists()


# A run


def test_a_run_leaves_its_files_and_can_be_sampled(all_drawn, capsys, make_images):
    make_images(6, size=(40, 36))
    assert start("--steps", 3, "--sample-every", 2, "--save-every", 2, "--log-every", 1) == 0
    run = Path("runs/one")
    said = capsys.readouterr().out
    assert "6 images of 32 px, 0 classes" in said and "float32 on cpu" in said
    assert "Step 3, 12 images shown; the checkpoint is in 'runs/one'." in said
    files = {"checkpoint", "samples", "curves.png", "history.csv", ".lock"}
    assert {path.name for path in run.iterdir()} == files
    pictures = {f"{kind}-{step:06}.png" for kind in ("faces", "attention") for step in (2, 3)}
    assert {path.name for path in (run / "samples").iterdir()} == pictures
    for picture in (run / "curves.png", *(run / "samples").iterdir()):
        with Image.open(picture) as image:
            image.load()
    assert [row["step"] for row in checkpoint.read_history(run)] == [1, 2, 3]
    assert sample.main(["--checkpoint", str(run), "--count", "5", "--out", "faces.npy"]) == 0
    assert np.load("faces.npy").shape == (5, 32, 32, 3)


def test_a_run_with_labels_makes_a_model_with_classes(make_images):
    make_images(4)
    write_labels([f"000{i}.png,{i % 2},{i // 2}" for i in range(4)], "name,Male,Smiling")
    assert start("--steps", 1, "--labels", "labels.csv", "--label-columns", "Male,Smiling") == 0
    config, classes = checkpoint.load_config(Path("runs/one/checkpoint"))
    names = classes.names
    assert config.num_classes == 4
    assert names == ("not Male, not Smiling", "not Male, Smiling", "Male, not Smiling", "Male, Smiling")
    assert (
        sample.main(["--checkpoint", "runs/one", "--class", names[2], "--count", "2", "--out", "x.png"]) == 0
    )


def test_classes_of_no_image_are_named(capsys, make_images):
    make_images(3)
    write_labels([f"000{i}.png,{i % 2},0" for i in range(3)], "name,Male,Smiling")
    assert start("--steps", 1, "--labels", "labels.csv", "--label-columns", "Male,Smiling") == 0
    said = capsys.readouterr().out
    assert "2 classes have no image and will not be learned, for example 'not Male, Smiling'." in said
    assert checkpoint.load_config(Path("runs/one/checkpoint"))[1].counts == (2, 0, 1, 0)
    sampler = Sampler.load("runs/one")
    assert sampler.classes.learned == (0, 2)
    latents = np.stack([from_seed(seed, sampler.config.z_dim) for seed in range(8)])
    shown = sampler.faces(latents, np.array([0, 2] * 4)).astype(int)
    assert np.abs(sampler.film.moments[-1]["faces"] - shown).max() <= 1
    sheet = np.asarray(Image.open("runs/one/samples/faces-000001.png"))
    place, side = 34 + 2, sampler.config.image_size  # of seed 1
    assert side == 32 and np.abs(sheet[2:34, place : place + 32] - shown[1]).max() <= 1


def test_a_measured_run_generates_its_classes_as_often_as_they_are(monkeypatch, make_images):
    make_images(5), make_images(20, folder="held_out")
    write_labels([f"000{i}.png,{int(i == 0)}" for i in range(5)], "name,Male")
    shown = []
    generate = metrics.generate
    monkeypatch.setattr(metrics, "generate", lambda *given: shown.append(given[2]) or generate(*given))
    options = ("--labels", "labels.csv", "--label-columns", "Male", *MEASURE, *COLOURS)
    assert start("--steps", 1, *options) == 0
    assert [np.bincount(labels).tolist() for labels in shown] == [[8, 2]]


def test_wgan_gp_says_that_it_switches_spectral_norm_off(capsys, make_images):
    make_images(4)
    assert start("--steps", 1, "--loss", "wgan-gp") == 0
    said = capsys.readouterr().out
    assert "Spectral norm in the discriminator is off: it fights wgan-gp's gradient penalty." in said
    assert not checkpoint.load_config(Path("runs/one/checkpoint"))[0].d_spectral_norm
    assert resume("--steps", 2) == 0


def test_the_progress_bar_shows_where_the_run_stands(capsys, make_images):
    make_images(4)
    assert start("--steps", 2, "--log-every", 1) == 0
    bar = capsys.readouterr().err.splitlines()[-1]
    for part in ("2/2", "kimg=0.0", "img/s=", "D=", "G=", "D(real)=", "D(fake)="):
        assert part in bar
    assert re.search(r"gamma=-?\d\.\d+ -?\d\.\d+", bar)


def test_a_second_start_into_the_same_folder_is_refused(capsys, make_images):
    make_images(4)
    assert start("--steps", 1) == 0
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert start("--steps", 1) == 2
    expected = "train.py: There is a run in 'runs/one': go on with --resume, or name another --out."
    assert complaint(capsys) == expected
    Path("runs/one/checkpoint").rename("runs/one/.checkpoint.previous")  # what a crash can leave
    assert start("--steps", 1) == 2
    Path("runs/one/.checkpoint.previous").rename("runs/one/checkpoint")
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


def test_a_best_checkpoint_without_its_run_is_not_overwritten(capsys, make_images):
    make_images(4), make_images(20, folder="held_out")
    assert start("--steps", 2, *MEASURE, *COLOURS) == 0
    shutil.rmtree("runs/one/checkpoint")
    before = {path: path.read_bytes() for path in Path("runs/one/best").iterdir()}
    capsys.readouterr()
    assert start("--steps", 1) == 2
    assert complaint(capsys).startswith("train.py: There is a run in 'runs/one'")
    assert {path: path.read_bytes() for path in Path("runs/one/best").iterdir()} == before


@pytest.mark.parametrize("part", ["checkpoint", "best"])
def test_a_checkpoint_is_not_taken_for_a_run_folder(capsys, make_images, part):
    make_images(4), make_images(20, folder="held_out")
    assert start("--steps", 2, *MEASURE, *COLOURS) == 0
    capsys.readouterr()
    out = f"runs/one/{part}"
    instead = f"its run folder is '{Path('runs/one').resolve()}'"
    for command in (start, resume):
        assert command("--steps", 3, out=out) == 2
        assert complaint(capsys) == f"train.py: '{out}' is a checkpoint, not a run folder: {instead}."
    Path(out).rename("shipped")
    assert resume(out="shipped") == 2
    assert complaint(capsys) == "train.py: 'shipped' is a checkpoint, not a run folder: name another --out."


def test_two_runs_never_train_in_one_folder(capsys, make_images):
    make_images(4)
    assert start("--steps", 1) == 0
    capsys.readouterr()
    sentence = "train.py: Another process is training in 'runs/{}': name another --out."
    for command, name in ((resume, "one"), (start, "two")):
        Path("runs", name).mkdir(exist_ok=True)
        with Path("runs", name, ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert command("--steps", 2, out=f"runs/{name}") == 2
        assert complaint(capsys) == sentence.format(name)
        assert command("--steps", 2, out=f"runs/{name}") == 0
        capsys.readouterr()


def test_a_run_that_cannot_start_leaves_no_folder_behind(make_images):
    assert start(data="nothing") == 2
    assert not Path("runs").exists()
    Path("runs/one").mkdir(parents=True)
    assert start(data="nothing") == 2
    assert Path("runs/one").exists()  # it was there before


def test_a_folder_that_is_taken_away_hides_no_reason(capsys, monkeypatch):
    def load(*_):
        shutil.rmtree("runs")
        raise train.DataError("the true reason")

    monkeypatch.setattr(train, "load_images", load)
    assert start() == 2
    assert complaint(capsys) == "train.py: the true reason"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_a_file_system_has_no_locks_a_run_goes_without(monkeypatch, make_images, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    make_images(4)
    monkeypatch.setattr(fcntl, "flock", refuse)
    assert start("--steps", 1) == 0


# Resuming


def test_a_run_goes_on_with_more_steps_and_ends_like_one_that_was_never_stopped(make_images):
    make_images(6)
    recipe = ("--lr-decay", 0, "--log-every", 1, "--seed", 3)
    assert start("--steps", 4, *recipe, out="straight") == 0
    assert start("--steps", 2, *recipe) == 0
    assert resume("--steps", 4, "--log-every", 1) == 0
    for name in ("generator", "generator_raw", "discriminator"):
        one, other = (Path(run, f"checkpoint/{name}.safetensors") for run in ("straight", "runs/one"))
        assert one.read_bytes() == other.read_bytes(), name
    timed = ("seconds", "images_per_second")
    tables = [checkpoint.read_history(Path(run)) for run in ("straight", "runs/one")]
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in table] for table in tables]
    assert rows[0] == rows[1] and len(rows[0]) == 4


@pytest.fixture
def stopped(make_images, capsys) -> dict:
    """A run of one step; its settings."""
    make_images(4)
    assert start("--steps", 1) == 0
    capsys.readouterr()
    return json.loads(Path("runs/one/checkpoint/state.json").read_text())


MEASURED = {"--measure-features": "test_train:Colours", "--measure-count": 10}
CHANGES = {
    "--crop": 20,
    "--label-columns": "Male",
    "--preset": "tutorial",
    "--image-size": 64,
    "--batch-size": 5,
    "--loss": "wgan-gp",
    "--g-lr": 2e-4,
    "--d-lr": 2e-4,
    "--betas": "0.5,0.9",
    "--lr-decay": 0.5,
    "--d-steps": 2,
    "--lambda-gp": 5,
    "--consistency": 0.5,
    "--augment": 0.2,
    "--ema-kimg": 4,
    "--z-dim": 13,
    "--g-width": 9,
    "--d-width": 9,
    "--g-attention": "8",
    "--d-attention": "8",
    "--g-residual": "8",
    "--d-residual": "8",
    "--precision": "bf16",
    "--seed": 1,
}
MAY_CHANGE = ("--data", "--out", "--labels", "--steps", "--minutes", "--device", "--workers", "--resume")
MAY_CHANGE += ("--log-every", "--sample-every", "--save-every", "--deterministic", "--sync-batch-norm")
MAY_CHANGE += ("--no-capture", "--measure-every", "--measure-reference")


def test_every_option_may_change_on_resume_or_may_not():
    refused = "--start-from"  # whatever its value, see below
    assert {*CHANGES, *MEASURED, *MAY_CHANGE, refused} == {*DATA_OPTIONS, *OPTIONS}


def test_a_changed_setting_is_refused_on_resume(capsys, monkeypatch, stopped):
    monkeypatch.setattr(train, "load_images", lambda *_: pytest.fail("images were loaded"))
    for option, value in CHANGES.items():
        assert resume(option, value) == 2
        line = complaint(capsys)
        shown = "--lr-decay is 0.0 now by --preset tutorial, " if option == "--preset" else f"{option} is "
        assert line.startswith(f"train.py: {shown}"), line
        assert "but the run in 'runs/one' was started with" in line
    for switch in ("--deterministic", "--sync-batch-norm"):
        assert resume(switch) == 2
        assert f"{switch} is True now" in complaint(capsys)


def test_an_option_that_is_newer_than_the_run_is_refused_on_resume(capsys, stopped):
    path = Path("runs/one/checkpoint/state.json")
    info = json.loads(path.read_text())
    del info["recipe"]["consistency"]
    path.write_text(json.dumps(info))
    assert resume("--consistency", 0.5) == 2
    assert "--consistency is 0.5 now, but the run in 'runs/one' was started with 0.0" in complaint(capsys)
    assert resume("--steps", 2) == 0


def test_a_run_from_before_the_ramp_of_the_average_was_the_same_for_all_goes_on(stopped):
    path = Path("runs/one/checkpoint/state.json")
    path.write_text(json.dumps(stopped | {"recipe": stopped["recipe"] | {"ema_ramp": 0.05}}))
    assert resume("--steps", 2) == 0
    assert "ema_ramp" not in json.loads(path.read_text())["recipe"]


def test_settings_that_are_repeated_as_they_were_are_accepted_on_resume(stopped):
    assert (
        resume(*TINY[:-4], "--d-attention", "8,4", "--betas", "0,0.9", "--preset", "sagan", "--steps", 2) == 0
    )


def test_a_run_keeps_its_settings_on_resume(make_images):
    make_images(4)
    options = ("--loss", "wgan-gp", "--d-steps", 2, "--g-lr", 3e-4, "--betas", "0.5,0.9", "--crop", 20)
    assert start("--preset", "tutorial", "--steps", 1, "--save-every", 7, *options) == 0
    before = json.loads(Path("runs/one/checkpoint/state.json").read_text())
    assert resume("--steps", 2, "--log-every", 1) == 0
    after = json.loads(Path("runs/one/checkpoint/state.json").read_text())
    assert after["recipe"] == before["recipe"] | {"steps": 2}
    assert after["about"] == before["about"] | {"command": after["about"]["command"], "log_every": 1}
    assert after["recipe"]["flips"] is False and after["about"]["crop"] == 20
    assert after["about"]["save_every"] == 7 and after["about"]["sample_every"] == 500


def test_intervals_may_change_on_resume(stopped):
    assert resume("--steps", 2, "--log-every", 3, "--sample-every", 4, "--save-every", 5) == 0
    about = json.loads(Path("runs/one/checkpoint/state.json").read_text())["about"]
    assert [about[name] for name in ("log_every", "sample_every", "save_every")] == [3, 4, 5]


@pytest.mark.parametrize("value", [0, -1, 2.5, "9", None])
def test_an_interval_that_is_none_is_one_line(capsys, stopped, value):
    stopped["about"]["save_every"] = value
    Path("runs/one/checkpoint/state.json").write_text(json.dumps(stopped))
    assert resume() == 2
    assert f"save_every of the run in 'runs/one' is damaged: it is {value!r}" in complaint(capsys)


@pytest.mark.parametrize(("name", "value"), [("g_lr", "1e-4"), ("minutes", "5"), ("betas", None)])
def test_a_recipe_with_text_for_a_number_is_one_line(capsys, stopped, name, value):
    stopped["recipe"] |= {"steps": None} if name == "minutes" else {}
    stopped["recipe"][name] = value
    Path("runs/one/checkpoint/state.json").write_text(json.dumps(stopped))
    assert resume() == 2
    verb = "are" if name == "betas" else "is"
    sentence = (
        f"train.py: The recipe of the run in 'runs/one' is damaged: {name} {verb} {value!r}, but must be "
    )
    assert complaint(capsys).startswith(sentence)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop", "20"),
        ("data", 3),
        ("data", ["x", 3]),
        ("label_columns", ["Male"]),
        ("command", 3),
        ("labels", 3),
    ],
)
def test_a_damaged_note_of_how_the_run_was_set_up_is_one_line(capsys, stopped, name, value):
    stopped["about"][name] = value
    Path("runs/one/checkpoint/state.json").write_text(json.dumps(stopped))
    assert resume() == 2
    assert complaint(capsys).endswith("cannot be resumed: state.json is missing or damaged.")


def test_a_run_that_names_no_intervals_goes_on_with_the_defaults(stopped):
    state = Path("runs/one/checkpoint/state.json")
    for name in vars(Intervals()):
        del stopped["about"][name]
    state.write_text(json.dumps(stopped))
    assert resume("--steps", 2) == 0
    assert json.loads(state.read_text())["about"].items() >= vars(Intervals()).items()


def test_a_run_is_refused_other_images_of_the_same_number(capsys, stopped, make_images):
    make_images(4, folder="other")
    Path("other/0003.png").rename("other/0005.png")
    assert resume("--data", "other") == 2
    assert "was trained on images with other names or labels, or in another order" in complaint(capsys)
    stopped.pop("fingerprint")  # a run from before it was kept
    Path("runs/one/checkpoint/state.json").write_text(json.dumps(stopped))
    assert resume("--data", "other", "--steps", 2) == 0


def test_a_table_of_labels_may_have_moved(make_images):
    make_images(4)
    write_labels([f"000{i}.png,{i % 2}" for i in range(4)])
    assert start("--steps", 1, "--labels", "labels.csv", "--label-columns", "Male") == 0
    Path("labels.csv").rename("moved.csv")
    assert resume("--steps", 2, "--labels", "moved.csv") == 0


def test_how_many_were_measured_is_kept(make_images):
    make_images(4), make_images(20, folder="held_out")
    assert start("--steps", 1, *MEASURE, *COLOURS) == 0
    assert json.loads(Path("runs/one/checkpoint/state.json").read_text())["about"]["measure_count"] == 10


def test_a_run_is_measured_by_inception_where_nothing_else_is_named(make_images, monkeypatch):
    load, named = train.load_features, []
    monkeypatch.setattr(train, "load_features", lambda name, _: named.append(name) or load(COLOURS[1]))
    make_images(4), make_images(20, folder="held_out")
    assert start("--steps", 1, *MEASURE) == 0
    assert resume("--steps", 2) == 0
    assert named == ["inception"] * 2
    state = json.loads(Path("runs/one/checkpoint/state.json").read_text())
    assert state["about"]["measure_features"] == "inception"


def check_reference(known: list[float], floor: float, before: int = 0) -> None:
    rows = [
        {"step": step, "floor_frechet_distance": known_floor} for step, known_floor in enumerate(known, 1)
    ]
    check_same_reference(rows, Inherited(before), {"frechet_distance": floor})


def test_what_counts_as_the_same_reference():
    check_reference([1.0], 1.005)
    check_reference([math.nan], 1.0)
    check_reference([5.0], 1.0, before=1)
    nowhere = [{"floor_frechet_distance": 5.0}]
    check_same_reference(nowhere, Inherited(), {"frechet_distance": 1.0})
    check_reference([5.0, 1.0], 1.005)  # the last time counts
    for known, floor in (([1.0], 1.05), ([5.0, 1.0], 1.05), ([1.0, 5.0], 1.0)):
        with pytest.raises(TrainingError, match=f"are {floor:.4g} apart, those were {known[-1]:.4g}"):
            check_reference(known, floor)


@pytest.mark.parametrize(("kind", "text"), [(train._from_zero, "inf"), (train.count, "²")])
def test_what_only_looks_like_a_number_is_refused(kind, text):
    with pytest.raises(argparse.ArgumentTypeError):
        kind(text)


def test_a_command_that_is_repeated_stands_once_in_the_card(stopped):
    first = json.loads(Path("runs/one/checkpoint/state.json").read_text())["about"]["command"]
    for steps in (3, 3, 4):
        assert resume("--steps", steps) == 0
    again = "python train.py --out one --resume --device cpu --workers 1"  # no folders
    ours = [f"{again} --steps {steps}" for steps in (3, 4)]
    about = json.loads(Path("runs/one/checkpoint/state.json").read_text())["about"]
    assert about["command"] == " && ".join([first, *ours])


def test_a_run_may_go_on_by_minutes_and_its_images_may_have_moved(stopped):
    Path("images").rename("moved")
    assert resume("--minutes", 1e-6, "--data", "moved") == 0
    state = json.loads(Path("runs/one/checkpoint/state.json").read_text())
    assert state["recipe"]["steps"] is None and state["about"]["data"] == ["moved"]


def test_resuming_where_there_is_no_run_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(checkpoint, "_download", lambda name: pytest.fail("the Hub was asked"))
    assert resume(out="runs/absent") == 2
    assert "the folder does not exist" in complaint(capsys)
    Path("runs/empty").mkdir(parents=True)
    assert resume(out="runs/empty") == 2
    assert "has no config.json" in complaint(capsys)


def test_the_card_names_the_commands_without_paths_of_this_machine(monkeypatch, make_images):
    make_images(4, folder="split=train/images")
    data, out = Path("split=train/images").absolute(), Path("runs/one").absolute()
    for words, given in (
        (["--dat", data, f"--out={out}", *TINY, "--steps=1"], True),
        ([f"--out={out}", "--resume", "--steps=2"], False),
    ):
        words = list(map(str, words))
        monkeypatch.setattr(sys, "argv", ["/a/notebook", "--its=own"] if given else [str(PROGRAM), *words])
        assert train.main(words if given else None) == 0
    card = checkpoint.read_card(Path("runs/one/checkpoint"))
    commands = ["python train.py --dat images --out=one " + " ".join(TINY) + " --steps=1"]
    commands += ["python train.py --out=one --resume --steps=2"]
    assert f"- Command: `{' && '.join(commands)}`\n" in card
    assert str(Path.cwd()) not in card


def test_the_card_shortens_nothing_but_paths(monkeypatch, make_images):
    make_images(5)
    write_labels([f"000{i}.png,{i % 2}" for i in range(5)], "name,Male/Female")
    Path("Male/Female").mkdir(parents=True)
    assert start("--steps", 1, "--labels", Path("labels.csv").absolute(), "--label-columns=Male/Female") == 0
    run = Path("runs/one").absolute()
    monkeypatch.setattr(checkpoint, "_download", lambda name: run / "checkpoint")
    options = ["--data", "./images", "--out", "runs/two", "--start-from", "alice/faces", "--steps", "1"]
    options += ["--labels", "labels.csv", "--label-columns", "Male/Female", "--device", "cpu"]
    assert train.main(options) == 0
    of_one, of_two = (checkpoint.read_card(Path(f"runs/{name}/checkpoint")) for name in ("one", "two"))
    assert "--labels labels.csv --label-columns=Male/Female`" in of_one
    assert (
        "`python train.py --data images --out two --start-from alice/faces --steps 1 --labels labels.csv "
        "--label-columns Male/Female --device cpu`"
    ) in of_two


# Measuring


class Colours(torch.nn.Module):
    """Features (B, 3): the mean colour of each image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


MEASURE = ("--measure-every", 0.008, "--measure-reference", "held_out")
COLOURS = ("--measure-features", "test_train:Colours")


def test_a_run_starts_from_a_checkpoint_and_takes_its_networks(capsys, make_images):
    make_images(5)
    assert start("--steps", 2) == 0
    options = "--data images --out runs/two --start-from runs/one --steps 3 --batch-size 5 --z-dim 12"
    assert train.main([*options.split(), "--precision", "fp32", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "Starting from 'one', 8 images shown before." in out and "23 images shown" in out
    config, _ = checkpoint.load_config(checkpoint.find(Path("runs/two")))
    assert (config.image_size, config.z_dim, config.g_width) == (32, 12, 8)
    assert resume("--steps", 4, out="runs/two") == 0
    assert "28 images shown" in capsys.readouterr().out


def test_a_folder_whose_name_is_not_utf8_is_trained_on_resumed_and_started_from(make_images):
    folder = str(make_images(5).rename(os.fsdecode(b"caf\xe9")))
    assert start("--steps", 1, data=folder) == 0
    assert resume("--steps", 2) == 0
    assert resume("--steps", 3, "--data", folder) == 0
    assert start("--steps", 1, "--start-from", "runs/one", data=folder, out="runs/two") == 0


def test_a_side_that_is_named_twice_attends_once_and_is_known_again_on_resume(make_images):
    make_images(4)
    assert start("--steps", 1, "--d-attention", "8,4,8") == 0
    assert resume("--steps", 2, "--d-attention", "8,4,8") == 0
    config, _ = checkpoint.load_config(checkpoint.find(Path("runs/one")))
    assert config.d_attention == (4, 8)


def test_a_run_that_starts_from_a_checkpoint_may_name_more_residual_blocks(capsys, make_images):
    make_images(5)
    assert start("--steps", 2) == 0
    options = "--data images --out runs/two --start-from runs/one --steps 1 --precision fp32 --device cpu"
    assert train.main([*options.split(), "--g-residual", "16,8,16", "--d-residual", "4"]) == 0
    config, _ = checkpoint.load_config(checkpoint.find(Path("runs/two")))
    assert (config.g_residual, config.d_residual) == ((8, 16, 16), (4,))
    assert resume("--steps", 2, out="runs/two") == 0
    assert "136 images shown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--start-from", "nowhere"), "nowhere"),
        (("--start-from", "runs/one", "--z-dim", 13), "--z-dim is 13, but 'runs/one' was trained with 12"),
        (("--start-from", "runs/one", "--resume"), "leave out --start-from"),
        (
            ("--start-from", "runs/residual", "--g-residual", "8,8"),
            "--g-residual is 8,8, but must name all that 'runs/residual' was trained with (8,16) and",
        ),
        (
            ("--start-from", "runs/residual", "--d-residual", ""),
            "--d-residual is '', but must name all that 'runs/residual' was trained with (4) "
            "and may add more.",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_start_that_makes_no_sense_is_refused_in_one_line(capsys, make_images, options, sentence):
    make_images(5)
    assert start("--steps", 1) == 0
    if "runs/residual" in options:
        assert start("--steps", 1, "--g-residual", "8,16", "--d-residual", "4", out="runs/residual") == 0
    capsys.readouterr()
    out = "runs/one" if "--resume" in options else "runs/two"
    assert train.main(["--data", "images", "--out", out, *map(str, options)]) == 2
    assert sentence in complaint(capsys)


CLASSES = ("--labels", "labels.csv", "--label-columns", "Male,Smiling")


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        ((), CLASSES, "has no classes, but this run has 4: give the --labels"),
        (CLASSES, (), "has 4 classes, but this run has none: give the --labels"),
        (
            CLASSES,
            (*CLASSES[:3], "Male,Hat"),
            "'not Male, not Smiling' instead of 'not Male, not Hat': give the same --label-columns.",
        ),
        (CLASSES, CLASSES[2:], "labels need both a CSV file and at least one of its columns"),
    ],
    ids=["none there", "none here", "others", "no file"],
)
def test_other_classes_are_refused_before_the_images_are_read(
    capsys, monkeypatch, make_images, before, now, sentence
):
    make_images(5)
    write_labels([f"000{i}.png,{i % 2},{i // 2 % 2}" for i in range(5)], "name,Male,Smiling")
    assert start("--steps", 1, *before) == 0
    capsys.readouterr()
    monkeypatch.setattr(train, "load_images", lambda *_: pytest.fail("the images were read"))
    assert train.main(["--data", "images", "--out", "runs/two", "--start-from", "runs/one", *now]) == 2
    assert sentence in complaint(capsys)


def test_measuring_is_handed_on_with_the_crop_of_the_training_images(handed_on):
    hand_on()
    assert handed_on["measure"] is handed_on["measure_kimg"] is None
    assert not any("measure" in name for name in handed_on["about"])
    options = (
        *COLOURS,
        "--measure-every",
        2.5,
        "--measure-reference",
        "held",
        "out.zip",
        "--measure-count",
        12,
    )
    hand_on(*options, "--crop", 40)
    assert handed_on["measure_kimg"] == 2.5 and handed_on["measure"].func.count == 12
    assert handed_on["reference_crop"] == 40 and handed_on["sources"] == (Path("images"),)
    stored = {name: value for name, value in handed_on["about"].items() if "measure" in name}
    assert stored == {
        "measure_every": 2.5,
        "measure_reference": ["held", "out.zip"],
        "measure_features": "test_train:Colours",
        "measure_count": 12,
    }


def test_a_measured_run_keeps_its_best_checkpoint_and_the_figures(all_drawn, make_images):
    make_images(6), make_images(21, folder="held_out")
    assert start("--steps", 4, *MEASURE, *COLOURS) == 0
    rows = checkpoint.read_history(Path("runs/one"))
    assert [row["step"] for row in rows] == [2, 4]
    figures = ("frechet_distance", "kernel_distance", "precision", "recall")
    assert all(row.keys() >= {*figures, *(f"floor_{name}" for name in figures)} for row in rows)
    best = min(rows, key=lambda row: row["frechet_distance"])
    assert checkpoint.read_history(Path("runs/one/best"))[-1] == best
    assert sample.main(["--checkpoint", "runs/one/best", "--count", "2", "--out", "x.png"]) == 0
    command = ["--checkpoint", "runs/one/best", "--reference", "held_out", "--device", "cpu", "--json"]
    assert metrics.main([*command, "--features", COLOURS[1]]) == 0


def test_a_measured_run_goes_on_being_measured_in_the_same_way(capsys, make_images):
    make_images(4), make_images(20, folder="held_out")
    assert start("--steps", 2, *MEASURE, *COLOURS) == 0
    Path("held_out").rename("moved")
    assert resume("--steps", 4, "--measure-reference", "moved", *COLOURS) == 0
    assert [row["step"] for row in checkpoint.read_history(Path("runs/one")) if "recall" in row] == [2, 4]
    capsys.readouterr()
    for option, value in (("--measure-features", "inception"), ("--measure-count", 11)):
        assert resume("--steps", 6, *COLOURS, option, value) == 2
        assert complaint(capsys).startswith(
            f"train.py: {option} is {value} now, but the run in 'runs/one' was"
        )


def test_the_code_that_measures_a_run_is_run_again_only_where_it_is_named_again(
    capsys, make_images, monkeypatch
):
    """The run may be another person's, and so may its features."""
    make_images(4), make_images(20, folder="held_out")
    made = []
    monkeypatch.setattr(Colours, "__init__", lambda colours: made.append(nn.Module.__init__(colours)))
    assert start("--steps", 2, *MEASURE, *COLOURS) == 0
    assert len(made) == 1
    capsys.readouterr()
    for options in ((), MEASURE):
        assert resume("--steps", 4, *options) == 2
        assert complaint(capsys) == (
            "train.py: The run in 'runs/one' is measured by code, 'test_train:Colours': if you trust it, "
            "give --measure-features test_train:Colours again; --measure-every 0 ends measuring."
        )
    assert len(made) == 1
    assert resume("--steps", 4, *COLOURS) == 0
    assert len(made) == 2


def test_a_run_is_not_measured_against_other_images_than_before(capsys, make_images):
    make_images(4), make_images(20, folder="held_out"), make_images(20, folder="other")
    for path in Path("other").iterdir():  # of two colours instead of many
        Image.new("RGB", (32, 32), "white" if int(path.stem) % 2 else "black").save(path)
    assert start("--steps", 2, *MEASURE, *COLOURS) == 0
    capsys.readouterr()
    assert resume("--steps", 4, "--measure-reference", "other", *COLOURS) == 2
    expected = "train.py: --measure-reference holds other images than this run was measured against: "
    assert complaint(capsys).startswith(expected)


def test_a_run_whose_reference_is_gone_goes_on_unmeasured(capsys, make_images):
    make_images(4), make_images(20, folder="held_out")
    assert start("--steps", 2, *MEASURE, *COLOURS) == 0
    best = Path("runs/one/best/generator.safetensors").read_bytes()
    Path("held_out").rename("away")
    capsys.readouterr()
    assert resume("--steps", 4, *COLOURS) == 2
    assert complaint(capsys).startswith("train.py: data source held_out does not exist")
    assert resume("--steps", 4, "--measure-every", 0) == 0
    assert resume("--steps", 6) == 0
    rows = checkpoint.read_history(Path("runs/one"))
    assert [row["step"] for row in rows if "recall" in row] == [2] and rows[-1]["step"] == 6
    assert Path("runs/one/best/generator.safetensors").read_bytes() == best
    capsys.readouterr()
    assert resume("--steps", 8, "--measure-every", 0, "--measure-reference", "images") == 2
    assert complaint(capsys).startswith("train.py: Measuring needs both")
    assert resume("--steps", 8, *MEASURE, "--measure-features", "inception") == 2
    assert "--measure-features is inception now, but the run in 'runs/one' was" in complaint(capsys)
    Path("away").rename("held_out")
    assert resume("--steps", 8, *MEASURE, *COLOURS) == 0
    assert "recall" in checkpoint.read_history(Path("runs/one"))[-1]


def test_a_run_that_was_never_measured_may_begin_to(stopped, make_images):
    make_images(20, folder="held_out")
    assert resume("--steps", 2, *MEASURE, *COLOURS) == 0
    assert Path("runs/one/best/config.json").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (MEASURE[:2], "Measuring needs both --measure-every KIMG and --measure-reference FOLDER_OR_ZIP."),
        (MEASURE[2:], "Measuring needs both --measure-every KIMG and --measure-reference FOLDER_OR_ZIP."),
        (("--measure-count", 10), "Measuring needs both --measure-every KIMG and --measure-reference"),
        ((*MEASURE, *COLOURS), "The reference holds 4 images, but two halves need at least 20."),
        (
            (*MEASURE, "--measure-features", "x"),
            "There is no feature network 'x': give inception, or module:",
        ),
    ],
    ids=str,
)
def test_a_measurement_that_cannot_be_made_is_refused_before_training(capsys, make_images, options, sentence):
    make_images(4), make_images(4, folder="held_out")
    assert start("--steps", 1, *options) == 2
    assert complaint(capsys).startswith(f"train.py: {sentence}")
    assert not Path("runs").exists()


# Signals


def test_ctrl_c_while_images_are_decoded_leaves_without_a_traceback(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "load_images", interrupted)
    assert start() == 130
    assert complaint(capsys) == "Stopped at once; what was not saved yet is lost."


@pytest.mark.parametrize(
    "error",
    [RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), MemoryError()],
)
def test_networks_without_room_are_one_sentence(capsys, monkeypatch, make_images, error):
    def full(*_, **__):
        raise error

    make_images(4)
    monkeypatch.setattr(train, "Trainer", full)
    assert start() == 2
    assert complaint(capsys).startswith("train.py: There is too little memory for these networks: ")


def test_a_mistake_of_the_program_is_not_taken_for_a_lack_of_memory(monkeypatch, make_images):
    def wrong(*_, **__):
        raise RuntimeError("the sizes differ")

    make_images(4)
    monkeypatch.setattr(train, "Trainer", wrong)
    with pytest.raises(RuntimeError, match="the sizes differ"):
        start()


def test_a_gpu_without_room_is_one_sentence(capsys, monkeypatch, make_images):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    make_images(4)
    monkeypatch.setattr(train, "Trainer", full)
    assert start() == 2
    ran_out = "train.py: The GPU ran out of memory: end other jobs on it, or name another --device."
    assert complaint(capsys) == ran_out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_ends_a_run_at_once_says_which_it_was(capsys, monkeypatch, make_images, number, code):
    class Trainer:
        stopped_by = number

        def __init__(self, *_, **__) -> None:
            pass

        def train(self, **_) -> bool:
            raise KeyboardInterrupt

    make_images(4)
    monkeypatch.setattr(train, "Trainer", Trainer)
    monkeypatch.setattr(train, "summary", lambda _: "")
    assert start() == code
    assert complaint(capsys) == "Stopped at once; what was not saved yet is lost."


def test_sigterm_while_images_are_decoded_leaves_nothing_behind(request, monkeypatch, make_images):
    decode, usual, calls = data._decode, signal.getsignal(signal.SIGTERM), count()
    gc.disable()  # or its finalisers might be what the signal meets, see below
    request.addfinalizer(gc.enable)

    def stop(*arguments):
        if next(calls) == 0:  # of several threads that decode, one
            signal.raise_signal(signal.SIGTERM)
        return decode(*arguments)

    make_images(6)
    monkeypatch.setattr(data, "_decode", stop)
    with pytest.raises(SystemExit) as stopped:
        start()
    assert stopped.value.code == 143
    assert not Path("runs").exists() and not list(Path(".cache").rglob("*.u8"))
    assert signal.getsignal(signal.SIGTERM) == usual


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sigterm_while_something_is_finalised_ends_the_run_before_it_trains(monkeypatch, make_images):
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)  # what its handler raises here reaches nobody

    def load(*arguments, **options):
        Finalised()
        return data.load_images(*arguments, **options)

    make_images(6)
    monkeypatch.setattr(train, "load_images", load)
    with pytest.raises(SystemExit) as stopped:
        start("--steps", 1)
    assert stopped.value.code == 143
    assert not Path("runs").exists()


def test_a_run_that_ignores_sigterm_until_it_has_said_why_it_ends_goes_on_doing_so(
    capsys, monkeypatch, make_images
):
    class Trainer:
        stopped_by = None

        def __init__(self, *_, **__) -> None:
            pass

        def train(self, **_) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise TrainingError("The other process is gone.")

    make_images(4)
    monkeypatch.setattr(train, "Trainer", Trainer)
    monkeypatch.setattr(train, "summary", lambda _: "")
    usual = signal.getsignal(signal.SIGTERM)
    try:
        assert start() == 2
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert complaint(capsys) == "train.py: The other process is gone."


def test_a_mistake_of_the_program_is_not_told_as_one_of_its_user(monkeypatch, make_images):
    make_images(4)
    monkeypatch.setattr(pictures, "curves", lambda *_: [*zip([1], [], strict=True)])
    with pytest.raises(ValueError, match="zip"):
        start("--steps", 1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals work otherwise there")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_leaves_and_the_run_can_be_completed(make_images, number, code):
    make_images(6)
    options = ["--data", "images", "--out", "run", *TINY, "--steps", "100000", "--log-every", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # These tests may run under nohup; the command does not: a program begins without the handlers of another.
    usual = signal.signal(signal.SIGHUP, lambda *_: None)
    child = subprocess.Popen([sys.executable, str(PROGRAM), *options], **pipes)
    signal.signal(signal.SIGHUP, usual)
    try:
        while child.poll() is None and not Path("run/history.csv").exists():
            time.sleep(0.05)
        child.send_signal(number)
        out, err = child.communicate(timeout=300)
    finally:
        child.kill()
    assert child.returncode == code, err
    assert "Traceback" not in err
    assert "Stopped before the end; go on with --resume." in out
    state = json.loads(Path("run/checkpoint/state.json").read_text())
    assert state["step"] == checkpoint.read_history(Path("run"))[-1]["step"] >= 1
    assert resume("--steps", state["step"] + 1, out="run") == 0
    assert json.loads(Path("run/checkpoint/state.json").read_text())["step"] == state["step"] + 1


@pytest.mark.parametrize("output", [">&- 2>&-", "> >(true) 2>&1"], ids=["closed", "gone"])
def test_a_run_whose_output_nobody_reads_is_trained_and_saved(make_images, output):
    make_images(6)
    options = ["--data", "images", "--out", "run", *TINY, "--steps", "2", "--log-every", "1"]
    command = f"{shlex.join([sys.executable, str(PROGRAM), *options])} {output}"
    assert subprocess.run(["bash", "-c", command]).returncode == 0
    assert json.loads(Path("run/checkpoint/state.json").read_text())["step"] == 2


def test_the_program_ends_with_code_2_and_one_line_for_bad_data():
    Path("images").mkdir()
    command = [sys.executable, str(PROGRAM), "--data", "images", "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train.py: data source images holds no images")
    assert done.stderr.count("\n") == 1
