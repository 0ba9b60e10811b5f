"""Seeds, truncation and the ways between two latents."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from randomness import draw

from sagan.latents import SEEDS, check_seed, from_seed, from_seeds, sheet_seeds, slerp, truncate, walk

LAST = SEEDS - 1


def at_angle(rng: np.random.Generator, size: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Two random float64 vectors of unequal lengths with this angle between them."""
    first, second = np.linalg.qr(rng.normal(size=(size, 2)))[0].T
    length_a, length_b = rng.uniform(0.5, 20, 2)
    return length_a * first, length_b * (math.cos(angle) * first + math.sin(angle) * second)


# Seeds


@pytest.mark.parametrize("seed", [0, 5, LAST])
def test_a_seed_is_its_torch_generators_noise(seed):
    expected = torch.randn(128, generator=torch.Generator("cpu").manual_seed(seed))
    latent = from_seed(seed, 128)
    assert latent.dtype == np.float32
    assert latent.tobytes() == expected.numpy().tobytes()


def test_the_latents_of_seeds_are_those_of_each():
    seeds = draw.sample(range(SEEDS), 3)
    latents = from_seeds(seeds, 12)
    assert latents.shape == (3, 12) and latents.dtype == np.float32
    for seed, latent in zip(seeds, latents, strict=True):
        np.testing.assert_array_equal(latent, from_seed(seed, 12))


def test_drawing_a_latent_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    from_seed(7, 128)
    assert torch.equal(torch.get_rng_state(), state)


def test_different_seeds_are_different_standard_normal_latents():
    latents = np.stack([from_seed(int(seed), 128) for seed in draw.sample(range(SEEDS), 500)])
    assert len(np.unique(latents, axis=0)) == 500
    assert abs(latents.mean()) < 5 / math.sqrt(latents.size)
    assert latents.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("seed", [3, 3.0, np.int32(3), np.uint64(3), np.float32(3)])
def test_whole_numbers_of_any_type_are_seeds(seed):
    assert check_seed(seed) == 3
    assert type(check_seed(seed)) is int


BAD_SEEDS = [-1, SEEDS, 2.5, math.nan, math.inf, True, np.True_, None, "3", [3], np.uint64(2**63), 3 + 0j]


@pytest.mark.parametrize("seed", BAD_SEEDS, ids=repr)
def test_anything_else_is_refused_with_the_range_and_what_was_given(seed):
    with pytest.raises(ValueError) as refusal:
        from_seed(seed, 4)
    assert str(refusal.value) == f"A seed must be an integer from 0 to 4294967295, but was {seed!r}."


def test_a_sheet_wraps_from_the_last_seed_to_zero():
    assert sheet_seeds(LAST - 1, 4) == [LAST - 1, LAST, 0, 1]
    assert sheet_seeds(10, 3) == [10, 11, 12]
    with pytest.raises(ValueError, match="but was -2"):
        sheet_seeds(-2, 3)


# Truncation


def test_truncation_scales_and_keeps_float32(rng):
    z, psi = rng.normal(size=128).astype(np.float32), rng.uniform()
    truncated = truncate(z, psi)
    assert truncated.dtype == np.float32
    np.testing.assert_allclose(truncated, [psi * float(value) for value in z], rtol=1e-6)
    assert truncate(z, 1).tobytes() == z.tobytes()
    assert not truncate(z, 0).any()


@pytest.mark.parametrize("psi", [-0.01, 1.01, math.nan, math.inf, None, "1"], ids=repr)
def test_truncation_outside_0_to_1_is_refused(psi):
    with pytest.raises(ValueError) as refusal:
        truncate(np.ones(3, np.float32), psi)
    assert str(refusal.value) == f"Truncation must be a number from 0 to 1, but was {psi!r}."


# The way from a to b


@pytest.mark.parametrize("angle", [0.01, 0.5, math.pi / 2, 2.5, math.pi - 0.01])
@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_slerp_is_a_rotation_in_the_plane_of_both_vectors(rng, angle, t):
    a, b = at_angle(rng, 128, angle)
    length_a, length_b = np.linalg.norm(a), np.linalg.norm(b)
    ahead = a / length_a
    across = b / length_b - math.cos(angle) * ahead
    across /= np.linalg.norm(across)
    # sin((1-t)w)/sin(w) a + sin(tw)/sin(w) b, written in the orthonormal axes of that plane.
    weight_a, weight_b = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    expected = (weight_a * length_a + weight_b * length_b * math.cos(angle)) * ahead
    expected += weight_b * length_b * math.sin(angle) * across
    scale = 1e-6 * max(length_a, length_b) / math.sin(angle)
    np.testing.assert_allclose(slerp(a, b, t), expected, atol=scale)


def test_between_vectors_of_one_length_slerp_keeps_the_length_and_turns_evenly(rng):
    angle = rng.uniform(0.2, 3)
    a, b = at_angle(rng, 64, angle)
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    way = walk(a, b, 6).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), np.linalg.norm(a), rtol=1e-5)
    turns = [math.acos(p @ q / np.linalg.norm(p) / np.linalg.norm(q)) for p, q in pairwise(way)]
    np.testing.assert_allclose(turns, angle / 5, atol=1e-3)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-3])
def test_between_nearly_parallel_vectors_the_way_is_straight(rng, angle):
    a, b = at_angle(rng, 32, angle)
    for t in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(slerp(a, b, t), (1 - t) * a + t * b, atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(slerp(a, a, t), a, rtol=1e-6)  # at an angle of exactly 0


@pytest.mark.parametrize("short_of_pi", [0.0, 1e-9, 1e-5, 9e-4])
def test_between_nearly_opposite_vectors_the_way_is_an_arc_of_sensible_length(rng, short_of_pi):
    a, b = at_angle(rng, 32, math.pi - short_of_pi)
    length_a, length_b = np.linalg.norm(a), np.linalg.norm(b)
    np.testing.assert_allclose(slerp(a, b, 0), a, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slerp(a, b, 1), b, rtol=1e-5, atol=1e-6)
    halfway = slerp(a, b, 0.5).astype(np.float64)
    assert np.linalg.norm(halfway) == pytest.approx((length_a + length_b) / 2, rel=1e-5)
    assert abs(halfway @ a) / np.linalg.norm(halfway) / length_a < 1e-5
    assert np.argmax(halfway) == np.argmin(np.abs(a))  # towards the axis on which a is smallest
    for t in rng.uniform(0.05, 0.95, 2):
        first, second = slerp(a, halfway, t), slerp(halfway, b, t)
        np.testing.assert_allclose(slerp(a, b, t / 2), first, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(slerp(a, b, (1 + t) / 2), second, rtol=1e-4, atol=1e-5)
    for t in np.linspace(0, 1, 11):
        length = np.linalg.norm(slerp(a, b, t))
        assert min(length_a, length_b) / 2 < length < 1.1 * max(length_a, length_b)


def test_opposite_vectors_of_one_length_are_joined_by_a_half_circle_the_same_each_time(rng):
    a = rng.normal(size=16).astype(np.float32)
    way = walk(a, -a, 9)
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), np.linalg.norm(a), rtol=1e-5)
    directions = way.astype(np.float64) / np.linalg.norm(a)
    np.testing.assert_allclose(directions @ directions[0], np.cos(np.linspace(0, math.pi, 9)), atol=1e-5)
    assert walk(a, -a, 9).tobytes() == way.tobytes()


def test_zero_and_one_dimensional_vectors_are_joined_by_a_straight_line(rng):
    a, zero = rng.normal(size=8), np.zeros(8)
    for t in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(slerp(a, zero, t), (1 - t) * a, rtol=1e-6)
        np.testing.assert_allclose(slerp(zero, a, t), t * a, rtol=1e-6)
        assert not slerp(zero, zero, t).any()
        np.testing.assert_allclose(slerp([2.0], [-1.0], t), [2 - 3 * t], rtol=1e-6)


def test_a_walk_starts_at_a_ends_at_b_and_takes_equal_steps(rng):
    a, b = rng.normal(size=(2, 128)).astype(np.float32)
    way = walk(a, b, 7)
    assert (way.shape, way.dtype) == ((7, 128), np.float32)
    assert way[0].tobytes() == a.tobytes()
    assert way[-1].tobytes() == b.tobytes()
    for i in range(7):
        np.testing.assert_allclose(way[i], slerp(a, b, i / 6), atol=1e-6)
    assert walk(a, b, 2).tobytes() == np.stack([a, b]).tobytes()


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan], ids=repr)
def test_a_share_outside_0_to_1_is_refused(t):
    with pytest.raises(ValueError, match=r"^The share of the way must be a number from 0 to 1, but was "):
        slerp(np.ones(3), np.zeros(3), t)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((3,), (2,)), ((), ())], ids=str)
def test_a_way_leads_from_one_latent_to_one_other(shapes):
    with pytest.raises(ValueError) as error:
        slerp(*map(np.ones, shapes), 0.5)
    assert str(error.value) == (
        f"A way leads from one latent (size,) to another, not from {shapes[0]} to {shapes[1]}."
    )


def test_a_walk_of_one_step_is_refused():
    with pytest.raises(ValueError, match=r"^A walk needs at least 2 steps, but was given 1\.$"):
        walk(np.ones(3), np.zeros(3), 1)
