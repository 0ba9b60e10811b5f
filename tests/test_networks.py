"""The generator and the discriminator: shapes, where things sit, classes, and what the config refuses."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from sagan.layers import ConditionalBatchNorm2d, Override
from sagan.networks import Discriminator, Generator, SaganConfig, layer_name, learned_gammas, side_of

SMALL = {"image_size": 32, "z_dim": 12, "g_width": 8, "d_width": 8, "d_attention": (8, 4)}
RESIDUAL = {"g_residual": (8, 16, 16), "d_residual": (4, 16)}


def small(**changes) -> SaganConfig:
    return SaganConfig(**SMALL | changes)


def random_labels(config: SaganConfig, count: int) -> torch.Tensor | None:
    return torch.randint(config.num_classes, (count,)) if config.num_classes else None


def awake(network: nn.Module) -> nn.Module:
    """The network with random gammas, gains and biases instead of the 0, 1 and 0 they start with."""
    for module in network.modules():
        if hasattr(module, "gamma"):
            nn.init.uniform_(module.gamma, 0.5, 1.5)
        if isinstance(module, ConditionalBatchNorm2d):
            nn.init.normal_(module.gain.weight, 1)
            nn.init.normal_(module.bias.weight)
    return network


# Shapes


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(
    ("image_size", "g_width", "d_width"), [(32, 8, 16), (64, 8, 8), (64, 5, 12), (64, 64, 64), (128, 4, 6)]
)
def test_latents_become_images_and_images_scores(image_size, g_width, d_width, num_classes):
    config = SaganConfig(image_size, 20, num_classes, g_width, d_width)
    labels = random_labels(config, 2)
    images = Generator(config)(torch.randn(2, 20), labels)
    assert images.shape == (2, 3, image_size, image_size)
    assert images.abs().max() <= 1
    scores = Discriminator(config)(images, labels)
    assert scores.shape == (2,)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_one_image_has_one_score_in_a_vector(num_classes):
    config = small(num_classes=num_classes)
    discriminator = Discriminator(config).eval()
    images, labels = torch.rand(3, 3, 32, 32) * 2 - 1, random_labels(config, 3)
    together = discriminator(images, labels)
    for i in range(3):
        alone = discriminator(images[i : i + 1], None if labels is None else labels[i : i + 1])
        assert alone.shape == (1,)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=1e-4)


def test_channels_at_64_pixels_and_width_64_are_64_to_512():
    config = SaganConfig()
    generator, discriminator = Generator(config), Discriminator(config)
    assert [block.conv.out_channels for block in generator.blocks] == [512, 256, 128, 64]
    assert [conv.out_channels for conv in discriminator.blocks] == [64, 128, 256, 512]
    assert config.sides == (4, 8, 16, 32)


def test_a_face_does_not_depend_on_its_batch_mates_in_eval():
    generator = awake(Generator(small())).eval()
    z = torch.randn(5, 12)
    together = generator(z)
    for i in range(5):
        torch.testing.assert_close(generator(z[i : i + 1]), together[i : i + 1], atol=1e-5, rtol=0)


# Attention


@pytest.mark.parametrize(
    ("image_size", "sides"), [(32, ["8x8", "16x16"]), (64, ["16x16", "32x32"]), (128, ["16x16", "32x32"])]
)
def test_generator_attends_where_the_contract_says(image_size, sides):
    generator = Generator(SaganConfig(image_size, g_width=4))
    assert list(generator.attention) == sides


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_attention_is_placed_by_the_size_of_the_feature_map(network):
    config = SaganConfig(64, 10, g_width=6, d_width=6, g_attention=(4, 32), d_attention=(32, 8))
    sides = {Generator: (4, 32), Discriminator: (8, 32)}[network]
    seen = {}
    model = network(config)
    for name, layer in model.attention.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].shape}))
    model(torch.randn(2, 10) if network is Generator else torch.randn(2, 3, 64, 64))
    assert seen == {layer_name(s): (2, 6 * 32 // s, s, s) for s in sides}
    assert tuple(map(side_of, model.attention)) == sides


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_networks_work_without_attention(network):
    model = network(small(g_attention=(), d_attention=()))
    x = torch.randn(2, 12) if network is Generator else torch.randn(2, 3, 32, 32)
    y, collected = model(x, extras="maps")
    assert len(y) == 2 and collected == {} and learned_gammas(model) == {}


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_extras_come_with_the_same_answer_for_every_layer(network):
    model = awake(network(small())).eval()
    x = torch.randn(2, 12) if network is Generator else torch.randn(2, 3, 32, 32)
    expected = model(x)
    answer, maps = model(x, extras="maps")
    torch.testing.assert_close(answer, expected)
    answer, queries_keys = model(x, extras="queries_keys")
    torch.testing.assert_close(answer, expected)
    assert set(maps) == set(queries_keys) == set(model.attention)
    for name, (q, k) in queries_keys.items():
        positions = int(name.split("x")[0]) ** 2
        assert q.shape[:2] == k.shape[:2] == (2, positions)
        torch.testing.assert_close(torch.softmax(q @ k.mT, -1), maps[name], atol=1e-5, rtol=0)


def test_gammas_start_at_zero_and_are_read_by_layer_name():
    generator = Generator(small())
    assert learned_gammas(generator) == {"8x8": 0, "16x16": 0}
    awake(generator)
    for name, gamma in learned_gammas(generator).items():
        assert gamma == generator.attention[name].gamma and not gamma.requires_grad


def test_gammas_passed_to_a_forward_act_like_learned_ones_and_are_not_written():
    generator = awake(Generator(small())).eval()
    twin = copy.deepcopy(generator)
    z = torch.randn(2, 12)
    learned = generator(z)
    nn.init.constant_(twin.attention["16x16"].gamma, -0.75)
    assert torch.equal(generator(z, overrides={"16x16": Override(gamma=-0.75)}), twin(z))
    assert not torch.equal(twin(z), learned)
    assert torch.equal(generator(z), learned)


@pytest.mark.parametrize("extras", [None, "queries_keys", "activations"])
def test_maps_passed_to_a_forward_reach_their_layer_alone(extras):
    generator = awake(Generator(small())).eval()
    z, maps = torch.randn(2, 12), torch.rand(1, 64, 64)
    given, own = [], generator(z)
    for name, layer in generator.attention.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: given.append((name, args[1])))
    answer = generator(z, extras=extras, overrides={"8x8": Override(maps=maps)})
    assert [name for name, _ in given] == ["8x8", "16x16"]
    assert given[0][1].maps is maps and given[1][1] is None
    images = answer if extras is None else answer[0]
    assert not torch.allclose(images, own) and torch.equal(generator(z), own)


@pytest.mark.parametrize("extras", [None, "queries_keys", "activations"])
def test_values_passed_to_a_forward_reach_their_layer_alone(extras):
    generator = awake(Generator(small())).eval()
    z, told = torch.randn(2, 12), torch.randn(1, generator.attention["16x16"].value.out_channels)
    overrides = {"16x16": Override(values=(torch.tensor([5]), told))}
    _, before = generator(z, extras="parts")
    _, after = generator(z, extras="parts", overrides=overrides)
    for name, parts in after.items():
        wanted = before[name][3].clone()
        if name == "16x16":
            wanted[:, 5] = told
        torch.testing.assert_close(parts[3], wanted)
    answer = generator(z, extras=extras, overrides=overrides)
    images = answer if extras is None else answer[0]
    torch.testing.assert_close(images, generator(z, overrides=overrides))
    assert not torch.allclose(images, generator(z))


def test_the_maps_that_a_generator_has_made_give_the_same_images():
    generator = awake(Generator(small())).eval()
    z = torch.randn(2, 12)
    images, maps = generator(z, extras="maps")
    overrides = {layer: Override(maps=weights) for layer, weights in maps.items()}
    torch.testing.assert_close(generator(z, overrides=overrides), images, atol=1e-5, rtol=0)


def test_at_the_start_gamma_learns_but_queries_and_keys_do_not():
    config = small()
    generator, discriminator = Generator(config), Discriminator(config)
    discriminator(generator(torch.randn(4, 12))).mean().backward()
    for layer in (*generator.attention.values(), *discriminator.attention.values()):
        assert layer.gamma.grad != 0
        for conv in (layer.query, layer.key):
            assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in conv.parameters())


def test_the_blocks_of_the_generator_end_in_relu_and_those_of_the_discriminator_leak():
    generator, discriminator = Generator(small()).eval(), Discriminator(small()).eval()
    images, made = generator(torch.randn(4, 12), extras="activations")
    _, judged = discriminator(images, extras="activations")
    sides = ("4x4", "8x8", "16x16")
    assert all(made[name].min() == 0 and judged[name].min() < 0 for name in sides)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_fused_attention_gives_the_same_answer(network):
    model = awake(network(small())).eval()
    x = torch.randn(2, 12) if network is Generator else torch.randn(2, 3, 32, 32)
    expected = model(x)
    for layer in model.attention.values():
        layer.fused = True
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [(2, 3, 64, 32), (2, 3, 35, 35), (2, 3, 16, 16), (2, 1, 32, 32), (3, 32, 32)], ids=str
)
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError) as error:
        Discriminator(small())(torch.zeros(shape))
    assert str(error.value) == f"images must have the shape (B, 3, 32, 32), but have {shape}"


# Spectral norm


def weighted(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that spectral norm is meant for: all with a weight except norms and their tables."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)
    tables = {t for m in network.modules() if isinstance(m, ConditionalBatchNorm2d) for t in (m.gain, m.bias)}
    return {n: m for n, m in network.named_modules() if isinstance(m, kinds) and m not in tables}


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_every_weight_is_spectrally_normalised_except_the_tables_of_batch_norm(network, num_classes):
    model = network(small(num_classes=num_classes, **RESIDUAL))
    expected = set(weighted(model))
    assert {n for n, m in model.named_modules() if parametrize.is_parametrized(m, "weight")} == expected
    layers = 1 + len(model.blocks) + 3 * len(model.attention) + 2 * sum(map(len, model.residual.values()))
    assert len(expected) == layers + (network is Discriminator and num_classes > 0)


def test_d_spectral_norm_false_removes_it_from_the_discriminator_alone():
    config = small(num_classes=3, d_spectral_norm=False)
    assert not any(parametrize.is_parametrized(m) for m in Discriminator(config).modules())
    assert any(parametrize.is_parametrized(m) for m in Generator(config).modules())


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_networks_can_be_built_without_spectral_norm_for_normalised_weights(network):
    config = small(num_classes=3)
    live = awake(network(config)).eval()
    folded = network(config, spectral=False).eval()
    assert not any(parametrize.is_parametrized(m) for m in folded.modules())
    state = {k: v for k, v in live.state_dict().items() if ".parametrizations." not in k}
    state |= {f"{name}.weight": module.weight for name, module in weighted(live).items()}
    folded.load_state_dict(state)
    x = torch.randn(2, 12) if network is Generator else torch.randn(2, 3, 32, 32)
    labels = random_labels(config, 2)
    torch.testing.assert_close(folded(x, labels), live(x, labels))


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_eval_forwards_repeat_and_change_no_state(network):
    model = awake(network(small()))
    x = torch.randn(4, 12) if network is Generator else torch.randn(4, 3, 32, 32)
    model(x)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    first = model(x)
    for _ in range(5):
        assert torch.equal(model(x), first)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_networks_can_be_copied_after_a_forward(network):
    model = awake(network(small()))
    x = torch.randn(4, 12) if network is Generator else torch.randn(4, 3, 32, 32)
    model(x).mean().backward()
    twin = copy.deepcopy(model)
    model.eval(), twin.eval()
    assert torch.equal(twin(x), model(x))
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in twin.parameters()}
    assert not shared


def test_two_forwards_of_the_discriminator_before_one_backward_have_right_gradients():
    """With the power iteration of each forward replayed, the gradients of the two losses add up."""
    discriminator = awake(Discriminator(small())).double()
    apart = copy.deepcopy(discriminator)
    real, fake = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    (discriminator(real).mean() - discriminator(fake).mean()).backward()
    apart(real).mean().backward()
    (-apart(fake).mean()).backward()
    together = {n: p.grad for n, p in discriminator.named_parameters()}
    torch.testing.assert_close(together, {n: p.grad for n, p in apart.named_parameters()})


# Classes


def test_new_conditional_model_is_the_plain_one_whatever_the_class():
    plain, conditional = Generator(small()), Generator(small(num_classes=4))
    state = {k.replace(".norm.running", ".norm.norm.running"): v for k, v in plain.state_dict().items()}
    unused = conditional.load_state_dict(state, strict=False)
    assert all("gain" in k or "bias" in k or "num_batches" in k for k in unused.missing_keys)
    plain.eval(), conditional.eval()
    z = torch.randn(4, 12)
    torch.testing.assert_close(conditional(z, torch.arange(4)), plain(z), atol=1e-6, rtol=1e-5)


def test_the_class_changes_the_image():
    generator = awake(Generator(small(num_classes=2))).eval()
    z = torch.randn(1, 12)
    assert not torch.allclose(generator(z, torch.tensor([0])), generator(z, torch.tensor([1])), atol=1e-3)


def test_projection_term_by_hand():
    """score = plain score + embedding[label] . (last feature map summed over its 4x4 positions)."""
    discriminator = awake(Discriminator(small(num_classes=3))).eval()
    seen = []
    discriminator.to_score.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    labels = torch.tensor([2, 0, 1, 2])
    scores = discriminator(torch.randn(4, 3, 32, 32), labels)
    features, plain = (t.detach().double().numpy() for t in seen[0])
    table = discriminator.embedding.weight.detach().double().numpy()
    assert features.shape == (4, 32, 4, 4)
    expected = [
        plain[i, 0, 0, 0] + sum(table[label, c] * features[i, c].sum() for c in range(32))
        for i, label in enumerate(labels.tolist())
    ]
    np.testing.assert_allclose(scores.detach().numpy(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_missing_and_unwanted_labels_are_refused(network):
    x = torch.randn(2, 12) if network is Generator else torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"labels from 0 to 2.*missing"):
        network(small(num_classes=3))(x)
    with pytest.raises(ValueError, match=r"no labels.*given"):
        network(small())(x, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("network", [Generator, Discriminator])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()], ids=str)
def test_labels_that_are_not_one_each_are_refused(network, shape):
    with pytest.raises(ValueError) as error:
        network(small(num_classes=3))(random_input(network), torch.zeros(shape, dtype=torch.long))
    assert str(error.value) == f"labels must have the shape (2,), but have {shape}"


@pytest.mark.parametrize("name", ["64x64", 16], ids=repr)
@pytest.mark.parametrize(
    "given",
    [
        Override(gamma=9.0),
        Override(maps=torch.zeros(1, 64, 64)),
        Override(values=(torch.tensor([0]), torch.zeros(1, 32))),
    ],
    ids=["gamma", "maps", "values"],
)
def test_a_gamma_or_a_map_of_a_layer_that_is_not_there_is_refused(name, given):
    with pytest.raises(ValueError) as error:
        Generator(small())(torch.randn(1, 12), overrides={name: given})
    assert str(error.value) == f"there is no attention layer {name!r}, only ['8x8', '16x16']"


# Residual blocks


def random_input(network: type[nn.Module], count: int = 2) -> torch.Tensor:
    return torch.randn(count, 12) if network is Generator else torch.rand(count, 3, 32, 32) * 2 - 1


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_residual_blocks_change_nothing_until_their_alphas_move(network, num_classes):
    config = small(num_classes=num_classes)
    plain = awake(network(config)).eval()
    refined = network(dataclasses.replace(config, **RESIDUAL)).eval()
    unknown = refined.load_state_dict(plain.state_dict(), strict=False)
    assert not unknown.unexpected_keys and all("residual." in key for key in unknown.missing_keys)
    x, labels = random_input(network), random_labels(config, 2)
    assert torch.equal(refined(x, labels), plain(x, labels))
    for blocks in refined.residual.values():
        for block in blocks:
            before = refined(x, labels)
            nn.init.constant_(block.alpha, 0.5)
            assert not torch.allclose(refined(x, labels), before)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_residual_blocks_work_on_the_feature_maps_they_name_before_attention(network):
    model = network(small(**RESIDUAL)).eval()
    seen = []
    for name, blocks in model.residual.items():
        for block in blocks:
            block.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0].shape[-1])))
    for name, layer in model.attention.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.append((f"attention {name}", 0)))
    model(random_input(network))
    expected = {
        Generator: [("8x8", 8), ("attention 8x8", 0), ("16x16", 16), ("16x16", 16), ("attention 16x16", 0)],
        Discriminator: [("16x16", 16), ("attention 8x8", 0), ("4x4", 4), ("attention 4x4", 0)],
    }
    assert seen == expected[network]


def test_residual_blocks_by_hand():
    generator, discriminator = Generator(small(**RESIDUAL)), Discriminator(small(**RESIDUAL))
    for network, side, channels in ((generator, 8, 16), (discriminator, 4, 32)):
        block = network.residual[layer_name(side)][0].eval()
        x = torch.randn(2, channels, side, side)
        nn.init.constant_(block.alpha, -0.7)
        with torch.no_grad():
            inner = nn.functional.conv2d(x, block.first.weight, block.first.bias, padding=1)
            if network is generator:
                inner = block.first_norm(inner).relu()
            else:
                inner = torch.where(inner > 0, inner, 0.1 * inner)
            inner = nn.functional.conv2d(inner, block.second.weight, block.second.bias, padding=1)
            if network is generator:
                inner = block.second_norm(inner)
        args = (x, None)[: 2 if network is generator else 1]
        torch.testing.assert_close(block(*args), x - 0.7 * inner)


def test_at_the_start_alpha_learns_but_the_convolutions_behind_it_do_not():
    generator = Generator(small(**RESIDUAL))
    generator(torch.randn(4, 12)).square().sum().backward()
    for blocks in generator.residual.values():
        for block in blocks:
            assert block.alpha.grad != 0
            for conv in (block.first, block.second):
                assert not conv.parametrizations.weight.original.grad.any()


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"d_spectral_norm": False}, True),
        ({"g_residual": (8, 16, 16, 16)}, True),
        ({"d_residual": (4, 4, 8, 16)}, True),
        ({"g_residual": (16, 16)}, False),
        ({"g_residual": (8, 16)}, False),
        ({"d_residual": ()}, False),
        ({"z_dim": 13}, False),
        ({"d_attention": (8,)}, False),
    ],
)
def test_a_network_can_become_one_with_more_residual_blocks(changes, possible):
    config = small(**RESIDUAL)
    assert config.can_become(dataclasses.replace(config, **changes)) == possible


# SaganConfig

REFUSED = {
    ("image_size", "one of (32, 64, 128)"): (48, 0, -64, 256, "64", None, 64.0, [64]),
    ("z_dim", "an integer from 1 to 1024"): (0, -1, 1025, 1.5, "128", True, None),
    ("num_classes", "an integer from 0 to 10000"): (-1, 10_001, 2.0, "2", False, None),
    ("g_width", "an integer from 1 to 512"): (0, -64, 513, 64.0, "64", None),
    ("d_width", "an integer from 1 to 512"): (0, 513, float("nan"), None),
    ("d_spectral_norm", "true or false"): (0, 1, "false", None),
    ("g_attention", "a list of feature map sides"): (16, "16", {16: 1}),
    ("d_attention", "a list of feature map sides"): (16, "16", {16: 1}, None),
    ("g_residual", "a list of feature map sides"): (16, None),
    ("d_residual", "taken from (4, 8, 16, 32)"): ((64,), (8, 5), ("8",)),
    ("d_residual", "at most 16 sides"): ((8,) * 17,),
    ("g_attention", "taken from (4, 8, 16, 32)"): ((64,), (16, 7), (0,), ("16",), (16.0,), (None,), [[16]]),
    ("d_attention", "taken from (4, 8, 16, 32)"): ((64,), (8, 5), (-8,), ("8",), (8.0,), (None,), [[8]]),
}


@pytest.mark.parametrize(
    ("name", "allowed", "value"), [(*key, value) for key, values in REFUSED.items() for value in values]
)
def test_config_refuses_a_bad_value_with_a_sentence_that_names_it(name, allowed, value):
    with pytest.raises(ValueError) as error:
        SaganConfig(**{name: value})
    assert str(error.value) == f"{name} is {value!r}, but must be {allowed}"


def test_attention_must_fit_the_image_size():
    assert SaganConfig(128, g_attention=(64,)).g_attention == (64,)
    with pytest.raises(ValueError, match=r"g_attention is \(32,\), but must be taken from \(4, 8, 16\)"):
        SaganConfig(32, g_attention=(32,))


def test_config_is_frozen_and_comparable():
    config = SaganConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.z_dim = 64
    assert config == SaganConfig() and hash(config) == hash(SaganConfig())
    assert config != SaganConfig(z_dim=64)


def test_order_and_repeats_of_attention_sides_do_not_matter():
    assert SaganConfig(d_attention=[8, 4, 8]) == SaganConfig(d_attention=(4, 8))


def test_a_default_is_written_as_a_config_has_it():
    config = SaganConfig()
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    assert defaults | {"g_attention": (16, 32)} == dataclasses.asdict(config)  # which depends on the size


def test_repeats_of_residual_sides_do_matter_but_not_their_order():
    assert (
        SaganConfig(d_residual=[8, 4, 8])
        == SaganConfig(d_residual=(4, 8, 8))
        != SaganConfig(d_residual=(4, 8))
    )


def test_config_survives_json_and_rebuilds_both_networks_exactly():
    config = small(num_classes=3, g_attention=(4, 16), d_spectral_norm=False, **RESIDUAL)
    rebuilt = SaganConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert rebuilt == config
    labels = random_labels(config, 2)
    for network, x in ((Generator, torch.randn(2, 12)), (Discriminator, torch.randn(2, 3, 32, 32))):
        first, second = awake(network(config)).eval(), network(rebuilt).eval()
        second.load_state_dict(first.state_dict())
        assert torch.equal(second(x, labels), first(x, labels))
