"""What the benchmark of main cells computes, against plain loops and constructed cases."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from randomness import fresh_rng

from benchmarks import main_cells
from benchmarks.main_cells import (
    changes,
    colours,
    colours_where,
    elsewhere,
    explained,
    lengths,
    main,
    regions,
    times,
    told,
    toward,
)
from sagan import checkpoint
from sagan.classes import Classes
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler

CONFIG = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)


def networks(config: SaganConfig) -> tuple[Generator, Discriminator]:
    """Plain networks whose coarse maps are far from uniform."""
    generator = Generator(config, spectral=False).eval()
    for layer in generator.attention.values():
        torch.nn.init.normal_(layer.query.weight, std=20)
        torch.nn.init.normal_(layer.key.weight, std=20)
        torch.nn.init.constant_(layer.gamma, 1.5)
    return generator, Discriminator(config, spectral=False)


def test_colours_are_means_of_what_lies_below_a_position() -> None:
    face = fresh_rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)
    means = colours(face, 4)
    assert means.shape == (16, 3)
    for row in range(4):
        for column in range(4):
            square = face[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1, 3)
            np.testing.assert_allclose(means[4 * row + column], square.sum(0) / 4)


def test_groups_explain_what_differs_between_them() -> None:
    rng = fresh_rng()
    groups = np.repeat([0, 1, 2], 50)
    between, within = rng.normal(size=(3, 3))[groups], rng.normal(size=(150, 3))
    assert explained(between, groups) == pytest.approx(1)
    assert explained(within, groups) < 0.2
    values = between + within
    total = ((values - values.mean(0)) ** 2).sum()
    means = np.stack([values[groups == g].mean(0) for g in range(3)])
    assert explained(values, groups) == pytest.approx(((means[groups] - values.mean(0)) ** 2).sum() / total)


def test_how_far_colours_have_gone_is_a_share_of_the_way() -> None:
    before, aim = fresh_rng().uniform(0, 255, (2, 40, 3))
    assert toward(before, before + 0.3 * (aim - before), aim) == pytest.approx((0.3, 1))
    assert toward(before, before - 0.5 * (aim - before), aim) == pytest.approx((-0.5, -1))
    unknown = np.full((2, 3), np.nan)
    more = (np.concatenate([part, unknown]) for part in (before, before + 0.3 * (aim - before), aim))
    assert toward(*more) == pytest.approx((0.3, 1))
    assert toward(unknown, unknown, unknown) is None


def test_mean_colours_are_known_where_enough_positions_are_sure() -> None:
    rng = fresh_rng()
    faces = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    sure = np.zeros((2, 16), bool)
    sure[0, rng.permutation(16)[:5]] = True
    sure[1, :3] = True
    means = colours_where(sure, faces)
    np.testing.assert_allclose(means[0], colours(faces[0], 4)[sure[0]].sum(0) / 5)
    assert np.isnan(means[1]).all()


def test_regions_of_a_picture_that_is_made_of_what_its_parts_look_at() -> None:
    """Two halves, each of one colour; each gives 0.8 of its weight to one cell, and others get a little."""
    maps = np.zeros((2, 16, 16))
    for of_face, cells in zip(maps, ((3, 12), (3, 5)), strict=True):
        for position in range(16):
            of_face[position, cells[position % 4 >= 2]] = 0.8
            of_face[position, [0, 1, 2]] = 0.05
            of_face[position, 15] = 0.05
    faces = np.zeros((2, 8, 8, 3), np.uint8)
    faces[:, :, 4:] = 200
    figures = regions(faces, np.zeros_like(faces) + faces[:1] // 2, maps)
    assert figures["share of weight"] == pytest.approx(0.95)  # the last of four alike is left out
    assert figures["positions with a main cell as strongest key"] == 1
    assert figures["commonest cells, [row, column, faces]"][0] == [0, 3, 2]
    assert figures["variance of colours explained"] == figures["with the layer off"] == 1
    assert figures["by another face's groups"] == 1  # its parts are the same
    assert figures["by the groups of the next five cells"] == 0  # of which all look at the same one most
    maps[1] = maps[1][fresh_rng().permutation(16)]
    faces[1] = fresh_rng().integers(0, 256, (8, 8, 3))
    alone = regions(faces[:1], faces[1:], maps[:1])
    assert alone["variance of colours explained"] == 1 and alone["with the layer off"] < 0.9
    both = regions(faces, faces, maps)
    assert both["by another face's groups"] < 0.95


def test_what_a_cell_tells_reaches_those_who_look_at_it() -> None:
    sampler = Sampler(*networks(CONFIG))
    latent = fresh_rng().normal(size=(4, 12)).astype(np.float32)
    faces = sampler.faces(latent)
    maps = np.stack([sampler.attention(z, "8x8") for z in latent])
    figures, made = changes(sampler, faces, maps, latent, range(64))
    of_all = [sampler.values(z)["8x8"] for z in latent]
    np.testing.assert_array_equal(made, told(sampler, latent, of_all, range(64)))
    values = sampler.values(latent[1])["8x8"]
    wanted = sampler.faces(latent[2][None], values={"8x8": dict(enumerate(values))})[0]
    np.testing.assert_array_equal(made[2], wanted)
    assert figures["faces with enough who look"] == 4
    moved = np.abs(made.astype(int) - faces).mean()
    bands = figures["grey levels, by the weight that goes there"]
    assert bands["between"] is bands["less than a twentieth"] is None  # all of everybody's goes there
    assert bands["more than half"] == pytest.approx(moved, abs=0.06)
    before, after = (pictures.reshape(4, -1, 3).astype(float).mean(1) for pictures in (faces, made))
    ways = figures["share of the way to the other's colour, and correlation, where these are told"]
    assert ways["these two"] == pytest.approx(toward(before, after, np.roll(before, 1, 0)), abs=0.006)
    assert ways["all"] == ways["these two"] and ways["all the others"] == pytest.approx([0, 0], abs=0.006)
    chance = [toward(before, after, np.roll(before, shift, 0)) for shift in (2, 3)]
    assert figures["the same to faces that told nothing"] == pytest.approx(np.mean(chance, 0), abs=0.006)


def test_weights_that_count_times_a_size() -> None:
    rows = np.array([[0.5, 0.25, 0.25], [0, 1, 0]])
    counted = times(rows, np.array([1, 2, 4]))
    np.testing.assert_allclose(counted, [[0.25, 0.25, 0.5], [0, 1, 0]])
    np.testing.assert_array_equal(times(rows, np.zeros(3)), rows)
    assert elsewhere(rows, counted) == pytest.approx(
        0.125
    )  # a quarter of the first row, nothing of the other
    assert elsewhere(rows, rows) == 0
    assert elsewhere(np.eye(3), np.eye(3)[::-1][:, [1, 0, 2]]) == 1


def test_what_becomes_of_maps_if_weights_count_times_the_lengths_of_values() -> None:
    """Each figure from one forward of each face by hand; values all alike change nothing."""
    generator, discriminator = networks(CONFIG)
    sampler = Sampler(generator, discriminator)
    latent = fresh_rng().normal(size=(3, 12)).astype(np.float32)
    figures = lengths(sampler, latent)
    assert list(figures) == list(sampler.layers)
    for layer, said in figures.items():
        faces = []
        for z in latent:
            weights, values = sampler.attention(z, layer).astype(np.float64), sampler.values(z)[layer]
            sizes = np.sqrt((values.astype(np.float64) ** 2).sum(1))
            apart = np.sqrt(((values - values.astype(np.float64).mean(0)) ** 2).sum(1))
            moved, stays = [], 0
            for row in weights:
                new, other = row * sizes / (row @ sizes), row * apart / (row @ apart)
                moved.append([abs(new - row).sum() / 2, abs(other - row).sum() / 2])
                stays += new.argmax() == row.argmax()
            main_cells_of_face = np.argsort(-weights.sum(0))[:5]
            ratio = sizes[main_cells_of_face].mean() / sizes.mean()
            faces.append([*np.mean(moved, 0), stays / len(weights), ratio])
        assert list(said.values()) == pytest.approx(np.median(faces, 0), abs=6e-4)
    for layer in generator.attention.values():
        torch.nn.init.zeros_(layer.value.weight)
    alike = lengths(Sampler(generator, discriminator), latent)
    for said in alike.values():
        assert said["weight that lies elsewhere"] == 0 and said["rows whose strongest key stays"] == 1
        assert said["length of main cells' values"] == 1


def test_the_command_writes_figures_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(main_cells, "FACES", 12)
    monkeypatch.setattr(main_cells, "MUCH", 0.05)
    monkeypatch.setattr(main_cells, "LITTLE", 0.04)
    monkeypatch.setattr(main_cells, "FEWEST", 1)
    model = tmp_path / "model"
    checkpoint.save(model, Classes(), *networks(CONFIG), [], "# Test")
    main(["--checkpoint", str(model), "--out", str(tmp_path / "new" / "out")])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "new" / "out" / "figures.json").read_text())
    assert 5 / 64 < printed["share of weight"] < 1
    counted = printed["if weights count times the lengths of values"]
    assert set(counted) == {"8x8", "16x16"} and 0 < counted["8x8"]["weight that lies elsewhere"] < 1
    for name in ("looked_at.png", "told.png"):
        with Image.open(tmp_path / "new" / "out" / name) as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_where_nobody_looks_there_no_figure_is_given() -> None:
    sampler = Sampler(*networks(CONFIG))
    latent = fresh_rng().normal(size=(4, 12)).astype(np.float32)
    maps = np.full((4, 64, 64), 1 / 64)
    figures, _ = changes(sampler, sampler.faces(latent), maps, latent, [3, 5])
    assert figures["faces with enough who look"] == 0
    assert figures["grey levels, by the weight that goes there"]["more than half"] is None
    ways = figures["share of the way to the other's colour, and correlation, where these are told"]
    assert set(ways.values()) == {None} and figures["the same to faces that told nothing"] is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"g_attention": ()}, "has no attention"), ({"num_classes": 2}, "models without classes")],
)
def test_a_model_that_this_is_not_for_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, change: dict, sentence: str
) -> None:
    config = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, **change)
    names = ("a", "b")[: config.num_classes]
    checkpoint.save(tmp_path / "model", Classes(names), *networks(config), [], "# Test")
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
