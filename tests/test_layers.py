"""Self-attention, spectral norm and conditional batch norm against independent formulas."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize

from sagan import layers
from sagan.layers import (
    ConditionalBatchNorm2d,
    Override,
    SelfAttention,
    SpectralNorm,
    exact_weight,
    normalised_once,
    spectral_norm,
)

NORMALISED = {
    "convolution": lambda: nn.Conv2d(5, 7, 3),
    "transposed convolution": lambda: nn.ConvTranspose2d(5, 7, 3),
    "linear": lambda: nn.Linear(6, 4),
    "embedding": lambda: nn.Embedding(9, 5),
}


@pytest.fixture(params=NORMALISED)
def normalised(request):
    return spectral_norm(NORMALISED[request.param]())


def attention_layer(channels: int = 16, spectral: bool = True) -> SelfAttention:
    """A layer whose gamma is not the 0 it starts with."""
    layer = SelfAttention(channels, spectral)
    nn.init.uniform_(layer.gamma, 0.5, 1.5)
    return layer


def project(conv: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """A 1x1 convolution of x (C, H, W) as (H*W, channels), position = row * width + column."""
    weight = conv.weight.detach().numpy()
    bias = 0 if conv.bias is None else conv.bias.detach().numpy()
    height, width = x.shape[1:]
    return np.array([weight[:, :, 0, 0] @ x[:, r, c] + bias for r in range(height) for c in range(width)])


def attention_by_loops(layer: SelfAttention, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y (C, H, W) and the map (H*W, H*W) of one image, one number at a time."""
    q, k, v = (project(conv, x) for conv in (layer.query, layer.key, layer.value))
    height, width = x.shape[1:]
    n = height * width
    maps = np.zeros((n, n))
    y = x.copy()
    for i in range(n):
        logits = [sum(q[i, d] * k[j, d] for d in range(q.shape[1])) for j in range(n)]
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        for j in range(n):
            maps[i, j] = exponentials[j] / sum(exponentials)
            y[:, i // width, i % width] += layer.gamma.item() * maps[i, j] * v[j]
    return y, maps


def as_matrix(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """The matrix whose rows are the outputs (classes for an embedding)."""
    if isinstance(module, nn.ConvTranspose2d):  # weight (in, out, kH, kW)
        weight = weight.permute(1, 0, 2, 3)
    return weight.detach().reshape(weight.shape[0], -1)


def largest_singular_value(module: nn.Module, weight: torch.Tensor) -> float:
    return torch.linalg.svdvals(as_matrix(module, weight).double())[0].item()


# Self-attention


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
def test_attention_equals_loops_in_float64(fused):
    layer = attention_layer().double().eval()
    layer.fused = fused
    x = torch.randn(2, 16, 3, 4, dtype=torch.float64)
    y = layer(x)
    _, maps = layer(x, extras="maps")
    for i in range(len(x)):
        expected_y, expected_maps = attention_by_loops(layer, x[i].numpy())
        np.testing.assert_allclose(y[i].detach().numpy(), expected_y, atol=1e-12)
        np.testing.assert_allclose(maps[i].detach().numpy(), expected_maps, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
@pytest.mark.parametrize("looks_at", ["right neighbour", "mirror image"])
def test_position_attends_to_the_position_it_was_built_to_attend_to(looks_at, fused):
    height, width, channels = 2, 4, 64  # 8 positions, one query dimension each
    n = height * width
    target = [
        r * width + ((c + 1) % width if looks_at == "right neighbour" else width - 1 - c)
        for r in range(height)
        for c in range(width)
    ]
    layer = attention_layer(channels, spectral=False)
    layer.fused = fused
    for conv in (layer.query, layer.key, layer.value):
        for parameter in conv.parameters():
            nn.init.zeros_(parameter)
    with torch.no_grad():
        for position in range(n):
            layer.query.weight[target[position], position] = 40.0
            layer.key.weight[position, position] = 1.0
        layer.value.weight[:, :, 0, 0] = torch.eye(channels)
    x = torch.zeros(1, channels, height, width)  # channel i is lit at position i alone
    x[0, :n] = torch.eye(n).reshape(n, height, width)
    _, maps = layer(x, extras="maps")
    assert maps[0].argmax(dim=1).tolist() == target
    assert maps[0].amax(dim=1).min() > 0.999
    received = (layer(x) - x)[0].flatten(1) / layer.gamma  # (channels, positions)
    torch.testing.assert_close(received[:n], torch.eye(n)[target].T, atol=1e-4, rtol=0)


def test_all_paths_agree_and_rows_sum_to_one():
    layer = attention_layer(24).eval()
    x = torch.randn(3, 24, 5, 6)
    y = layer(x)
    y_maps, maps = layer(x, extras="maps")
    y_qk, (q, k) = layer(x, extras="queries_keys")
    layer.fused = True
    y_fused = layer(x)
    y_fused_qk, (q_fused, k_fused) = layer(x, extras="queries_keys")
    y_fused_maps, maps_fused = layer(x, extras="maps")
    for other in (y_maps, y_qk, y_fused, y_fused_qk, y_fused_maps):
        torch.testing.assert_close(other, y, atol=1e-5, rtol=0)
    assert q.shape == k.shape == (3, 30, 3)
    torch.testing.assert_close((q_fused, k_fused), (q, k), atol=1e-5, rtol=0)
    torch.testing.assert_close(maps_fused, maps, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.softmax(q @ k.mT, dim=-1), maps, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(3, 30), atol=1e-5, rtol=0)
    assert maps.min() >= 0


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_fused_path_takes_a_kernel_that_stores_no_map(memory):
    layer = attention_layer().eval()
    layer.fused = True
    x = torch.randn(2, 16, 8, 8).to(memory_format=memory)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # or an error
        fused = layer(x)
    layer.fused = False
    torch.testing.assert_close(fused, layer(x), atol=1e-5, rtol=1e-5)


def test_attention_refuses_a_feature_map_without_its_batch():
    with pytest.raises(ValueError, match=r"^x must have the shape \(B, C, H, W\), but has \(16, 3, 4\)$"):
        attention_layer()(torch.randn(16, 3, 4))


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
@pytest.mark.parametrize("batch", [1, 3], ids=["one for all", "one for each"])
@pytest.mark.parametrize("gamma", [None, -0.5])
def test_maps_that_are_given_weigh_this_layers_values(fused, batch, gamma):
    layer = attention_layer().eval()
    layer.fused = fused
    x, maps = torch.randn(3, 16, 3, 4), torch.randn(batch, 12, 12)  # any numbers: only softmax sums to 1
    y = layer(x, Override(gamma, maps))
    factor = layer.gamma.item() if gamma is None else gamma
    for i in range(3):
        values = project(layer.value, x[i].numpy())
        attended = (maps[i % batch].numpy() @ values).T.reshape(16, 3, 4)
        np.testing.assert_allclose((y - x)[i].detach().numpy(), factor * attended, atol=1e-4)
    for extras in ("maps", "queries_keys", "parts"):
        torch.testing.assert_close(layer(x, Override(gamma, maps), extras)[0], y)
    given = Override(maps=maps)
    assert torch.equal(layer(x, given, "maps")[1], maps.expand(3, 12, 12))
    torch.testing.assert_close(layer(x, given, "queries_keys")[1], layer(x, extras="queries_keys")[1])


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
@pytest.mark.parametrize("with_maps", [False, True], ids=["own maps", "given maps"])
def test_values_that_are_given_are_told_by_their_positions_alone(fused, with_maps):
    layer = attention_layer().eval()
    layer.fused = fused
    x, told = torch.randn(3, 16, 3, 4), torch.randn(2, 16)
    maps = torch.randn(1, 12, 12) if with_maps else layer(x, extras="maps")[1]
    y = layer(x, Override(0.5, maps if with_maps else None, (torch.tensor([7, 2]), told)))
    for i in range(3):
        values = project(layer.value, x[i].numpy())
        values[[7, 2]] = told.numpy()
        attended = (maps.expand(3, -1, -1)[i].detach().numpy() @ values).T.reshape(16, 3, 4)
        np.testing.assert_allclose((y - x)[i].detach().numpy(), 0.5 * attended, atol=1e-4)


def test_a_layers_own_maps_change_nothing():
    layer = attention_layer().eval()
    x = torch.randn(2, 16, 5, 3)
    _, maps = layer(x, extras="maps")
    torch.testing.assert_close(layer(x, Override(maps=maps)), layer(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(12, 12), (2, 12, 12), (3, 12, 11), (3, 1, 12, 12), ()], ids=str)
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError) as refusal:
        attention_layer()(torch.randn(3, 16, 3, 4), Override(maps=torch.zeros(shape)))
    assert str(refusal.value) == f"maps must have the shape (3, 12, 12) or (1, 12, 12), but have {shape}"


def test_fused_and_explicit_paths_have_the_same_gradients():
    explicit = attention_layer().eval()
    fused = copy.deepcopy(explicit)
    fused.fused = True
    x, direction = torch.randn(2, 2, 16, 4, 4)
    gradients = []
    for layer in (explicit, fused):
        leaf = x.clone().requires_grad_(True)
        (layer(leaf) * direction).sum().backward()
        gradients.append([leaf.grad, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_a_large_batch_on_a_large_map_gives_what_its_images_give_alone():
    """Large enough for a path that works on a few images at a time; the batch is no multiple of that."""
    layer = attention_layer(8).eval()
    x, direction = torch.randn(2, 7, 8, 32, 32)
    leaf = x.clone().requires_grad_(True)
    y = layer(leaf)
    (y * direction).sum().backward()
    together = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    for i in range(7):
        alone = x[i : i + 1].clone().requires_grad_(True)
        y_alone = layer(alone)
        (y_alone * direction[i]).sum().backward()
        torch.testing.assert_close(y_alone[0], y[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.grad[0], leaf.grad[i], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, [p.grad for p in layer.parameters()], atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(layer(x, extras="maps")[0], y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [64, 256])
def test_logits_are_not_divided_by_the_root_of_the_dimension(channels):
    layer = attention_layer(channels).eval()
    x = torch.randn(1, channels, 3, 3)
    _, (q, k) = layer(x, extras="queries_keys")
    _, maps = layer(x, extras="maps")
    logits = q @ k.mT
    differences = logits - logits[:, :, :1]
    torch.testing.assert_close(maps.log() - maps[:, :, :1].log(), differences, atol=1e-4, rtol=1e-4)


def test_queries_and_keys_have_an_eighth_of_the_channels_and_at_least_one():
    for channels, inner in ((64, 8), (20, 2), (8, 1), (3, 1)):
        layer = SelfAttention(channels)
        shapes = [tuple(conv.weight.shape) for conv in (layer.query, layer.key, layer.value)]
        assert shapes == [(inner, channels, 1, 1), (inner, channels, 1, 1), (channels, channels, 1, 1)]
        assert layer(torch.randn(1, channels, 2, 2)).shape == (1, channels, 2, 2)


def test_new_layer_is_the_identity():
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 4, 4)
    assert layer.gamma.shape == () and layer.gamma.item() == 0
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
def test_at_gamma_zero_only_gamma_learns(fused):
    layer = SelfAttention(16)
    layer.fused = fused
    (layer(torch.randn(2, 16, 4, 4)) * torch.randn(2, 16, 4, 4)).sum().backward()
    assert layer.gamma.grad != 0
    for conv in (layer.query, layer.key, layer.value):
        assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in conv.parameters())


def test_a_map_that_is_larger_than_a_chunk_is_computed_all_the_same(monkeypatch):
    layer, x = attention_layer().eval(), torch.randn(2, 16, 4, 4)
    expected = layer(x)
    monkeypatch.setattr(layers, "CACHED_WEIGHTS", 16 * 16 - 1)
    torch.testing.assert_close(layer(x), expected)


def test_no_more_maps_are_worked_on_at_a_time_than_fit_into_the_cache(monkeypatch):
    seen, softmax = [], torch.softmax
    monkeypatch.setattr(
        torch, "softmax", lambda logits, dim: seen.append(len(logits)) or softmax(logits, dim)
    )
    monkeypatch.setattr(layers, "CACHED_WEIGHTS", 2 * 16 * 16)
    attention_layer()(torch.randn(5, 16, 4, 4))
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
def test_no_parameter_is_one_that_softmax_cancels(fused):
    """Its gradient would be rounding errors, and Adam makes full steps of those."""
    layer = attention_layer().double()
    layer.fused = fused
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    (layer(x) * torch.randn_like(x)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


def test_gamma_override_acts_in_its_call_and_leaves_the_parameter_alone():
    layer = attention_layer().eval()
    gamma = layer.gamma.item()
    x = torch.randn(2, 16, 4, 4)
    learned = layer(x)
    attended = (learned - x) / gamma
    torch.testing.assert_close(layer(x, Override(gamma=-2.5)), x - 2.5 * attended, atol=1e-5, rtol=1e-4)
    assert torch.equal(layer(x, Override(gamma=0)), x)
    assert layer.gamma.item() == gamma
    assert torch.equal(layer(x), learned)


def test_gamma_override_also_acts_where_extras_are_asked_for():
    layer = attention_layer().eval()
    x = torch.randn(2, 16, 4, 4)
    for extras in ("maps", "queries_keys"):
        override = Override(gamma=0.25)
        assert torch.equal(layer(x, override, extras)[0], layer(x, override))


# Spectral norm


def test_largest_singular_value_becomes_one(normalised):
    for _ in range(1000):  # one power iteration a read
        weight = normalised.weight
    assert largest_singular_value(normalised, weight) == pytest.approx(1, abs=1e-3)
    original = normalised.parametrizations.weight.original
    sigma = largest_singular_value(normalised, original)
    torch.testing.assert_close(weight, original / sigma, atol=1e-3, rtol=0)


def test_exact_weight_divides_by_the_singular_value_of_an_svd(normalised):
    exact = exact_weight(normalised)
    original = normalised.parametrizations.weight.original
    assert largest_singular_value(normalised, exact) == pytest.approx(1, abs=1e-5)
    sigma = largest_singular_value(normalised, original)
    torch.testing.assert_close(exact, original.detach() / sigma, atol=1e-5, rtol=0)
    assert not exact.requires_grad


def test_exact_weight_does_not_depend_on_the_power_iteration(normalised):
    exact = exact_weight(normalised)
    state = normalised.parametrizations.weight[0]
    state.u.normal_()
    state.v.normal_()
    assert torch.equal(exact_weight(normalised), exact)


def test_power_iteration_runs_in_training_and_is_frozen_in_eval(normalised):
    with torch.no_grad():
        normalised.parametrizations.weight.original.normal_()  # the vectors no longer fit
    state = normalised.parametrizations.weight[0]
    normalised.eval()
    before = state.u.clone(), state.v.clone()
    first, second = normalised.weight, normalised.weight
    assert torch.equal(first, second)
    assert torch.equal(state.u, before[0]) and torch.equal(state.v, before[1])
    normalised.train()
    _ = normalised.weight
    assert not torch.equal(state.v, before[1])


def test_spectral_norm_can_be_switched_off():
    conv = nn.Conv2d(3, 4, 3)
    weight = conv.weight
    assert spectral_norm(conv, enabled=False) is conv
    assert conv.weight is weight and not parametrize.is_parametrized(conv)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradient_flows_through_the_division_by_sigma(normalised, memory):
    """For constant singular vectors u, v the gradient is that of W / (u^T M v)."""
    four = normalised.weight.ndim == 4
    module = normalised.double().to(memory_format=memory if four else torch.contiguous_format).eval()
    original = module.parametrizations.weight.original
    weight = module.weight
    direction = torch.randn_like(weight)
    (weight * direction).sum().backward()
    twin = original.detach().clone().requires_grad_()
    norm = module.parametrizations.weight[0]
    expected = twin / (norm.u @ norm.matrix(twin) @ norm.v)
    (expected * direction).sum().backward()
    torch.testing.assert_close(weight, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(original.grad, twin.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
def test_spectral_norm_computes_what_pytorchs_own_does(normalised, memory):
    """From the same first v, weights and gradients stay equal over passes that change the weight."""
    kind = next(kind for kind in NORMALISED.values() if type(kind()) is type(normalised).__mro__[1])
    theirs = parametrizations.spectral_norm(kind()).double()
    four = normalised.weight.ndim == 4
    ours = normalised.double().to(memory_format=memory if four else torch.contiguous_format)
    both = [ours, theirs]
    norms = [module.parametrizations.weight[0] for module in both]
    originals = [module.parametrizations.weight.original for module in both]
    with torch.no_grad():
        originals[0].copy_(originals[1])
        v = norms[0].v
        if type(ours).__name__.endswith("Conv2d"):  # columns in channels_last order, theirs in channels_first
            v = v.reshape(3, 3, ours.in_channels).movedim(-1, 0).flatten()
        norms[1]._v.copy_(v)
    for _ in range(20):
        direction = torch.randn_like(originals[0])
        weights = [module.weight for module in both]
        for weight, original in zip(weights, originals, strict=True):
            original.grad = None
            (weight * direction).sum().backward()
            with torch.no_grad():
                original -= 0.01 * original.grad
    torch.testing.assert_close(weights[0], weights[1], atol=1e-12, rtol=0)
    torch.testing.assert_close(originals[0].grad, originals[1].grad, atol=1e-12, rtol=0)


def stack() -> nn.Sequential:
    """Two normalised layers and one that is not."""
    return nn.Sequential(
        spectral_norm(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 8, 3), spectral_norm(nn.ConvTranspose2d(8, 3, 3))
    )


def test_normalised_once_computes_each_weight_once_however_often_it_is_read(monkeypatch):
    networks = [stack(), stack()]
    reference = copy.deepcopy(networks)
    calls = []
    states = [m.parametrizations.weight[0] for net in networks for m in (net[0], net[2])]
    iterate = SpectralNorm.iterate
    monkeypatch.setattr(
        SpectralNorm, "iterate", lambda norm, matrix: calls.append(norm) or iterate(norm, matrix)
    )
    x = torch.randn(2, 3, 9, 9)
    with normalised_once(*networks):
        for _ in range(3):
            for network in networks:
                with normalised_once(network):  # changes nothing
                    network(x)
    assert calls == states
    calls.clear()
    for network, other in zip(networks, reference, strict=True):
        other(x)
        torch.testing.assert_close(dict(network.named_buffers()), dict(other.named_buffers()), rtol=0, atol=0)
    calls.clear()
    for _ in range(2):
        networks[0](x)
    assert calls == 2 * states[:2]  # the block is over: each read counts again


def test_normalised_once_keeps_the_power_iteration_in_float32_under_autocast():
    network = stack()
    reference = copy.deepcopy(network)
    x = torch.randn(2, 3, 9, 9)
    with torch.autocast("cpu", torch.bfloat16), normalised_once(network):
        assert network(x).dtype == torch.bfloat16
        weights = network[0].weight, network[2].weight
    assert all(weight.dtype == torch.float32 for weight in weights)
    assert torch.equal(weights[0], reference[0].weight) and torch.equal(weights[1], reference[2].weight)
    torch.testing.assert_close(dict(network.named_buffers()), dict(reference.named_buffers()), rtol=0, atol=0)


def test_normalised_once_sums_the_gradients_of_all_reads():
    network = stack().double().eval()  # the same weights in both ways of computing
    batches = torch.randn(3, 2, 3, 9, 9, dtype=torch.float64)
    with normalised_once(network):
        sum(network(x).square().sum() for x in batches).backward()
    together = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    for x in batches:
        network(x).square().sum().backward()
    torch.testing.assert_close(together, [p.grad for p in network.parameters()])


def test_attention_can_be_copied_after_a_forward():
    layer = attention_layer()
    x = torch.randn(2, 16, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    twin = copy.deepcopy(layer)
    layer.eval(), twin.eval()
    expected = layer(x)
    assert torch.equal(twin(x), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(layer(x), expected)


# Conditional batch norm


def test_conditional_batch_norm_equals_its_formula_for_every_class():
    classes, channels = 4, 3
    layer = ConditionalBatchNorm2d(channels, classes)
    nn.init.normal_(layer.gain.weight)
    nn.init.normal_(layer.bias.weight)
    gain, bias = (table.weight.detach().double().numpy() for table in (layer.gain, layer.bias))
    labels = torch.tensor([2, 0, 3, 1, 0])
    x = torch.randn(5, channels, 4, 6) * 3 + 2
    values = x.double().numpy()
    mean, variance = (f(values, axis=(0, 2, 3)) for f in (np.mean, np.var))
    y = layer(x, labels).detach().numpy()
    for i, label in enumerate(labels):
        for c in range(channels):
            normal = (values[i, c] - mean[c]) / np.sqrt(variance[c] + 1e-5)
            np.testing.assert_allclose(y[i, c], gain[label, c] * normal + bias[label, c], atol=1e-4)


def test_conditional_batch_norm_uses_running_statistics_in_eval():
    layer = ConditionalBatchNorm2d(3, 2)
    for _ in range(3):
        layer(torch.randn(8, 3, 4, 4) * 2 + 1, torch.randint(2, (8,)))
    layer.eval()
    x, labels = torch.randn(4, 3, 4, 4), torch.randint(2, (4,))
    mean, variance = (t[:, None, None] for t in (layer.norm.running_mean, layer.norm.running_var))
    torch.testing.assert_close(layer(x, labels), (x - mean) / (variance + 1e-5).sqrt(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x[:1], labels[:1]), layer(x, labels)[:1])


def test_conditional_batch_norm_starts_as_plain_batch_norm():
    conditional, plain = ConditionalBatchNorm2d(3, 5), nn.BatchNorm2d(3)
    assert (conditional.gain.weight == 1).all() and (conditional.bias.weight == 0).all()
    assert dict(conditional.named_parameters()).keys() == {"gain.weight", "bias.weight"}
    x = torch.randn(6, 3, 4, 4)
    torch.testing.assert_close(conditional(x, torch.randint(5, (6,))), plain(x))


def test_only_the_classes_of_the_batch_get_a_gradient():
    layer = ConditionalBatchNorm2d(3, 4)
    (layer(torch.randn(4, 3, 4, 4), torch.tensor([1, 3, 1, 3])) * torch.randn(4, 3, 4, 4)).sum().backward()
    for table in (layer.gain, layer.bias):
        assert (table.weight.grad[[0, 2]] == 0).all()
        assert (table.weight.grad[[1, 3]] != 0).all()
