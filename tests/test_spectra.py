"""Spectral norm, shown: singular values against an SVD, power iteration against its definition, the file."""

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from randomness import fresh_rng
from safetensors.torch import load, save_file
from torch import nn
from torch.nn.utils import parametrize

from sagan import checkpoint, spectra
from sagan.classes import Classes
from sagan.export import plain, ship, shippable
from sagan.layers import singular_values
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler
from sagan.spectra import power_iteration

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3)
UNNORMALISED = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, d_spectral_norm=False)
every_config = pytest.mark.parametrize(
    "config", [PLAIN, CONDITIONAL, UNNORMALISED], ids=["plain", "conditional", "D without"]
)


def in_training(config: SaganConfig) -> tuple[Generator, Discriminator]:
    """Networks whose weights their u and v do not know."""
    pair = Generator(config), Discriminator(config)
    for network in pair:
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return pair


def save(folder: Path, generator: Generator, discriminator: Discriminator, keep: bool = True) -> Path:
    """The checkpoint that a run writes of these networks."""
    config = generator.config
    companions = {"spectra.safetensors": spectra.measure(generator, discriminator)} if keep else None
    classes = Classes(tuple(map(str, range(config.num_classes))))
    networks = shippable(generator, classes), plain(discriminator)
    checkpoint.save(folder, classes, *networks, [], "", companions=companions)
    return folder


def by_svd(weight: torch.Tensor, transposed: bool) -> np.ndarray:
    """The singular values of a weight as a matrix with a row for each output."""
    array = weight.detach().double().numpy()
    array = array.swapaxes(0, 1) if transposed else array
    return np.linalg.svd(array.reshape(len(array), -1), compute_uv=False)


def normalised(generator: Generator, discriminator: Discriminator) -> dict[str, nn.Module]:
    """The modules of two networks in training that carry the parametrization."""
    return {
        f"{prefix}/{name}": module
        for prefix, network in (("generator", generator), ("discriminator", discriminator))
        for name, module in network.named_modules()
        if parametrize.is_parametrized(module)
    }


# Singular values


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (7, 7), (1, 9), (9, 1)], ids=str)
def test_singular_values_are_those_of_an_svd(shape):
    matrix = fresh_rng().normal(size=shape)
    values = singular_values(torch.from_numpy(matrix)).numpy()
    assert (values.shape, values.dtype) == ((min(shape),), np.float64)
    np.testing.assert_allclose(values, np.linalg.svd(matrix, compute_uv=False), atol=1e-6 * values[0])


def test_a_matrix_of_lower_rank_has_zeros_and_nothing_below_them():
    rng = fresh_rng()
    values = singular_values(torch.from_numpy(rng.normal(size=(12, 3)) @ rng.normal(size=(3, 20)))).numpy()
    assert (np.diff(values) <= 0).all() and (values >= 0).all()
    assert values[2] > 0.1 and values[3] < 1e-5 * values[0]


@pytest.mark.parametrize("matrix", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), math.nan)], ids=str)
def test_what_is_no_matrix_is_refused(matrix):
    with pytest.raises(ValueError) as refusal:
        power_iteration(matrix, 3, 0)
    expected = f"A matrix must be two-dimensional and finite, but has the shape {matrix.shape}."
    assert str(refusal.value) == expected


@every_config
def test_the_layers_are_those_that_spectral_norm_acts_on(config):
    networks = in_training(config)
    expected = normalised(*networks)
    assert spectra.layers(*networks).keys() == expected.keys()
    assert any(name.startswith("discriminator/") for name in expected) == config.d_spectral_norm
    plain_layers = spectra.layers(*map(plain, networks))
    assert list(plain_layers) == list(spectra.layers(*networks))
    for name, module in plain_layers.items():
        assert isinstance(expected[name], type(module))


@every_config
def test_a_run_measures_its_weights_before_normalisation(config):
    networks = in_training(config)
    values = spectra.measure(*networks)
    for name, module in normalised(*networks).items():
        original = module.parametrizations.weight.original
        expected = by_svd(original, isinstance(module, nn.ConvTranspose2d))
        assert (values[name].dtype, values[name].shape) == (torch.float32, expected.shape)
        np.testing.assert_allclose(values[name], expected, atol=1e-5 * expected[0])
    assert values.keys() == normalised(*networks).keys()


# Beside a checkpoint


@every_config
def test_the_sampler_shows_every_layer_before_and_after_normalisation(tmp_path, config):
    networks = in_training(config)
    sampler = Sampler.load(save(tmp_path / "model", *networks))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = sampler.spectra
    trained = normalised(*networks)
    shipped = dict(sampler._generator.named_modules()), dict(sampler._discriminator.named_modules())
    assert shown.keys() == trained.keys()
    for name, layer in shown.items():
        module, transposed = trained[name], isinstance(trained[name], nn.ConvTranspose2d)
        before = by_svd(module.parametrizations.weight.original, transposed)
        network, _, inner = name.partition("/")
        weight = shipped[network == "discriminator"][inner].weight
        after = by_svd(weight, transposed)
        for values, expected in ((layer["before"], before), (layer["after"], after)):
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, expected, atol=1e-5 * expected[0])
        np.testing.assert_allclose(layer["after"], before / before[0], atol=2e-3)  # shipped in half precision
        assert layer["after"][0] == pytest.approx(1, abs=2e-3)
        assert layer["shape"] == tuple(weight.shape)
        rows = weight.shape[1] if transposed else weight.shape[0]
        assert layer["matrix"] == (rows, weight.numel() // rows)
    assert {"generator/blocks.0.conv", "generator/to_image", "generator/attention.8x8.query"} <= shown.keys()
    assert ("discriminator/embedding" in shown) == (config is CONDITIONAL)


def test_a_checkpoint_from_before_there_was_such_a_file_shows_what_it_has_without_a_warning(tmp_path):
    networks = in_training(PLAIN)
    folder = save(tmp_path / "model", *networks, keep=False)
    twins = shippable(networks[0], Classes()), plain(networks[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sampler in (Sampler.load(folder), Sampler(*twins)):
            shown = sampler.spectra
            assert shown.keys() == normalised(*networks).keys()
            assert all(layer["before"] is None for layer in shown.values())
            assert all(layer["after"][0] == pytest.approx(1, abs=2e-3) for layer in shown.values())


def test_a_run_that_saves_anew_does_not_change_the_spectra_of_an_open_checkpoint(tmp_path):
    folder = save(tmp_path / "model", *in_training(PLAIN))
    opened, expected = Sampler.load(folder), Sampler.load(folder).spectra
    save(folder, *in_training(PLAIN))
    shown, later = opened.spectra, Sampler.load(folder).spectra
    for name, layer in expected.items():
        assert (shown[name]["before"] == layer["before"]).all()
        assert (later[name]["before"] != layer["before"]).any()


def test_spectra_of_another_generator_are_left_out_with_a_sentence(tmp_path):
    folder, other = (save(tmp_path / name, *in_training(PLAIN)) for name in ("model", "other"))
    shutil.copy(other / "spectra.safetensors", folder)
    with pytest.warns(UserWarning, match="was made for another generator or is damaged, and is left out"):
        shown = Sampler.load(folder).spectra
    assert shown and all(layer["before"] is None for layer in shown.values())


NAME = "generator/to_image"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(NAME), f"'{NAME}' is missing"),
        (lambda t: t.update(more=torch.zeros(3)), "expected no such tensor"),
        (lambda t: t.update({NAME: t[NAME][:2].clone()}), f"'{NAME}' is (2,), expected (3,)"),
        (lambda t: t.update({NAME: t[NAME].half()}), f"float32, unlike its '{NAME}'"),
        (lambda t: t[NAME].fill_(math.inf), f"finite numbers in float32, unlike its '{NAME}'"),
        (lambda t: t.update(more=torch.zeros(100_000)), "larger than"),
    ],
)
def test_spectra_that_do_not_fit_are_left_out_with_a_sentence(tmp_path, change, words):
    folder = save(tmp_path / "model", *in_training(PLAIN))
    tensors = load((folder / "spectra.safetensors").read_bytes())
    change(tensors)
    about = {"generator_sha256": checkpoint.generator_hash(folder)}
    save_file(tensors, folder / "spectra.safetensors", about)
    with pytest.warns(
        UserWarning, match="^The singular values before normalisation are left out: "
    ) as caught:
        shown = Sampler.load(folder).spectra
    assert words in str(caught[0].message)
    assert shown and all(layer["before"] is None for layer in shown.values())


def test_they_are_shipped_with_their_generator_and_small(tmp_path):
    run = save(tmp_path / "run", *in_training(PLAIN))
    ship(run, tmp_path / "out")
    shipped = tmp_path / "out/spectra.safetensors"
    assert shipped.read_bytes() == (run / "spectra.safetensors").read_bytes()
    assert all(layer["before"] is not None for layer in Sampler.load(tmp_path / "out").spectra.values())
    (run / "spectra.safetensors").unlink()
    ship(run, tmp_path / "without")
    assert not (tmp_path / "without/spectra.safetensors").exists()
    save_file(spectra.measure(*in_training(SaganConfig())), tmp_path / "of_64_pixels.safetensors")
    assert (tmp_path / "of_64_pixels.safetensors").stat().st_size < 20_000


def test_spectra_of_the_widest_networks_are_read(tmp_path):
    config = SaganConfig(image_size=128, g_width=512, d_width=512, num_classes=3)
    with torch.device("meta"):  # only the shapes of their weights are wanted
        layers = spectra.layers(Generator(config, spectral=False), Discriminator(config, spectral=False))
    values = {name: torch.rand(min(spectra.matrix(layer).shape)) for name, layer in layers.items()}
    (tmp_path / "generator.safetensors").touch()
    about = {"generator_sha256": checkpoint.generator_hash(tmp_path)}
    save_file(values, tmp_path / "spectra.safetensors", about)
    read = spectra.before_normalisation(tmp_path, config)
    assert read.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(read[name], value)


# The power iteration


def by_definition(matrix: np.ndarray, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """u, then v = W^T u and u = W v, each scaled to length 1, number by number; angles to an SVD's u."""
    rows, columns = matrix.shape
    first = np.linalg.svd(matrix)[0][:, 0]

    def unit(x: list[float]) -> list[float]:
        return [value / math.hypot(*x) for value in x]

    u = unit(np.random.default_rng(seed).normal(size=rows).tolist())

    def back() -> list[float]:
        return [math.fsum(matrix[i, j] * u[i] for i in range(rows)) for j in range(columns)]

    def angle() -> float:
        return math.degrees(math.acos(min(1, abs(math.fsum(a * b for a, b in zip(u, first, strict=True))))))

    sigmas, angles = [math.hypot(*back())], [angle()]
    for _ in range(steps):
        v = unit(back())
        forth = [math.fsum(matrix[i, j] * v[j] for j in range(columns)) for i in range(rows)]
        u = unit(forth)
        sigmas.append(math.fsum(a * b for a, b in zip(u, forth, strict=True)))
        angles.append(angle())
    return sigmas, angles


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6)], ids=str)
def test_the_power_iteration_is_the_one_of_the_definition(shape):
    rng = fresh_rng()
    matrix, seed = rng.normal(size=shape), int(rng.integers(2**32))
    sigmas, angles = power_iteration(matrix, 12, seed)
    assert sigmas.shape == angles.shape == (13,) and sigmas.dtype == angles.dtype == np.float64
    expected_sigmas, expected_angles = by_definition(matrix, 12, seed)
    np.testing.assert_allclose(sigmas, expected_sigmas, rtol=1e-9)
    np.testing.assert_allclose(angles, expected_angles, atol=1e-4)  # an arc cosine near 1 is less exact


@pytest.mark.parametrize("shape", [(8, 30), (30, 8)], ids=str)
def test_it_converges_from_below_and_its_angle_shrinks_by_the_square_of_the_ratio(shape):
    rng = fresh_rng()
    u, v = (np.linalg.qr(rng.normal(size=(side, 8)))[0] for side in shape)
    matrix = u * np.array([3.0, *rng.uniform(0.1, 1.5, 7)]) @ v.T
    sigmas, angles = power_iteration(matrix, 60, 7)
    assert (np.diff(sigmas) >= -1e-12).all() and sigmas[-1] == pytest.approx(3, abs=1e-12)
    assert (angles >= 0).all() and (angles <= 90).all()
    assert angles[-1] < 1e-5
    tangents = np.tan(np.radians(angles[:8]))
    assert (tangents[1:] <= tangents[:-1] * (1.5 / 3) ** 2 + 1e-9).all()


def test_the_angle_is_to_all_vectors_that_share_the_first_singular_value():
    rotation = np.linalg.qr(fresh_rng().normal(size=(6, 6)))[0]
    sigmas, angles = power_iteration(2 * rotation, 3, 0)
    np.testing.assert_allclose(sigmas, 2)
    np.testing.assert_allclose(angles, 0, atol=1e-4)


def test_equal_seeds_start_in_equal_directions():
    matrix = fresh_rng().normal(size=(5, 7))
    one, same, other = (power_iteration(matrix, 4, seed) for seed in (11, 11, 12))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one[0], other[0])
    assert [len(part) for part in power_iteration(matrix, 0, 11)] == [1, 1]


@pytest.mark.parametrize("steps", [-1, 101, 2.5, "3", None, True], ids=repr)
def test_steps_that_cannot_be_taken_are_refused(steps):
    with pytest.raises(ValueError) as refusal:
        power_iteration(np.eye(3), steps, 0)
    assert str(refusal.value) == f"The steps must be an integer from 0 to 100, but were {steps!r}."


def test_a_matrix_without_a_direction_and_a_seed_that_is_none_are_refused():
    with pytest.raises(ValueError, match="The matrix is zero, and so has no first singular vector"):
        power_iteration(np.zeros((2, 3)), 1, 0)
    with pytest.raises(ValueError, match="A seed must be an integer from 0 to 4294967295, but was -1"):
        power_iteration(np.eye(3), 1, -1)


def test_the_samplers_power_iteration_runs_on_the_shipped_weight(tmp_path, monkeypatch):
    sampler = Sampler.load(save(tmp_path / "model", *in_training(CONDITIONAL)))
    for name, values in sampler.spectra.items():
        sigmas, angles = sampler.power_iteration(name, 5, 100)
        assert len(sigmas) == len(angles) == 101
        assert sigmas[-1] <= values["after"][0] * (1 + 1e-5)
    seed = int(fresh_rng().integers(2**32 - 1))
    weight = sampler._discriminator.embedding.weight.double().numpy()
    expected = power_iteration(weight, 9, seed)
    np.testing.assert_array_equal(sampler.power_iteration("discriminator/embedding", seed, 9), expected)
    assert len(sampler.power_iteration("discriminator/embedding", seed)[0]) == 31
    with monkeypatch.context() as slow:  # what takes long is not done again for another seed
        slow.delattr(spectra, "first_left_vectors")
        again = sampler.power_iteration("discriminator/embedding", seed + 1, 9)
    np.testing.assert_array_equal(again, power_iteration(weight, 9, seed + 1))
    for layer in ("generator/blocks.9.conv", "embedding", None):
        with pytest.raises(ValueError) as refusal:
            sampler.power_iteration(layer, 0, 5)
        start = f"There is no normalised layer {layer!r}; this model has generator/blocks.0.conv, "
        assert str(refusal.value).startswith(start)
