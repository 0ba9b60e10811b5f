"""The current face without a browser: links, classes, and what the browser receives of a face."""

import base64
import json

import numpy as np
import pytest
from randomness import draw

from sagan import latents
from sagan.ui.current import CurrentFace, describe, from_link


def test_a_link_sets_all_five_values():
    start = CurrentFace(1, 2, label=0)
    query = {"seed": "10", "seed_b": "4294967295", "t": "0.25", "psi": "0.5", "class": "2"}
    assert from_link(query, start, 3) == (CurrentFace(10, 4294967295, 0.25, 0.5, 2), "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "1.5"),
        ("seed", ""),
        ("seed_b", "-3"),
        ("t", "1.1"),
        ("psi", "inf"),
        ("class", "3"),
        ("class", "x"),
    ],
)
def test_a_bad_value_of_a_link_is_named_and_left_out(name, value):
    start = CurrentFace(1, 2, label=0)
    face, notice = from_link({name: value}, start, 3)
    assert face == start
    assert notice.count(".") >= 1 and f"{name}={value}" in notice


def test_other_words_in_a_link_are_no_concern_of_ours():
    start = CurrentFace(1, 2)
    assert from_link({"__theme": "dark"}, start, 0) == (start, "")


def test_the_ends_of_a_way_are_the_seeds_own_latents_to_the_bit():
    a, b = draw.sample(range(2**32), 2)
    for t, seed in ((0, a), (1, b)):
        np.testing.assert_array_equal(CurrentFace(a, b, t).latent(32), latents.from_seed(seed, 32))


def test_the_browser_receives_exactly_the_queries_and_keys_of_the_sampler(with_classes):
    face = CurrentFace(draw.randrange(2**32), 0, psi=0.9, label=draw.randrange(3))
    description = json.loads(describe(with_classes, face))
    expected = with_classes.queries_keys(face.latent(16), face.label)
    for layer in description["layers"]:
        for name, array in zip("qk", expected[layer["name"]], strict=True):
            received = np.frombuffer(base64.b64decode(layer[name]), "<f4").reshape(array.shape)
            np.testing.assert_array_equal(received, array)


@pytest.mark.parametrize("label", [None, -1, 3, 0.5, True, [], [1]])
def test_a_class_that_is_not_there_is_refused(with_classes, label):
    with pytest.raises(ValueError, match="class must be an integer from 0 to 2"):
        describe(with_classes, CurrentFace(1, 2, label=label))


def test_a_class_that_forms_send_as_a_number_with_a_point_is_that_class(with_classes):
    as_sent, whole = (json.loads(describe(with_classes, CurrentFace(1, 2, label=i))) for i in (1.0, 1))
    assert as_sent == whole and whole["class_name"] == "smiling"
