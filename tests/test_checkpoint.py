"""The checkpoint folder: what is written comes back, what is broken is refused, and a crash loses nothing."""

import csv
import dataclasses
import errno
import json
import math
import os
import pickle
import resource
import shutil
import signal
import stat
import sys
import threading
import time
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import ModelInfo
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from randomness import fresh_rng
from safetensors.torch import load_file, save_file
from torch import nn

from sagan import checkpoint
from sagan.checkpoint import CheckpointError
from sagan.classes import Classes
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import Sampler

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(
    image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3, d_attention=(16,), d_spectral_norm=False
)
NAMES = {PLAIN: (), CONDITIONAL: ("not Smiling", "Smiling", "été 😀")}
HISTORY = [{"step": 50, "images": 3200, "d_loss": 1.25}, {"step": 100, "images": 6400, "g_gamma_8x8": -0.125}]


def networks(config: SaganConfig) -> tuple[Generator, Discriminator]:
    """Plain networks in eval mode, every number of which matters."""
    pair = Generator(config, spectral=False), Discriminator(config, spectral=False)
    for network in pair:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
        network.eval().requires_grad_(False)
    return pair


def save(
    folder: Path, config: SaganConfig = PLAIN, counts: tuple[int, ...] = (), **extras
) -> tuple[Generator, Discriminator]:
    pair = networks(config)
    checkpoint.save(folder, Classes(NAMES[config], counts), *pair, HISTORY, "# A card, été\n", **extras)
    return pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of an unconditional model."""
    save(tmp_path / "model")
    return tmp_path / "model"


def refusal(load, *arguments) -> str:
    """The sentence with which `load` refuses; it ends in a full stop and is a single line."""
    with pytest.raises(CheckpointError) as error:
        load(*arguments)
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def change_config(folder: Path, **changes) -> None:
    """Change entries of config.json; ... takes one away."""
    path = folder / "config.json"
    stored = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not ...}))


def change_model(folder: Path, **changes) -> None:
    change_config(folder, model=json.loads((folder / "config.json").read_text())["model"] | changes)


def change_tensors(path: Path, change) -> None:
    """Rewrite a safetensors file after `change` has edited the dictionary of its tensors."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


# Round trip


@pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_weights_come_back_as_fp16_where_they_have_two_dimensions_and_exact_elsewhere(tmp_path, config):
    saved = save(tmp_path / "model", config)
    for network, name in zip(saved, ("generator", "discriminator"), strict=True):
        stored = load_file(tmp_path / "model" / f"{name}.safetensors")
        assert stored.keys() == network.state_dict().keys()
        loaded = getattr(checkpoint, f"load_{name}")(tmp_path / "model").state_dict()
        for key, value in network.state_dict().items():
            assert stored[key].dtype == (torch.float16 if value.ndim >= 2 else value.dtype), key
            expected = value.numpy().astype(np.float16) if value.ndim >= 2 else value.numpy()
            np.testing.assert_array_equal(loaded[key].numpy(), expected.astype(value.numpy().dtype))
            assert loaded[key].dtype == value.dtype, key


@pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_loaded_networks_answer_as_the_saved_ones_to_the_precision_of_fp16(tmp_path, config):
    generator, discriminator = save(tmp_path / "model", config)
    z, images = 10 * torch.randn(16, 12), torch.rand(16, 3, 32, 32) * 2 - 1  # long: faces surely differ
    labels = torch.randint(3, (16,)) if config.num_classes else None
    for network, load, x in (
        (generator, checkpoint.load_generator, z),
        (discriminator, checkpoint.load_discriminator, images),
    ):
        loaded = load(tmp_path / "model")
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        with torch.inference_mode():
            expected, answer = network(x, labels), loaded(x, labels)
        assert expected.std() > 0.05
        torch.testing.assert_close(answer, expected, atol=0.01 * expected.std().item(), rtol=0.01)


@pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_the_config_and_the_class_names_come_back_exactly(tmp_path, config):
    save(tmp_path / "model", config)
    assert checkpoint.load_config(tmp_path / "model") == (config, Classes(NAMES[config]))
    stored = json.loads((tmp_path / "model/config.json").read_text())
    assert stored["format_version"] == 1
    assert set(stored["model"]) == {field.name for field in dataclasses.fields(SaganConfig)}


def test_history_and_card_come_back(folder):
    assert checkpoint.read_history(folder) == HISTORY
    assert checkpoint.read_card(folder) == "# A card, été\n"
    lines = (folder / "history.csv").read_text().splitlines()
    assert lines == ["step,images,d_loss,g_gamma_8x8", "50,3200,1.25,", "100,6400,,-0.125"]


def test_a_history_that_is_read_and_written_again_is_the_same_text(folder, tmp_path):
    checkpoint.write_history(tmp_path / "again.csv", checkpoint.read_history(folder))
    assert (tmp_path / "again.csv").read_bytes() == (folder / "history.csv").read_bytes()


def test_a_checkpoint_without_history_and_card_has_empty_ones(folder):
    for name in ("history.csv", "model_card.md"):
        (folder / name).unlink()
    assert checkpoint.read_history(folder) == []
    assert checkpoint.read_card(folder) == ""


def test_a_card_may_name_files_that_are_not_valid_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.zip")
    checkpoint.save(tmp_path / "model", Classes(), *networks(PLAIN), [], f"Data: {name}")
    assert checkpoint.read_card(tmp_path / "model") == "Data: caf?.zip"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_everybody_may_read_what_the_umask_lets_them(tmp_path, mask):
    before = os.umask(mask)
    try:
        save(tmp_path / "model")
        tensors = {"codes": torch.zeros(2)}
        sha = checkpoint.generator_hash(tmp_path / "model")
        checkpoint.add_companion(tmp_path / "model", "average_maps.safetensors", tensors, sha, {})
    finally:
        os.umask(before)
    for path in (tmp_path / "model").iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path.name


def test_raw_weights_and_state_are_written_only_where_they_are_given(tmp_path):
    save(tmp_path / "shipped")
    shipped = {"config.json", "generator.safetensors", "discriminator.safetensors"}
    shipped |= {"history.csv", "model_card.md"}
    assert {path.name for path in (tmp_path / "shipped").iterdir()} == shipped

    moment = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    raw = networks(PLAIN)[0]
    save(tmp_path / "run", raw_generator=raw, state=({"moment": moment}, {"step": 7}))
    kept = {"generator_raw.safetensors", "state.safetensors", "state.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == shipped | kept
    assert torch.equal(load_file(tmp_path / "run/state.safetensors")["moment"], moment)
    assert json.loads((tmp_path / "run/state.json").read_text()) == {"step": 7}
    loaded = checkpoint.load_generator(tmp_path / "run", "generator_raw.safetensors")
    assert torch.equal(loaded.to_image.weight, raw.to_image.weight.half().float())


def test_the_shipped_generator_at_64_pixels_stays_under_10_megabytes(tmp_path):
    config = SaganConfig()
    pair = Generator(config, spectral=False), Discriminator(config, spectral=False)
    checkpoint.save(tmp_path / "model", Classes(), *pair, [], "")
    for name in ("generator", "discriminator"):
        assert (tmp_path / f"model/{name}.safetensors").stat().st_size < 10_000_000


# Finding


def test_a_run_folder_stands_for_its_checkpoint(tmp_path):
    save(tmp_path / "run/checkpoint")
    assert checkpoint.find(tmp_path / "run") == tmp_path / "run/checkpoint"
    assert checkpoint.find(str(tmp_path / "run/checkpoint")) == tmp_path / "run/checkpoint"


def test_the_current_folder_can_be_a_checkpoint_or_a_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert checkpoint.find(".").samefile(folder)
    checkpoint.load_generator(checkpoint.find("."))


def test_a_missing_folder_and_one_that_is_no_checkpoint_are_told_apart(tmp_path):
    absent = tmp_path / "absent"
    assert refusal(checkpoint.find, absent).startswith(
        f"No checkpoint at '{absent}': the folder does not exist."
    )
    assert refusal(checkpoint.find, tmp_path).startswith(
        f"No checkpoint at '{tmp_path}': the folder has no config.json."
    )


def test_a_link_that_leads_to_itself_is_no_checkpoint(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refusal(checkpoint.find, tmp_path / "loop").startswith(f"No checkpoint at '{tmp_path / 'loop'}': ")


def test_a_name_that_no_file_can_have_is_refused():
    assert refusal(checkpoint.find, "x" * 5000) == f"No checkpoint at '{'x' * 5000}': File name too long."


@pytest.fixture(autouse=True)
def on_hub(monkeypatch) -> dict[str, int | None]:
    """The sizes of the files that any repository of the Hub has, none at first: nothing asks the real one."""
    sizes = {}

    def model_info(name: str, files_metadata: bool, timeout: float) -> ModelInfo:
        files = [
            {"rfilename": file, "size": size if files_metadata else None} for file, size in sizes.items()
        ]
        return ModelInfo(id=name, siblings=files)

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    return sizes


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("generator.safetensors", 1024),
        ("checkpoint/film.safetensors", 1024),
        ("config.json", 16),
        ("history.csv", 64),
        ("checkpoint/model_card.md", 16),
    ],
)
def test_a_file_of_the_hub_larger_than_what_is_read_is_not_downloaded(
    on_hub, folder, monkeypatch, name, most
):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: asked.append(1) or str(folder))
    on_hub |= {name: most << 20, "model-00001-of-00030.safetensors": 1 << 40, "film.safetensors": None}
    assert checkpoint.find("some-owner/some-model") == folder and asked == [1]
    on_hub[name] += 1
    sentence = f"'some-owner/some-model/{name}' is larger than {most} MiB, the most that is read."
    assert refusal(checkpoint.find, "some-owner/some-model") == sentence
    assert asked == [1]


def test_what_was_downloaded_before_opens_without_a_network(folder, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    assert checkpoint.find("some-owner/some-model") == folder


def test_a_hub_id_is_downloaded_without_anything_that_could_hold_a_pickle(folder, monkeypatch):
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert checkpoint.find("some-owner/some.model_2") == folder
    assert asked["name"] == "some-owner/some.model_2"
    parts = ["config.json", "generator.safetensors", "film.safetensors", "curated.json", "model_card.md"]
    parts += ["generator_raw.safetensors", "state.json"]  # from which another run can start
    ours = [f"{run}{part}" for run in ("", "checkpoint/") for part in parts]
    others = ["model.bin", "model-00001-of-00030.safetensors", "a/generator.safetensors", "generator.pkl"]
    others += ["checkpoint/state.safetensors", "best/generator.safetensors"]  # of no use here
    wanted = asked["allow_patterns"]
    assert list(filter_repo_objects([*ours, *others], allow_patterns=wanted)) == ours


def test_a_run_folder_on_the_hub_is_its_checkpoint(folder, tmp_path, monkeypatch):
    run = tmp_path / "snapshot"
    shutil.copytree(folder, run / "checkpoint")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(run))
    assert checkpoint.find("some-owner/a-run") == run / "checkpoint"


def test_a_hub_repository_of_something_else_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert refusal(checkpoint.find, "some-owner/else") == (
        "No checkpoint at 'some-owner/else': that repository of the Hub has no config.json."
    )


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("offline"), OSError("no route"), RuntimeError("proxy")]
)
def test_a_hub_that_does_not_deliver_is_one_sentence(monkeypatch, error):
    def download(name, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert refusal(checkpoint.find, "some-owner/some-model").startswith(
        "No checkpoint at 'some-owner/some-model': no such folder, and the Hugging Face Hub did not deliver"
    )


@pytest.fixture
def no_hub(monkeypatch):
    """Fail where the Hub is asked."""
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the Hub was asked")
    )


def test_a_name_that_no_hub_repository_can_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "did not deliver" in refusal(checkpoint.find, "some-owner/two--hyphens")


@pytest.mark.parametrize("name", ["faces", "a/b/c", "/a/b", "../a", "a b/c", ""])
def test_what_is_no_hub_id_never_reaches_the_hub(no_hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert refusal(checkpoint.find, name).startswith(f"No checkpoint at '{name}'")


def test_a_missing_folder_inside_one_that_exists_never_reaches_the_hub(no_hub, tmp_path, monkeypatch):
    """checkpoints/celeba64 of a clone without weights is a folder's name, whoever may own it on the Hub."""
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").mkdir()
    assert "the folder does not exist" in refusal(checkpoint.find, "checkpoints/celeba64")


def test_a_file_of_a_checkpoint_is_not_taken_for_a_missing_folder(no_hub, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for path in (folder / "generator.safetensors", Path(folder.name, "config.json")):
        sentence = f"'{path}' is a file: name the folder that it is in, '{path.parent}'."
        assert refusal(checkpoint.find, path) == sentence
        assert checkpoint.find(path.parent) == path.parent


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_folder_whose_name_is_not_utf_8_is_told_so(folder):
    named = folder.rename(os.fsdecode(os.fsencode(folder) + b"\xff"))
    sentence = refusal(checkpoint.find, named)
    assert sentence == f"'{folder}\\udcff' is not text in UTF-8, which checkpoints need."


# Refusing: files


@pytest.mark.parametrize("name", ["config.json", "generator.safetensors", "discriminator.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    load = checkpoint.load_discriminator if name.startswith("disc") else checkpoint.load_generator
    assert refusal(load, folder) == f"'{folder / name}' is missing."


@pytest.mark.parametrize("share", [0, 1e-4, 0.003, 0.02, 0.5, 0.99, 1])
def test_a_truncated_file_is_refused_wherever_it_was_cut(folder, share):
    path = folder / "generator.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    sentence = f"'{path}' is not a safetensors file, or only a part of one."
    assert refusal(checkpoint.load_generator, folder) == sentence


def test_a_file_cut_at_any_byte_of_its_header_is_refused(folder):
    path = folder / "generator.safetensors"
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in fresh_rng().integers(0, header, 50):
        path.write_bytes(content[:length])
        refusal(checkpoint.load_generator, folder)


class Trap:
    """Unpickling it ends the process."""

    def __reduce__(self):
        return os._exit, (66,)


FOREIGN = {
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Trap())),
    "torch.save": lambda path: torch.save({"weight": Trap()}, path),
    "random bytes": lambda path: path.write_bytes(fresh_rng().bytes(5000)),
    "a header of 2**63 bytes": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}"),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "a folder": lambda path: path.unlink() or path.mkdir(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_and_never_unpickled(folder, kind):
    path = folder / "generator.safetensors"
    FOREIGN[kind](path)
    sentence = f"'{path}' is not a safetensors file, or only a part of one."
    assert refusal(checkpoint.load_generator, folder) == sentence


@pytest.mark.parametrize("kind", [Generator, Discriminator])
def test_a_checkpoint_whose_keys_still_have_a_bias_gives_the_same_images_and_scores(folder, kind):
    load = {Generator: checkpoint.load_generator, Discriminator: checkpoint.load_discriminator}[kind]
    path = folder / f"{kind.__name__.lower()}.safetensors"
    x = torch.randn((2, 12) if kind is Generator else (2, 3, 32, 32))
    network = load(folder)
    expected = network(x)
    biases = {f"attention.{name}.key.bias": torch.ones(1) for name in network.attention}
    assert biases
    save_file(load_file(path) | biases, path)
    assert torch.equal(load(folder)(x), expected)
    save_file(load_file(path) | {"attention.key.bias": torch.ones(1)}, path)
    assert "'attention.key.bias' is (1,), expected no such tensor" in refusal(load, folder)


def test_the_weights_of_another_network_are_refused_by_the_first_tensor_that_does_not_fit(folder):
    shutil.copy(folder / "discriminator.safetensors", folder / "generator.safetensors")
    sentence = refusal(checkpoint.load_generator, folder)
    assert sentence.startswith(f"'{folder / 'generator.safetensors'}' does not fit its config.json: ")
    assert "is missing, expected (" in sentence


@pytest.mark.parametrize(
    ("changes", "odd"),
    [
        ({"g_width": 16}, "'blocks.0.conv.weight' is (12, 32, 4, 4), expected (12, 64, 4, 4)"),
        ({"z_dim": 13}, "'blocks.0.conv.weight' is (12, 32, 4, 4), expected (13, 32, 4, 4)"),
        ({"g_attention": [8]}, "'attention.16x16.gamma' is (), expected no such tensor"),
        ({"g_attention": [8, 4]}, "'attention.4x4.gamma' is missing, expected ()"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_the_config_are_refused(folder, changes, odd):
    change_model(folder, **changes)
    path = folder / "generator.safetensors"
    assert refusal(checkpoint.load_generator, folder) == f"'{path}' does not fit its config.json: {odd}."


def test_one_tensor_too_many_or_too_few_is_refused(folder):
    path = folder / "generator.safetensors"
    change_tensors(path, lambda tensors: tensors.update(more=torch.zeros(2)))
    assert "'more' is (2,), expected no such tensor" in refusal(checkpoint.load_generator, folder)
    change_tensors(path, lambda tensors: (tensors.pop("more"), tensors.pop("to_image.bias")))
    assert "'to_image.bias' is missing, expected (3,)" in refusal(checkpoint.load_generator, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["to_image.weight", "attention.8x8.gamma", "blocks.1.norm.running_var"])
def test_weights_that_are_not_finite_are_refused(folder, name, value):
    path = folder / "generator.safetensors"
    change_tensors(path, lambda tensors: tensors[name].view(-1)[-1].fill_(value))
    assert (
        refusal(checkpoint.load_generator, folder) == f"'{path}' holds weights that are not finite numbers."
    )


def test_weights_too_large_for_float32_are_refused(folder):
    path = folder / "generator.safetensors"
    change_tensors(
        path, lambda tensors: tensors.update({"to_image.bias": torch.full((3,), 1e300, dtype=torch.float64)})
    )
    assert (
        refusal(checkpoint.load_generator, folder) == f"'{path}' holds weights that are not finite numbers."
    )


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float64, torch.bfloat16, torch.float8_e4m3fn]
)
def test_weights_of_other_types_become_float32(folder, dtype):
    def change(tensors):
        tensors["to_image.weight"] = (4 * tensors["to_image.weight"]).to(dtype)

    change_tensors(folder / "generator.safetensors", change)
    generator = checkpoint.load_generator(folder)
    assert {parameter.dtype for parameter in generator.parameters()} == {torch.float32}
    assert generator(torch.randn(2, 12)).isfinite().all()


# Refusing: config.json


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"format_version": 1,}', "NaNs", "[" * 100_000, "\N{BYTE ORDER MARK}{}", '{"a": "\\ud800"}'],
    ids=["empty", "cut", "comma", "NaNs", "deep", "byte order mark", "half a letter"],
)
def test_broken_json_is_refused(folder, text):
    path = folder / "config.json"
    path.write_text(text, encoding="utf-8")
    assert refusal(checkpoint.load_config, folder).startswith(f"'{path}' is not valid JSON")


def test_a_config_that_is_no_text_is_refused(folder):
    path = folder / "config.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert refusal(checkpoint.load_config, folder).startswith(f"'{path}' cannot be read")


@pytest.mark.parametrize(
    "text", ["[]", "null", "1", '"text"', "{}", '{"model": []}', '{"model_type": "bert"}']
)
def test_a_config_of_something_else_is_refused(folder, text):
    path = folder / "config.json"
    path.write_text(text)
    assert refusal(checkpoint.load_config, folder) == f"'{path}' does not describe a SAGAN checkpoint."


@pytest.mark.parametrize("version", [2, 0, None, "1", ...])
def test_an_unknown_or_absent_format_version_is_refused(folder, version):
    change_config(folder, format_version=version)
    shown = None if version is ... else version
    assert refusal(checkpoint.load_config, folder) == (
        f"'{folder / 'config.json'}' has format version {shown!r}, but this program reads version 1."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"g_width": 10**12},
        {"d_width": 513},
        {"z_dim": 10**9},
        {"num_classes": 10**7},
        {"num_classes": -1},
        {"image_size": 1 << 20},
        {"image_size": 32.0},
        {"g_width": 8.0},
        {"g_width": float("nan")},
        {"g_width": "8"},
        {"g_width": None},
        {"g_attention": [64]},
        {"d_attention": "8"},
        {"d_attention": [8.0]},
        {"d_attention": [[8]]},
        {"d_attention": list(range(10**5))},
        {"d_spectral_norm": "yes"},
        {"temperature": 1},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_config_that_cannot_be_built_is_refused(folder, changes):
    change_model(folder, **changes)
    path = folder / "config.json"
    sentence = refusal(checkpoint.load_config, folder)
    assert sentence.startswith(f"'{path}' does not describe a network that can be built: ")
    assert next(iter(changes)) in sentence


@pytest.mark.parametrize("names", [["a", "b"], [], ..., None, 3, "abc", {"a": 1, "b": 2, "c": 3}], ids=repr)
def test_class_names_that_are_not_one_for_each_class_are_refused(tmp_path, names):
    save(tmp_path / "model", CONDITIONAL)
    change_config(tmp_path / "model", class_names=names)
    sentence = refusal(checkpoint.load_config, tmp_path / "model")
    assert sentence.startswith(f"'{tmp_path / 'model/config.json'}' ") and "a list of 3" in sentence


def test_the_numbers_of_images_of_the_classes_come_back_where_they_are_known(tmp_path):
    save(tmp_path / "known", CONDITIONAL, (5, 0, 7))
    assert checkpoint.load_config(tmp_path / "known")[1].counts == (5, 0, 7)
    for config in (PLAIN, CONDITIONAL):
        save(tmp_path / "unknown", config)
        assert checkpoint.load_config(tmp_path / "unknown")[1].counts == ()


@pytest.mark.parametrize(
    "counts",
    [[1, 2], [0, 0, 0], [5, 3, -2], [1, 2, 3.5], [0, 2**53, 1], {"a": 1}, 3, "abc", None, 0, {}],
    ids=repr,
)
def test_numbers_of_images_that_no_classes_can_have_are_refused(tmp_path, counts):
    save(tmp_path / "model", CONDITIONAL)
    change_config(tmp_path / "model", class_counts=counts)
    sentence = refusal(checkpoint.load_config, tmp_path / "model")
    assert (
        sentence.startswith(f"'{tmp_path / 'model/config.json'}' must give")
        and "of its 3 classes" in sentence
    )


def test_a_plain_model_may_go_without_class_names(folder):
    change_config(folder, class_names=...)
    assert checkpoint.load_config(folder) == (PLAIN, Classes())


def test_the_largest_networks_a_config_allows_take_no_memory_when_the_weights_do_not_fit(folder):
    """These would take 6 GB; a file that does not hold them is refused before any of it is asked for."""
    largest = {"image_size": 128, "z_dim": 1024, "g_width": 512, "d_width": 512, "num_classes": 10_000}
    change_model(folder, **largest, g_attention=[4, 8, 16, 32, 64], d_attention=[4, 8, 16, 32, 64])
    change_config(folder, class_names=["x"] * 10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for load in (checkpoint.load_generator, checkpoint.load_discriminator):
        assert "does not fit its config.json" in refusal(load, folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 200e6


def refusal_unread(load, folder: Path) -> str:
    """The sentence with which `load` refuses, and that it took no memory for what it would have read."""
    tracemalloc.start()
    try:
        sentence = refusal(load, folder)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()
    return sentence


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="this system has no endless file")
@pytest.mark.parametrize("kind", ["endless", "a pipe"])
def test_a_device_or_a_pipe_is_refused_unread(folder, kind):
    for name, load in (
        ("generator.safetensors", checkpoint.load_generator),
        ("generator.safetensors", checkpoint.generator_hash),
        ("discriminator.safetensors", checkpoint.load_discriminator),
        ("config.json", checkpoint.load_config),
    ):
        path = folder / name
        kept = path.rename(folder / "kept")
        if kind == "endless":
            path.symlink_to("/dev/zero")
        else:
            os.mkfifo(path)
        assert refusal_unread(load, folder) == f"'{path}' is a device or a pipe, not a file."
        path.unlink()
        kept.rename(path)


def test_a_file_larger_than_a_gibibyte_is_refused_unread(folder):
    path = folder / "generator.safetensors"
    os.truncate(path, (1 << 30) + 1)  # sparse: it takes no room
    for load in (checkpoint.load_generator, checkpoint.generator_hash):
        assert refusal_unread(load, folder) == f"'{path}' is larger than 1024 MiB, the most that is read."


@pytest.mark.parametrize(
    ("name", "load"), [("config.json", checkpoint.load_config), ("model_card.md", checkpoint.read_card)]
)
def test_a_text_larger_than_16_mebibytes_is_refused_unread(folder, name, load):
    os.truncate(folder / name, (1 << 24) + 1)
    assert refusal_unread(load, folder) == f"'{folder / name}' is larger than 16 MiB, the most that is read."


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("model_card.md", checkpoint.read_card),
        ("history.csv", checkpoint.read_history),
        ("config.json", checkpoint.load_config),
    ],
)
def test_a_link_out_of_the_checkpoint_is_refused_except_those_of_the_hub(folder, tmp_path, name, load):
    def link(to: Path, at: Path) -> Path:
        at.mkdir(parents=True)
        (at / name).symlink_to(to)
        return at

    usual = load(folder)
    secret = tmp_path / "secrets" / "file"
    secret.parent.mkdir()
    shutil.copy(folder / name, secret)
    outside = link(secret, tmp_path / "hostile")
    sentence = f"'{outside / name}' is a link that leads out of its folder: put a copy there."
    assert refusal(load, outside) == sentence
    hub = tmp_path / "models--someone--faces"
    blob = hub / "blobs" / "0a1b2c"
    blob.parent.mkdir(parents=True)
    shutil.copy(folder / name, blob)
    assert load(link(blob, hub / "snapshots" / "3d4e")) == usual
    assert load(link(blob, hub / "snapshots" / "5f6a" / "checkpoint")) == usual
    shared = tmp_path / "blobs" / "e7" / "0a1b2c"  # among all models
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert load(hub / "snapshots" / "3d4e") == usual
    foreign = tmp_path / "models--other" / "blobs" / "0a1b2c"
    foreign.parent.mkdir(parents=True)
    shutil.copy(folder / name, foreign)
    beside = link(foreign, hub / "snapshots" / "7b8c")
    assert refusal(load, beside) == sentence.replace(str(outside), str(beside))
    (tmp_path / "alias").symlink_to(folder)
    assert load(tmp_path / "alias") == usual


def test_a_number_of_thousands_of_digits_in_the_history_is_as_large_as_any(folder):
    (folder / "history.csv").write_text(f"d_loss,images\n{'9' * 4000},{2**53 + 1}\n")
    assert checkpoint.read_history(folder) == [{"d_loss": math.inf, "images": 2**53 + 1}]


@pytest.mark.parametrize("name", ["step", "images"])
@pytest.mark.parametrize(
    "value", ["9" * 4000, "inf", "nan", "1e30", "9007199254740994", "-1"], ids=lambda value: value[:20]
)
def test_a_history_whose_steps_cannot_be_counted_is_refused(folder, name, value):
    (folder / "history.csv").write_text(f"{name}\n{value}\n")
    path = folder / "history.csv"
    assert refusal(checkpoint.read_history, folder) == (
        f"'{path}' is not a table of numbers: {name} is {float(value)}."
    )


def test_weights_of_a_type_that_has_no_conversion_are_refused(folder):
    path = folder / "generator.safetensors"

    def change(tensors: dict) -> None:
        pairs = len(tensors["blocks.1.norm.bias"]) // 2
        tensors["blocks.1.norm.bias"] = torch.zeros(pairs, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)

    change_tensors(path, change)
    sentence = f"'{path}' holds weights of a type that is not read."
    assert refusal(checkpoint.load_generator, folder) == sentence


def test_a_history_larger_than_64_mebibytes_is_refused_unread(folder):
    path = folder / "history.csv"
    os.truncate(path, (1 << 26) + 1)
    sentence = f"'{path}' is larger than 64 MiB, the most that is read."
    assert refusal_unread(checkpoint.read_history, folder) == sentence


def test_a_history_that_this_user_may_not_read_is_refused(folder, monkeypatch):
    def locked(path: Path, *_, **__) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = folder / "history.csv"
    monkeypatch.setattr(Path, "open", locked)
    assert refusal(checkpoint.read_history, folder) == (
        f"'{path}' cannot be read: [Errno 13] Permission denied: '{path}'."
    )


def test_a_history_that_goes_while_it_is_read_is_not_taken_for_a_damaged_one(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "_check_place", Path.unlink)
    with pytest.raises(FileNotFoundError):
        checkpoint.read_history(folder)


@pytest.mark.parametrize(
    "text",
    ["step,images\n1,many\n", "step\n1,2,3\n", "step\n\xff\n", "step\n" + "1" * 200_000],
    ids=["words", "a cell too many", "no text", "a huge cell"],
)
def test_a_history_that_is_no_table_of_numbers_is_refused(folder, text):
    (folder / "history.csv").write_text(text, encoding="latin-1")
    sentence = refusal(checkpoint.read_history, folder)
    assert sentence.startswith(f"'{folder / 'history.csv'}' is not a table of numbers: ")


# Companion files


def write_companion(folder: Path, name: str, sha256: str) -> None:
    if name.endswith(".json"):
        (folder / name).write_text(json.dumps({"generator_sha256": sha256, "faces": []}))
    else:
        save_file({"x": torch.zeros(2)}, folder / name, {"generator_sha256": sha256})


@pytest.mark.parametrize("name", ["curated.json", "film.safetensors"])
def test_a_companion_file_is_taken_only_with_the_generator_it_was_made_for(folder, tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.companion(folder, name) is None
        write_companion(folder, name, checkpoint.generator_hash(folder))
        assert checkpoint.companion(folder, name) == folder / name

    save(tmp_path / "other")
    shutil.copy(folder / name, tmp_path / "other" / name)
    with pytest.warns(UserWarning, match="was made for another generator or is damaged, and is left out"):
        assert checkpoint.companion(tmp_path / "other", name) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("curated.json", b"{"),
        ("curated.json", b"[1]"),
        ("curated.json", b"{}"),
        ("curated.json", b"\xff"),
        ("film.safetensors", b"\x00" * 20),
        ("film.safetensors", pickle.dumps(Trap())),
    ],
)
def test_a_damaged_companion_file_is_left_out_with_a_warning(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged, and is left out"):
        assert checkpoint.companion(folder, name) is None


def test_a_companion_file_without_a_hash_is_left_out_with_a_warning(folder):
    save_file({"x": torch.zeros(2)}, folder / "film.safetensors")
    with pytest.warns(UserWarning, match="is left out"):
        assert checkpoint.companion(folder, "film.safetensors") is None


# A run that saves meanwhile


@pytest.fixture
def gone(monkeypatch) -> None:
    """Every file of tensors is taken away once it was opened, before torch opens it again."""
    from_file = torch.UntypedStorage.from_file

    def overtaken(path: str, **options) -> torch.UntypedStorage:
        Path(path).unlink()
        return from_file(path, **options)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", overtaken)


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_weights_that_go_while_they_are_read_are_missing(folder, gone, name):
    load = getattr(checkpoint, f"load_{name}")
    assert refusal(load, folder) == f"'{folder / name}.safetensors' is missing."


def test_a_companion_that_goes_while_it_is_read_is_left_out(folder, gone):
    write_companion(folder, "film.safetensors", checkpoint.generator_hash(folder))
    with pytest.warns(UserWarning, match="is left out"):
        assert checkpoint.companion(folder, "film.safetensors") is None


def test_a_sampler_does_not_open_what_goes_while_it_is_read(folder, gone):
    assert refusal(Sampler.load, folder) == f"'{folder / 'generator.safetensors'}' is missing."


def test_a_lack_of_memory_is_not_taken_for_a_missing_file(folder, monkeypatch):
    def refuse(*_, **__) -> None:
        raise RuntimeError("unable to mmap 100 bytes from file: Cannot allocate memory (12)")

    monkeypatch.setattr(torch.UntypedStorage, "from_file", refuse)
    with pytest.raises(RuntimeError, match="Cannot allocate memory"):
        checkpoint.load_generator(folder)


# Crashes


def test_a_second_rename_that_fails_puts_the_old_checkpoint_back(tmp_path, monkeypatch):
    save_version(tmp_path / "model", 1)
    rename = Path.rename

    def refuse(self, target):
        if ".new-" in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError):
        save_version(tmp_path / "model", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and load_version(tmp_path / "model") == 1


@pytest.fixture
def synced(monkeypatch) -> list[Path]:
    """What is synced during the test, in this order."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("files are named by Linux alone")
    synced, fsync = [], os.fsync

    def noting(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    return synced


def test_a_checkpoint_is_synced_whole_then_its_folder_then_the_folder_around(tmp_path, synced):
    save_version(tmp_path / "model", 1)
    *files, folder, around = synced
    assert {path.name for path in files} == {path.name for path in (tmp_path / "model").iterdir()}
    assert {path.parent for path in files} == {folder} and folder.name.startswith(".model.new-")
    assert around == tmp_path


@pytest.mark.parametrize("links", [True, False])
def test_what_is_carried_over_is_synced_before_it_is_all_there_is(tmp_path, monkeypatch, synced, links):
    if not links:
        without_links(monkeypatch)
    folder = tmp_path / "model"
    save_version(folder, 1)
    (folder / "notes/later").mkdir(parents=True)
    for name in ("mine.txt", "notes/later/list.txt"):
        (folder / name).write_text(name)
    (folder / "link").symlink_to("mine.txt")
    synced.clear()
    save_version(folder, 2)
    *earlier, new, around = synced
    assert new.name.startswith(".model.new-") and around == tmp_path
    carried = [str(path.relative_to(new)) for path in earlier if path.name not in checkpoint.OF_RUN]
    # What is linked is on the disk already.
    copies = set() if links else {"mine.txt", "notes/later/list.txt"}
    assert {*carried} == {"notes/later", "notes"} | copies
    assert carried.index("notes/later") < carried.index("notes")


def save_version(folder: Path, version: int) -> None:
    """A checkpoint every file of which says which version it is."""
    config = SaganConfig(image_size=32, z_dim=12, g_width=1, d_width=1, num_classes=1)
    pair = Generator(config, spectral=False), Discriminator(config, spectral=False)
    for parameter in (*pair[0].parameters(), *pair[1].parameters()):
        nn.init.constant_(parameter, version)
    state = {"x": torch.full((300, 300), float(version))}, {"step": version}
    history = [{"step": version}]
    checkpoint.save(folder, Classes((str(version),)), *pair, history, str(version), pair[0], state)


def load_version(folder: Path) -> int:
    """Which version there is; fails where files of two versions stand together, or one is not whole."""
    place = checkpoint.find(folder)
    _, classes = checkpoint.load_config(place)
    version = int(*classes.names)
    for network in (
        checkpoint.load_generator(place),
        checkpoint.load_generator(place, "generator_raw.safetensors"),
        checkpoint.load_discriminator(place),
    ):
        assert all(bool((parameter == version).all()) for parameter in network.parameters())
    assert checkpoint.read_history(place) == [{"step": version}]
    assert checkpoint.read_card(place) == str(version)
    assert bool((checkpoint.load_tensors(place / "state.safetensors")["x"] == version).all())
    assert json.loads((place / "state.json").read_text()) == {"step": version}
    return version


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
quiet_fork = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def in_child(work, kill_after: float | None = None) -> tuple[list[int], int]:
    """What work(report) reported in a forked child, and how that ended.

    kill_after: kill it so many seconds after its first report.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # the threads of the parent are not in the child
            work(lambda number: os.write(write, number.to_bytes(4, "little")))
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        reported = pipe.read(4)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        reported += pipe.read()
    _, status = os.waitpid(child, 0)
    numbers = [int.from_bytes(reported[i : i + 4], "little") for i in range(0, len(reported), 4)]
    return numbers, os.waitstatus_to_exitcode(status)


@needs_fork
@quiet_fork
def test_tensors_that_were_loaded_stay_as_they_are_when_their_file_is_cut(tmp_path):
    x = torch.randn(300, 300)
    save(tmp_path / "model", state=({"x": x}, {}))

    def cut(report) -> None:
        path = tmp_path / "model/state.safetensors"
        tensors = checkpoint.load_tensors(path)
        os.truncate(path, 0)
        report(int(torch.equal(tensors["x"], x)))

    assert in_child(cut) == ([1], 0)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="maps are told by Linux alone")
def test_nothing_of_a_checkpoint_stays_mapped_into_memory(tmp_path):
    """Where files that are mapped cannot be removed, as on NFS, the next save would find its way blocked."""
    save(tmp_path / "model", state=({"x": torch.randn(300, 300)}, {}))
    tensors = checkpoint.load_tensors(tmp_path / "model/state.safetensors")
    networks = [
        load(tmp_path / "model") for load in (checkpoint.load_generator, checkpoint.load_discriminator)
    ]
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    del tensors, networks


@needs_fork
@quiet_fork
def test_a_child_killed_at_random_moments_while_saving_loses_nothing_that_was_complete(tmp_path):
    folder = tmp_path / "run/checkpoint"
    for version in (0, 1):
        started = time.monotonic()
        save_version(folder, version)
        one_save = time.monotonic() - started
    for _ in range(20):

        def save_forever(report, first=version + 1):
            for number in range(first, first + 1000):
                save_version(folder, number)
                report(number)

        complete, status = in_child(save_forever, kill_after=fresh_rng().uniform(0, 2 * one_save))
        assert status == -signal.SIGKILL
        version = load_version(tmp_path / "run")
        assert version in (complete[-1], complete[-1] + 1)
    save_version(folder, version + 1)
    assert load_version(tmp_path / "run") == version + 1
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


@needs_fork
@quiet_fork
def test_a_child_killed_before_any_of_its_file_operations_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and a killed process loses nothing by it
    folder = tmp_path / "checkpoint"
    save_version(folder, 1)
    (folder / "notes.txt").write_text("Mine")
    version, seen = 1, set()
    for last in range(1, 200):

        def save_until_killed(report, last=last, number=version + 1):
            done = 0

            def count(event, arguments):
                nonlocal done
                if event in ("open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir"):
                    done += 1
                    if done == last:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            save_version(folder, number)
            report(number)

        complete, status = in_child(save_until_killed)
        found = load_version(folder)
        assert found in ((version + 1,) if complete else (version, version + 1))
        assert (checkpoint.find(folder) / "notes.txt").read_text() == "Mine"
        seen.add((status, found - version))
        version = found
        if status == 0:
            break
    assert seen == {(-signal.SIGKILL, 0), (-signal.SIGKILL, 1), (0, 1)}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_between_its_two_renames_the_old_checkpoint_is_found_and_the_next_save_recovers_it(tmp_path):
    save_version(tmp_path / "run/checkpoint", 1)
    (tmp_path / "run/checkpoint").rename(tmp_path / "run/.checkpoint.previous")
    (tmp_path / "run/.checkpoint.new-1").mkdir()
    assert load_version(tmp_path / "run") == load_version(tmp_path / "run/checkpoint") == 1
    with pytest.raises(ZeroDivisionError), checkpoint.replacing_folder(tmp_path / "run/checkpoint"):
        _ = 1 / 0
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint"]
    assert load_version(tmp_path / "run") == 1


def test_what_cannot_be_removed_yet_of_an_old_checkpoint_is_in_the_way_of_no_save(tmp_path, monkeypatch):
    """As a file that a page has open on NFS."""

    def all_but_one(folder: Path, ignore_errors: bool = False) -> None:
        if Path(folder).is_dir():
            for path in sorted(Path(folder).iterdir())[1:]:
                path.unlink()
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", all_but_one)
        for version in range(1, 5):
            save_version(tmp_path / "checkpoint", version)
            assert load_version(tmp_path) == version
        with pytest.raises(ZeroDivisionError), checkpoint.replacing_folder(tmp_path / "checkpoint"):
            _ = 1 / 0
        save_version(tmp_path / "checkpoint", 5)
        assert load_version(tmp_path) == 5
    assert all(path.name.startswith(".") for path in tmp_path.iterdir() if path.name != "checkpoint")
    save_version(tmp_path / "checkpoint", 6)
    assert load_version(tmp_path) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_ctrl_c_in_the_middle_of_a_save_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    save_version(tmp_path / "model", 1)
    with pytest.raises(KeyboardInterrupt), checkpoint.replacing_folder(tmp_path / "model") as new:
        (new / "config.json").touch()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and load_version(tmp_path / "model") == 1


def test_a_checkpoint_behind_a_link_is_replaced_where_it_lies(tmp_path):
    save_version(tmp_path / "elsewhere/real", 1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint").symlink_to(tmp_path / "elsewhere/real")
    for version in (2, 3):
        save_version(tmp_path / "run/checkpoint", version)
    assert load_version(tmp_path / "run") == load_version(tmp_path / "elsewhere/real") == 3
    (tmp_path / "elsewhere/real").rename(tmp_path / "elsewhere/.real.previous")  # what a crash can leave
    assert load_version(tmp_path / "run") == 3
    save_version(tmp_path / "run/checkpoint", 4)
    assert load_version(tmp_path / "elsewhere/real") == 4
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["real"]
    assert (tmp_path / "run/checkpoint").is_symlink()


def test_what_a_save_of_another_folder_has_begun_is_left_alone(tmp_path):
    (tmp_path / ".run1.new-1").mkdir()
    save_version(tmp_path / "run[1]", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"run[1]", ".run1.new-1"}


# What somebody put there


def without_links(monkeypatch) -> None:
    """The disk is one that has no hard links, like those of cameras."""

    def refuse(*_, **__) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("links", [True, False])
def test_what_somebody_put_beside_a_checkpoint_stays_when_it_is_replaced(tmp_path, monkeypatch, links):
    if not links:
        without_links(monkeypatch)
    folder = tmp_path / "checkpoint"
    save_version(folder, 1)
    (folder / "notes.txt").write_text("Mine")
    (folder / "curated.json").write_text('{"faces": []}')
    (folder / "images").symlink_to("../elsewhere")
    modes = {"": 0o750, "seeds": 0o700, "seeds/later": 0o2777}
    for name, mode in modes.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)
    for name in ("seeds", "seeds/later"):
        (folder / name / "list.txt").write_text(name)
    (folder / ".nfs00a1").touch()
    for version in (2, 3):
        (folder / "average_maps.safetensors").touch()  # of the generator that goes
        save_version(folder, version)
        assert load_version(folder) == version
        names = {"config.json", "history.csv", "model_card.md", "state.json", "state.safetensors"}
        names |= {f"{kind}.safetensors" for kind in ("generator", "generator_raw", "discriminator")}
        mine = {"notes.txt", "curated.json", "images", "seeds"}
        assert {path.name for path in folder.iterdir()} == names | mine
        assert (folder / "notes.txt").read_text() == "Mine"
        assert (folder / "curated.json").read_text() == '{"faces": []}'
        assert (folder / "images").readlink() == Path("../elsewhere")
        for name in ("seeds", "seeds/later"):
            assert (folder / name / "list.txt").read_text() == name
        assert {name: stat.S_IMODE((folder / name).stat().st_mode) for name in modes} == modes
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_cannot_be_read_beside_a_checkpoint_is_in_the_way_of_no_save(tmp_path):
    folder = tmp_path / "checkpoint"
    save_version(folder, 1)
    os.mkfifo(folder / "pipe")
    (folder / "locked").touch(0o000)
    save_version(folder, 2)
    assert load_version(folder) == 2
    assert (folder / "pipe").is_fifo() and (folder / "locked").stat().st_mode & 0o777 == 0


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EPERM, "Not permitted"), shutil.SpecialFileError("a pipe")]
)
def test_what_may_be_neither_linked_nor_copied_is_moved(tmp_path, monkeypatch, error):
    folder = tmp_path / "checkpoint"
    save_version(folder, 1)
    (folder / "theirs").mkdir()
    for name in ("notes.txt", "theirs/a.txt", "theirs/b.txt", "model_card.md"):
        (folder / name).write_text(name)

    def refuse(path: Path, to: Path, follow_symlinks: bool) -> None:
        if Path(path).name != "a.txt":
            raise error
        Path(to).write_bytes(Path(path).read_bytes())

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copy2", refuse)
    save_version(folder, 2)
    assert load_version(folder) == 2
    assert all((folder / name).read_text() == name for name in ("notes.txt", "theirs/a.txt", "theirs/b.txt"))
    cards = {path.name: path.read_text() for path in folder.glob("model_card*")}
    assert cards == {"model_card.md": "2", "model_card.previous.md": "model_card.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_disk_that_fails_once_the_new_checkpoint_stands_loses_nothing_beside_it(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    save_version(folder, 1)
    os.mkfifo(folder / "pipe")
    without_links(monkeypatch)
    sync = checkpoint._sync

    def refuse(path: Path) -> None:
        if path == tmp_path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(path)

    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "_sync", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            save_version(folder, 2)
    for version in (2, 3):
        assert load_version(folder) == version and (folder / "pipe").is_fifo()
        save_version(folder, version + 1)


def test_what_cannot_even_be_moved_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    save_version(folder, 1)
    (folder / "notes.txt").write_text("mine")
    rename = Path.rename

    def refuse(path: Path, to: Path, **_) -> Path:
        if Path(path).name == "notes.txt":
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(path, to)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copy2", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.warns(UserWarning, match=r"notes.txt' could not be kept: Permission denied"):
        save_version(folder, 2)
    assert load_version(folder) == 2


def test_only_what_something_left_unfinished_is_not_carried_over(tmp_path):
    folder = tmp_path / "checkpoint"
    save_version(folder, 1)
    for name in (".nfs0001", ".fuse_hidden1", ".notes.new-0123abcd.txt", ".my.new-notes.txt"):
        (folder / name).touch()
    before = {path.name for path in folder.iterdir()} - {
        ".nfs0001",
        ".fuse_hidden1",
        ".notes.new-0123abcd.txt",
    }
    save_version(folder, 2)
    assert {path.name for path in folder.iterdir()} == before


def test_a_model_card_is_kept_when_it_was_changed_since_it_was_saved(tmp_path):
    folder = tmp_path / "checkpoint"
    cards = {}

    def found() -> dict[str, str]:
        return {path.name: path.read_text() for path in folder.glob("model_card*")}

    for version, name in enumerate(("previous", "previous-2", "previous-3")):
        for number in (2 * version, 2 * version + 1):
            save_version(folder, number)
            assert found() == {**cards, "model_card.md": str(number)}
        own = f"What the images show: {version}"
        (folder / "model_card.md").write_text(own)
        cards[f"model_card.{name}.md"] = own
    save_version(folder, 9)
    assert load_version(folder) == 9 and found() == {**cards, "model_card.md": "9"}


def test_a_model_card_of_which_nobody_knows_how_it_was_saved_is_kept(tmp_path):
    save_version(tmp_path / "checkpoint", 1)
    change_config(tmp_path / "checkpoint", card_sha256=...)
    save_version(tmp_path / "checkpoint", 2)
    assert (tmp_path / "checkpoint/model_card.previous.md").read_text() == "1"


# A full disk


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def after(calls: int, function, instead):
    """`function`, which from its call number `calls` on is `instead`."""
    made = 0

    def wrapper(*arguments, **options):
        nonlocal made
        made += 1
        return (instead if made > calls else function)(*arguments, **options)

    return wrapper


@pytest.mark.parametrize("calls", range(4))
@pytest.mark.parametrize(("where", "name"), [(checkpoint, "save_file"), (os, "fsync"), (Path, "write_text")])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, where, name, calls):
    save_version(tmp_path / "checkpoint", 1)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, after(calls, getattr(where, name), full))
        if name != "write_text" or calls < 3:
            with pytest.raises(OSError, match="No space left on device"):
                save_version(tmp_path / "checkpoint", 2)
            assert load_version(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("limit", [100, 1000, 20_000, 200_000])
def test_a_disk_that_takes_no_more_bytes_is_an_os_error_and_leaves_the_old_checkpoint(tmp_path, limit):
    """The limit on the size of a file stands for the end of the disk; native code meets it too."""
    save_version(tmp_path / "checkpoint", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_version(tmp_path / "checkpoint", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert load_version(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError):
            save_version(tmp_path / "checkpoint", 1)
    assert list(tmp_path.iterdir()) == []


def test_threads_that_write_one_file_at_a_time_write_it_whole(tmp_path):
    path, both_write = tmp_path / "file", threading.Barrier(2)

    def write(letter: str) -> None:
        def write_slowly(new: Path) -> None:
            with new.open("w") as file:
                file.write(letter * 1000)
                file.flush()
                both_write.wait(timeout=60)
                file.write(letter * 1000)

        checkpoint.replace_file(path, write_slowly)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, "ab"))
    assert path.read_text() in ("a" * 2000, "b" * 2000)
    assert list(tmp_path.iterdir()) == [path]


# The history, row by row


def test_a_history_that_cannot_be_written_anew_stays_as_it_was(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.write_history(folder / "history.csv", HISTORY[:1])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_row_is_written_below_the_others_and_a_new_column_anew(tmp_path, monkeypatch):
    path, rows, columns = tmp_path / "history.csv", [], []
    whole, write = [], checkpoint.write_history
    monkeypatch.setattr(checkpoint, "write_history", lambda *given: whole.append(1) or write(*given))
    new = [{"step": 1, "d_loss": 0.5}, {"step": 2}, {"d_loss": 0.25, "step": 3}, {"step": 4, "fid": 7.5}]
    for row in [*new, {"step": 5, "d_loss": 1.0}]:
        rows.append(row)
        columns = checkpoint.add_to_history(path, rows, columns)
        assert checkpoint.read_history(tmp_path) == rows
    assert len(whole) == 2  # the first, and the one with another column
    path.unlink()
    checkpoint.add_to_history(path, rows, columns)
    assert checkpoint.read_history(tmp_path) == rows
