"""Average maps: the mean over faces, in 8 bits beside the checkpoint, whole or not at all."""

import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from randomness import fresh_rng
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from torch import nn

from sagan import average_maps, checkpoint
from sagan.average_maps import average, decode, encode, main, read
from sagan.checkpoint import CheckpointError
from sagan.classes import Classes
from sagan.latents import from_seed
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3, g_attention=(16,))
both_configs = pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])


def random_networks(config: SaganConfig) -> tuple[Generator, Discriminator]:
    """Plain networks in eval mode whose attention is far from uniform and differs from face to face."""
    pair = Generator(config, spectral=False), Discriminator(config, spectral=False)
    for network in pair:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=3 / module.weight[0].numel() ** 0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 1, 0.5)
    return tuple(network.eval().requires_grad_(False) for network in pair)


def save(folder: Path, config: SaganConfig, class_counts: tuple[int, ...] = (), **options) -> Path:
    classes = Classes(tuple(map(str, range(config.num_classes))), class_counts)
    checkpoint.save(folder, classes, *random_networks(config), [], "", **options)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model", PLAIN)


def run(folder: Path, *options: object) -> int:
    return main(["--checkpoint", str(folder), *map(str, options)])


def means_by_hand(
    sampler: Sampler, count: int, classes: tuple[int, ...] = (0, 1, 2)
) -> dict[str, np.ndarray]:
    """What the sampler says of each face, averaged in float64."""
    config = sampler.config
    every: dict[str, list[np.ndarray]] = {}
    for seed in range(count):
        label = classes[seed % len(classes)] if config.num_classes else None
        raw = sampler.raw_maps(from_seed(seed, config.z_dim), label)
        for name, array in raw.items():
            if name.endswith("/attention"):
                every.setdefault(name.removesuffix("/attention"), []).append(array.astype(np.float64))
    return {name: sum(arrays) / count for name, arrays in every.items()}


# Codes


def test_codes_stand_for_times_uniform_on_a_log_scale_within_half_a_step():
    n = 1024
    levels = fresh_rng().uniform(-6, 10, (64, n))
    decoded = decode(encode(2.0**levels / n))
    assert decoded.dtype == np.float32
    steps = np.abs(np.log2(decoded.astype(np.float64)) - levels) / (16 / 255)
    assert steps.max() <= 0.5 + 1e-3
    for code in fresh_rng().integers(0, 256, 9).tolist():
        assert decode(np.array([code], np.uint8))[0] == pytest.approx(2 ** (-6 + code * 16 / 255))


def test_what_lies_beyond_the_scale_gets_its_first_and_last_code():
    weights = np.array([[0, 1e-30, 2.0**-9, 1.0] * 4096])  # of 16384 keys: 0, less, 32 x and 16384 x uniform
    assert encode(weights)[0, :4].tolist() == [0, 0, round((5 + 6) * 255 / 16), 255]
    one_key = np.eye(1024)[:1]
    assert encode(one_key).max() == 255 and decode(encode(one_key)).max() == 1024


# Averages


@both_configs
def test_the_file_holds_the_mean_over_faces_of_what_the_sampler_says_of_each(tmp_path, config):
    folder = save(tmp_path / "model", config)
    assert run(folder, "--count", 7) == 0
    sampler = Sampler.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = sampler.average_maps
    assert path == folder / "average_maps.safetensors"
    codes, expected = read(path, config), means_by_hand(sampler, 7)
    sides = [*(f"{side}x{side}" for side in config.g_attention), "discriminator 4x4", "discriminator 8x8"]
    assert list(codes) == sides and codes.keys() == expected.keys()
    for layer, mean in expected.items():
        assert codes[layer].shape == mean.shape and codes[layer].dtype == np.uint8
        inside = mean * len(mean) > 2**-6
        relative = decode(codes[layer])[inside] / (mean * len(mean))[inside]
        assert np.abs(np.log2(relative)).max() <= 8 / 255 + 1e-3
        assert (codes[layer][~inside] == 0).all()
        assert mean.std() * len(mean) > 0.1
    with safe_open(path, "pt") as file:
        sha = checkpoint.generator_hash(folder)
        assert file.metadata() == {"generator_sha256": sha, "count": "7", "low": "-6", "high": "10"}


def test_classes_without_training_images_are_left_out_of_the_average(tmp_path):
    folder = save(tmp_path / "model", CONDITIONAL, class_counts=(0, 5, 0))
    run(folder, "--count", 3)
    codes = read(folder / "average_maps.safetensors", CONDITIONAL)
    for layer, mean in means_by_hand(Sampler.load(folder), 3, classes=(1,)).items():
        np.testing.assert_allclose(codes[layer].astype(int), encode(mean), atol=1)
        assert codes[layer].std() > 1


def test_every_row_of_an_average_sums_to_1():
    for layer, mean in average(*random_networks(CONDITIONAL), range(4), Classes(tuple("abc"))).items():
        assert mean.dtype == np.float64
        np.testing.assert_allclose(mean.sum(1), 1, atol=1e-5, err_msg=layer)


def test_more_faces_take_no_more_memory():
    networks, maps, alive = random_networks(PLAIN), [], []

    def count_those_alive(_, __, out) -> None:
        alive.append(sum(reference() is not None for reference in maps))
        maps.append(weakref.ref(out[1]))

    networks[0].attention["16x16"].register_forward_hook(count_those_alive)
    average(*networks, range(12), Classes())
    assert len(alive) == 12 and max(alive) <= 1


def test_at_64_pixels_the_file_stays_under_one_and_a_half_megabytes(tmp_path):
    config = SaganConfig(g_width=8, d_width=8)
    folder = save(tmp_path / "model", config)
    assert run(folder, "--count", 1) == 0
    assert 1_000_000 < (folder / "average_maps.safetensors").stat().st_size < 1_500_000
    assert Sampler.load(folder).average_maps is not None


def test_a_model_whose_discriminator_alone_attends_has_maps_of_the_discriminator(tmp_path):
    config = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, g_attention=())
    folder = save(tmp_path / "model", config)
    assert run(folder, "--count", 1) == 0
    maps = read(folder / "average_maps.safetensors", config)
    assert sorted(maps) == ["discriminator 4x4", "discriminator 8x8"]


def test_a_model_whose_generator_alone_attends_has_maps_of_the_generator(tmp_path):
    config = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, d_attention=())
    folder = save(tmp_path / "model", config)
    assert run(folder, "--count", 1) == 0
    assert list(read(Sampler.load(folder).average_maps, config)) == ["8x8", "16x16"]


# The command


def test_the_command_says_how_far_it_is_and_what_it_wrote(model, capsys):
    assert run(model, "--count", 3) == 0
    out, err = capsys.readouterr()
    assert "Averaging" in err and "3/3" in err
    assert out == f"'{model / 'average_maps.safetensors'}' holds the average over 3 faces.\n"


def test_by_default_it_averages_over_256_faces(model, monkeypatch, capsys):
    counts = []
    monkeypatch.setattr(average_maps, "write", lambda folder, count: counts.append((folder, count)))
    run(model)
    assert counts == [(model, 256)]


def test_equal_commands_write_equal_files_in_the_place_of_older_ones(model):
    path = model / "average_maps.safetensors"
    path.write_text("old")
    one, other = (run(model, "--count", 2) or load_file(path) for _ in range(2))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
def test_a_command_that_is_stopped_leaves_the_old_file_and_nothing_else(model, monkeypatch, capsys, error):
    (model / "average_maps.safetensors").write_text("old")
    before = sorted(model.iterdir())

    def stop(*_) -> None:
        raise error

    if isinstance(error, KeyboardInterrupt):
        monkeypatch.setattr(average_maps, "to_uint8", stop)
        assert run(model, "--count", 2) == 130
        assert capsys.readouterr().err.endswith("Stopped; nothing was written.\n")
    else:
        monkeypatch.setattr(checkpoint, "save_file", stop)
        with pytest.raises(SystemExit, match="2"):
            run(model, "--count", 2)
        sentence = f"The average maps of '{model}' could not be written: No space left on device."
        assert capsys.readouterr().err.endswith(f"error: {sentence}\n")
    assert (model / "average_maps.safetensors").read_text() == "old"
    assert sorted(model.iterdir()) == before


def test_a_generator_that_is_replaced_meanwhile_gets_no_maps_of_the_old_one(
    model, tmp_path, monkeypatch, capsys
):
    other = save(tmp_path / "other", PLAIN) / "generator.safetensors"
    to_uint8 = average_maps.to_uint8

    def replace(images):
        if other.exists():
            other.replace(model / "generator.safetensors")
        return to_uint8(images)

    monkeypatch.setattr(average_maps, "to_uint8", replace)
    with pytest.raises(SystemExit, match="2"):
        run(model, "--count", 2)
    assert f"The generator in '{model}' was replaced while" in capsys.readouterr().err
    assert not (model / "average_maps.safetensors").exists()


def refused(capsys, *options: object) -> str:
    with pytest.raises(SystemExit) as end:
        run(*options)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("python -m sagan.average_maps: error: ")


def test_what_cannot_be_averaged_is_refused_in_one_sentence(model, tmp_path, capsys):
    assert refused(capsys, model, "--count", 0) == "--count must be at least 1, but was 0."
    assert refused(capsys, tmp_path / "nothing").startswith(f"No checkpoint at '{tmp_path / 'nothing'}': ")
    blind = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, g_attention=(), d_attention=())
    folder = save(tmp_path / "blind", blind)
    assert refused(capsys, folder) == f"The networks in '{folder}' have no attention layers."
    tensors = load((model / "generator.safetensors").read_bytes())
    tensors["attention.8x8.query.bias"].fill_(3e38)
    tensors["attention.8x8.key.weight"].fill_(6e4)
    save_file(tensors, model / "generator.safetensors")
    sentence = refused(capsys, model, "--count", 1)
    assert sentence.endswith(f"in '{model}' is not made of finite numbers.")
    (model / "generator.safetensors").unlink()
    assert refused(capsys, model) == f"'{model / 'generator.safetensors'}' is missing or cannot be read."


def test_maps_in_which_one_number_is_not_finite_are_not_written(model, monkeypatch, capsys):
    mean = fresh_rng().random((64, 64))
    mean[tuple(fresh_rng().integers(0, 64, 2))] = fresh_rng().choice([np.nan, np.inf])
    monkeypatch.setattr(average_maps, "average", lambda *_: {"8x8": mean})
    sentence = f"The attention of '8x8' in '{model}' is not made of finite numbers."
    assert refused(capsys, model, "--count", 1) == sentence
    assert not (model / "average_maps.safetensors").exists()


def test_help_names_every_option_with_its_default(help_of):
    text = help_of(main)
    for words in (
        "--checkpoint CHECKPOINT folder or Hub id (default: checkpoints/celeba64)",
        "--count COUNT how many faces, seeds 0 and up (default: 256)",
    ):
        assert words in text


# Reading


def test_a_checkpoint_without_average_maps_is_fine(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Sampler.load(model).average_maps is None
        assert Sampler(*random_networks(PLAIN)).average_maps is None


def test_average_maps_of_another_generator_are_left_out_with_a_sentence(model, tmp_path):
    other = save(tmp_path / "other", PLAIN)
    run(other, "--count", 1)
    (other / "average_maps.safetensors").replace(model / "average_maps.safetensors")
    with pytest.warns(UserWarning, match="was made for another generator or is damaged, and is left out"):
        assert Sampler.load(model).average_maps is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("16x16"), "'16x16' is missing"),
        (lambda t: t.update(more=torch.zeros(3)), "expected no such tensor"),
        (lambda t: t.update({"8x8": t["8x8"][:9].clone()}), "'8x8' is"),
        (lambda t: t.update({"discriminator 4x4": t["discriminator 4x4"].view(torch.int8)}), "8 bits, uint8"),
        (lambda t: t.update({"16x16": t["16x16"].float()}), "larger than"),
    ],
)
def test_average_maps_that_do_not_fit_are_left_out_with_a_sentence(model, change, words):
    run(model, "--count", 1)
    path = model / "average_maps.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, {"generator_sha256": checkpoint.generator_hash(model)})
    with pytest.warns(UserWarning, match="^The average maps are left out: ") as caught:
        assert Sampler.load(model).average_maps is None
    assert words in str(caught[0].message)
    with pytest.raises(CheckpointError):
        read(path, PLAIN)


def test_a_sampler_keeps_the_file_of_its_generator(model):
    run(model, "--count", 1)
    sampler, path = Sampler.load(model), model / "average_maps.safetensors"
    before = path.read_bytes()
    run(model, "--count", 2)
    assert path.read_bytes() != before
    assert sampler.average_maps == path and sampler.files == {path.name: before}
