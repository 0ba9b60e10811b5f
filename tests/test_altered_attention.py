"""Other attention maps in a trained generator: each change does what it says, and nothing of it stays."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.altered_attention import (
    against,
    alter,
    alter_all,
    another,
    itself,
    main,
    none,
    one_row,
    rows,
    strongest,
    uniform,
)
from sagan import checkpoint
from sagan.layers import SelfAttention
from sagan.networks import Discriminator, Generator, SaganConfig

CONFIG = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)


@pytest.fixture
def layer() -> SelfAttention:
    """A layer whose maps are far from uniform."""
    layer = SelfAttention(16, spectral=False)
    for projection in (layer.query, layer.key, layer.value):
        nn.init.normal_(projection.weight, std=0.7)
    nn.init.constant_(layer.gamma, 1.5)
    return layer.requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 16, 5, 5)


def attended(layer: SelfAttention, x: Tensor, y: Tensor) -> Tensor:
    """What a layer added to x, over gamma: (B, H*W, C)."""
    return ((y - x) / layer.gamma).flatten(2).transpose(1, 2)


def values(layer: SelfAttention, x: Tensor) -> Tensor:
    return layer.value(x).flatten(2).transpose(1, 2)


def test_the_learned_maps_change_nothing(layer: SelfAttention, x: Tensor) -> None:
    before = layer(x)
    alter(layer, lambda maps: maps)
    torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-4)


def test_without_maps_the_layer_is_the_identity(layer: SelfAttention, x: Tensor) -> None:
    alter(layer, none)
    torch.testing.assert_close(layer(x), x)


def test_uniform_maps_give_every_position_the_mean_value(layer: SelfAttention, x: Tensor) -> None:
    alter(layer, uniform)
    mean = values(layer, x).mean(1, keepdim=True).expand(3, 25, 16)
    torch.testing.assert_close(attended(layer, x, layer(x)), mean, rtol=1e-4, atol=1e-4)


def test_one_row_gives_every_position_what_all_get_on_average(layer: SelfAttention, x: Tensor) -> None:
    mean = attended(layer, x, layer(x)).mean(1, keepdim=True).expand(3, 25, 16)
    alter(layer, one_row)
    torch.testing.assert_close(attended(layer, x, layer(x)), mean, rtol=1e-4, atol=1e-4)


def test_another_faces_maps_weigh_this_faces_values(layer: SelfAttention, x: Tensor) -> None:
    _, maps = layer(x, extras="maps")
    alter(layer, another)
    expected = torch.stack([maps[i - 1] @ values(layer, x)[i] for i in range(3)])
    torch.testing.assert_close(attended(layer, x, layer(x)), expected, rtol=1e-4, atol=1e-4)


def test_the_strongest_key_alone_is_copied(layer: SelfAttention, x: Tensor) -> None:
    _, maps = layer(x, extras="maps")
    alter(layer, strongest)
    expected = torch.stack([v[m.argmax(1)] for v, m in zip(values(layer, x), maps, strict=True)])
    torch.testing.assert_close(attended(layer, x, layer(x)), expected, rtol=1e-4, atol=1e-4)


def test_itself_is_a_convolution_of_one_pixel(layer: SelfAttention, x: Tensor) -> None:
    alter(layer, itself)
    torch.testing.assert_close(attended(layer, x, layer(x)), values(layer, x), rtol=1e-4, atol=1e-4)


def test_a_gamma_and_extras_of_a_call_are_heeded(layer: SelfAttention, x: Tensor) -> None:
    parts = layer(x, extras="queries_keys")[1]
    alter(layer, itself)
    y, maps = layer(x, 0.25, "maps")
    torch.testing.assert_close(y, x + 0.25 * layer.value(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(maps, torch.eye(25).expand(3, 25, 25))
    for learned, given in zip(parts, layer(x, extras="queries_keys")[1], strict=True):
        assert torch.equal(given, learned)


def test_a_removed_alteration_leaves_no_trace(layer: SelfAttention, x: Tensor) -> None:
    before = layer(x)
    alter(layer, itself).remove()
    assert torch.equal(layer(x), before)


def test_each_layer_gets_the_change_of_its_row() -> None:
    places = {"8x8": torch.randn(64, 64), "16x16": torch.randn(256, 256)}
    table = rows(["8x8", "16x16"], places)
    assert table["as learned"] == {}
    assert table["none"] == {"8x8": none, "16x16": none}
    assert table["none, 8x8 only"] == {"8x8": none}
    assert table["another face's, 16x16 only"] == {"16x16": another}
    for name, place in places.items():
        given = table["by place"][name](torch.empty(2, *place.shape))
        assert torch.equal(given, torch.stack([place, place]))


def test_one_layer_has_no_rows_of_its_own() -> None:
    assert not [name for name in rows(["16x16"], {"16x16": torch.eye(256)}) if "only" in name]


def test_batch_norm_is_measured_anew_where_something_changed() -> None:
    generator = Generator(CONFIG, spectral=False).eval().requires_grad_(False)
    for attention in generator.attention.values():
        nn.init.constant_(attention.gamma, 3)
    alter_all(generator, {})
    behind = generator.blocks[-1].norm
    assert torch.equal(behind.running_var, torch.ones_like(behind.running_var))
    alter_all(generator, dict.fromkeys(generator.attention, none))
    without = behind.running_var.clone()
    alter_all(generator, dict.fromkeys(generator.attention, uniform))
    assert not torch.allclose(without, torch.ones_like(without))
    assert not torch.allclose(behind.running_var, without)


def test_the_same_faces_are_alike_and_other_ones_are_not() -> None:
    faces = torch.randint(64, 192, (40, 3, 32, 32), dtype=torch.uint8)
    same = {"light alike": 1, "light contrast": 1, "detail alike": 1, "detail contrast": 1}
    assert against(faces, faces) == same
    others = against(faces.roll(1, 0), faces)
    assert abs(others["light alike"]) < 0.2
    assert abs(others["detail alike"]) < 0.1
    assert others["detail contrast"] == 1


def test_light_and_detail_are_told_apart() -> None:
    light = torch.randint(60, 120, (40, 3, 4, 4)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    board = 1 - 2 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2)  # no mean in any square
    detail = torch.randint(2, 20, (40, 1, 1, 1)) * board
    faces = (light + 2 * detail).to(torch.uint8)
    assert against((light + detail).to(torch.uint8), faces) == {
        "light alike": 1,
        "light contrast": 1,
        "detail alike": 1,
        "detail contrast": 0.5,
    }
    assert against((light + 60 - 2 * detail).to(torch.uint8), faces)["detail alike"] == -1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model", CONFIG)


def save(folder: Path, config: SaganConfig) -> Path:
    pair = Generator(config, spectral=False), Discriminator(config, spectral=False)
    for network in pair:
        for attention in network.attention.values():
            nn.init.constant_(attention.gamma, 2)
            for projection in (attention.query, attention.key):  # far from uniform
                nn.init.normal_(projection.weight, std=2)
    checkpoint.save(folder, config, tuple("abc"[: config.num_classes]), *pair, [], "")
    return folder


@pytest.mark.parametrize("classes", [0, 3])
def test_the_command_writes_the_table_and_the_sheet(tmp_path: Path, classes: int) -> None:
    config = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=classes)
    model, out = save(tmp_path / "model", config), tmp_path / "new" / "altered"
    main(["--checkpoint", str(model), "--out", str(out), "--device", "cpu"])
    with (out / "table.csv").open(newline="") as file:
        table = {
            row.pop("maps"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
        }
    assert set(table["as learned"].values()) == {1}
    assert len(table) == 12
    assert all(-1 <= row["light alike"] < 1 for name, row in table.items() if name != "as learned")

    with Image.open(out / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_a_generator_without_attention_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bare = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, g_attention=())
    folder = save(tmp_path / "bare", bare)
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(folder), "--out", str(tmp_path / "out")])
    assert "has no attention to alter" in capsys.readouterr().err


def test_an_out_that_is_a_file_is_refused(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(model), "--out", str(taken)])
    assert "taken' cannot be used: File exists." in capsys.readouterr().err
    assert taken.read_text() == "mine"
