"""What the faces of seeds are made from: their latents, and labels."""

import numpy as np
import pytest
import torch
from randomness import fresh_rng

from sagan.classes import Classes
from sagan.latents import from_seed
from sagan.networks import Generator, SaganConfig
from sagan.seeds import inputs

CONFIG = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=4)


def test_inputs_are_the_latents_of_the_seeds_towards_the_mean():
    seeds, psi = fresh_rng().integers(2**32, size=5).tolist(), 0.7
    latents, labels = inputs(Generator(CONFIG), seeds, None, psi)
    assert labels is None and latents.dtype == torch.float32
    for seed, latent in zip(seeds, latents, strict=True):
        np.testing.assert_array_equal(latent.numpy(), from_seed(seed, 12) * np.float32(psi))


def test_inputs_take_the_labels_that_are_given():
    labels = Classes(tuple("abcd"), (0, 7, 1, 0)).in_turn(range(3, 9))
    assert inputs(Generator(CONDITIONAL), range(3, 9), labels)[1].tolist() == [2, 1, 2, 1, 2, 1]
    assert inputs(Generator(CONDITIONAL), [5, 6], np.array([3, 1]))[1].tolist() == [3, 1]


@pytest.mark.parametrize(("config", "classes"), [(CONDITIONAL, Classes()), (CONFIG, Classes(("a", "b")))])
def test_a_generator_refuses_classes_of_another_kind_of_model(config, classes):
    generator = Generator(config)
    with pytest.raises(ValueError, match="labels"):
        generator(*inputs(generator, [5, 6], classes.in_turn([5, 6])))
