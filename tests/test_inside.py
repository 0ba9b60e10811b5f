"""What happens inside a forward: the numbers of one query, and what every block puts out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from randomness import fresh_rng
from torch import nn

from sagan.inside import attention, compute
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=16, d_width=8, g_attention=(4, 16))
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=16, d_width=8, num_classes=3)
both_configs = pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])


def networks(config: SaganConfig) -> tuple[Generator, Discriminator]:
    """Plain networks in eval mode, every number of which matters."""
    pair = Generator(config, spectral=False), Discriminator(config, spectral=False)
    for network in pair:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=1.5 / math.sqrt(module.weight[0].numel()))
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.05, 0.5)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 1, 0.5)
        for layer in network.attention.values():
            nn.init.uniform_(layer.gamma, 0.5, 1.5)
    return tuple(network.eval().requires_grad_(False) for network in pair)


def make_sampler(config: SaganConfig = PLAIN) -> Sampler:
    return Sampler(*networks(config))


def random_latent(config: SaganConfig = PLAIN) -> np.ndarray:
    return fresh_rng().normal(size=config.z_dim).astype(np.float32)


def random_label(config: SaganConfig) -> int | None:
    return int(fresh_rng().integers(config.num_classes)) if config.num_classes else None


def outputs_by_hooks(network: nn.Module, *inputs: object) -> dict[str, np.ndarray]:
    """{module: what it put out, without the batch axis} of one forward."""
    seen, hooks = {}, []
    for name, module in network.named_modules():

        def keep(_, __, out, name=name):
            seen[name] = (out[0] if isinstance(out, tuple) else out)[0].double().numpy().copy()

        hooks.append(module.register_forward_hook(keep))
    with torch.inference_mode():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return seen


def generator_inputs(config: SaganConfig, latent: np.ndarray, label: int | None) -> tuple:
    return torch.from_numpy(latent)[None], None if label is None else torch.tensor([label])


# The numbers of one query


def computed_by_loops(x, q, k, v, gamma: float, query: int) -> tuple[list[float], list[float], list[float]]:
    """Logits and weights of all keys, and the output, of vectors (n, .) in float64, number by number."""
    logits = [math.fsum(float(a) * float(b) for a, b in zip(q[query], key, strict=True)) for key in k]
    weights = [math.exp(logit - max(logits)) for logit in logits]
    weights = [weight / math.fsum(weights) for weight in weights]
    y = [
        float(x[query, c]) + gamma * math.fsum(w * float(v[j, c]) for j, w in enumerate(weights))
        for c in range(x.shape[1])
    ]
    return logits, weights, y


@both_configs
def test_a_computation_is_that_of_the_layer_by_loops_in_float64(config):
    sampler, latent, label = make_sampler(config), random_latent(config), random_label(config)
    layer = str(fresh_rng().choice(sampler.layers))
    module = sampler._generator.attention[layer]
    seen = outputs_by_hooks(sampler._generator, *generator_inputs(config, latent, label))
    inputs = f"blocks.{[f'{side}x{side}' for side in config.sides].index(layer)}"
    x, q, k, v, y = (
        seen[name].reshape(len(seen[name]), -1).T
        for name in (inputs, *(f"attention.{layer}{part}" for part in (".query", ".key", ".value", "")))
    )
    query = int(fresh_rng().integers(len(x)))
    logits, weights, out = computed_by_loops(x, q, k, v, module.gamma.item(), query)
    best = sorted(range(len(k)), key=lambda j: -logits[j])[:5]

    answer = sampler.computation(latent, layer, query, label)
    assert answer.keys.tolist() == best
    np.testing.assert_allclose(answer.weights, [weights[j] for j in best], atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(answer.logits, [logits[j] for j in best], atol=1e-4, rtol=1e-5)
    for given, expected in ((answer.q, q[query]), (answer.k, k[best]), (answer.values, v[best])):
        np.testing.assert_allclose(given, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(answer.x, x[query], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(answer.y, out, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(answer.y, y[query], atol=1e-4, rtol=1e-4)  # what the network goes on with
    np.testing.assert_allclose(answer.y, answer.x + answer.gamma * answer.attended, atol=1e-5, rtol=1e-5)
    assert answer.gamma == sampler.gammas[layer]
    arrays = [value for name, value in vars(answer).items() if name not in ("keys", "gamma")]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert answer.k.shape == (5, len(answer.q)) and answer.values.shape == (5, len(answer.y))


def test_its_weights_are_a_row_of_the_attention_map():
    sampler, latent = make_sampler(), random_latent()
    query = int(fresh_rng().integers(256))
    row = sampler.attention(latent, "16x16")[query]
    answer = sampler.computation(latent, "16x16", query)
    np.testing.assert_allclose(answer.weights, row[answer.keys], atol=1e-6)
    np.testing.assert_allclose(answer.weights, np.sort(row)[:-6:-1], atol=1e-6)  # not made to sum to 1


def test_dialled_gammas_reach_the_computation_of_their_layer_and_of_those_behind_it():
    sampler, latent = make_sampler(), random_latent()
    dialled = {"4x4": float(fresh_rng().uniform(2, 3))}
    learned, changed = (sampler.computation(latent, "4x4", 7, gammas=gammas) for gammas in (None, dialled))
    assert (learned.gamma, changed.gamma) == (sampler.gammas["4x4"], dialled["4x4"])
    np.testing.assert_array_equal(changed.attended, learned.attended)
    np.testing.assert_allclose(changed.y, learned.x + dialled["4x4"] * learned.attended, atol=1e-5, rtol=1e-5)
    behind = [sampler.computation(latent, "16x16", 7, gammas=gammas) for gammas in (None, dialled)]
    assert behind[0].gamma == behind[1].gamma == sampler.gammas["16x16"]
    names = ("q", "k", "values", "attended", "x")
    assert any(not np.allclose(*(getattr(answer, name) for answer in behind)) for name in names)


def test_a_layer_of_fewer_than_five_keys_lists_them_all():
    rng = fresh_rng()
    x, q, k, v = (rng.normal(size=(4, size)).astype(np.float32) for size in (6, 2, 2, 6))
    logits, weights, y = computed_by_loops(x, q, k, v, 0.5, 3)
    answer = compute(x, q, k, v, 0.5, 3)
    order = sorted(range(4), key=lambda j: -logits[j])
    assert answer.keys.tolist() == order
    np.testing.assert_allclose(answer.weights, [weights[j] for j in order], atol=1e-6)
    np.testing.assert_allclose(answer.y, y, atol=1e-5)


def test_logits_too_far_apart_for_an_exponential_still_give_finite_weights():
    q, k = np.full((9, 1), 100, np.float32), np.linspace(-90, 90, 9, dtype=np.float32)[:, None]
    answer = compute(np.ones((9, 3), np.float32), q, k, np.ones((9, 3), np.float32), 1.0, 0)
    assert answer.keys.tolist() == [8, 7, 6, 5, 4]
    np.testing.assert_array_equal(answer.weights, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(answer.y, [2, 2, 2])


@pytest.mark.parametrize("query", [-1, 256, 1.5, "7", None, True], ids=repr)
def test_a_query_that_is_no_position_is_refused(query):
    with pytest.raises(ValueError) as refusal:
        make_sampler().computation(random_latent(), "16x16", query)
    assert str(refusal.value) == f"The query is {query!r}, but this layer has positions 0 to 255."


def test_a_computation_refuses_what_every_question_refuses():
    sampler, latent = make_sampler(), random_latent()
    with pytest.raises(ValueError, match="There is no attention layer '8x8'; this model has 4x4 and 16x16"):
        sampler.computation(latent, "8x8", 0)
    with pytest.raises(ValueError, match="gamma of 4x4 must be a finite number, but was nan"):
        sampler.computation(latent, "4x4", 0, gammas={"4x4": math.nan})
    with pytest.raises(ValueError, match=r"One latent must have the shape \(12,\), but has \(11,\)"):
        sampler.computation(latent[1:], "4x4", 0)
    with pytest.raises(ValueError, match="takes no labels"):
        sampler.computation(latent, "4x4", 0, label=0)
    with pytest.raises(ValueError, match="give every image a label"):
        make_sampler(CONDITIONAL).computation(latent, "8x8", 0)


# Blocks


def check_blocks(blocks: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compare the first 16 channels with those of whole outputs (C, H, W), in order."""
    assert list(blocks) == list(expected)
    for name, maps in blocks.items():
        output = expected[name]
        assert maps.dtype == np.float32 and maps.shape == (min(16, len(output)), *output.shape[1:]), name
        np.testing.assert_allclose(maps, output[:16], atol=1e-4, rtol=1e-4, err_msg=name)


@both_configs
def test_activations_are_what_the_generators_blocks_put_out_in_their_order(config):
    sampler, latent, label = make_sampler(config), random_latent(config), random_label(config)
    seen = outputs_by_hooks(sampler._generator, *generator_inputs(config, latent, label))
    expected = {}
    for i, side in enumerate(config.sides):
        expected[f"{side}x{side}"] = seen[f"blocks.{i}"]
        if side in config.g_attention:
            expected[f"attention {side}x{side}"] = seen[f"attention.{side}x{side}"]
    expected["image"] = np.tanh(seen["to_image"])
    check_blocks(sampler.activations(latent, label), expected)
    assert sampler.activations(latent, label)["image"].shape == (3, 32, 32)


@both_configs
def test_activations_are_what_the_discriminators_blocks_put_out_in_their_order(config):
    sampler, label = make_sampler(config), random_label(config)
    image = fresh_rng().integers(0, 256, (32, 32, 3), np.uint8)
    network = sampler._discriminator
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)
    seen = outputs_by_hooks(network, pixels, None if label is None else torch.tensor([label]))
    expected = {}
    for i, side in enumerate(reversed(config.sides)):
        output = F.leaky_relu(torch.from_numpy(seen[f"blocks.{i}"]), 0.1).numpy()
        expected[f"{side}x{side}"] = output
        if side in config.d_attention:
            expected[f"attention {side}x{side}"] = seen[f"attention.{side}x{side}"]
    score = sampler.score(image[None], None if label is None else [label])
    expected["score"] = score.reshape(1, 1, 1)
    check_blocks(sampler.discriminator_activations(image, label), expected)


def test_activations_of_dialled_gammas_are_those_of_the_face_that_they_give():
    sampler, latent = make_sampler(), random_latent()
    off = dict.fromkeys(sampler.layers, 0.0)
    blocks = sampler.activations(latent, gammas=off)
    for layer in sampler.layers:
        np.testing.assert_array_equal(blocks[f"attention {layer}"], blocks[layer])
    pixels = 127.5 * (blocks["image"].astype(np.float64).transpose(1, 2, 0) + 1)
    assert np.abs(pixels - sampler.faces(latent[None], gammas=off)[0]).max() <= 0.5 + 1e-3


def test_maps_hold_no_more_memory_than_they_show():
    config = SaganConfig(image_size=32, z_dim=12, g_width=16, d_width=8)
    for maps in make_sampler(config).activations(random_latent(config)).values():
        assert maps.base is None or maps.base.size == maps.size


def test_activations_refuse_what_every_question_refuses():
    sampler, latent = make_sampler(), random_latent()
    with pytest.raises(ValueError, match="There is no attention layer '64x64'"):
        sampler.activations(latent, gammas={"64x64": 1})
    with pytest.raises(ValueError, match="Latents must be finite"):
        sampler.activations(np.full(12, math.nan))
    with pytest.raises(ValueError, match="Images must be uint8"):
        sampler.discriminator_activations(np.zeros((32, 32, 3)))
    with pytest.raises(ValueError, match="takes no labels"):
        sampler.discriminator_activations(np.zeros((32, 32, 3), np.uint8), 1)


def test_masked_keys_get_nothing_and_the_others_share_in_proportion():
    rng = fresh_rng()
    q, k = rng.normal(size=(2, 30, 4)).astype(np.float32)
    whole = attention(q, k)
    for without in ((), (7,), {3, 11, 29}):
        masked, left = attention(q, k, without), [j for j in range(30) if j not in without]
        assert masked.dtype == np.float32 and not masked[:, list(without)].any()
        wanted = whole[:, left] / whole[:, left].sum(1, keepdims=True)
        np.testing.assert_allclose(masked[:, left], wanted, rtol=1e-5)


def test_a_row_that_gives_everything_to_a_masked_key_shares_with_the_others():
    q, k = np.full((3, 1), 40, np.float32), np.array([[50], [1], [1]], np.float32)
    np.testing.assert_array_equal(attention(q, k)[0], [1, 0, 0])
    np.testing.assert_array_equal(attention(q, k, [0])[0], [0, 0.5, 0.5])
