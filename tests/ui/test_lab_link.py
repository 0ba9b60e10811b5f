"""What a link says of the lab, without a browser."""

import copy

import pytest
from randomness import draw

from sagan.ui.current import CurrentFace, from_link
from sagan.ui.lab import view_from_link


def test_all_that_is_valid_is_taken_over(sampler):
    query = {
        "direction": "backward",
        "scale": "own",
        "network": "discriminator",
        "layer": "8x8",
        "maps": "uniform",
        "pins": "0-63_12-7",
        "gamma_16x16": "0",
        "gamma_32x32": "2.5",
        "__theme": "dark",
    }
    view = {
        "direction": "backward",
        "scale": "own",
        "network": "discriminator",
        "layer": "8x8",
        "maps": "uniform",
        "pins": [(0, 63), (12, 7)],
        "gammas": {"16x16": 0, "32x32": 2.5},
    }
    assert view_from_link(query, sampler) == (view, [])
    assert view_from_link({}, sampler) == ({}, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("direction", "sideways"),
        ("direction", ""),
        ("scale", "Own"),
        ("network", "critic"),
        ("layer", "8x8"),  # a layer of the other network
        ("layer", "64x64"),
        ("maps", "B"),
        ("maps", "another"),
        ("pins", ""),
        ("pins", "64-0"),
        ("pins", "0-64"),
        ("pins", "-1-5"),
        ("pins", "1.5-2"),
        ("pins", "3"),
        ("pins", "١-٢"),
        ("gamma_16x16", "nan"),
        ("gamma_16x16", "-0.1"),
        ("gamma_16x16", "3.01"),
        ("gamma_16x16", "inf"),
        ("gamma_16x16", "much"),
        ("gamma_64x64", "1"),
        ("gamma_", "1"),
    ],
)
def test_a_bad_value_is_named_and_left_out(sampler, name, value):
    good = {} if name == "direction" else {"direction": "backward"}
    assert view_from_link(good | {name: value}, sampler) == (good, [f"{name}={value}"])


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_combined_maps_are_of_two_layers_at_least(sampler, network):
    query = {"network": network, "layer": "combined"}
    assert view_from_link(query, sampler) == (query, [])
    one = copy.copy(sampler)
    one.layers, one.discriminator_layers = sampler.layers[:1], sampler.discriminator_layers[:1]
    assert view_from_link(query, one) == ({"network": network}, ["layer=combined"])


def test_of_many_pins_the_first_five_in_the_picture_are_taken(sampler):
    pins = [(draw.randrange(64), draw.randrange(64)) for _ in range(300)]
    outside = [(draw.randrange(64, 9999), draw.randrange(9999)) for _ in range(200)]
    every = outside[:100] + pins + outside[100:]
    text = "_".join(f"{x}-{y}" for x, y in every)
    view, ignored = view_from_link({"pins": text}, sampler)
    assert view["pins"] == list(dict.fromkeys(pins))[:5]
    different = len(set(every))
    assert ignored == [f"{different - 5} of {different} pins"]


def test_a_pin_written_twice_in_different_ways_is_one_pin(sampler):
    assert view_from_link({"pins": "1-1_2-2_3-3_4-4_5-5_01-1"}, sampler)[1] == []
    view, ignored = view_from_link({"pins": "1-1_01-1_001-001_2-2_3-3_4-4_5-5_70-1"}, sampler)
    assert view == {"pins": [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]} and ignored == ["pins=70-1"]


def test_one_bad_pin_among_good_ones_is_named(sampler):
    view, ignored = view_from_link({"pins": "1-2_70-3_4-5_1-2"}, sampler)
    assert view == {"pins": [(1, 2), (4, 5)]} and ignored == ["pins=70-3"]


def test_the_sentence_stays_one_sentence_whatever_was_ignored(sampler):
    query = {f"gamma_{i}x{i}": "9" * 500 for i in range(400)} | {"seed": "x" * 500}
    _, ignored = view_from_link(query, sampler)
    face, notice = from_link(query, CurrentFace(1, 2), 0, ignored)
    assert face == CurrentFace(1, 2) and len(ignored) == 400
    assert len(notice) < 300 and "seed=x" in notice and "…" in notice
