"""Fixtures that several test files share."""

import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from randomness import draw, fresh_rng, random_images, seed_all

from sagan import export, pictures

torch.set_num_threads(1)  # on networks this small, threads cost more than they give
os.environ["OMP_NUM_THREADS"] = "1"  # also in the commands that the tests start
# A shell starts its background jobs with Ctrl-C ignored, and so would the commands that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="draw the random inputs of the run that told this seed")


def pytest_configure(config):
    if hasattr(config, "workerinput"):  # one of several processes
        config.option.seed = config.workerinput["seed"]
    elif config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**32)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["seed"] = node.config.option.seed


def pytest_terminal_summary(terminalreporter, config):
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.section("random inputs")
        terminalreporter.line(f"The same ones again: python -m pytest --seed {config.option.seed}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    seed_all(item.config.option.seed, item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    """A fixture that tests share draws the same whichever of them comes first, and takes nothing from it."""
    if fixturedef.scope == "function":
        return (yield)
    before = draw.getstate(), torch.get_rng_state()
    parameter = getattr(request, "param_index", 0)
    seed_all(request.config.option.seed, f"{fixturedef.baseid} {fixturedef.argname} {parameter}")
    try:
        return (yield)
    finally:
        draw.setstate(before[0])
        torch.set_rng_state(before[1])


@pytest.fixture
def exported_quickly(monkeypatch) -> None:
    """Batch norm of what is exported is measured with an eighth of the latents."""
    monkeypatch.setattr(export, "CALIBRATION_IMAGES", 64)


@pytest.fixture
def quick(monkeypatch, exported_quickly) -> None:
    """A run exports quickly, draws few faces, and its curves are an empty file."""
    monkeypatch.setattr(pictures, "FACES", 2)
    monkeypatch.setattr(pictures, "ATTENTION_FACES", 1)
    monkeypatch.setattr(pictures, "curves", lambda history, path: path.touch())


@pytest.fixture
def rng() -> np.random.Generator:
    return fresh_rng()


@pytest.fixture
def help_of(capsys) -> Callable[[Callable[[list[str]], int]], str]:
    """help_of(main) is what a command says to --help, in one line."""

    def read(main: Callable[[list[str]], int]) -> str:
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        return " ".join(capsys.readouterr().out.split())

    return read


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """make_images(count, size=32, folder="images", suffix=".png"): `random_images` in tmp_path."""
    return partial(random_images, tmp_path)
