"""The runs of the ablations: which are trained and which refused, and what stands in the table."""

import csv
import json
import signal
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from torch import Tensor, nn

from benchmarks import ablations, common
from sagan import checkpoint, metrics
from sagan.classes import Classes
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.recipe import Recipe

FEATURES = ("--features", f"{__name__}:Colours")
COMMAND = ("--data", "images", "--only", "small-batches", "only-16")


class Colours(nn.Module):
    """Features of an image: the means of its channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that train, which leave as much of a run as is looked at, and nothing else is done."""
    commands = []

    def train(command: list[str]) -> nullcontext:
        commands.append(command)
        folder = Path(command[command.index("--out") + 1]) / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {"batch_size": 32, "steps": int(command[command.index("--steps") + 1])}
        before = {"step": 0, "images": 0, "seconds": 0, "source": ""}
        state = {"step": 1, "seconds": 1, "recipe": recipe, "images": 9, "about": {}, "before": before}
        (folder / "config.json").touch()
        (folder / "state.json").write_text(json.dumps(state))
        return nullcontext(SimpleNamespace(wait=lambda: 0))

    monkeypatch.setattr(subprocess, "Popen", train)
    monkeypatch.setattr(ablations, "compare", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return commands


def test_runs_of_the_same_length_go_on_and_those_of_another_are_refused_before_any_is_trained(
    trained: list[list[str]], capsys: pytest.CaptureFixture
) -> None:
    for _ in range(2):
        ablations.main([*COMMAND, "--out", "runs", "--kimg", "3.2"])
    assert [command[command.index("--steps") + 1] for command in trained] == ["100"] * 4
    assert ["--resume" in command for command in trained] == [False, False, True, True]
    for kimg, steps in ((6.4, 200), (1.6, 50)):
        for first in ("no-attention", "small-batches"):
            options = ["--only", first, "only-16", "--out", "runs", "--kimg", str(kimg), "--data", "images"]
            with pytest.raises(SystemExit) as stopped:
                ablations.main(options)
            named = "small-batches" if first == "small-batches" else "only-16"
            sentence = f"The run in 'runs/{named}' is 100 steps long, but --kimg {kimg} makes {steps}: "
            assert capsys.readouterr().err.endswith(f"error: {sentence}name another --out.\n")
            assert stopped.value.code == 2
    assert len(trained) == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--reference", "nowhere"), "data source nowhere does not exist"),
        (("--reference", "held_out", "--features", "x"), "There is no feature network 'x': give inception, "),
        (
            ("--reference", "held_out", *FEATURES, "--count", "16"),
            "The count is 16, but must be from 10 to 15",
        ),
        (
            ("--count", "12"),
            "--count and --features say how to measure: name what to measure with --reference.",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_is_trained(
    trained: list[list[str]],
    make_images: Callable[..., Path],
    capsys: pytest.CaptureFixture,
    options: tuple[str, ...],
    sentence: str,
) -> None:
    make_images(30, folder="held_out")
    with pytest.raises(SystemExit) as stopped:
        ablations.main([*COMMAND, "--out", "runs", "--device", "cpu", *options])
    assert stopped.value.code == 2
    assert f"error: {sentence}" in capsys.readouterr().err
    assert trained == []


@pytest.mark.parametrize("kimg", ["inf", "nan", "0", "-1", "1e308", "many"])
def test_a_length_that_is_none_is_refused(
    trained: list[list[str]], capsys: pytest.CaptureFixture, kimg: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        ablations.main([*COMMAND, "--out", "runs", f"--kimg={kimg}"])
    assert stopped.value.code == 2
    said = f"error: argument --kimg: {kimg!r} is not a number above 0, in thousands of images\n"
    assert capsys.readouterr().err.endswith(said)
    assert trained == []


def test_images_are_cropped_alike_for_training_and_measuring(
    trained: list[list[str]], make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    crops, load = [], common.load_images
    monkeypatch.setattr(common, "load_images", lambda *given: crops.append(given[2]) or load(*given))
    make_images(30, folder="held_out")
    options = ("--reference", "held_out", *FEATURES, "--device", "cpu", "--crop", "20")
    ablations.main([*COMMAND, "--out", "runs", *options])
    assert crops == [20]
    assert [command[command.index("--crop") + 1] for command in trained] == ["20", "20"]


@pytest.mark.parametrize("code", [130, 0], ids=["stopped", "complete"])
def test_ctrl_c_lets_the_training_save_and_ends_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    program = tmp_path / "training.py"
    program.write_text(
        "import os, signal, sys, time\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"  # to the whole terminal, this one included
        "time.sleep(1)\n"  # longer than a process that was interrupted is given
        "open('saved', 'w').close()\n"
        f"sys.exit({code})\n"
    )
    monkeypatch.setattr(ablations.train, "__file__", str(program))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        ablations.main([*COMMAND, "--out", "runs"])
    assert stopped.value.code == 130
    assert Path("saved").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_table_holds_gammas_and_what_attention_does_as_measuring_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = [ablations.Variant("one", (), raw=True), ablations.Variant("none", ("--batch-size", "8"))]
    for variant, sides in zip(variants, ((8,), ()), strict=True):
        config = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, g_attention=sides)
        networks = [kind(config, spectral=False).eval() for kind in (Generator, Discriminator, Generator)]
        for network in (networks[0], networks[2]):
            for layer in network.attention.values():
                layer.gamma.data.uniform_(0.2, 0.8)
        generator, discriminator, raw = networks
        folder = tmp_path / variant.name / "checkpoint"
        rows = [{"step": 1, "images": 64}]
        checkpoint.save(folder, Classes(), generator, discriminator, rows, "# Card", raw_generator=raw)
    monkeypatch.setattr(ablations, "relative_times", lambda *_: {"one": 1.5, "none": 1.0})
    ablations.compare(variants, SimpleNamespace(out=tmp_path, device="cpu"))
    with (tmp_path / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["variant"], row["weights"]) for row in table] == [
        ("one", "ema"),
        ("one", "raw"),
        ("none", "ema"),
    ]
    columns = ["variant", "weights", "images", "time", "gamma_8x8", "strength_8x8", "entropy_8x8"]
    assert list(table[0]) == columns and table[2]["gamma_8x8"] == ""
    for row, name in zip(table, ("generator", "generator_raw"), strict=False):
        generator = checkpoint.load_generator(tmp_path / "one/checkpoint", f"{name}.safetensors")
        expected = metrics.attention_figures(generator, range(64), None)
        assert {key: float(row[key]) for key in expected} == expected
        assert float(row["gamma_8x8"]) == round(generator.attention["8x8"].gamma.item(), 3)
    for name in ("one", "one-raw", "none"):
        assert Image.open(tmp_path / f"{name}.png").width > 12 * 32


def test_a_variant_without_a_batch_size_has_that_of_the_recipe() -> None:
    assert [variant.batch_size() for variant in ablations.VARIANTS[:3]] == [Recipe().batch_size] * 2 + [32]
