"""The sampler: the same bytes everywhere, attention as the networks compute it, nothing written, refusals."""

import asyncio
import copy
import json
import math
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from randomness import fresh_rng
from torch import nn

from sagan import average_maps, checkpoint, inside
from sagan.checkpoint import CheckpointError
from sagan.classes import Classes
from sagan.latents import from_seed
from sagan.layers import ConditionalBatchNorm2d, Override, SelfAttention
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import CuratedFace, Sampler
from sagan.workers import WORKERS, workers

CONFIG = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, d_attention=(8, 4))
CLASSES = ("dark", "bright", "red")


@cache
def networks(config: SaganConfig) -> tuple[Generator, Discriminator]:
    """Plain networks whose every part matters: strong weights, random gammas, real batch-norm statistics."""
    generator, discriminator = Generator(config, spectral=False), Discriminator(config, spectral=False)
    for module in (*generator.modules(), *discriminator.modules()):
        if isinstance(module, SelfAttention):
            nn.init.uniform_(module.gamma, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d):
            module.weight.data *= 2.5
        elif isinstance(module, ConditionalBatchNorm2d):
            nn.init.normal_(module.gain.weight, 1)
            nn.init.normal_(module.bias.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1  # the statistics of the one batch below
    labels = torch.arange(32) % config.num_classes if config.num_classes else None
    with torch.no_grad():
        generator.train()(torch.randn(32, config.z_dim), labels)
    return generator.eval(), discriminator.eval()


def make_sampler(**changes) -> Sampler:
    config = SaganConfig(**{**vars(CONFIG), **changes})
    return Sampler(*networks(config), Classes(CLASSES[: config.num_classes]))


def random_latents(count: int, size: int = CONFIG.z_dim) -> np.ndarray:
    return fresh_rng().normal(size=(count, size)).astype(np.float32)


def random_images(count: int, size: int = CONFIG.image_size) -> np.ndarray:
    return fresh_rng().integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.fixture
def sampler() -> Sampler:
    return make_sampler()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of an unconditional model."""
    target = tmp_path / "model"
    history = [{"step": 1.0, "images": 64.0}, {"step": 2.0, "images": 128.0}]
    checkpoint.save(target, Classes(), *networks(CONFIG), history, "# A card\n")
    return target


# The same face is the same bytes


@pytest.mark.parametrize(("image_size", "g_width"), [(32, 8), (64, 16)])
def test_a_face_has_the_same_bytes_alone_and_in_a_sheet_of_64(image_size, g_width):
    sampler = make_sampler(image_size=image_size, g_width=g_width, g_attention=None)
    latents = random_latents(64)
    sheet = sampler.faces(latents)
    assert (sheet.shape, sheet.dtype) == ((64, image_size, image_size, 3), np.uint8)
    assert len(np.unique(sheet, axis=0)) == 64
    for latent, face in zip(latents, sheet, strict=True):
        assert sampler.faces(latent[None])[0].tobytes() == face.tobytes()


def test_after_a_restart_the_bytes_are_the_same_and_only_the_samplers_threads_are_held_to_one(folder):
    code = """
import json, sys, threading, torch
from sagan.latents import from_seed
from sagan.sampler import Sampler
torch.set_num_threads(3)
sampler, ran_in = Sampler.load(sys.argv[1]), []
sampler._generator.register_forward_hook(
    lambda *_: ran_in.append((torch.get_num_threads(), threading.current_thread() is threading.main_thread()))
)
faces = [sampler.face_and_queries_keys(from_seed(seed, sampler.config.z_dim)) for seed in range(40, 45)]
sampler.faces([from_seed(seed, sampler.config.z_dim) for seed in range(8)])  # all workers at once
later = []
thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
thread.start(); thread.join()
pixels, queries = zip(*((face.tobytes().hex(), qk["16x16"][0].tobytes().hex()) for face, qk in faces))
print(json.dumps([pixels, queries, ran_in, torch.get_num_threads(), later]))
"""
    command = [sys.executable, "-c", code, folder]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pixels, queries, ran_in, of_the_caller, of_later_threads = json.loads(out)
    sampler, latents = Sampler.load(folder), [from_seed(seed, CONFIG.z_dim) for seed in range(40, 45)]
    assert pixels == [face.tobytes().hex() for face in sampler.faces(latents)]
    assert queries == [sampler.queries_keys(latent)["16x16"][0].tobytes().hex() for latent in latents]
    assert ran_in == [[1, False]] * (5 + 8)
    assert (of_the_caller, of_later_threads) == (3, [3])


def test_many_threads_at_once_get_the_same_bytes(sampler):
    latents = random_latents(40)
    alone = [sampler.faces(latent[None]).tobytes() for latent in latents]
    maps = [sampler.attention(latent, "16x16").tobytes() for latent in latents]
    scores = [sampler.score(sampler.faces(latent[None])).item() for latent in latents]

    def ask(i: int) -> bool:
        face = sampler.faces(latents[i][None])
        return (
            face.tobytes(),
            sampler.attention(latents[i], "16x16").tobytes(),
            sampler.score(face).item(),
        ) == (
            alone[i],
            maps[i],
            scores[i],
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, list(range(40)) * 4))


def test_it_answers_from_the_executor_of_an_event_loop(sampler):
    latents = random_latents(6)

    async def ask() -> list[np.ndarray]:
        return await asyncio.gather(*(asyncio.to_thread(sampler.faces, latent[None]) for latent in latents))

    with ThreadPoolExecutor(1) as thread:  # in this one the browser's event loop may run
        answers = np.concatenate(thread.submit(asyncio.run, ask()).result())
    assert answers.tobytes() == sampler.faces(latents).tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_answers_too(sampler):
    latents = random_latents(2)
    faces = sampler.faces(latents).tobytes()
    child = os.fork()
    if child == 0:
        os._exit(0 if sampler.faces(latents).tobytes() == faces else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_sheet_leaves_room_for_single_faces(sampler):
    """If a long sheet queued all of its forwards at once, everybody else would wait for it."""
    queued = []

    def forward(*_) -> None:
        queued.append(workers()._work_queue.qsize())
        time.sleep(0.01)

    sampler._generator.register_forward_pre_hook(forward)
    with ThreadPoolExecutor(1) as pool:
        sheet = pool.submit(sampler.faces, random_latents(30 * WORKERS))
        sampler.faces(random_latents(1))
        assert not sheet.done()
    assert len(queued) == 30 * WORKERS + 1 and max(queued) <= WORKERS


# What comes out


def test_pixels_are_the_networks_output_rounded_to_256_levels(sampler):
    latents = random_latents(5)
    with torch.inference_mode():
        images = sampler._generator(torch.from_numpy(latents)).double().numpy()
    expected = np.clip(np.round(127.5 * (images.transpose(0, 2, 3, 1) + 1)), 0, 255)
    difference = np.abs(expected - sampler.faces(latents))
    assert difference.max() <= 1  # a batch may differ in the last bit, which rounding can turn into one level
    assert (difference > 0).mean() < 1e-3


def test_extreme_pixels_reach_0_and_255_and_do_not_wrap(sampler):
    for level, expected in ((40.0, 255), (-40.0, 0)):
        nn.init.zeros_(sampler._generator.to_image.weight)
        nn.init.constant_(sampler._generator.to_image.bias, level)
        assert (sampler.faces(random_latents(1)) == expected).all()


def test_no_latents_are_no_faces(sampler):
    for model, labels in ((sampler, None), (make_sampler(num_classes=3), [])):
        assert model.faces(random_latents(0), labels).shape == (0, 32, 32, 3)
        assert model.score(random_images(0), labels).shape == (0,)


@pytest.mark.parametrize("layer", CONFIG.g_attention)
def test_attention_is_the_softmax_of_queries_and_keys_by_loops_in_float64(sampler, layer):
    name, latent = f"{layer}x{layer}", random_latents(1)[0]
    q, k = sampler.queries_keys(latent)[name]
    attention = sampler.attention(latent, name)
    n = layer * layer
    assert (attention.shape, attention.dtype) == ((n, n), np.float32)
    assert q.shape == k.shape == (n, max(1, CONFIG.channels(CONFIG.g_width, layer) // 8))
    assert q.dtype == k.dtype == np.float32
    for i in fresh_rng().choice(n, 12, replace=False):
        logits = [math.fsum(float(a) * float(b) for a, b in zip(q[i], k[j], strict=True)) for j in range(n)]
        weights = [math.exp(logit - max(logits)) for logit in logits]
        np.testing.assert_allclose(attention[i], np.array(weights) / math.fsum(weights), atol=1e-5)
    np.testing.assert_allclose(attention.sum(1), 1, atol=1e-5)


def test_row_i_of_attention_belongs_to_query_position_i(sampler):
    """Weights are built so that every position attends to the mirror image of its column in its own row."""
    side = 8
    layer = sampler._generator.attention[f"{side}x{side}"]
    channels = 2 * side + 1  # one channel names the row, one the column
    parts = (nn.Conv2d(channels, 2 * side, 1, bias=False) for _ in range(2))
    layer.query, layer.key = (part.requires_grad_(False) for part in parts)
    layer.value = nn.Conv2d(channels, channels, 1).requires_grad_(False)
    for part, mirrored in ((layer.query, True), (layer.key, False)):
        part.weight.zero_()
        for i in range(side):
            part.weight[i, i] = 10  # the row
            part.weight[side + (side - 1 - i if mirrored else i), side + i] = 10  # the column
    positions = torch.zeros(1, channels, side, side)
    for row in range(side):
        for column in range(side):
            positions[0, row, row, column] = positions[0, side + column, row, column] = 1

    class Constructed(nn.Module):
        attention = nn.ModuleDict({"8x8": layer})

        def forward(self, z, labels, overrides, extras):
            _, extra = layer(positions, Override(gamma=0.0), extras)
            return torch.zeros(1, 3, 32, 32), {"8x8": extra}

    sampler._generator = Constructed()
    attention = sampler.attention(random_latents(1)[0], "8x8")
    q, k = sampler.queries_keys(random_latents(1)[0])["8x8"]
    for row in range(side):
        for column in range(side):
            i, j = row * side + column, row * side + side - 1 - column
            assert attention[i].argmax() == j
            assert attention[i, j] > 0.99
            assert (k @ q[i]).argmax() == j


def test_one_forward_gives_the_face_and_its_queries_and_keys(sampler):
    forwards = []
    sampler._generator.register_forward_hook(lambda *_: forwards.append(1))
    latent = random_latents(1)[0]
    face, extras = sampler.face_and_queries_keys(latent)
    assert len(forwards) == 1
    assert face.tobytes() == sampler.faces(latent[None])[0].tobytes()
    assert tuple(extras) == sampler.layers == ("8x8", "16x16")
    for layer, pair in sampler.queries_keys(latent).items():
        for one, other in zip(extras[layer], pair, strict=True):
            assert one.tobytes() == other.tobytes()
            assert one.flags.c_contiguous


# Gammas


def test_gammas_of_zero_give_the_network_without_attention(sampler):
    latents = random_latents(3)
    without = copy.deepcopy(sampler._generator)
    for layer in list(without.attention):
        del without.attention[layer]
    expected = Sampler(without, Discriminator(CONFIG, spectral=False)).faces(latents)
    zeros = dict.fromkeys(sampler.layers, 0)
    assert sampler.faces(latents, gammas=zeros).tobytes() == expected.tobytes()
    assert sampler.faces(latents).tobytes() != expected.tobytes()


def test_other_gammas_are_passed_through_and_never_written_into_the_network(sampler):
    latents = random_latents(2)
    before = {name: tensor.clone() for name, tensor in sampler._generator.state_dict().items()}
    faces = sampler.faces(latents)
    chosen = {"16x16": float(fresh_rng().uniform(2, 3))}
    changed = sampler.faces(latents, gammas=chosen)
    sampler.attention(latents[0], "16x16", gammas=chosen)
    for name, tensor in sampler._generator.state_dict().items():
        assert torch.equal(tensor, before[name]), name

    rewritten = copy.deepcopy(sampler._generator)
    rewritten.attention["16x16"].gamma.fill_(chosen["16x16"])
    twin = Sampler(rewritten, Discriminator(CONFIG, spectral=False))
    assert twin.faces(latents).tobytes() == changed.tobytes() != faces.tobytes()
    assert sampler.faces(latents, gammas=sampler.gammas).tobytes() == faces.tobytes()


def test_gamma_of_the_first_layer_moves_the_queries_of_the_second(sampler):
    latent = random_latents(1)[0]
    learned, changed = sampler.queries_keys(latent), sampler.queries_keys(latent, gammas={"8x8": -4.0})
    assert learned["8x8"][0].tobytes() == changed["8x8"][0].tobytes()
    assert not np.allclose(learned["16x16"][0], changed["16x16"][0])


def test_maps_that_are_given_take_the_place_of_every_faces_own(sampler):
    latents = random_latents(3)
    one, other = latents[:2]
    maps = {layer: sampler.attention(other, layer) for layer in sampler.layers}
    faces = sampler.faces(latents, maps=maps)
    # Its own maps leave a face as it is, but for rounding: each is worked out in other places.
    np.testing.assert_allclose(faces[1].astype(int), sampler.faces(other[None])[0], atol=1)
    assert np.abs(faces[0].astype(int) - sampler.faces(one[None])[0]).max() > 10
    assert faces[0].tobytes() == sampler.faces(one[None], maps=maps)[0].tobytes()
    with torch.no_grad():
        overrides = {layer: Override(maps=torch.tensor(weights)[None]) for layer, weights in maps.items()}
        image = sampler._generator(torch.tensor(one)[None], overrides=overrides)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(faces[0], (image + 1) * 127.5, atol=1)


def test_maps_of_one_layer_leave_the_others_to_themselves_and_gammas_count(sampler):
    latents = random_latents(2)
    maps = {"8x8": np.eye(64)}  # float64, and lists below, are as welcome
    changed = sampler.faces(latents, maps=maps)
    assert changed.tobytes() == sampler.faces(latents, maps={"8x8": np.eye(64).tolist()}).tobytes()
    assert changed.tobytes() != sampler.faces(latents).tobytes()
    off = dict.fromkeys(sampler.layers, 0)
    assert (
        sampler.faces(latents, gammas=off, maps=maps).tobytes()
        == sampler.faces(latents, gammas=off).tobytes()
    )


def test_what_positions_tell_can_be_that_of_another_face(sampler):
    one, other = random_latents(2)
    assert {layer: values.shape for layer, values in sampler.values(one).items()} == {
        layer: (side**2, sampler._generator.attention[layer].value.out_channels)
        for layer, side in (("8x8", 8), ("16x16", 16))
    }
    told = {"16x16": {at: sampler.values(other)["16x16"][at] for at in (3, 200)}}
    changed = sampler.faces(one[None], values=told)[0]
    with torch.no_grad():
        vectors = torch.tensor(np.stack([*told["16x16"].values()]))
        overrides = {"16x16": Override(values=(torch.tensor([3, 200]), vectors))}
        image = sampler._generator(torch.tensor(one)[None], overrides=overrides)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(changed, (image + 1) * 127.5, atol=1)
    assert changed.tobytes() != sampler.faces(one[None]).tobytes()
    own = {layer: dict(enumerate(values)) for layer, values in sampler.values(one).items()}
    np.testing.assert_allclose(
        sampler.faces(one[None], values=own)[0].astype(int), sampler.faces(one[None])[0], atol=1
    )
    plain = sampler.faces(one[None]).tobytes()
    assert sampler.faces(one[None], values={"8x8": {}}).tobytes() == plain
    lists = {layer: {at: vector.tolist() for at, vector in told[layer].items()} for layer in told}
    assert sampler.faces(one[None], values=lists)[0].tobytes() == changed.tobytes()


def test_learned_gammas_are_plain_numbers(sampler):
    assert sampler.gammas == {
        name: float(layer.gamma) for name, layer in sampler._generator.attention.items()
    }


def test_parts_are_copied():
    generator, discriminator = copy.deepcopy(networks(CONFIG))
    sampler = Sampler(generator.train(), discriminator)
    latents = random_latents(1)
    faces = sampler.faces(latents).tobytes()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
    assert sampler.faces(latents).tobytes() == faces
    assert generator.training


# The discriminator


def test_scores_are_the_discriminators_alone_and_among_others(sampler):
    images = random_images(9)
    scores = sampler.score(images)
    assert (scores.shape, scores.dtype) == ((9,), np.float32)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1)
    with torch.inference_mode():
        expected = copy.deepcopy(sampler._discriminator).double()(pixels)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-4, rtol=1e-4)
    assert scores.tobytes() == np.concatenate([sampler.score(image[None]) for image in images]).tobytes()


def test_the_discriminator_hands_out_its_queries_and_keys(sampler):
    image = random_images(1)
    answer = sampler.discriminator_queries_keys(image[0])
    with torch.inference_mode():
        pixels = torch.from_numpy(image.transpose(0, 3, 1, 2) / np.float32(127.5) - 1)
        _, expected = sampler._discriminator(pixels, extras="queries_keys")
    assert set(answer) == {"8x8", "4x4"}
    for layer, pair in answer.items():
        for one, other in zip(pair, expected[layer], strict=True):
            assert one.shape == (int(layer.split("x")[0]) ** 2, one.shape[1])
            np.testing.assert_allclose(one, other[0], atol=1e-5)


def test_the_discriminators_layers_come_in_the_order_in_which_an_image_meets_them(sampler):
    assert sampler.discriminator_layers == ("8x8", "4x4")
    assert tuple(sampler.discriminator_queries_keys(random_images(1)[0])) == ("8x8", "4x4")
    learned = {name: layer.gamma.item() for name, layer in sampler._discriminator.attention.items()}
    assert sampler.discriminator_gammas == learned
    assert tuple(sampler.discriminator_gammas) == ("8x8", "4x4")
    blind = make_sampler(d_attention=())
    assert (blind.discriminator_layers, blind.discriminator_gammas) == ((), {})


def test_a_generated_face_can_be_put_before_the_discriminator_as_it_is(sampler):
    face, _ = sampler.face_and_queries_keys(random_latents(1)[0])
    pixels = torch.from_numpy(face.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.inference_mode():
        scores, maps = networks(CONFIG)[1](pixels, extras="maps")
    assert sampler.score(face[None])[0] == pytest.approx(scores.item(), abs=1e-5)
    for layer, (q, k) in sampler.discriminator_queries_keys(face).items():
        weights = np.exp((q @ k.T).astype(np.float64))
        np.testing.assert_allclose(weights / weights.sum(1, keepdims=True), maps[layer][0], atol=1e-5)


def save_anew(folder: Path) -> None:
    """What a run does that goes on: other networks in the same place, a D whose scores are 1000 higher."""
    discriminator = copy.deepcopy(networks(CONFIG)[1])
    discriminator.to_score.bias.data += 1000
    discriminator.attention["8x8"].gamma.data += 1
    checkpoint.save(folder, Classes(), Generator(CONFIG, spectral=False).eval(), discriminator, [], "")


def test_a_checkpoint_that_a_run_saves_anew_stays_the_one_that_was_opened(folder):
    sampler, images = Sampler.load(folder), random_images(3)
    expected = sampler.score(images)
    unasked = Sampler.load(folder)
    save_anew(folder)
    assert unasked.score(images).tobytes() == sampler.score(images).tobytes() == expected.tobytes()
    assert unasked.discriminator_gammas == make_sampler().discriminator_gammas
    later = Sampler.load(folder)
    assert (later.score(images) - expected).min() > 500
    assert later.discriminator_gammas["8x8"] - unasked.discriminator_gammas["8x8"] == pytest.approx(1)


def test_networks_of_float64_are_sampled_in_float32():
    expected, latents, images = make_sampler(), random_latents(1), random_images(1)
    double = Sampler(*(copy.deepcopy(network).double() for network in networks(CONFIG)))
    assert double.faces(latents).tobytes() == expected.faces(latents).tobytes()
    assert double.score(images).tobytes() == expected.score(images).tobytes()


def test_networks_in_training_mode_are_sampled_in_eval_mode():
    generator, discriminator = Generator(CONFIG, spectral=False), Discriminator(CONFIG, spectral=False)
    training = Sampler(generator.train(), discriminator)
    z = random_latents(1)
    expected = Sampler(generator.eval(), discriminator).faces(z)
    np.testing.assert_array_equal(training.faces(z), expected)


def test_the_shipped_weights_draw_the_end_of_their_film_and_attend_as_their_averages_say():
    shipped = Sampler.load(Path(__file__).parents[1] / "checkpoints/celeba64")
    faces = shipped.faces(np.stack([from_seed(seed, shipped.config.z_dim) for seed in range(8)]))
    np.testing.assert_allclose(faces.astype(int), shipped.film.moments[-1]["faces"], atol=2)
    known = average_maps.decode(average_maps.read(shipped.average_maps, shipped.config)["discriminator 4x4"])
    maps = [inside.attention(*shipped.discriminator_queries_keys(face)["4x4"]) for face in faces]
    assert np.corrcoef(np.mean(maps, 0).ravel(), known.ravel())[0, 1] > 0.95


def test_a_checkpoint_that_changes_while_it_is_read_is_refused(folder, monkeypatch):
    read = checkpoint.load_discriminator

    def overtaken(path: Path) -> Discriminator:
        save_anew(path)
        return read(path)

    monkeypatch.setattr(checkpoint, "load_discriminator", overtaken)
    with pytest.raises(CheckpointError) as refusal:
        Sampler.load(folder)
    assert str(refusal.value) == f"'{folder}' was saved anew while it was read: open it again."


def test_a_checkpoint_that_changes_once_its_networks_were_read_is_refused(folder, monkeypatch):
    find = average_maps.find

    def overtaken(path: Path, config: SaganConfig) -> Path | None:
        save_anew(path)
        return find(path, config)

    monkeypatch.setattr(average_maps, "find", overtaken)
    with pytest.raises(CheckpointError) as refusal:
        Sampler.load(folder)
    assert str(refusal.value) == f"'{folder}' was saved anew while it was read: open it again."


# Raw maps


def test_raw_maps_hold_all_attention_of_a_face_and_come_back_from_a_file(tmp_path):
    sampler = make_sampler(num_classes=3)
    latent, dialled = random_latents(1)[0], {"8x8": float(fresh_rng().uniform(-3, 3))}
    about = {"seed": 2**32 - 1, "truncation": 0.7, "class": "bright"}
    named = sampler.raw_maps(latent, 1, dialled, about)
    assert {type(array) for array in named.values()} == {np.ndarray}
    np.savez_compressed(tmp_path / "maps.npz", **named)
    with np.load(tmp_path / "maps.npz") as file:
        raw = dict(file)
    face, queries_keys = sampler.face_and_queries_keys(latent, 1, dialled)
    assert raw.pop("face").tobytes() == face.tobytes()
    assert raw.pop("score") == sampler.score(face[None], [1])[0]
    assert raw.pop("latent").tobytes() == latent.tobytes()
    assert raw.pop("label") == 1
    assert {name: raw.pop(f"about/{name}").item() for name in about} == about
    of_discriminator = sampler.discriminator_queries_keys(face, 1)
    vectors = queries_keys | {f"discriminator {layer}": pair for layer, pair in of_discriminator.items()}
    gammas = sampler.gammas | dialled
    gammas |= {f"discriminator {layer}": g for layer, g in sampler.discriminator_gammas.items()}
    assert len(vectors) == len(gammas) == 4
    for layer, (q, k) in vectors.items():
        assert raw.pop(f"{layer}/q").tobytes() == q.tobytes()
        assert raw.pop(f"{layer}/k").tobytes() == k.tobytes()
        assert raw.pop(f"{layer}/gamma") == np.float32(gammas[layer])
        attention = raw.pop(f"{layer}/attention")
        assert (attention.shape, attention.dtype) == ((len(q), len(q)), np.float32)
        i = fresh_rng().integers(len(q))
        weights = [math.exp(math.fsum((q[i].astype(float) * key).tolist())) for key in k.astype(float)]
        np.testing.assert_allclose(attention[i], np.array(weights) / math.fsum(weights), atol=1e-6)
    assert raw == {}


def test_raw_maps_of_a_plain_model_have_no_label(sampler):
    raw = sampler.raw_maps(random_latents(1)[0])
    assert "label" not in raw and not any(name.startswith("about/") for name in raw)
    assert all(raw[f"{layer}/gamma"] == np.float32(sampler.gammas[layer]) for layer in sampler.layers)


@pytest.mark.parametrize("value", [[1, 2], None, {"a": 1}], ids=repr)
def test_raw_maps_say_only_numbers_and_words_of_the_face(sampler, value):
    with pytest.raises(ValueError) as refusal:
        sampler.raw_maps(random_latents(1)[0], about={"seed": value})
    assert str(refusal.value) == f"about/seed must be a number or a word, but was {value!r}."


# Classes


def test_labels_choose_the_class_of_each_face_and_score():
    sampler = make_sampler(num_classes=3)
    latents, labels = random_latents(6), np.array([0, 1, 2, 2, 1, 0])
    faces = sampler.faces(latents, labels)
    scores = sampler.score(faces, labels)
    for i, label in enumerate(labels):
        assert sampler.faces(latents[i : i + 1], labels[i : i + 1]).tobytes() == faces[i].tobytes()
        assert sampler.face_and_queries_keys(latents[i], int(label))[0].tobytes() == faces[i].tobytes()
        assert sampler.score(faces[i : i + 1], [label])[0] == scores[i]
    assert sampler.faces(latents, (labels + 1) % 3).tobytes() != faces.tobytes()
    assert not np.allclose(sampler.score(faces, (labels + 1) % 3), scores)
    attention = sampler.attention(latents[0], "16x16", 2)
    q, k = sampler.queries_keys(latents[0], 2)["16x16"]
    logits = (q @ k.T).astype(np.float64)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(attention, weights / weights.sum(1, keepdims=True), atol=1e-5)
    assert set(sampler.discriminator_queries_keys(faces[0], 1)) == {"8x8", "4x4"}


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "This model has classes: give every image a label from 0 to 2."),
        ([0], "2 images need labels of shape (2,), but got (1,)."),
        ([0, 3], "Labels must be integers from 0 to 2, but were [0, 3]."),
        ([-1, 0], "Labels must be integers from 0 to 2, but were [-1, 0]."),
        ([0.0, 1.0], "Labels must be integers from 0 to 2, but were [0.0, 1.0]."),
        ([True, False], "Labels must be integers from 0 to 2, but were [True, False]."),
        (["red", "dark"], "Labels must be integers from 0 to 2, but were ['red', 'dark']."),
        ([0, [1]], "Labels must be an array of integers of shape (2,)."),
    ],
    ids=repr,
)
def test_labels_that_name_no_class_are_refused(labels, sentence):
    sampler = make_sampler(num_classes=3)
    for ask in (
        lambda: sampler.faces(random_latents(2), labels),
        lambda: sampler.score(random_images(2), labels),
    ):
        with pytest.raises(ValueError) as refusal:
            ask()
        assert str(refusal.value) == sentence


def test_a_conditional_model_answers_no_question_without_a_label():
    sampler = make_sampler(num_classes=3)
    latent, image = random_latents(1)[0], random_images(1)[0]
    for ask in (
        lambda: sampler.queries_keys(latent),
        lambda: sampler.attention(latent, "16x16"),
        lambda: sampler.discriminator_queries_keys(image),
    ):
        with pytest.raises(ValueError, match="give every image a label from 0 to 2"):
            ask()


def test_a_plain_model_refuses_labels(sampler):
    for ask in (
        lambda: sampler.faces(random_latents(1), [0]),
        lambda: sampler.queries_keys(random_latents(1)[0], 0),
        lambda: sampler.score(random_images(1), [0]),
    ):
        with pytest.raises(ValueError, match=r"^This model has no classes, so it takes no labels\.$"):
            ask()


# Refusals


@pytest.mark.parametrize(
    ("latents", "sentence"),
    [
        (np.zeros((2, 11)), "Latents must have the shape (N, 12), but have (2, 11)."),
        (np.zeros(12), "Latents must have the shape (N, 12), but have (12,)."),
        (np.zeros((1, 1, 12)), "Latents must have the shape (N, 12), but have (1, 1, 12)."),
        ([[math.nan] * 12], "Latents must be finite numbers, but hold NaN or infinity."),
        ([[math.inf] + [0] * 11], "Latents must be finite numbers, but hold NaN or infinity."),
        ([["a"] * 12], "Latents must be an array of numbers of shape (N, 12)."),
        ([[0] * 12, [0]], "Latents must be an array of numbers of shape (N, 12)."),
        (None, "Latents must have the shape (N, 12), but have ()."),
    ],
)
def test_latents_that_do_not_fit_are_refused(sampler, latents, sentence):
    with pytest.raises(ValueError) as refusal:
        sampler.faces(latents)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("latent", "sentence"),
    [
        (np.zeros(11), "One latent must have the shape (12,), but has (11,)."),
        (np.zeros((1, 12)), "One latent must have the shape (12,), but has (1, 12)."),
        (np.full(12, math.nan), "Latents must be finite numbers, but hold NaN or infinity."),
        ([0] * 11, "Latents must have the shape (N, 12), but have (1, 11)."),
    ],
    ids=["short", "batch", "nan", "list"],
)
def test_a_latent_that_does_not_fit_is_refused_by_every_question(sampler, latent, sentence):
    for ask in (
        sampler.queries_keys,
        sampler.face_and_queries_keys,
        sampler.activations,
        lambda z: sampler.attention(z, "8x8"),
        lambda z: sampler.computation(z, "8x8", 0),
    ):
        with pytest.raises(ValueError) as refusal:
            ask(latent)
        assert str(refusal.value) == sentence


@pytest.mark.parametrize("layer", ["32x32", "", 16, None], ids=repr)
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(sampler, layer):
    sentence = f"There is no attention layer {layer!r}; this model has 8x8 and 16x16."
    for ask in (
        lambda: sampler.attention(random_latents(1)[0], layer),
        lambda: sampler.faces(random_latents(1), gammas={layer: 1.0}),
        lambda: sampler.faces(random_latents(1), maps={layer: np.eye(64)}),
        lambda: sampler.queries_keys(random_latents(1)[0], gammas={layer: 1.0}),
    ):
        with pytest.raises(ValueError) as refusal:
            ask()
        assert str(refusal.value) == sentence


@pytest.mark.parametrize("gamma", [math.nan, math.inf, "1", None], ids=repr)
def test_a_gamma_that_is_not_a_finite_number_is_refused(sampler, gamma):
    with pytest.raises(ValueError) as refusal:
        sampler.faces(random_latents(1), gammas={"8x8": gamma})
    assert str(refusal.value) == f"gamma of 8x8 must be a finite number, but was {gamma!r}."


@pytest.mark.parametrize("gammas", [1.0, [0.5, 0.5]], ids=repr)
def test_gammas_without_the_names_of_layers_are_refused(sampler, gammas):
    with pytest.raises(ValueError) as refusal:
        sampler.faces(random_latents(1), gammas=gammas)
    assert str(refusal.value) == f"gammas must be numbers by layer, {{layer: number}}, but were {gammas!r}."


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.eye(63), "The map of 8x8 must have the shape (64, 64), but has (63, 63)."),
        (np.zeros((1, 64, 64)), "The map of 8x8 must have the shape (64, 64), but has (1, 64, 64)."),
        (None, "The map of 8x8 must have the shape (64, 64), but has ()."),
        (np.full((64, 64), math.nan), "The map of 8x8 must hold finite numbers, but holds NaN or infinity."),
        ("sharp", "The map of 8x8 must be an array of numbers."),
        ([[1], [2, 3]], "The map of 8x8 must be an array of numbers."),
    ],
    ids=["small", "batch", "None", "NaN", "word", "ragged"],
)
def test_a_map_that_is_none_is_refused(sampler, weights, sentence):
    with pytest.raises(ValueError) as refusal:
        sampler.faces(random_latents(1), maps={"8x8": weights})
    assert str(refusal.value) == sentence


def test_maps_without_the_names_of_layers_are_refused(sampler):
    with pytest.raises(ValueError) as refusal:
        sampler.faces(random_latents(1), maps=[np.eye(64), np.eye(256)])
    assert str(refusal.value) == "maps must be arrays by layer, {layer: array}, but were list."


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1], "values must be given as {layer: {position: array}}, but were list."),
        ({"8x8": [1]}, "The values of 8x8 must be {position: array}, positions from 0 to 63."),
        ({"8x8": {64: [1.0] * 16}}, "The values of 8x8 must be {position: array}, positions from 0 to 63."),
        ({"8x8": {-1: [1.0] * 16}}, "The values of 8x8 must be {position: array}, positions from 0 to 63."),
        ({"8x8": {0: [1.0] * 15}}, "The values of 8x8 must be 16 finite numbers for each position."),
        ({"8x8": {0: [1.0], 1: [1.0, 2]}}, "The values of 8x8 must be 16 finite numbers for each position."),
        ({"8x8": {0: [math.inf] * 16}}, "The values of 8x8 must be 16 finite numbers for each position."),
        ({"8x8": {0: "red"}}, "The values of 8x8 must be 16 finite numbers for each position."),
        ({"4x4": {}}, "There is no attention layer '4x4'; this model has 8x8 and 16x16."),
    ],
    ids=repr,
)
def test_values_that_are_none_are_refused(sampler, values, sentence):
    with pytest.raises(ValueError) as refusal:
        sampler.faces(random_latents(1), values=values)
    assert str(refusal.value) == sentence


def test_numbers_too_large_to_compute_with_are_refused(sampler):
    with pytest.raises(ValueError, match="so large that the image is not finite"):
        sampler.faces(np.full((1, 12), 3e38))


@pytest.mark.parametrize(
    "images",
    [random_images(1, 64), random_images(1)[0], random_images(1).astype(np.float32), "face"],
    ids=type,
)
def test_images_that_do_not_fit_are_refused(sampler, images):
    with pytest.raises(ValueError, match=r"^Images must be uint8 of shape \(N, 32, 32, 3\), but are "):
        sampler.score(images)


def test_images_of_several_sizes_are_refused(sampler):
    with pytest.raises(ValueError) as refusal:
        sampler.score([random_images(1)[0], random_images(1, 64)[0]])
    assert str(refusal.value) == "Images must be a uint8 array of shape (N, 32, 32, 3)."


def test_a_score_that_is_not_finite_is_refused():
    generator, discriminator = networks(CONFIG)
    discriminator = copy.deepcopy(discriminator)
    with torch.no_grad():
        discriminator.to_score.bias.fill_(math.inf)
    broken = Sampler(generator, discriminator)
    for ask in (lambda image: broken.score(image[None]), broken.discriminator_activations):
        with pytest.raises(ValueError, match="gives this image a score that is not finite"):
            ask(random_images(1)[0])


def test_an_image_that_is_several_is_refused_by_every_question(sampler):
    for ask in (sampler.discriminator_queries_keys, sampler.discriminator_activations):
        with pytest.raises(ValueError) as refusal:
            ask(random_images(1))
        assert str(refusal.value) == "One image must have the shape (32, 32, 3), but has (1, 32, 32, 3)."


def test_answers_are_the_same_where_the_default_is_float64(folder, request):
    before, latents = Sampler.load(folder), random_latents(2)
    faces = before.faces(latents)
    scores = before.score(faces)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.float64)
    for sampler in (before, Sampler.load(folder)):
        np.testing.assert_array_equal(sampler.faces(latents), faces)
        np.testing.assert_array_equal(sampler.score(faces), scores)


# Checkpoints


def test_a_loaded_checkpoint_knows_what_it_is(folder):
    sampler = Sampler.load(str(folder))
    assert sampler.config == CONFIG
    assert sampler.classes == Classes()
    assert sampler.layers == ("8x8", "16x16")
    assert sampler.source == folder
    assert [row["images"] for row in sampler.history] == [64, 128]
    assert sampler.card == "# A card\n"
    assert sampler.gammas.keys() == set(sampler.layers)
    assert sampler.score(sampler.faces(random_latents(2))).shape == (2,)


def test_a_conditional_checkpoint_knows_its_classes(tmp_path):
    config = SaganConfig(**{**vars(CONFIG), "num_classes": 3})
    checkpoint.save(tmp_path / "model", Classes(CLASSES), *networks(config), [], "")
    sampler = Sampler.load(tmp_path / "model")
    assert sampler.classes == Classes(CLASSES)
    assert sampler.faces(random_latents(3), np.arange(3)).shape == (3, 32, 32, 3)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_checkpoint_whose_pictures_are_not_finite_is_refused(tmp_path, classes):
    config = SaganConfig(**{**vars(CONFIG), "num_classes": classes})
    generator, discriminator = copy.deepcopy(networks(config))
    target = tmp_path / "model"
    checkpoint.save(target, Classes(CLASSES[:classes]), generator, discriminator, [], "")
    assert Sampler.load(target).config == config
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0)
                module.running_mean.fill_(-3e38)  # finite, but what is taken from it and divided is not
    checkpoint.save(target, Classes(CLASSES[:classes]), generator, discriminator, [], "")
    with pytest.raises(CheckpointError) as refusal:
        Sampler.load(target)
    assert str(refusal.value) == f"'{target}' makes no pictures: its weights are too large to compute with."


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nothing-here"):
        Sampler.load(tmp_path / "nothing-here")


def write_curated(folder: Path, faces: object, generator_sha256: str | None = None) -> None:
    sha = generator_sha256 or checkpoint.generator_hash(folder)
    (folder / "curated.json").write_text(json.dumps({"generator_sha256": sha, "faces": faces}))


FACE = {"seed": 7, "query": [0.5, 0.4], "text": "Look at the eyes."}


def test_curated_faces_come_with_their_query_and_text(folder):
    write_curated(folder, [FACE, {**FACE, "seed": 2**32 - 1, "query": [0, 1]}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curated = Sampler.load(folder).curated
    assert curated == (
        CuratedFace(7, (0.5, 0.4), "Look at the eyes."),
        CuratedFace(2**32 - 1, (0.0, 1.0), "Look at the eyes."),
    )
    assert curated[0].query[1] == 0.4


def test_a_checkpoint_without_curated_faces_has_none(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Sampler.load(folder).curated == ()


@pytest.mark.parametrize(
    "faces",
    [
        [{**FACE, "seed": -1}],
        [{**FACE, "seed": "7"}],
        [{**FACE, "query": [0.5]}],
        [{**FACE, "query": [0.5, 1.2]}],
        [{**FACE, "query": [1.2, 0.5]}],
        [{**FACE, "query": [0.5, -0.2]}],
        [{**FACE, "query": [-0.2, 0.5]}],
        [{**FACE, "query": [math.nan, 0.5]}],
        [{**FACE, "query": None}],
        [{"seed": 7, "query": [0.5, 0.5]}],
        ["face"],
        None,
    ],
    ids=repr,
)
def test_damaged_curated_faces_are_left_out_with_a_warning(folder, faces):
    write_curated(folder, faces)
    with pytest.warns(UserWarning, match=r"curated\.json"):
        sampler = Sampler.load(folder)
    assert sampler.curated == ()


@pytest.mark.parametrize("faces", ["[" * 100_000, '[{"seed": 7, "query": [0, 0], "text": "\\ud800"}]'])
def test_curated_faces_that_no_json_can_say_are_left_out_with_a_warning(folder, faces):
    sha256 = checkpoint.generator_hash(folder)
    (folder / "curated.json").write_text(f'{{"generator_sha256": "{sha256}", "faces": {faces}}}')
    with pytest.warns(UserWarning, match=r"curated\.json"):
        assert Sampler.load(folder).curated == ()


def test_curated_faces_of_another_generator_are_left_out_with_a_warning(folder):
    write_curated(folder, [FACE], "0" * 64)
    with pytest.warns(UserWarning, match=r"curated\.json"):
        sampler = Sampler.load(folder)
    assert sampler.curated == ()
