"""The film of a training: which moments it keeps, what is in them, and what it refuses to read."""

import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from randomness import fresh_rng
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sagan import checkpoint, latents
from sagan.checkpoint import CheckpointError
from sagan.classes import Classes
from sagan.data import to_uint8
from sagan.film import Film, is_moment, most_moments, shoot
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3, g_attention=(16,))
both_configs = pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])


def random_generator(config: SaganConfig) -> Generator:
    """A plain generator in eval mode, every number of which matters."""
    generator = Generator(config, spectral=False)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    nn.init.normal_(generator.to_image.weight, std=2)  # or some would be nearly flat
    return generator.eval().requires_grad_(False)


def classes_of(config: SaganConfig) -> Classes:
    return Classes(tuple(map(str, range(config.num_classes))))


CANDIDATES = sorted({0, *(16 * 2**i for i in range(17)), *(24 * 2**i for i in range(17))})


def steps_after(length: int, config: SaganConfig = PLAIN, stops: set[int] = frozenset()) -> list[int]:
    """The steps that a run of this length keeps, and its last one; it is saved and resumed at `stops`."""
    film = Film(config)

    def moment(step: int) -> dict:
        return {"step": np.array(step)}

    for step in sorted(stops.union(step for step in CANDIDATES if step <= length)):
        if step in stops:  # a step ends with the save, the next begins with the moment
            saved = film.moments if step in film.steps else [*film.moments, moment(step)]
            assert len(saved) <= most_moments(config)
            film = Film(config, saved).going_on()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("sagan.film.shoot", lambda generator, step, *_: moment(step))
            film.record(step, 0, None, Classes())
    return film.steps if length in film.steps else [*film.steps, length]


# Which moments


def test_moments_are_step_0_and_two_for_each_doubling_from_16_on():
    assert [step for step in range(50_000) if is_moment(step)] == [s for s in CANDIDATES if s < 50_000]


@pytest.mark.parametrize(
    "config",
    [
        SaganConfig(),
        SaganConfig(g_width=96),
        SaganConfig(image_size=128),
        SaganConfig(image_size=128, g_width=512),
    ],
    ids=["64", "wide", "128", "two moments"],
)
def test_a_run_of_any_length_keeps_both_ends_and_fits(config):
    most = most_moments(config)
    for length in fresh_rng().integers(1, 60_000, 5):
        steps = steps_after(int(length), config)
        assert steps[0] == 0 and steps[-1] == length
        assert len(steps) <= most <= 20
        # As many as a run of this length has, until they no longer fit.
        assert len(steps) >= min(most - 1, sum(step <= length for step in CANDIDATES))


def test_what_is_left_of_a_long_run_is_spread_evenly_in_the_logarithm_of_the_step():
    for length in (5_000, 30_000, 125_000, 1_000_000):
        steps = [step for step in steps_after(length) if step]
        gaps = [math.log2(b / a) for a, b in itertools.pairwise(steps)]
        assert max(gaps) <= 1 + 1e-9  # never more than a doubling between two moments
        assert steps[0] <= 32


def test_what_is_kept_does_not_depend_on_when_the_run_was_saved_and_resumed():
    length = int(fresh_rng().integers(20_000, 60_000))
    stops = {0, 16, 4096, 8192, 12_288, 12_300, *fresh_rng().integers(0, length, 40).tolist()}
    assert steps_after(length, stops=stops) == steps_after(length)


def test_at_64_pixels_a_film_of_20_moments_stays_under_10_megabytes(tmp_path):
    config = SaganConfig()
    assert most_moments(config) == 20
    film = Film(config, [shoot(Generator(config, spectral=False).eval(), 0, 0, Classes())] * 20)
    tensors = film.ending_with(0, 0, None, Classes())
    save_file(tensors, tmp_path / "film.safetensors", {"generator_sha256": "0" * 64})
    assert 9_000_000 < (tmp_path / "film.safetensors").stat().st_size < 10_000_000


def test_wider_networks_and_larger_images_have_fewer_moments():
    counts = [most_moments(SaganConfig(image_size=size, g_width=w)) for size, w in ((64, 96), (128, 64))]
    assert 2 <= counts[1] < counts[0] < 20
    assert most_moments(SaganConfig(image_size=128, g_width=512)) == 2


# What is in them


@both_configs
def test_a_moment_holds_the_faces_queries_keys_and_gammas_of_its_generator(config):
    generator = random_generator(config)
    moment = shoot(generator, 48, 3072, classes_of(config))
    assert (moment["step"], moment["images"]) == (48, 3072)
    for seed in range(8):
        z = torch.from_numpy(latents.from_seed(seed, config.z_dim))[None]
        label = torch.tensor([seed % 3]) if config.num_classes else None
        image, queries_keys = generator(z, label, extras="queries_keys")
        pixels = np.clip(np.rint(127.5 * (image[0].double().numpy().transpose(1, 2, 0) + 1)), 0, 255)
        assert np.abs(moment["faces"][seed].astype(float) - pixels).max() <= 1
        for layer, pair in queries_keys.items():
            for name, exact in zip("qk", pair, strict=True):
                np.testing.assert_allclose(
                    moment[f"{layer}/{name}"][seed], exact[0].numpy(), rtol=2**-10, atol=1e-4
                )
    for layer, module in generator.attention.items():
        assert moment[f"{layer}/gamma"] == module.gamma.item()
    assert moment["faces"].std() > 5


def test_classes_without_training_images_are_not_filmed():
    generator = random_generator(CONDITIONAL)
    z = np.stack([latents.from_seed(seed, CONDITIONAL.z_dim) for seed in range(8)])
    images = generator(torch.from_numpy(z), torch.tensor([1, 2] * 4))
    faces = to_uint8(images)
    classes = Classes(tuple("abc"), (0, 7, 1))
    np.testing.assert_array_equal(shoot(generator, 0, 0, classes)["faces"], faces)
    film = Film(CONDITIONAL)
    film.record(0, 0, generator, classes)
    ended = film.ending_with(1, 4, generator, classes)
    assert ended["step"].tolist() == [0, 1]
    for moment in ended["faces"].numpy():
        np.testing.assert_array_equal(moment, faces)


def test_vectors_too_large_for_half_precision_become_its_largest_number():
    generator = random_generator(PLAIN)
    generator.attention["8x8"].query.bias.copy_(torch.tensor([1e6, -1e6]))
    queries = shoot(generator, 0, 0, Classes())["8x8/q"]
    assert (queries == np.array([65504, -65504], np.float16)).all()


def test_filming_a_step_twice_leaves_one_moment():
    film, generator = Film(PLAIN), random_generator(PLAIN)
    for step in (0, 0, 5, 16, 16, 17):
        film.record(step, 4 * step, generator, Classes())
    assert film.steps == [0, 16]
    assert film.ending_with(17, 68, generator, Classes())["step"].tolist() == [0, 16, 17]
    assert film.ending_with(16, 64, generator, Classes())["step"].tolist() == [0, 16]
    assert film.steps == [0, 16]


# The file


def save(folder: Path, config: SaganConfig = PLAIN, steps: tuple[int, ...] = (0, 16, 20)) -> Film:
    """A checkpoint with a film, saved at the last of these steps; returns the run's film."""
    generator, film, classes = random_generator(config), Film(config), classes_of(config)
    for step in steps:
        film.record(step, 64 * step, random_generator(config), classes)
    tensors = film.ending_with(steps[-1], 64 * steps[-1], generator, classes)
    networks = generator, Discriminator(config, spectral=False)
    checkpoint.save(folder, classes, *networks, [], "", companions={"film.safetensors": tensors})
    return film


def edit(folder: Path, change: Callable[[dict], object]) -> Path:
    """Let `change` edit the tensors of the film in this checkpoint; returns its path."""
    path = folder / "film.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, {"generator_sha256": checkpoint.generator_hash(folder)})
    return path


@both_configs
def test_a_film_comes_back_as_it_was_saved_with_its_checkpoint(tmp_path, config):
    film = save(tmp_path / "model", config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Film.load(tmp_path / "model", config)
    assert loaded.steps == [0, 16, 20]
    assert loaded.going_on().steps == film.steps == [0, 16]
    for one, other in zip(film.moments, loaded.moments, strict=False):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])
    with safe_open(tmp_path / "model/film.safetensors", "pt") as file:
        assert file.metadata() == {"generator_sha256": checkpoint.generator_hash(tmp_path / "model")}


def test_a_film_of_the_narrowest_networks_comes_back(tmp_path):
    narrowest = SaganConfig(image_size=32, z_dim=12, g_width=1, d_width=1)
    save(tmp_path / "model", narrowest)
    assert Film.load(tmp_path / "model", narrowest).steps == [0, 16, 20]


def test_moments_of_another_run_stay_marked_when_a_run_goes_on(tmp_path):
    save(tmp_path / "model")
    assert load_file(tmp_path / "model/film.safetensors")["other_run"].tolist() == [0, 0, 0]
    edit(tmp_path / "model", lambda t: t["other_run"][:2].fill_(1))
    film = Film.load(tmp_path / "model", PLAIN).going_on()
    assert film.ending_with(24, 1536, random_generator(PLAIN), Classes())["other_run"].tolist() == [1, 1, 0]


def test_a_film_from_before_runs_were_marked_is_of_one_run(tmp_path):
    save(tmp_path / "model")
    edit(tmp_path / "model", lambda t: t.pop("other_run"))
    assert [moment["other_run"] for moment in Film.load(tmp_path / "model", PLAIN).moments] == [0, 0, 0]


def test_a_checkpoint_without_a_film_is_fine(tmp_path):
    save(tmp_path / "model")
    (tmp_path / "model/film.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Film.load(tmp_path / "model", PLAIN) is None
        assert Sampler.load(tmp_path / "model").film is None
        networks = random_generator(PLAIN), Discriminator(PLAIN, spectral=False)
        assert Sampler(*networks).film is None


def test_a_sampler_keeps_the_film_of_its_generator_when_the_run_saves_anew(tmp_path):
    folder = tmp_path / "model"
    save(folder)
    sampler, before = Sampler.load(folder), (folder / "film.safetensors").read_bytes()
    last = sampler.film.steps[-1]
    later, discriminator = random_generator(PLAIN), Discriminator(PLAIN, spectral=False)
    film = {checkpoint.FILM: Film(PLAIN).ending_with(last + 1, 1000, later, Classes())}
    checkpoint.save(folder, Classes(), later, discriminator, [], "", companions=film)
    assert Sampler.load(folder).film.steps == [last + 1]
    assert sampler.film.steps[-1] == last and sampler.files == {"film.safetensors": before}


def test_a_film_that_goes_while_it_is_read_is_one_sentence(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save(folder)
    read = Film.load

    def overtaken(source, config) -> Film:
        film = read(source, config)
        (source / "film.safetensors").unlink()
        return film

    monkeypatch.setattr(Film, "load", overtaken)
    with pytest.raises(CheckpointError) as refusal:
        Sampler.load(folder)
    assert str(refusal.value) == f"'{folder}' was saved anew while it was read: open it again."


def test_a_film_of_another_generator_is_left_out_with_a_warning(tmp_path):
    save(tmp_path / "model")
    save(tmp_path / "other")
    (tmp_path / "other/film.safetensors").replace(tmp_path / "model/film.safetensors")
    with pytest.warns(UserWarning, match="was made for another generator or is damaged, and is left out"):
        assert Film.load(tmp_path / "model", PLAIN) is None


def refusal(folder: Path, config: SaganConfig, change) -> str:
    """The sentence with which a film is left out after `change` has edited its tensors."""
    path = edit(folder, change)
    with pytest.warns(UserWarning, match="^The film is left out: ") as caught:
        assert Film.load(folder, config) is None
    (sentence,) = {str(warning.message) for warning in caught}
    assert sentence.endswith(".") and "\n" not in sentence and str(path) in sentence
    return sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("step"), "'step' is missing"),
        (lambda t: t.update(more=torch.zeros(3)), "expected no such tensor"),
        (lambda t: t.update(faces=t["faces"][:, :7].clone()), "'faces' is"),
        (lambda t: t.update(faces=t["faces"].float()), "'faces' is"),
        (lambda t: t.update(step=t["step"].float()), "'step' is"),
        (lambda t: t.update({"8x8/q": t["8x8/q"][:2].clone()}), "'8x8/q' is"),
        (lambda t: t.update({"8x8/k": t["8x8/k"].bfloat16()}), "'8x8/k' is"),
        (lambda t: t["16x16/q"].view(-1)[7].fill_(math.inf), "not finite"),
        (lambda t: t["8x8/gamma"][1].fill_(math.nan), "not finite"),
        (lambda t: t["step"].copy_(torch.tensor([0, 20, 16])), "not in order: 'step'"),
        (lambda t: t["step"].copy_(torch.tensor([0, 16, 16])), "not in order: 'step'"),
        (lambda t: t["images"].copy_(torch.tensor([-1, 20, 30])), "not in order: 'images'"),
        (lambda t: t.clear(), "holds 0 moments"),
        (lambda t: t.update({k: v[:0].clone() for k, v in t.items()}), "holds 0 moments"),
    ],
)
def test_a_film_that_does_not_fit_is_left_out_with_a_sentence(tmp_path, change, words):
    save(tmp_path / "model")
    assert words in refusal(tmp_path / "model", PLAIN, change)


def test_a_film_of_too_many_moments_is_left_out_unread(tmp_path):
    save(tmp_path / "model")
    sentence = refusal(
        tmp_path / "model", PLAIN, lambda t: t.update({k: v.repeat_interleave(30, 0) for k, v in t.items()})
    )
    assert "larger than" in sentence


def test_a_film_of_other_networks_is_left_out(tmp_path):
    save(tmp_path / "model")
    wider = SaganConfig(image_size=32, z_dim=12, g_width=16, d_width=8)
    assert "'8x8/q' is" in refusal(tmp_path / "model", wider, lambda t: None)
