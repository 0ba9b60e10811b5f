"""What only a GPU can show; tests/conftest.py leaves this file out where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from randomness import fresh_rng
from torch import Tensor

from sagan.data import ImageSet
from sagan.learner import BEFORE_CAPTURE
from sagan.networks import SaganConfig
from sagan.recipe import Recipe
from sagan.trainer import Trainer

CONFIG = SaganConfig(image_size=32, z_dim=12, g_width=16, d_width=16, g_residual=(8, 16), d_residual=(16,))
STEPS = BEFORE_CAPTURE + 4
CASES = {
    "hinge": {},
    "wgan-gp": {"loss": "wgan-gp", "d_steps": 2},
    "with classes": {"classes": 3},
    "consistent": {"consistency": 0.3, "d_steps": 2},
    "bf16": {"precision": "bf16", "consistency": 1.0},
    "augmented": {"augment": 0.6},
}


def trained(out: Path, data: ImageSet, capture: bool, **recipe) -> tuple[Trainer, dict[str, Tensor]]:
    settings = {"batch_size": 8, "steps": STEPS, "precision": "fp32", "lr_decay": 0.8, **recipe}
    run = Trainer(CONFIG, Recipe(**settings, deterministic=True), data, out, "cuda", capture=capture)
    for _ in range(STEPS):
        run.train_step()
    tensors = {}
    for name, network in run.networks.items():
        tensors |= {f"{name} {key}": value.clone() for key, value in network.state_dict().items()}
    return run, tensors


@pytest.mark.parametrize("name", CASES)
def test_captured_steps_compute_what_plain_ones_do(tmp_path, name):
    recipe = dict(CASES[name])
    classes = recipe.pop("classes", 0)
    rng = fresh_rng()
    images = rng.integers(0, 256, (22, 32, 32, 3), np.uint8)
    labels, names = (rng.integers(0, classes, 22), tuple("abc")) if classes else (None, ())
    data = ImageSet(images, labels, names)
    try:
        plain, expected = trained(tmp_path, data, False, **recipe)
        captured, found = trained(tmp_path, data, True, **recipe)
    finally:
        torch.use_deterministic_algorithms(False)
    assert plain._captured is None and captured._captured is not None
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)
    for figure, (total, count) in plain._sums.items():
        assert captured._sums[figure][1] == count
        torch.testing.assert_close(captured._sums[figure][0], total, rtol=1e-4, atol=1e-5, msg=figure)


def test_captured_steps_go_on_from_a_state_that_is_loaded(tmp_path):
    data = ImageSet(fresh_rng().integers(0, 256, (22, 32, 32, 3), np.uint8))

    def two_steps_later() -> dict[str, Tensor]:
        for _ in range(2):
            run.train_step()
        return {name: value.clone() for name, value in run.state_dict().items()}

    try:
        run, _ = trained(tmp_path, data, True, steps=STEPS + 2)
        state, step = {name: value.clone() for name, value in run.state_dict().items()}, run.step
        expected = two_steps_later()
        run.load_state_dict(state)
        run.step = step
        found = two_steps_later()
    finally:
        torch.use_deterministic_algorithms(False)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("loss", ["hinge", "wgan-gp"])
def test_fused_attention_is_for_large_maps_and_for_losses_without_a_double_backward(tmp_path, loss):
    data = ImageSet(np.zeros((8, 32, 32, 3), np.uint8))
    run = Trainer(CONFIG, Recipe(batch_size=4, loss=loss), data, tmp_path, "cuda")
    large = loss == "hinge"
    for network, expected in (
        (run.generator, {"8x8": False, "16x16": large}),
        (run.discriminator, {"4x4": False, "8x8": False}),
    ):
        assert {name: layer.fused for name, layer in network.attention.items()} == expected


@pytest.mark.parametrize("options", [(), ("--no-capture",)], ids=str)
def test_a_run_on_the_gpu_saves_draws_films_and_resumes(tmp_path, options):
    (tmp_path / "images").mkdir()
    for i in range(20):
        pixels = fresh_rng().integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.png")
    run = ["--out", str(tmp_path / "run"), *options]
    first = ["--data", str(tmp_path / "images"), "--image-size", "32", "--g-width", "16", "--d-width", "16"]
    first += ["--batch-size", "8", "--steps", "6", "--consistency", "1", "--log-every", "2"]
    root = Path(__file__).parents[1]
    for arguments in ([*first, "--sample-every", "3"], ["--resume", "--steps", "12"]):
        subprocess.run([sys.executable, "train.py", *arguments, *run], cwd=root, check=True)
    state = json.loads((tmp_path / "run/checkpoint/state.json").read_text())
    assert state["step"] == 12
    assert {path.name for path in (tmp_path / "run/samples").iterdir()} >= {
        "faces-000003.png",
        "faces-000006.png",
        "attention-000012.png",
    }
    assert torch.cuda.get_device_name() in (tmp_path / "run/checkpoint/model_card.md").read_text()
