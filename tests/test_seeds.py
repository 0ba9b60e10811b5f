"""What the faces of seeds are made from: their latents, and the classes in turn or in proportion."""

import numpy as np
import pytest
import torch
from randomness import fresh_rng

from sagan.latents import from_seed
from sagan.networks import Generator, SaganConfig
from sagan.seeds import inputs, labels_in_proportion, labels_in_turn, learned_classes

CONFIG = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=4)


def test_inputs_are_the_latents_of_the_seeds_towards_the_mean():
    seeds, psi = fresh_rng().integers(2**32, size=5).tolist(), 0.7
    latents, labels = inputs(Generator(CONFIG), seeds, psi)
    assert labels is None and latents.dtype == torch.float32
    for seed, latent in zip(seeds, latents, strict=True):
        np.testing.assert_array_equal(latent.numpy(), from_seed(seed, 12) * np.float32(psi))


def test_inputs_take_the_learned_classes_in_turn_unless_labels_are_given():
    generator = Generator(CONDITIONAL)
    assert inputs(generator, range(3, 9))[1].tolist() == [3, 0, 1, 2, 3, 0]
    assert inputs(generator, range(3, 9), class_counts=(0, 7, 1, 0))[1].tolist() == [2, 1, 2, 1, 2, 1]
    assert inputs(generator, [5, 6], labels=np.array([3, 1]))[1].tolist() == [3, 1]


def test_seeds_go_through_the_classes_in_turn():
    assert labels_in_turn([0, 1, 2, 5, 2**32 - 1], [4, 6, 9]) == [4, 6, 9, 9, 4]


def test_classes_that_had_no_images_are_not_learned():
    assert learned_classes(4, (1, 0, 2, 0)) == (0, 2)
    assert learned_classes(3) == (0, 1, 2) and learned_classes(0) == ()


@pytest.mark.parametrize("counts", [(3, 1), (1, 0, 2, 997), (1, 1, 1), (5,), (0, 7)])
def test_labels_in_proportion_are_within_one_of_what_the_counts_say(counts):
    for number in (1, 10, 512):
        labels = labels_in_proportion(len(counts), number, counts)
        assert labels.shape == (number,) and labels.dtype == np.int64
        shown = np.bincount(labels, minlength=len(counts))
        assert np.abs(shown - np.array(counts) / sum(counts) * number).max() <= 1
        assert not shown[np.array(counts) == 0].any()


def test_labels_in_proportion_are_shuffled_in_the_same_way_each_time():
    labels = labels_in_proportion(2, 64)
    assert 0 < np.count_nonzero(np.diff(labels)) < 63 and {*labels[:32]} == {0, 1}
    np.testing.assert_array_equal(labels, labels_in_proportion(2, 64))
