"""The figures against plain loops and the library's own, the command, and where it refuses."""

import json
import math
import os
import subprocess
import sys
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from randomness import fresh_rng
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from sagan import checkpoint, metrics
from sagan.classes import Classes
from sagan.latents import from_seed
from sagan.metrics import (
    Measurement,
    MetricsError,
    attention_figures,
    compare,
    describe,
    frechet_distance,
    generate,
    kernel_distance,
    load_features,
    main,
    neighbours,
    precision_recall,
)
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3)
FIGURES = ["frechet_distance", "kernel_distance", "precision", "recall"]


class Means(nn.Module):
    """Features (B, 12): the mean colours of the quarters of each image, from 0 to 1."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8 and images.shape[1] == 3 and not self.training
        return nn.functional.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)


def means(images: np.ndarray) -> np.ndarray:
    """The same from uint8 (N, S, S, 3), in float64."""
    n, side = len(images), images.shape[1] // 2
    quarters = images.reshape(n, 2, side, 2, side, 3).mean((2, 4)) / 255  # (N, 2, 2, 3)
    return quarters.transpose(0, 3, 1, 2).reshape(n, 12)


MEANS, READY = f"{__name__}:Means", Means()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    """Run in an empty folder, where the cache of decoded images lands too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def random_features(count: int, size: int = 5) -> Tensor:
    """Correlated, off centre, in float64."""
    return torch.randn(count, size).double() @ torch.randn(size, size).double() + torch.randn(size).double()


def make_generator(config: SaganConfig) -> Generator:
    generator = Generator(config, spectral=False)
    for name, parameter in generator.named_parameters():
        if not name.endswith(("norm.weight", "gain.weight")):
            parameter.data.normal_(0, 0.3)  # the weights networks start with give faces too much alike
    return generator.eval().requires_grad_(False)


def make_run(
    folder: str = "runs/one", config: SaganConfig = PLAIN, class_counts: tuple[int, ...] = (), **saved
) -> Path:
    """A run folder with two different generators in its checkpoint."""
    run, classes = Path(folder), Classes(("dark", "bright", "red")[: config.num_classes], class_counts)
    networks = make_generator(config), Discriminator(config, spectral=False)
    raw = make_generator(config)
    checkpoint.save(run / "checkpoint", classes, *networks, [], "", raw_generator=raw, **saved)
    checkpoint.write_history(run / "history.csv", [{"step": 1}])
    return run


# The figures


def loops_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """From covariances summed up pair by pair, and the eigenvalues of their product."""

    def covariance(x: np.ndarray) -> np.ndarray:
        centre, total = sum(x) / len(x), 0
        for row in x:
            total = total + np.outer(row - centre, row - centre)
        return total / (len(x) - 1)

    cov_a, cov_b = covariance(a), covariance(b)
    overlap = sum(np.sqrt(value) for value in np.linalg.eigvals(cov_a @ cov_b).real.clip(0))
    apart = sum((x - y) ** 2 for x, y in zip(a.mean(0), b.mean(0), strict=True))
    return apart + sum(np.diag(cov_a)) + sum(np.diag(cov_b)) - 2 * overlap


def loops_kernel(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def among(x: np.ndarray) -> float:
        return np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])

    return among(a) + among(b) - 2 * np.mean([kernel(x, y) for x in a for y in b])


def loops_share(x: np.ndarray, others: np.ndarray, k: int) -> float:
    inside = 0
    for row in x:
        for centre in others:
            radius = sorted(np.linalg.norm(centre - other) for other in others)[k]  # 0 is its own distance
            if np.linalg.norm(row - centre) <= radius:
                inside += 1
                break
    return inside / len(x)


@pytest.mark.parametrize(("n", "m", "size"), [(30, 20, 4), (20, 30, 1), (6, 7, 9)])
def test_figures_are_those_of_plain_loops(n, m, size):
    a, b = random_features(n, size), random_features(m, size)
    x, y = a.numpy(), b.numpy()
    assert frechet_distance(a, b) == pytest.approx(loops_frechet(x, y), rel=1e-5, abs=1e-5)
    assert kernel_distance(a, b) == pytest.approx(loops_kernel(x, y), rel=1e-9, abs=1e-9)
    k = int(fresh_rng().integers(1, 5))
    assert precision_recall(a, b, k) == pytest.approx((loops_share(y, x, k), loops_share(x, y, k)))
    named = dict(zip(FIGURES, (loops_frechet(x, y), loops_kernel(x, y)), strict=False))
    named |= {"precision": loops_share(y, x, 3), "recall": loops_share(x, y, 3)}
    assert compare(a, b) == pytest.approx(named, rel=2e-5, abs=1e-5)


def test_figures_are_those_of_the_library():
    """The kernel distance of the library is a mean over subsets: here one, of everything."""
    real, fake = random_features(300, 8), random_features(300, 8)
    statistics = (fid_features_to_statistics(features) for features in (fake, real))
    fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    settings = {"kid_subsets": 1, "kid_subset_size": 300, "verbose": False}
    kid = kid_features_to_metric(fake, real, **settings)["kernel_inception_distance_mean"]
    prc = prc_features_to_metric(fake, real, verbose=False)
    assert frechet_distance(real, fake) == pytest.approx(fid, rel=1e-6)
    assert kernel_distance(real, fake) == pytest.approx(kid, rel=1e-6, abs=1e-9)
    assert precision_recall(real, fake) == pytest.approx((prc["precision"], prc["recall"]))


def test_sets_larger_than_a_block_are_added_up_block_by_block():
    a, b = random_features(2100, 2), random_features(1001, 2)
    kernel = lambda x, y: ((x @ y.T) / 2 + 1) ** 3  # noqa: E731
    own = [(kernel(x, x).sum() - kernel(x, x).diag().sum()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    assert kernel_distance(a, b) == pytest.approx((sum(own) - 2 * kernel(a, b).mean()).item(), rel=1e-9)
    apart = (a[:, None] - b).square().sum(2).sqrt()
    reach = [(x[:, None] - x).square().sum(2).sqrt().sort(1).values[:, 3] for x in (a, b)]
    expected = (apart <= reach[0][:, None]).any(0), (apart <= reach[1]).any(1)
    assert precision_recall(a, b) == pytest.approx([share.double().mean().item() for share in expected])


def test_a_set_is_no_distance_from_itself_and_a_shifted_one_its_shift_squared():
    a, shift = random_features(50), torch.randn(5).double()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(a, a + shift) == pytest.approx(shift.square().sum().item(), abs=1e-8)
    assert precision_recall(a, a) == (1, 1)
    assert precision_recall(a, a + 1e6) == (0, 0)


def test_a_narrow_set_inside_the_real_ones_has_precision_but_no_recall():
    real = torch.rand(200, 2).double()
    precision, recall = precision_recall(real, real[:1] + 1e-3 * torch.rand(200, 2).double())
    assert precision > 0.9 and recall < 0.1


# Features and faces


def test_generated_images_are_the_faces_of_the_seeds(monkeypatch):
    monkeypatch.setattr(metrics, "BATCH", 4)
    for config, labels in ((PLAIN, None), (CONDITIONAL, [1, 2, 0, 1, 2, 0, 1])):
        generator, discriminator = make_generator(config), Discriminator(config, spectral=False)
        classes = Classes(("a", "b", "c")[: config.num_classes])
        sampler = Sampler(generator, discriminator, classes)
        seeds = list(range(100, 107))
        latents = np.stack([from_seed(seed, 12) for seed in seeds]) * np.float32(0.7)
        expected = sampler.faces(latents, labels)
        batches = list(generate(generator, seeds, classes.in_turn(seeds), 0.7))
        assert [len(batch) for batch in batches] == [4, 3]
        faces = torch.cat(batches).permute(0, 2, 3, 1).numpy()
        assert faces.dtype == np.uint8 and len(np.unique(faces, axis=0)) == 7
        # One grey level where a batch is added up in another order than a single face.
        assert np.abs(faces.astype(int) - expected).max() <= 1


def failing(words: str):
    def fail(_):
        raise RuntimeError(words)

    return fail


def test_a_lack_of_memory_is_not_taken_for_a_network_that_does_not_fit():
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        lacking = failing("DefaultCPUAllocator: can't allocate memory")
        describe(lacking, [torch.zeros(4, 3, 8, 8, dtype=torch.uint8)], 4, "cpu", "Real images")


def test_features_come_in_the_order_of_the_images_behind_a_bar(capsys):
    images = fresh_rng().integers(0, 256, (7, 32, 32, 3), np.uint8)
    batches = [torch.from_numpy(part).permute(0, 3, 1, 2) for part in (images[:5], images[5:])]
    features = describe(Means().eval(), batches, 7, "cpu", "Real images")
    assert features.dtype == torch.float64
    np.testing.assert_allclose(features, means(images), atol=1e-6)
    assert "Real images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (lambda x: x.float(), r"must map 4 images to \(4, D\), but gave \(4, 3, 8, 8\)\."),
        (lambda x: (x.float().flatten(1),), r"must map 4 images to \(4, D\), but gave tuple\."),
        (lambda x: x.float().flatten(1)[:3], r"must map 4 images to \(4, D\), but gave \(3, 192\)\."),
        (lambda x: x.float().flatten(1) / 0, r"^The feature network gave numbers that are not finite\.$"),
        (nn.Conv2d(3, 1, 1), r"^The feature network cannot take uint8 images \(B, 3, S, S\): .+$"),
        (failing("first\n\nthe reason\n"), r"^The feature network cannot take .+: the reason$"),
        (failing(""), r"^The feature network cannot take .+: RuntimeError$"),
    ],
    ids=["maps", "tuple", "too few", "not finite", "of floats", "in lines", "without a word"],
)
def test_features_that_are_not_a_row_of_numbers_an_image_are_refused(network, sentence):
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    with pytest.raises(MetricsError, match=sentence):
        describe(network, [images], 4, "cpu", "Real images")


def test_another_network_is_made_by_its_name_in_eval_mode():
    assert isinstance(load_features(MEANS), Means)
    assert not load_features(MEANS).training


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vgg", "There is no feature network 'vgg': give inception, or module:attribute"),
        ("no_such_module:Net", "could not be imported: No module named 'no_such_module'"),
        ("json:Net", "could not be imported: module 'json' has no attribute 'Net'"),
        (":Net", "could not be imported: Empty module name"),
        ("./my.py:Net", "could not be imported: the 'package' argument is required"),
        ("torch.nn:Linear", "could not be made: "),
        ("builtins:dict", "makes {}, which no images can be given to."),
        ("json:__name__", "must be a class or function that makes the network."),
        (f"{__name__}:READY", "must be a class or function that makes the network."),
    ],
)
def test_a_network_that_is_not_there_is_refused(name, sentence):
    with pytest.raises(MetricsError) as error:
        load_features(name)
    assert sentence in str(error.value) and f"'{name}'" in str(error.value)


def test_inception_is_the_librarys_network_of_2048_features_of_each_image_alone(monkeypatch):
    seed = int(fresh_rng().integers(2**32))

    def same_weights(network: nn.Module, _: dict) -> None:
        torch.manual_seed(seed)
        for parameter in network.parameters():
            if parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter)  # else the features would be as good as zero

    where = "torch_fidelity.feature_extractor_inceptionv3"
    monkeypatch.setattr(f"{where}.load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(torch_fidelity.FeatureExtractorInceptionV3, "load_state_dict", same_weights)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    images[1] //= 2
    features = load_features("inception")(images)
    library = torch_fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    expected = torch.cat([library(image[None])[0] for image in images])
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3 * expected.std().item())
    assert (features[0] - features[1]).std() > 0.01 * expected.std()


@pytest.mark.parametrize(
    "reason",
    [URLError("Name or service not known"), TimeoutError("timed out"), IncompleteRead(b"")],
    ids=repr,
)
def test_without_internet_inception_is_refused_in_one_sentence(monkeypatch, reason):
    def offline(*_, **__):
        raise reason

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(MetricsError) as error:
        load_features("inception")
    assert str(error.value) == (
        f"The weights of the Inception network could not be downloaded ({reason}): connect to the internet "
        "once, or name another feature network, as module:attribute."
    )


def test_without_the_library_inception_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MetricsError) as error:
        load_features("inception")
    assert str(error.value) == (
        "The Inception network needs the package torch-fidelity: install it, or name another feature "
        "network, as module:attribute."
    )


# Measuring


def test_a_measurement_compares_as_many_faces_as_images_and_its_floor_two_disjoint_halves():
    images = fresh_rng().integers(0, 256, (45, 32, 32, 3), np.uint8)
    seen = []

    def features(batch: Tensor) -> Tensor:
        seen.append(batch.permute(0, 2, 3, 1).numpy().copy())
        return Means().eval()(batch)

    generator = make_generator(PLAIN)
    figures = Measurement(features, images, 20, seed=7, truncation=0.8)(generator, Classes())
    real, other, fake = seen
    pool = {image.tobytes() for image in images}
    halves = [{image.tobytes() for image in half} for half in (real, other)]
    assert [len(half) for half in halves] == [20, 20]
    assert halves[0] | halves[1] <= pool and not halves[0] & halves[1]
    np.testing.assert_array_equal(
        fake, torch.cat(list(generate(generator, range(7, 27), None, 0.8))).permute(0, 2, 3, 1)
    )

    x, y, z = means(real), means(fake), means(other)
    expected = {}
    for prefix, others in (("", y), ("floor_", z)):
        values = (loops_frechet(x, others), loops_kernel(x, others))
        values += (loops_share(others, x, 3), loops_share(x, others, 3))
        expected |= {f"{prefix}{name}": value for name, value in zip(FIGURES, values, strict=True)}
    expected |= attention_figures(generator, range(7, 27), None, 0.8)
    assert figures == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert list(figures) == list(expected)


@pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_attention_figures_are_medians_over_positions_and_faces(config):
    generator = make_generator(config)
    classes = [1, 0, 2] if config.num_classes else None
    figures = attention_figures(generator, [4, 9, 11], classes, 0.9)
    assert list(figures) == ["strength_8x8", "entropy_8x8", "strength_16x16", "entropy_16x16"]
    for name, layer in generator.attention.items():
        shares, bits = [], []
        for seed in (4, 9, 11):
            z = torch.from_numpy(from_seed(seed, 12)[None] * np.float32(0.9))
            labels = torch.tensor([seed % 3]) if config.num_classes else None
            seen = []
            hook = layer.register_forward_hook(lambda _, x, y, seen=seen: seen.extend((x[0], y)))
            generator(z, labels)
            hook.remove()
            x, y = (t[0].flatten(1).detach().double().numpy() for t in seen)
            _, maps = generator(z, labels, extras="maps")
            for position, row in enumerate(maps[name][0].detach().double().numpy()):
                length = math.dist(x[:, position], np.zeros(len(x)))
                shares.append(math.dist(y[:, position], x[:, position]) / length if length else math.inf)
                bits.append(-sum(p * math.log2(p) for p in row if p > 0))
        # torch takes the lower of two middle values
        middle = [sorted(values)[(len(values) - 1) // 2] for values in (shares, bits)]
        found = [figures[f"{figure}_{name}"] for figure in ("strength", "entropy")]
        assert found == pytest.approx(middle, rel=1e-3)
    assert not any(layer._forward_hooks for layer in generator.attention.values())


def test_attention_is_measured_one_face_at_a_time_with_the_labels_that_are_given():
    generator = make_generator(CONDITIONAL)
    seen = []
    generator.register_forward_pre_hook(lambda _, given: seen.append((len(given[0]), given[1].tolist())))
    attention_figures(generator, [4, 9, 11], [2, 0, 0])
    assert seen == [(1, [2]), (1, [0]), (1, [0])]


def test_the_attention_of_no_more_than_64_faces_is_measured(monkeypatch):
    assert metrics.ATTENTION_FACES == 64
    monkeypatch.setattr(metrics, "ATTENTION_FACES", 3)
    images = fresh_rng().integers(0, 256, (20, 32, 32, 3), np.uint8)
    generator = make_generator(PLAIN)
    figures = Measurement(Means().eval(), images, seed=5)(generator, Classes())
    expected = attention_figures(generator, [5, 6, 7], None)
    assert {name: figures[name] for name in expected} == expected


def test_the_halves_do_not_depend_on_the_seed_and_figures_repeat():
    images = fresh_rng().integers(0, 256, (30, 32, 32, 3), np.uint8)
    network, generator = Means().eval(), make_generator(PLAIN)
    first, again, other = (Measurement(network, images, seed=seed) for seed in (0, 0, 5))
    assert first.floor == again.floor == other.floor
    figures = [one(generator, Classes()) for one in (first, again, first, other)]
    assert figures[0] == figures[1] == figures[2] != figures[3]


@pytest.mark.parametrize(("count", "expected"), [(25, 12), (2 * 5000 + 2, 5000)])
def test_half_the_reference_is_measured_by_default_and_at_most_5000(count, expected, monkeypatch):
    counted = []
    monkeypatch.setattr(metrics, "compare", lambda real, fake: counted.append((len(real), len(fake))) or {})
    images = np.zeros((count, 1, 1, 3), np.uint8)
    measurement = Measurement(lambda batch: batch.float().flatten(1), images)
    assert measurement.count == expected and counted == [(expected, expected)]


@pytest.mark.parametrize(
    ("images", "count", "sentence"),
    [
        (19, None, "The reference holds 19 images, but two halves need at least 20."),
        (0, 50, "The reference holds 0 images, but two halves need at least 20."),
        (50, 26, "The count is 26, but must be from 10 to 25, half of the 50 reference images: "),
        (51, 9, "The count is 9, but must be from 10 to 25, half of the 51 reference images: "),
    ],
)
def test_too_few_images_are_refused_before_any_is_described(images, count, sentence):
    pixels = np.zeros((images, 1, 1, 3), np.uint8)
    with pytest.raises(MetricsError) as error:
        Measurement(lambda _: pytest.fail("an image was described"), pixels, count)
    assert str(error.value).startswith(sentence)


# The command


def measure(*options: object) -> int:
    return main(["--reference", "images", "--features", MEANS, "--device", "cpu", *map(str, options)])


def refused(capsys, *options: object) -> str:
    """The one line with which the command ends with status 2."""
    with pytest.raises(SystemExit) as end:
        measure(*options)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("python -m sagan.metrics: error: ")


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_json_is_one_line_with_settings_figures_and_floors(make_images, capsys, weights):
    run, folder = make_run(), make_images(24)
    options = ("--weights", weights, "--count", 11, "--seed", 3, "--truncation", 0.5)
    assert measure("--checkpoint", run, "--json", *options) == 0
    printed, bars = capsys.readouterr()
    assert printed.count("\n") == 1
    result = json.loads(printed)
    settings = {"checkpoint": "runs/one", "weights": weights, "truncation": 0.5, "seed": 3, "count": 11}
    assert result.items() >= (settings | {"features": MEANS}).items()
    name = "generator.safetensors" if weights == "ema" else "generator_raw.safetensors"
    generator = checkpoint.load_generator(run / "checkpoint", name)
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
    figures = Measurement(Means().eval(), images, 11, seed=3, truncation=0.5)(generator, Classes())
    assert {key: result[key] for key in figures} == figures
    assert "Real images" in bars and "Generated images" in bars


def test_the_table_shows_every_figure_beside_its_floor(make_images, capsys):
    make_images(22)
    assert measure("--checkpoint", make_run()) == 0
    table = capsys.readouterr().out
    assert measure("--checkpoint", "runs/one", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    head, columns, *rows = table.splitlines()
    assert head.startswith("11 images of runs/one (ema weights, truncation 1) against 11 real ones")
    assert columns.split() == ["generated", "other", "real"]
    *rows, lower, upper = rows
    for row, layer, most in ((lower, "8x8", 6), (upper, "16x16", 8)):
        added, bits = result[f"strength_{layer}"], result[f"entropy_{layer}"]
        assert row == (
            f"attention {layer}: adds {added:.2f} of its input's length; "
            f"entropy of a row {bits:.1f} of {most} bits (medians)"
        )
    for row, figure in zip(rows, FIGURES, strict=True):
        assert row.startswith(figure.replace("frechet_d", "Frechet d").replace("_", " "))
        shown = [float(word) for word in row.split()[-2:]]
        assert shown == pytest.approx([result[figure], result[f"floor_{figure}"]], rel=1e-4, abs=1e-9)


def test_with_inception_the_distances_are_called_fid_and_kid():
    result = {key: 1.0 for name in FIGURES for key in (name, f"floor_{name}")}
    result |= {"checkpoint": "x", "weights": "ema", "truncation": 1.0, "count": 5000, "features": "inception"}
    rows = metrics.table(result).splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["FID", "KID", "precision", "recall"]


def test_the_reference_is_cropped_as_training_images_are(make_images, monkeypatch):
    make_images(20, size=(60, 50)), make_run()
    seen = []
    monkeypatch.setattr(Means, "forward", lambda self, x: seen.append(x) or x.float().flatten(1))
    assert measure("--checkpoint", "runs/one", "--crop", 32) == 0
    pool = set()
    for path in Path("images").iterdir():
        pixels = np.asarray(Image.open(path))[9:41, 14:46]
        pool.add(pixels.tobytes())
    assert {image.numpy().tobytes() for image in torch.cat(seen[:2]).permute(0, 2, 3, 1).contiguous()} == pool


@pytest.mark.parametrize(
    ("trained_on", "shown"), [((), (4, 4, 4)), ((50, 0, 100), (4, 0, 8))], ids=["unknown", "known"]
)
def test_classes_come_as_often_as_in_training_or_equally_often(make_images, monkeypatch, trained_on, shown):
    make_images(24), make_run(config=CONDITIONAL, class_counts=trained_on)
    labels = []
    forward = Generator.forward

    def noting(self, z, y, *rest, **extras):
        labels.extend(y.tolist())
        return forward(self, z, y, *rest, **extras)

    monkeypatch.setattr(Generator, "forward", noting)
    assert measure("--checkpoint", "runs/one", "--count", 12, "--seed", 1) == 0
    figures, attention = labels[:12], labels[12:]
    assert tuple(np.bincount(figures, minlength=3)) == shown
    assert attention == figures


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--count", 0], "The count is 0, but must be from 10 to 12, half of the 24 reference images: "),
        (["--count", 13], "The count is 13, but must be from 10 to 12, half of the 24 reference images: "),
        (["--seed", -1], "A seed must be an integer from 0 to 4294967295, but was -1."),
        (["--truncation", 1.5], "Truncation must be a number from 0 to 1, but was 1.5."),
        (["--crop", 33], "24 of 24 images are smaller than the crop of 33 pixels"),
        (["--reference", "nothing"], "data source nothing does not exist"),
        (["--checkpoint", "nothing"], "No checkpoint at 'nothing': the folder does not exist."),
        (["--device", "tpu"], "There is no device 'tpu' here: use cpu, cuda, or cuda:0 and so on."),
        (["--features", "vgg"], "There is no feature network 'vgg': "),
        (["--weights", "best"], "argument --weights: invalid choice: 'best'"),
    ],
    ids=str,
)
def test_options_that_cannot_be_met_end_the_command_with_one_sentence(make_images, capsys, options, sentence):
    make_images(24)
    assert refused(capsys, "--checkpoint", make_run(), *options).startswith(sentence)


def test_a_truncation_that_makes_no_sense_is_refused_before_any_work(capsys, monkeypatch):
    monkeypatch.setattr(metrics, "load_features", lambda *_: pytest.fail("the network was loaded"))
    sentence = refused(capsys, "--checkpoint", make_run(), "--truncation", 1.5)
    assert sentence == "Truncation must be a number from 0 to 1, but was 1.5."


def test_help_names_the_defaults(help_of):
    text = help_of(main)
    for words in (
        "--checkpoint CHECKPOINT folder or Hub id (default: checkpoints/celeba64)",
        "(default: inception)",
        "(default: ema)",
        "(default: half the reference, at most 5,000)",
        "(default: 1.0, full variety)",
        "(default: auto, cuda where there is one)",
    ):
        assert words in text


def test_raw_weights_that_were_not_shipped_are_refused(make_images, capsys):
    make_images(24)
    run = make_run()
    (run / "checkpoint/generator_raw.safetensors").unlink()
    sentence = "'runs/one/checkpoint' has no raw weights, which only run folders keep: use --weights ema."
    assert refused(capsys, "--checkpoint", run, "--weights", "raw") == sentence


def test_ctrl_c_leaves_without_a_traceback(make_images, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "load_features", interrupted)
    assert measure("--checkpoint", make_run()) == 130
    assert capsys.readouterr().err == "Stopped before anything was measured.\n"


@pytest.mark.parametrize(
    ("options", "code"), [("2>&-", 0), ("--json > /dev/full", 1)], ids=["no progress", "no room"]
)
def test_figures_need_no_progress_and_without_room_for_them_the_code_says_so(make_images, options, code):
    make_images(24), make_run("runs/€")
    Path("colours.py").write_text("def Means():\n    return lambda images: images.float().mean((2, 3))\n")
    command = f"'{sys.executable}' -m sagan.metrics --checkpoint runs/€ --reference images"
    command += f" --device cpu --features colours:Means {options}"
    root = str(Path(metrics.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    said = r"12 images of runs/\u20ac (ema weights, truncation 1) against 12 real ones"
    assert done.stdout.decode().startswith("" if code else said) and bool(done.stdout) != bool(code)


# Neighbours


def test_a_row_of_the_picture_is_a_face_and_the_nearest_training_images():
    rng = fresh_rng()
    training = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    faces = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    faces[1] = training[17]
    picture = np.asarray(neighbours(Means().eval(), faces, training))
    assert picture.shape == (3 * 34 + 2, 8 * 34 + 2, 3)
    for i, face in enumerate(faces):
        distances = np.linalg.norm(means(training) - means(face[None]), axis=1)
        row = [face, *training[np.argsort(distances)[:7]]]
        for j, tile in enumerate(row):
            top, left = 2 + 34 * i, 2 + 34 * j
            np.testing.assert_array_equal(picture[top : top + 32, left : left + 32], tile)
        assert (i == 1) == bool((row[1] == face).all())


def test_few_training_images_are_all_neighbours():
    images = fresh_rng().integers(0, 256, (5, 32, 32, 3), np.uint8)
    assert neighbours(Means().eval(), images[:2], images).size == (6 * 34 + 2, 2 * 34 + 2)


def test_labels_go_on_in_the_next_batch(monkeypatch):
    monkeypatch.setattr(metrics, "BATCH", 4)
    generator, labels, seen = make_generator(CONDITIONAL), [0, 1, 2, 2, 1, 0, 2], []
    generator.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments[1].tolist()))
    list(generate(generator, range(7), labels))
    assert seen == labels


def test_neighbours_are_cropped_as_the_reference_is(make_images, monkeypatch):
    run, given = make_run(), []
    make_images(24, size=40), make_images(30, size=40, folder="training")
    monkeypatch.setattr(
        metrics,
        "neighbours",
        lambda _, faces, training, device: given.append(training) or Image.new("RGB", (8, 8)),
    )
    options = ("--crop", 32, "--count", 10, "--neighbours", "training")
    assert measure("--checkpoint", run, *options) == 0
    expected = np.asarray(Image.open("training/0000.png"))[4:36, 4:36]
    np.testing.assert_array_equal(given[0][0], expected)


def test_a_link_hides_no_checkpoint_that_is_shared(capsys):
    make_run("checkpoints/mine")
    Path("link").symlink_to("checkpoints/mine")
    sentence = refused(capsys, "--checkpoint", "link/checkpoint", "--neighbours", "x")
    assert "lies among the checkpoints that are shared" in sentence


def test_the_command_draws_the_neighbours_of_16_faces_into_the_run_folder(make_images, capsys):
    make_images(24), make_images(30, folder="training")
    run = make_run()
    (run / "checkpoint").rename(run / "best")  # the best checkpoint belongs to the same run
    assert measure("--checkpoint", run / "best", "--count", 10, "--neighbours", "training", "--json") == 0
    assert json.loads(capsys.readouterr().out)["neighbours"].endswith("runs/one/neighbours.png")
    with Image.open(run / "neighbours.png") as picture:
        assert picture.size == (8 * 34 + 2, 16 * 34 + 2)
        pixels = np.asarray(picture)
    (faces,) = generate(checkpoint.load_generator(run / "best"), range(16), None)
    np.testing.assert_array_equal(pixels[2 + 34 * 15 :][:32, 2:34], faces[15].permute(1, 2, 0))
    assert (
        measure("--checkpoint", run / "best", "--neighbours", "training", "--seed", 7, "--truncation", 0.5)
        == 0
    )
    (faces,) = generate(checkpoint.load_generator(run / "best"), range(7, 23), None, 0.5)
    with Image.open(run / "neighbours.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture)[2:34, 2:34], faces[0].permute(1, 2, 0))
    assert "never publish it" in capsys.readouterr().out


def test_neighbours_are_of_faces_of_learned_classes(make_images, monkeypatch):
    make_images(24), make_images(30, folder="training")
    seen, forward = [], Generator.forward
    monkeypatch.setattr(metrics, "neighbours", lambda *_: Image.new("RGB", (8, 8)))
    monkeypatch.setattr(
        Generator,
        "forward",
        lambda self, z, labels, *rest, **more: (
            seen.append(labels.tolist()) or forward(self, z, labels, *rest, **more)
        ),
    )
    run = make_run(config=CONDITIONAL, class_counts=(10, 0, 20))
    assert measure("--checkpoint", run, "--count", 10, "--neighbours", "training") == 0
    assert seen[0] == [0, 2] * 8


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def test_the_picture_of_real_people_stays_out_of_what_others_get(make_images, capsys, monkeypatch):
    monkeypatch.setattr(metrics, "load_features", lambda *_: pytest.fail("something was measured"))
    shipped = make_run("shipped")
    (shipped / "history.csv").unlink()
    make_run("checkpoints/mine")
    git("init", ".")
    make_run("tracked")
    for folder, why in (
        ("shipped", "is not the checkpoint of a run folder"),
        ("checkpoints/mine", "lies among the checkpoints that are shared"),
        ("tracked", "lies in a folder under version control"),
    ):
        sentence = refused(capsys, "--checkpoint", folder, "--neighbours", "images")
        assert sentence == (
            f"--neighbours draws real people, and '{folder}/checkpoint' {why}: measure a run whose folder "
            "nobody else gets, for example one in runs/."
        )
    monkeypatch.setattr(
        metrics.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError())
    )
    assert "under version control" in refused(capsys, "--checkpoint", "tracked", "--neighbours", "images")
    assert not list(Path.cwd().rglob("neighbours.png"))


def test_a_worktree_of_git_is_under_version_control_too(capsys):
    Path(".git").write_text("gitdir: elsewhere/.git/worktrees/here\n")
    sentence = refused(capsys, "--checkpoint", make_run("tracked"), "--neighbours", "images")
    assert "lies in a folder under version control" in sentence


def test_a_run_that_git_ignores_may_keep_the_picture(make_images):
    make_images(24)
    git("init", ".")
    Path(".gitignore").write_text("/runs/\n")
    assert measure("--checkpoint", make_run(), "--neighbours", "images") == 0
    assert Path("runs/one/neighbours.png").is_file()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(13, "Permission denied", "private/images"),
            "'private/images' cannot be used: Permission denied.",
        ),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
    ids=repr,
)
def test_what_the_system_refuses_is_one_sentence(capsys, monkeypatch, error, sentence):
    def refuse(*_):
        raise error

    monkeypatch.setattr(metrics, "load_images", refuse)
    assert refused(capsys, "--checkpoint", make_run()) == sentence


def test_a_gpu_without_room_is_one_sentence(make_images, capsys, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    make_images(24)
    run = make_run()
    monkeypatch.setattr(torch, "empty", full)
    sentence = refused(capsys, "--checkpoint", run, "--device", "cuda")
    assert sentence == "The GPU ran out of memory: end other jobs on it, or name another --device."


def test_a_disk_that_refuses_the_picture_is_one_sentence(make_images, capsys, monkeypatch):
    make_images(24)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr(metrics.Measurement, "__call__", None)  # its figures would be lost
    sentence = refused(capsys, "--checkpoint", make_run(), "--neighbours", "images")
    assert sentence == "'neighbours.png' could not be written: No space left on device."
