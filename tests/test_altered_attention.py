"""Other attention maps in a trained generator: each change does what it says, and nothing of it stays."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from randomness import fresh_rng
from torch import Tensor, nn

from benchmarks import altered_attention
from benchmarks.altered_attention import (
    against,
    alter,
    alter_all,
    another,
    itself,
    main,
    main_swapped,
    moments,
    none,
    rows,
    same_for_all,
    strongest,
    uniform,
    without_as_much,
    without_main,
)
from sagan import average_maps, checkpoint
from sagan.classes import Classes
from sagan.export import measure_batch_norm
from sagan.layers import Override, SelfAttention
from sagan.metrics import attention_figures
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.seeds import inputs

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


def test_same_for_all_gives_every_position_what_all_get_on_average(layer: SelfAttention, x: Tensor) -> None:
    mean = attended(layer, x, layer(x)).mean(1, keepdim=True).expand(3, 25, 16)
    alter(layer, same_for_all)
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


def main_keys(maps: Tensor) -> set[int]:
    """The five that receive most in maps (n, n) of one face."""
    return set(maps.sum(0).argsort(descending=True)[:5].tolist())


def assert_left_out(before: Tensor, after: Tensor, gone: list[int]) -> None:
    """Maps (n, n) of one face without these keys: the others share in proportion."""
    kept = [key for key in range(len(before)) if key not in gone]
    assert (after[:, gone] == 0).all()
    torch.testing.assert_close(after[:, kept], before[:, kept] / before[:, kept].sum(1, keepdim=True))


def test_left_out_keys_are_those_that_receive_most() -> None:
    maps = torch.randn(4, 30, 30).mul(3).softmax(2)
    for before, after in zip(maps, without_main(maps), strict=True):
        assert_left_out(before, after, sorted(main_keys(before)))


@pytest.mark.parametrize(("favour", "share"), [(1.0, "as much"), (6.0, "nine tenths of the others")])
def test_left_out_others_receive_as_much_or_nearly_all_that_the_main_keys_leave(
    favour: float, share: str
) -> None:
    logits = torch.rand(4, 200, 200)
    logits[:, :, [3, 50, 51, 120, 199]] += favour
    maps = logits.softmax(2)
    left = without_as_much(maps)
    for before, after in zip(maps, left, strict=True):
        gone = (after.sum(0) == 0).nonzero().flatten().tolist()
        main = main_keys(before)
        assert main == {3, 50, 51, 120, 199} and not main & set(gone)
        assert_left_out(before, after, gone)
        received = before.sum(0)
        of_main = received[sorted(main)].sum()
        wanted = of_main if share == "as much" else 0.9 * (received.sum() - of_main)
        largest = received[[key for key in range(200) if key not in main]].max()
        assert wanted - largest < received[gone].sum() <= wanted  # one more would be too much
    assert torch.equal(without_as_much(maps), left)
    assert gone != list(range(min(gone), min(gone) + len(gone)))  # drawn


def test_swapped_keys_trade_the_weights_of_the_main_ones_with_others() -> None:
    maps = torch.randn(4, 30, 30).mul(3).softmax(2)
    swapped = main_swapped(maps)
    for before, after in zip(maps, swapped, strict=True):
        now = [(after == before[:, [key]]).all(0).nonzero().item() for key in range(30)]  # where a key went
        main = main_keys(before)
        assert all(now[now[key]] == key for key in range(30))
        assert {key for key in range(30) if now[key] != key} == main | {now[key] for key in main}
        assert not main & {now[key] for key in main}
    assert torch.equal(main_swapped(maps), swapped)


def test_itself_is_a_convolution_of_one_pixel(layer: SelfAttention, x: Tensor) -> None:
    alter(layer, itself)
    torch.testing.assert_close(attended(layer, x, layer(x)), values(layer, x), rtol=1e-4, atol=1e-4)


def test_a_gamma_and_extras_of_a_call_are_heeded(layer: SelfAttention, x: Tensor) -> None:
    parts = layer(x, extras="queries_keys")[1]
    alter(layer, itself)
    y, maps = layer(x, Override(0.25), "maps")
    torch.testing.assert_close(y, x + 0.25 * layer.value(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(x, override=Override(0.25)), y)
    assert torch.equal(maps, torch.eye(25).expand(3, 25, 25))
    for learned, given in zip(parts, layer(x, extras="queries_keys")[1], strict=True):
        assert torch.equal(given, learned)


def test_a_removed_alteration_leaves_no_trace(layer: SelfAttention, x: Tensor) -> None:
    before = layer(x)
    _, handle = alter(layer, itself)
    handle.remove()
    assert torch.equal(layer(x), before)


def test_each_layer_gets_the_change_of_its_row() -> None:
    places = {name: fresh_rng().normal(size=(n, n)) for name, n in (("8x8", 64), ("16x16", 256))}
    table = rows(["8x8", "16x16"], places)
    by_place = table.pop("by place")
    for name, place in places.items():
        given = by_place.pop(name)(torch.empty(2, *place.shape))
        assert np.array_equal(given, np.stack([place, place]).astype(np.float32))
    assert by_place == {}
    changes = {"none": none, "uniform": uniform, "same for all": same_for_all, "another face's": another}
    changes |= {"strongest key": strongest, "without main keys": without_main, "itself": itself}
    changes |= {"without as much": without_as_much, "main keys swapped": main_swapped}
    alone = {name: changes[name] for name in ("none", "another face's", "without main keys")}
    expected = {"as learned": {}} | {name: dict.fromkeys(places, change) for name, change in changes.items()}
    expected |= {f"{name} at {layer}": {layer: change} for name, change in alone.items() for layer in places}
    assert table == expected


def test_one_layer_has_no_rows_of_its_own() -> None:
    assert not [name for name in rows(["16x16"], {"16x16": np.eye(256)}) if " at " in name]


def sharp(network: Generator | Discriminator) -> Generator | Discriminator:
    """A network in eval mode whose attention is strong and far from uniform."""
    for attention in network.attention.values():
        nn.init.constant_(attention.gamma, 2)
        for projection in (attention.query, attention.key):
            nn.init.normal_(projection.weight, std=2)
    return network.eval().requires_grad_(False)


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch, exported_quickly: None) -> None:
    """Fewer faces for all that is compared and measured."""
    for name, number in (("COMPARED", 50), ("AVERAGED", 16), ("MATCHED", 100)):
        monkeypatch.setattr(altered_attention, name, number)


@pytest.fixture
def generator(fewer: None) -> Generator:
    generator = sharp(Generator(CONFIG, spectral=False))
    measure_batch_norm(generator, Classes())
    return generator


def spreads(generator: Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """The mean and the standard deviation of each channel that the layers put out, of all faces at once."""
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.double()}))
        for name, layer in generator.attention.items()
    ]
    generator(*inputs(generator, range(altered_attention.MATCHED), None))
    for hook in hooks:
        hook.remove()
    return {name: (y.mean((0, 2, 3)), y.std((0, 2, 3), correction=0)) for name, y in seen.items()}


def test_altered_layers_spread_as_before(generator: Generator) -> None:
    before, learned = spreads(generator), moments(generator, Classes())
    for layer, both in before.items():
        for found, expected in zip(learned[layer], both, strict=True):
            torch.testing.assert_close(found.flatten().double(), expected, rtol=1e-3, atol=1e-4)
    handles = alter_all(generator, dict.fromkeys(generator.attention, none), learned, Classes())
    after = spreads(generator)
    for layer, (mean, std) in before.items():
        varied = after[layer][1] > 1e-6  # a channel that ReLU left empty has nothing to spread
        assert varied.sum() > len(varied) / 2
        torch.testing.assert_close(after[layer][0][varied], mean[varied], rtol=0.01, atol=0.01)
        torch.testing.assert_close(after[layer][1][varied], std[varied], rtol=0.01, atol=0.01)
    for handle in handles:
        handle.remove()
    _, std = spreads(generator)["16x16"]
    assert not torch.allclose(std, before["16x16"][1], rtol=0.01)  # batch norm


def test_batch_norm_behind_is_measured_with_the_alteration(generator: Generator) -> None:
    behind = generator.blocks[-1].norm
    learned = behind.running_var.clone()
    alter_all(generator, {"8x8": itself}, moments(generator, Classes()), Classes())
    measured = behind.running_var.clone()
    measure_batch_norm(generator, Classes())  # of the same latents, altered as before
    torch.testing.assert_close(behind.running_var, measured)
    assert not torch.allclose(measured, learned, rtol=0.01)


def test_the_map_by_place_is_the_mean_over_faces(generator: Generator) -> None:
    _, maps = generator(*inputs(generator, range(7), None), extras="maps")
    for layer, place in average_maps.average(generator, None, range(7), Classes()).items():
        torch.testing.assert_close(torch.from_numpy(place).float(), maps[layer].mean(0), rtol=1e-3, atol=1e-6)


def test_the_same_faces_are_alike_and_other_ones_are_not() -> None:
    faces = torch.randint(64, 192, (40, 3, 32, 32), dtype=torch.uint8)
    same = {"light alike": 1, "light spread": 1, "detail alike": 1, "detail spread": 1}
    assert against(faces, faces) == same
    others = against(faces.roll(1, 0), faces)
    assert abs(others["light alike"]) < 0.2
    assert abs(others["detail alike"]) < 0.1
    assert others["detail spread"] == 1


def test_light_and_detail_are_told_apart() -> None:
    light = torch.randint(60, 120, (40, 3, 4, 4)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    board = 1 - 2 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2)  # no mean in any square
    detail = torch.randint(2, 20, (40, 1, 1, 1)) * board
    faces = (light + 2 * detail).to(torch.uint8)
    assert against((light + detail).to(torch.uint8), faces) == {
        "light alike": 1,
        "light spread": 1,
        "detail alike": 1,
        "detail spread": 0.5,
    }
    assert against((light + 60 - 2 * detail).to(torch.uint8), faces)["detail alike"] == -1


class Means(nn.Module):
    """Features of an image: the means of its channels and of its halves."""

    def forward(self, images: Tensor) -> Tensor:
        images = images.float()
        return torch.cat([images.mean((2, 3)), images[:, 0, :16].mean((1, 2))[:, None]], 1)


def save(folder: Path, config: SaganConfig, class_counts: tuple[int, ...] = ()) -> Path:
    pair = sharp(Generator(config, spectral=False)), sharp(Discriminator(config, spectral=False))
    classes = Classes(tuple("abc"[: config.num_classes]), class_counts)
    checkpoint.save(folder, classes, *pair, [], "")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model", CONFIG)


def run(model: Path, out: Path, *options: object) -> dict[str, dict[str, float]]:
    """The table that the command leaves, {maps: figures}; those of a row that has none are left out."""
    main(["--checkpoint", str(model), "--out", str(out), "--device", "cpu", *map(str, options)])
    with (out / "table.csv").open(newline="") as file:
        lines = {line.pop("maps"): line for line in csv.DictReader(file)}
    return {name: {k: float(v) for k, v in line.items() if v} for name, line in lines.items()}


@pytest.mark.usefixtures("fewer")
def test_the_command_writes_the_table_and_the_sheet(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "new" / "altered"
    table = run(model, out)
    assert set(table.pop("as learned").values()) == {1}
    assert len(table) == 17
    assert all(figures["light alike"] < 1 or figures["detail alike"] < 1 for figures in table.values())
    assert abs(table["faces of other seeds"]["detail alike"]) < 0.5
    with Image.open(out / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


@pytest.mark.usefixtures("fewer")
def test_every_row_begins_with_what_was_learned(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"8x8": itself, "16x16": another}
    monkeypatch.setattr(
        altered_attention, "rows", lambda *_: {"as learned": {}, "altered": changes, "again": {}}
    )
    table = run(model, tmp_path / "out")
    assert set(table["altered"].values()) != {1}
    assert set(table["again"].values()) == {1}


@pytest.mark.usefixtures("fewer")
def test_only_classes_that_were_learned_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3)
    seen = set()

    def forward(self: Generator, z: Tensor, labels: Tensor, *rest: object, **options: object) -> object:
        seen.update(labels.tolist())
        return original(self, z, labels, *rest, **options)

    original = Generator.forward
    monkeypatch.setattr(Generator, "forward", forward)
    monkeypatch.setattr(altered_attention, "rows", lambda *_: {"as learned": {}, "none": {"8x8": none}})
    run(save(tmp_path / "model", config, class_counts=(20, 0, 5)), tmp_path / "out")
    assert seen == {0, 2}


@pytest.mark.usefixtures("fewer")
def test_a_reference_adds_the_figures_of_the_metrics(
    tmp_path: Path, model: Path, make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(altered_attention, "rows", lambda *_: {"as learned": {}, "none": {"16x16": none}})
    reference = make_images(30, size=32)
    options = ("--reference", reference, "--features", f"{__name__}:Means", "--count", 12)
    table = run(model, tmp_path / "out", *options)
    cropped = run(model, tmp_path / "cropped", *options, "--crop", 8)
    assert table["as learned"]["frechet_distance"] != cropped["as learned"]["frechet_distance"]
    assert table["as learned"]["frechet_distance"] != table["none"]["frechet_distance"]
    assert table["as learned"]["entropy_16x16"] > 0


@pytest.mark.usefixtures("fewer")
def test_only_the_unaltered_row_has_figures_of_attention(
    tmp_path: Path, model: Path, make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"8x8": another, "16x16": another}
    monkeypatch.setattr(
        altered_attention,
        "rows",
        lambda *_: {"as learned": {}, "altered": changes, "altered at 8x8": {"8x8": none}},
    )
    reference = ("--reference", make_images(30, size=32), "--features", f"{__name__}:Means")
    table = run(model, tmp_path / "out", *reference, "--count", 12)
    expected = attention_figures(checkpoint.load_generator(model), range(12), None)
    assert len(expected) == 4
    assert {name: table["as learned"].pop(name) for name in expected} == pytest.approx(expected, rel=1e-4)
    assert table["altered"].keys() == table["altered at 8x8"].keys() == table["as learned"].keys()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--count", 12), "name what to measure with --reference"),
        (("--features", "somewhere:Network"), "name what to measure with --reference"),
        (("--crop", 8), "--crop says how to read the images of --reference: name them."),
    ],
)
def test_how_to_measure_without_what_is_refused(
    tmp_path: Path, model: Path, options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        run(model, tmp_path / "out", *options)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_generator_without_attention_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bare = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, g_attention=())
    with pytest.raises(SystemExit):
        run(save(tmp_path / "bare", bare), tmp_path / "out")
    assert "has no attention to alter" in capsys.readouterr().err


def test_an_out_that_is_a_file_is_refused(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(SystemExit):
        run(model, taken)
    assert "taken' cannot be used: File exists." in capsys.readouterr().err
    assert taken.read_text() == "mine"
