"""The model in one line, as far as it is known."""

import copy
import math
from pathlib import Path

import pytest

from sagan.sampler import Sampler
from sagan.ui.footer import model_line


@pytest.fixture
def sampler(sampler: Sampler) -> Sampler:
    """A copy without a card, to be changed."""
    sampler = copy.copy(sampler)
    sampler.card = ""
    return sampler


def test_the_name_is_the_first_heading_of_the_model_card(sampler):
    sampler.source = Path("snapshots/0a1b2c")
    sampler.card = "---\nlicense: other\n---\n\n# Faces of noise\n\n# Another\n"
    assert model_line(sampler) == "Faces of noise · 64×64 pixels"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("checkpoints/celeba64", "celeba64"),
        ("checkpoints/.celeba64.previous", "celeba64"),
        ("runs/mine/checkpoint", "mine"),
        ("runs/mine/.checkpoint.previous", "mine"),
        ("hub/models--someone--my-faces/snapshots/0a1b2c", "someone/my-faces"),
    ],
)
def test_without_a_card_it_is_the_folder_even_after_a_crash(sampler, folder, name):
    sampler.source = Path(folder)
    assert model_line(sampler).startswith(f"{name} · ")


def test_the_metric_is_that_of_the_last_row_that_has_one(sampler):
    sampler.history = [{"images": 64, "face_fd": 300.0}, {"images": 1280, "face_fd": 120.4}]
    line = model_line(sampler)
    assert "1,280 images shown" in line and line.endswith("distance of faces 120, lower is better")


def test_a_metric_of_earlier_weights_says_after_how_many_images(sampler):
    sampler.history = [{"images": 1280, "face_fd": 120.4, "floor_face_fd": 23.0}, {"images": 1600}]
    line = model_line(sampler)
    assert "1,600 images shown" in line
    assert line.endswith("of faces after 1,280 images 120 (other real images: 23), lower is better")
    sampler.history += [{"images": 1600, "face_fd": 99.6}]
    assert "after" not in model_line(sampler)


def test_a_run_that_measured_itself_shows_its_own_metric_until_faces_are_measured_again(sampler):
    sampler.history = [{"images": 64, "face_fd": math.nan, "frechet_distance": 7.256}]
    assert model_line(sampler).endswith("distance of features 7.26, lower is better")
    sampler.history += [{"face_fd": 81.5, "frechet_distance": 6.0}]
    assert model_line(sampler).endswith("distance of faces 81.5, lower is better")
    sampler.history += [{"fid": 12.34, "face_fd": 80.0}]
    assert model_line(sampler).endswith("FID 12.3, lower is better")
    sampler.history += [{"frechet_distance": 11.0}, {"images": 1}]  # a run that started from that one
    assert model_line(sampler).endswith("distance of features 11, lower is better")


def test_beside_the_metric_stands_its_floor_and_no_other(sampler):
    sampler.history = [{"face_fd": 81.5, "floor_face_fd": 23.456, "floor_frechet_distance": 1.0}]
    assert model_line(sampler).endswith("distance of faces 81.5 (other real images: 23.5), lower is better")
    sampler.history += [{"fid": 20.0, "floor_fid": math.nan}]
    assert model_line(sampler).endswith("FID 20, lower is better")


@pytest.mark.parametrize("images", [math.nan, math.inf])
def test_numbers_that_are_none_are_left_out(sampler, images):
    sampler.history = [{"images": images, "face_fd": images}]
    assert model_line(sampler).endswith("64×64 pixels")
    sampler.history = [{"images": 640}, {"images": images}]
    assert model_line(sampler).endswith("640 images shown in training")
