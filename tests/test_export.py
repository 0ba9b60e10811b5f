"""Export: exact weights, batch norm measured anew, and what is copied out of a run."""

import copy
import errno
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn
from torch.nn.utils import parametrize

from sagan import checkpoint, export
from sagan.checkpoint import CheckpointError
from sagan.classes import Classes
from sagan.export import measure_batch_norm, plain, ship, shippable
from sagan.layers import ConditionalBatchNorm2d
from sagan.networks import Discriminator, Generator, SaganConfig

PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3)
NAMES = ("dark", "bright", "red")
both_kinds = pytest.mark.parametrize("kind", [Generator, Discriminator])
both_configs = pytest.mark.parametrize("config", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])


def in_training(kind: type[nn.Module], config: SaganConfig) -> nn.Module:
    """A network far from its start: other weights than its u and v know, gammas, batch-norm statistics."""
    network = kind(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network.train()


def inputs(kind: type[nn.Module], config: SaganConfig, count: int = 8) -> tuple:
    shape = (config.z_dim,) if kind is Generator else (3, config.image_size, config.image_size)
    labels = torch.randint(config.num_classes, (count,)) if config.num_classes else None
    return torch.randn(count, *shape), labels


def largest_singular_value(module: nn.Module) -> float:
    """Of the weight as a matrix with a row for each output channel."""
    weight = module.weight.detach().double().numpy()
    if isinstance(module, nn.ConvTranspose2d):
        weight = weight.swapaxes(0, 1)
    return np.linalg.svd(weight.reshape(len(weight), -1), compute_uv=False)[0]


def weighted(network: nn.Module) -> dict[str, nn.Module]:
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding
    return {name: module for name, module in network.named_modules() if isinstance(module, kinds)}


# Exact weights


@both_configs
@both_kinds
def test_the_copy_answers_as_the_network_in_eval_mode_after_many_power_iterations(kind, config):
    network = in_training(kind, config)
    twin = plain(network)
    x, labels = inputs(kind, config)
    with torch.no_grad():  # power iterations lead to the first singular vectors
        for module in network.modules():
            if parametrize.is_parametrized(module, "weight"):
                norm = module.parametrizations.weight[0]
                matrix = norm.matrix(module.parametrizations.weight.original)
                u, _, v = torch.linalg.svd(matrix, full_matrices=False)
                norm.u.copy_(u[:, 0])
                norm.v.copy_(v[0])
                _ = module.weight
        expected, answer = network.eval()(x, labels), twin(x, labels)
    assert expected.std() > 0.01
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-3)


@both_configs
@both_kinds
def test_the_largest_singular_value_of_every_exported_weight_is_1(kind, config):
    modules = weighted(plain(in_training(kind, config)))
    tables = {name for name in modules if name.endswith((".gain", ".bias"))}  # of conditional batch norm
    assert bool(tables) == (kind is Generator and config is CONDITIONAL)
    for name in modules.keys() - tables:
        assert largest_singular_value(modules[name]) == pytest.approx(1, abs=1e-4), name


def test_what_is_not_normalised_is_copied_as_it_is():
    generator = in_training(Generator, CONDITIONAL)
    twin = plain(generator)
    for name, module in generator.named_modules():
        if isinstance(module, ConditionalBatchNorm2d):
            for key, value in module.state_dict().items():
                assert torch.equal(twin.get_submodule(name).state_dict()[key], value)
    for name, layer in generator.attention.items():
        assert torch.equal(twin.attention[name].gamma, layer.gamma)
        assert torch.equal(twin.attention[name].query.bias, layer.query.bias)


def test_a_discriminator_without_spectral_norm_is_copied_as_it_is():
    network = in_training(Discriminator, SaganConfig(32, d_width=8, d_spectral_norm=False))
    twin = plain(network)
    assert twin.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value)


@both_configs
@both_kinds
def test_the_copy_is_for_reading_and_shares_no_memory_with_the_network(kind, config):
    network = in_training(kind, config)
    before = copy.deepcopy(network.state_dict())
    twin = plain(network)
    assert not twin.training and network.training
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert not any(parametrize.is_parametrized(module) for module in twin.modules())
    for tensor in (*twin.parameters(), *twin.buffers()):
        tensor.zero_()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


# Batch norm


def statistics_by_hand(generator: Generator, classes: Classes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and unbiased variance of what each batch norm sees, averaged over 8 batches of 64, in float64."""
    network = copy.deepcopy(generator).double().train()
    seen: dict[str, list] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            seen[name] = []
            module.register_forward_pre_hook(lambda _, x, into=seen[name]: into.append(x[0].numpy()))
    noise = torch.Generator().manual_seed(0)
    drawn = classes.in_proportion(512)
    with torch.no_grad():
        for batch in range(8):
            z = torch.randn(64, generator.config.z_dim, generator=noise)
            labels = None if drawn is None else drawn[64 * batch : 64 * (batch + 1)]
            network(z.double(), None if labels is None else torch.tensor(labels))

    def average(batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        columns = [x.swapaxes(0, 1).reshape(x.shape[1], -1) for x in batches]  # (channels, everything else)
        return np.mean([c.mean(1) for c in columns], 0), np.mean([c.var(1, ddof=1) for c in columns], 0)

    return {name: average(batches) for name, batches in seen.items()}


@pytest.mark.parametrize(
    ("config", "given", "frequent"),
    [
        (PLAIN, Classes(), Classes()),
        (CONDITIONAL, Classes(NAMES), Classes(NAMES, (1, 1, 1))),
        (CONDITIONAL, Classes(NAMES, (900, 0, 100)), Classes(NAMES, (900, 0, 100))),
    ],
    ids=["plain", "equally frequent classes", "as frequent as they were"],
)
def test_batch_norm_statistics_are_those_of_512_fixed_latents(config, given, frequent):
    generator = plain(in_training(Generator, config))
    expected = statistics_by_hand(generator, frequent)
    measure_batch_norm(generator, given)
    assert len(expected) == 3
    for name, (mean, variance) in expected.items():
        norm = generator.get_submodule(name)
        np.testing.assert_allclose(norm.running_mean, mean, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(norm.running_var, variance, atol=1e-4, rtol=1e-4)
        assert norm.momentum == 0.1
    assert not generator.training


def test_what_batch_norm_knew_before_does_not_matter():
    """Averaged weights carry statistics of their start, which must leave no trace."""
    generator = in_training(Generator, PLAIN)
    first = shippable(generator, Classes()).state_dict()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(7)
            module.num_batches_tracked.fill_(1000)
    for name, value in shippable(generator, Classes()).state_dict().items():
        assert torch.equal(value, first[name]), name


@both_configs
def test_exporting_changes_neither_the_network_nor_the_global_random_numbers(config):
    generator, discriminator = in_training(Generator, config), in_training(Discriminator, config)
    before = [copy.deepcopy(network.state_dict()) for network in (generator, discriminator)]
    random_numbers = torch.get_rng_state()
    shippable(generator, Classes(NAMES[: config.num_classes])), plain(discriminator)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    for network, state in zip((generator, discriminator), before, strict=True):
        assert network.training
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


# Shipping


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with all that a run keeps."""
    generator, discriminator = in_training(Generator, PLAIN), in_training(Discriminator, PLAIN)
    state = ({"x": torch.zeros(3)}, {"step": 1})
    networks = shippable(generator, Classes()), plain(discriminator)
    parts = (*networks, [{"step": 1}], "# A card\n", plain(generator), state)
    names = ("film.safetensors", "spectra.safetensors", "average_maps.safetensors")
    companions = {name: {"x": torch.randn(3)} for name in names}
    checkpoint.save(tmp_path / "run/checkpoint", Classes(), *parts, companions=companions)
    curated = {"generator_sha256": checkpoint.generator_hash(tmp_path / "run/checkpoint"), "faces": []}
    (tmp_path / "run/checkpoint/curated.json").write_text(json.dumps(curated))
    return tmp_path / "run"


def test_shipping_copies_what_sampling_needs_and_nothing_else(run, tmp_path, capsys):
    assert export.main(["--run", str(run), "--out", str(tmp_path / "out")]) == 0
    names = {
        "config.json",
        "generator.safetensors",
        "discriminator.safetensors",
        "history.csv",
        "model_card.md",
        "film.safetensors",
        "spectra.safetensors",
        "average_maps.safetensors",
        "curated.json",
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (run / "checkpoint" / name).read_bytes()
    assert f"python app.py --checkpoint {tmp_path / 'out'}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["film.safetensors", "curated.json"])
def test_what_was_made_for_another_generator_is_not_shipped(run, tmp_path, name):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    tensors = load((other / "checkpoint/generator.safetensors").read_bytes())
    tensors["attention.8x8.gamma"] += 1
    save_file(tensors, other / "checkpoint/generator.safetensors")
    with pytest.warns(UserWarning, match="was made for another generator"):
        ship(other, tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()
    (run / "checkpoint" / name).unlink()
    ship(run, tmp_path / "without")
    assert not (tmp_path / "without" / name).exists()


@pytest.mark.filterwarnings("ignore:.*was made for another generator")
def test_a_run_that_saves_meanwhile_is_not_shipped(run, tmp_path, monkeypatch):
    copyfile = shutil.copyfile

    def saving(source: Path, target: Path) -> None:
        copyfile(source, target)
        if source.name == "generator.safetensors":
            generator = shippable(in_training(Generator, PLAIN), Classes())
            discriminator = plain(in_training(Discriminator, PLAIN))
            checkpoint.save(
                run / "checkpoint", Classes(), generator, discriminator, [{"step": 2}], "# Card\n"
            )

    monkeypatch.setattr(shutil, "copyfile", saving)
    with pytest.raises(checkpoint.CheckpointError, match=r"was saved meanwhile: export it again\.$"):
        export.ship(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "model_card.md", "film.safetensors"])
def test_a_run_that_is_between_two_checkpoints_is_not_shipped(run, tmp_path, monkeypatch, name):
    """What is copied next is gone for a moment."""
    copyfile = shutil.copyfile

    def replaced(source: Path, target: Path) -> None:
        if source.name == name:
            (run / "checkpoint").rename(run / ".checkpoint.previous")
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", replaced)
    with pytest.raises(checkpoint.CheckpointError) as error:
        export.ship(run, tmp_path / "out")
    assert str(error.value) == f"'{run}' was saved meanwhile: export it again."
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_lacks_a_file_is_not_shipped(run, tmp_path):
    (run / "checkpoint/model_card.md").unlink()
    with pytest.raises(checkpoint.CheckpointError) as error:
        export.ship(run, tmp_path / "out")
    assert str(error.value) == f"'{run / 'checkpoint/model_card.md'}' is missing."
    assert not (tmp_path / "out").exists()


def test_the_best_checkpoint_of_a_run_is_not_overwritten_by_shipping_into_it(run):
    best = Path(shutil.copytree(run / "checkpoint", run / "best"))
    for name in ("state.safetensors", "state.json"):
        (best / name).unlink()
    before = {path: path.read_bytes() for path in best.iterdir()}
    with pytest.raises(checkpoint.CheckpointError, match=r"best' exists and is not a shipped checkpoint"):
        ship(run, best)
    assert {path: path.read_bytes() for path in best.iterdir()} == before


def test_shipping_into_the_current_folder_replaces_it(run, tmp_path, monkeypatch):
    ship(run, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    card = (run / "checkpoint/model_card.md").write_text("# Another\n")
    assert export.main(["--run", str(run), "--out", "."]) == 0
    assert (tmp_path / "out/model_card.md").stat().st_size == card


def test_shipping_replaces_what_was_shipped_before(run, tmp_path):
    ship(run, tmp_path / "out")
    card = (run / "checkpoint/model_card.md").write_text("# Another\n")
    ship(run, tmp_path / "out")
    assert (tmp_path / "out/model_card.md").stat().st_size == card


def test_shipping_again_keeps_what_lies_beside_and_the_old_card(run, tmp_path):
    out = tmp_path / "out"
    ship(run, out)
    (out / "notes.md").write_text("Mine")
    (out / "model_card.md").write_text("# Written by hand\n")
    ship(run, out)
    assert (out / "notes.md").read_text() == "Mine"
    assert (out / "model_card.previous.md").read_text() == "# Written by hand\n"
    assert (out / "model_card.md").read_text() != "# Written by hand\n"
    ship(run, out)
    assert (out / "model_card.previous.md").read_text() == "# Written by hand\n"
    assert (out / "model_card.previous-2.md").exists()


def test_links_beside_a_shipped_checkpoint_stay_links(run, tmp_path):
    """What they lead to may be photographs, which are not for sharing."""
    out = tmp_path / "out"
    ship(run, out)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/photograph.png").touch()
    (out / "training_images").symlink_to("../data")
    (out / "gone").symlink_to("../nowhere")
    ship(run, out)
    assert (out / "training_images").readlink() == Path("../data")
    assert (out / "gone").readlink() == Path("../nowhere")


@pytest.mark.parametrize("name", ["model_card.md", "history.csv", "config.json"])
def test_nothing_that_a_link_leads_to_is_shipped(run, tmp_path, name):
    """Who opens the page would see it."""
    path = run / "checkpoint" / name
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(checkpoint.CheckpointError, match=f"{name}' is a link that leads out of its folder"):
        ship(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shipping_writes_through_no_link(run, tmp_path):
    out = tmp_path / "out"
    ship(run, out)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("model_card.md", "film.safetensors"):
        (out / name).unlink()
        (elsewhere / name).write_text("Mine")
        (out / name).symlink_to(elsewhere / name)
    ship(run, out)
    for name in ("model_card.md", "film.safetensors"):
        assert (elsewhere / name).read_text() == "Mine"
        assert (out / name).read_bytes() == (run / "checkpoint" / name).read_bytes()
    assert (out / "model_card.previous.md").read_text() == "Mine"


def test_shipping_after_a_crash_keeps_what_the_crash_left(run, tmp_path):
    out = tmp_path / "out"
    ship(run, out)
    (out / "model_card.md").write_text("# Written by hand\n")
    out.rename(tmp_path / ".out.previous")
    ship(run, out)
    assert (out / "model_card.previous.md").read_text() == "# Written by hand\n"


@pytest.mark.parametrize("what", ["a run", "a run's checkpoint", "something else", "a file"])
def test_shipping_never_replaces_what_is_not_a_shipped_checkpoint(run, tmp_path, what):
    out = tmp_path / "other"
    if what == "a file":
        out.write_text("mine")
    elif what == "something else":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    else:
        out = run if what == "a run" else run / "checkpoint"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="exists and is not a shipped checkpoint: name another --out"):
        ship(run, out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["generator.safetensors", "discriminator.safetensors"])
def test_a_broken_checkpoint_is_not_shipped(run, tmp_path, name):
    path = run / "checkpoint" / name
    tensors = load(path.read_bytes())
    tensors["attention.8x8.gamma"].fill_(float("nan"))
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="not finite"):
        ship(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("module", "call"), [(shutil, "copyfile"), (os, "fsync")])
def test_a_disk_that_refuses_is_one_sentence_and_leaves_what_was_shipped(
    run, tmp_path, monkeypatch, capsys, module, call
):
    out = tmp_path / "out"
    ship(run, out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_, **__) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, call, full)
    with pytest.raises(SystemExit) as stopped:
        export.main(["--run", str(run), "--out", str(out)])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"python -m sagan.export: error: '{run}' could not be exported to '{out}': No space left on device."
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_ctrl_c_while_shipping_is_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    def stop(*_) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr(shutil, "copyfile", stop)
    assert export.main(["--run", str(run), "--out", str(out)]) == 130
    assert capsys.readouterr().err == f"Stopped; '{out}' was not written.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_made_is_named_as_it_was_given(run, tmp_path, monkeypatch, capsys):
    def refuse(path: Path, *_, **__) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    out = tmp_path / "out"
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SystemExit, match="2"):
        export.main(["--run", str(run), "--out", str(out)])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"error: '{run}' could not be exported to '{out}': Permission denied.")


def test_the_command_that_opens_what_was_shipped_can_be_pasted_into_a_shell(run, tmp_path, capsys):
    out = tmp_path / "it's mine"
    export.main(["--run", str(run), "--out", str(out)])
    said = capsys.readouterr().out.strip()
    assert shlex.split(said.partition(" can be opened with: ")[2])[-1] == str(out)


def test_the_command_refuses_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        export.main(["--run", str(tmp_path / "absent"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert f"No checkpoint at '{tmp_path / 'absent'}'" in capsys.readouterr().err.splitlines()[-1]
