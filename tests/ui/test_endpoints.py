"""The public endpoints, called as programs call them."""

import random

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from sagan import latents


@pytest.fixture(scope="module")
def client(address) -> Client:
    return Client(address, verbose=False)


def pixels(gallery: list[dict]) -> list[np.ndarray]:
    return [np.asarray(Image.open(item["image"])) for item in gallery]


def test_only_three_endpoints_are_public_and_their_parameters_have_names(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    names = {
        name: [parameter["parameter_name"] for parameter in info["parameters"]]
        for name, info in endpoints.items()
    }
    assert names == {
        "/faces": ["seed", "count", "truncation", "label"],
        "/walk": ["seed_a", "seed_b", "steps", "truncation", "label"],
        "/attention": ["seed", "layer", "x", "y", "truncation", "label"],
    }


def test_faces_are_those_of_the_sampler(client, sampler):
    seed, psi = random.randrange(2**32 - 10), random.random()
    answer = pixels(client.predict(seed=seed, count=3, truncation=psi, api_name="/faces"))
    z = [latents.truncate(latents.from_seed(seed + i, sampler.config.z_dim), psi) for i in range(3)]
    np.testing.assert_array_equal(answer, sampler.faces(np.stack(z)))


def test_the_walk_starts_and_ends_at_its_seeds(client, sampler):
    a, b = random.sample(range(2**32), 2)
    answer = pixels(client.predict(seed_a=a, seed_b=b, steps=5, api_name="/walk"))
    ends = np.stack([latents.from_seed(seed, sampler.config.z_dim) for seed in (a, b)])
    assert len(answer) == 5
    np.testing.assert_array_equal([answer[0], answer[-1]], sampler.faces(ends))


def test_attention_is_the_row_of_the_pointed_place(client, sampler):
    seed, x, y = random.randrange(2**32), random.random(), random.random()
    answer = client.predict(seed=seed, layer="32x32", x=x, y=y, api_name="/attention")
    z = latents.from_seed(seed, sampler.config.z_dim)
    row = sampler.attention(z, "32x32")[int(y * 32) * 32 + int(x * 32)].astype(np.float64)
    np.testing.assert_allclose(answer["weights"], row, atol=1e-6)
    assert answer["times_uniform"] == pytest.approx(1024 * row.max(), rel=1e-4)
    assert answer["entropy_bits"] == pytest.approx(-(row[row > 0] * np.log2(row[row > 0])).sum(), abs=1e-3)
    assert answer["gamma"] == pytest.approx(sampler.gammas["32x32"])


@pytest.mark.parametrize(
    ("endpoint", "arguments"),
    [
        ("/faces", {"seed": -1}),
        ("/faces", {"seed": 2**32}),
        ("/faces", {"count": 65}),
        ("/faces", {"count": 0}),
        ("/faces", {"truncation": 1.5}),
        ("/faces", {"seed": None}),
        ("/faces", {"count": None}),
        ("/walk", {"steps": None}),
        ("/walk", {"truncation": None}),
        ("/attention", {"x": None}),
        ("/walk", {"steps": 1}),
        ("/walk", {"seed_b": 2**40}),
        ("/attention", {"layer": "64x64"}),
        ("/attention", {"x": 1.01}),
        ("/attention", {"y": None}),
    ],
)
def test_what_is_out_of_range_is_refused_in_one_sentence(client, endpoint, arguments):
    with pytest.raises(AppError) as error:
        client.predict(**arguments, api_name=endpoint)
    said = str(error.value)
    assert 10 < len(said) < 300 and "Traceback" not in said and "not supported between" not in said
