"""Several processes that train one run, against one process that does all of it."""

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from activations import smooth
from randomness import fresh_rng, random_images
from torch import Tensor, nn

import train
from sagan import checkpoint, learner
from sagan.data import ImageSet
from sagan.learner import TrainingError
from sagan.networks import SaganConfig
from sagan.parallel import ALONE, PATIENCE, Processes, is_lost_connection, processes
from sagan.recipe import Recipe
from sagan.trainer import Trainer

ROOT = Path(__file__).parents[1]
CONFIG = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, g_residual=(16,), d_residual=(8,))
EPSILON = 1e-2  # of Adam: at the usual 1e-8 it turns rounding errors of small gradients into full-sized steps
CASES = {
    "hinge": {},
    "wgan-gp": {"loss": "wgan-gp", "d_steps": 2},
    "with classes": {"classes": 3},
    "consistent": {"consistency": 0.3},
    "augmented": {"augment": 0.6},
}


def make(data: dict, out: Path, team: Processes = ALONE, classes: int = 0, **recipe) -> Trainer:
    """A trainer whose attention layers and residual blocks already count."""
    images = ImageSet(data["images"], data["labels"], tuple("abc")) if classes else ImageSet(data["images"])
    settings = {"batch_size": 8, "precision": "fp32", "g_lr": 2e-3, "d_lr": 8e-3, **recipe}
    run = Trainer(CONFIG, Recipe(**settings), images, out, "cpu", processes=team)
    with torch.no_grad():
        for network in (run.generator, run.discriminator):
            for layer in network.attention.values():
                layer.gamma.fill_(0.5)
            for blocks in network.residual.values():
                for block in blocks:
                    block.alpha.fill_(0.5)
    for optimizer in run.optimizers.values():
        for group in optimizer.param_groups:
            group["eps"] = EPSILON
    return run


def d_gradients(run: Trainer, data: dict) -> dict[str, Tensor]:
    """D's gradients after one update on given real and generated images."""
    share = run.processes.share
    real, fake = (share(torch.from_numpy(data[name])) for name in ("real", "fake"))
    labels = share(torch.from_numpy(data["batch_labels"])) if run.config.num_classes else None
    with smooth():
        run._d_step(run._draw(0)._replace(images=real, labels=labels), fake)
    return {name: p.grad.clone() for name, p in run.discriminator.named_parameters()}


def two_steps(run: Trainer) -> dict[str, Tensor]:
    """All weights after two steps; the statistics of batch norm are each process's own."""
    with smooth():
        for _ in range(2):
            run.train_step()
    tensors = {}
    for name, network in run.networks.items():
        tensors |= {f"{name} {key}": value.clone() for key, value in network.state_dict().items()}
    return {key: value for key, value in tensors.items() if "running" not in key and "batches" not in key}


def in_one_of_two(rank: int, folder: Path, port: int) -> None:
    """What each process does for the tests below."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    os.environ.update(RANK=str(rank), TORCHELASTIC_RUN_ID="test", TORCHELASTIC_USE_AGENT_STORE="True")
    torch.set_num_threads(1)
    data = dict(np.load(folder / "data.npz"))
    with processes("cpu") as (team, device):
        assert (team.rank, team.count, team.leads, device) == (rank, 2, rank == 0, "cpu")
        found = {}
        for name, case in CASES.items():
            found[name] = {
                "d_gradients": d_gradients(make(data, folder, team, **case), data),
                "two_steps": two_steps(make(data, folder, team, **case)),
            }
        found["most"], found["mean"] = team.most(rank, -rank), team.mean(rank, 5)
        found["digits"] = team.most((1 << 48) + rank)
        with team.leader_first():
            found["leader was first"] = (folder / "led").exists()
            if team.leads:
                time.sleep(0.5)
                (folder / "led").touch()
        found["made"] = team.by_leader(lambda: "by the leader", TrainingError("refused"))
        try:
            team.by_leader(lambda: int("many"), TrainingError("refused"))
        except ValueError as error:
            found["failure"] = str(error)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[dict, list[dict]]:
    """The data, and what two processes made of it."""
    folder = tmp_path_factory.mktemp("two")
    rng = fresh_rng()
    data = {
        "images": rng.integers(0, 256, (22, 32, 32, 3), np.uint8),
        "labels": rng.integers(0, 3, 22),
        "real": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "fake": rng.uniform(-1, 1, (8, 3, 32, 32)).astype(np.float32),
        "batch_labels": rng.integers(0, 3, 8),
    }
    np.savez(folder / "data.npz", **data)
    # Held here, as by torchrun: a port that is chosen here to be opened there may be taken meanwhile.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    multiprocessing.set_forkserver_preload(["torch._dynamo"])  # what takes longest, once for both
    torch.multiprocessing.start_processes(
        in_one_of_two, (folder, store.port), nprocs=2, start_method="forkserver"
    )
    return data, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def assert_equal_within(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    assert found.keys() == expected.keys()
    worst = {name: float((found[name] - value).abs().max()) for name, value in expected.items()}
    scale = max(float(value.abs().max()) for value in expected.values())
    assert max(worst.values()) <= bound * max(1.0, scale), sorted(worst.items(), key=lambda item: -item[1])[
        :3
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_discriminators_gradients_are_those_of_the_joined_batch(two, tmp_path, name):
    data, found = two
    expected = d_gradients(make(data, tmp_path, **CASES[name]), data)
    for one in found:
        assert_equal_within(one[name]["d_gradients"], expected, 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_one_process_that_normalises_each_half_separately(
    two, tmp_path, monkeypatch, name
):
    data, found = two
    forward = nn.BatchNorm2d.forward
    monkeypatch.setattr(
        nn.BatchNorm2d, "forward", lambda self, x: torch.cat([forward(self, half) for half in x.chunk(2)])
    )
    expected = two_steps(make(data, tmp_path, **CASES[name]))
    assert any("averaged" in key for key in expected)
    for one in found:
        assert_equal_within(one[name]["two_steps"], expected, 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_both_processes_hold_the_same_bits(two, name):
    _, (one, other) = two
    for key, value in one[name]["two_steps"].items():
        assert torch.equal(value, other[name]["two_steps"][key]), key


def test_processes_agree_on_the_most_and_the_mean_and_let_the_leader_go_first(two):
    _, found = two
    for one in found:
        assert (one["most"], one["mean"]) == ([1, 0], [0.5, 5])
        assert one["digits"] == [(1 << 48) + 1]  # as many as `Trainer.start_from` compares
    assert [one["leader was first"] for one in found] == [False, True]


def test_what_the_leader_alone_makes_fails_for_all_and_only_the_leader_knows_why(two):
    _, found = two
    assert [one["made"] for one in found] == ["by the leader", None]
    assert [one["failure"] for one in found] == ["invalid literal for int() with base 10: 'many'", "refused"]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    data = ImageSet(np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(TrainingError) as error:
        Trainer(CONFIG, Recipe(batch_size=8), data, tmp_path, "cpu", processes=Processes(0, 3))
    assert str(error.value) == (
        "A batch of 8 images cannot be shared equally by 3 processes: choose another --batch-size."
    )


def test_shared_batch_statistics_want_gpus(tmp_path):
    data = ImageSet(np.zeros((4, 32, 32, 3), np.uint8))
    with pytest.raises(TrainingError) as error:
        Trainer(CONFIG, Recipe(sync_batch_norm=True), data, tmp_path, "cpu")
    assert str(error.value) == "Batch statistics can be shared between GPUs, but not on 'cpu'."


@pytest.mark.parametrize("classes", [0, 3], ids=["plain", "conditional"])
@pytest.mark.parametrize("shared", [False, True])
def test_batch_statistics_are_shared_by_all_of_the_generators_norms_where_that_is_wanted(
    tmp_path, monkeypatch, shared, classes
):
    """As on a GPU, but that nothing is moved there."""
    monkeypatch.setattr(learner, "pick_device", torch.device)
    monkeypatch.setattr(learner, "resident", lambda images, _: images)
    monkeypatch.setattr(Trainer, "_place", lambda _, network: network)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    data = ImageSet(
        np.zeros((6, 32, 32, 3), np.uint8), *([np.arange(6) % 3, tuple("abc")] if classes else [])
    )
    recipe = Recipe(sync_batch_norm=shared, precision="fp32")
    run = Trainer(CONFIG, recipe, data, tmp_path, "cuda", capture=False)
    kinds = [type(m) for m in run.generator.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert kinds == [nn.SyncBatchNorm if shared else nn.BatchNorm2d] * 5


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda:0", "Several processes cannot share the device 'cuda:0': use cpu, cuda or auto."),
        (
            "cuda",
            "There is no GPU for process 2 on this machine, which has 1: start at most one process for each,",
        ),
        (
            "auto",
            "There is no GPU for process 2 on this machine, which has 1: start at most one process for each,",
        ),
    ],
)
def test_a_device_that_the_processes_cannot_have_is_refused(monkeypatch, device, sentence):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError) as error, processes(device):
        pass
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), True),
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed"), True),
        (RuntimeError("the sizes differ"), False),
    ],
    ids=["of NCCL", "of gloo", "another"],
)
def test_errors_of_what_processes_talk_through_say_that_one_is_gone(error, lost):
    assert is_lost_connection(error) is lost


# The command


@pytest.fixture
def images(make_images) -> Path:
    return make_images(8)


def command(folder: Path, *options: object) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    tiny = ["--image-size=32", "--z-dim=8", "--g-width=8", "--d-width=8", "--batch-size=4", "--device=cpu"]
    return [
        *(sys.executable, *torchrun),
        *(str(ROOT / "train.py"), "--out", str(folder / "run")),
        *(*tiny, "--log-every=1", *map(str, options)),
    ]


def steps_of(folder: Path) -> list[int]:
    rows = (folder / "run/history.csv").read_text().splitlines()[1:]
    return [int(float(row.split(",")[0])) for row in rows]


FEATURES = """
import os, pathlib, torch

class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        pathlib.Path("made-by-" + os.environ.get("RANK", "one-alone")).touch()

    def forward(self, images):
        return images.float().mean((2, 3))
"""
MEASURE = ("--measure-features=features:Colours", "--measure-every=0.008")


def run(folder: Path, *options: object) -> subprocess.CompletedProcess:
    """The command in this folder, where its features can be imported, in two processes."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    words = command(folder, *options)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder of a complete run of two processes that measured, and how it ended."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "features.py").write_text(FEATURES)
    images, held_out = random_images(folder, 8), random_images(folder, 20, folder="held_out")
    sources = ("--data", images, "--measure-reference", held_out)
    return folder, run(folder, *MEASURE, *sources, "--steps=3")


def test_a_run_goes_on_with_another_number_of_processes(measured, tmp_path, monkeypatch, capsys):
    folder, done = measured
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Step 3, 12 images shown") == 1
    assert steps_of(folder) == [1, 2, 3]
    shutil.copytree(folder / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    again = ["--out", str(tmp_path / "run"), "--resume", MEASURE[0], "--device=cpu", "--steps=4"]
    assert train.main(again) == 0
    assert capsys.readouterr().out.count("Step 4, 16 images shown") == 1
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_the_first_process_alone_measures(measured):
    folder, done = measured
    assert done.returncode == 0, done.stderr
    rows = checkpoint.read_history(folder / "run/checkpoint")
    assert [row["step"] for row in rows if "recall" in row] == [2, 3]
    assert [path.name for path in folder.glob("made-by-*")] == ["made-by-0"]


def process_of(rank: int, agent: int) -> int:
    """The worker of this rank."""
    for folder in Path("/proc").iterdir():
        try:
            if f"RANK={rank}" in (folder / "environ").read_text().split("\0") and (
                int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == agent
            ):
                return int(folder.name)
        except (OSError, UnicodeDecodeError):
            continue
    raise AssertionError(f"no process of rank {rank}")


def test_no_process_trains_in_the_folder_of_another_run(images, tmp_path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = subprocess.run(
            command(tmp_path, "--data", images, "--steps=1"), cwd=tmp_path, capture_output=True, text=True
        )
    assert ended.returncode != 0
    for sentence in (  # they may come in one line
        f"train.py: Another process is training in '{tmp_path / 'run'}': name another --out.",
        f"train.py (process 1): '{tmp_path / 'run'}' is not for this run; the first process says why.",
    ):
        assert ended.stderr.count(sentence) == 1
    assert "Connection closed" not in ended.stderr  # how a process hears of one that left without a word
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_the_others_learn_where_the_first_process_cannot_measure(images, make_images, tmp_path):
    few = make_images(4, folder="few")
    (tmp_path / "features.py").write_text(FEATURES)
    refused = run(tmp_path, *MEASURE, "--data", images, "--measure-reference", few, "--steps=3")
    assert refused.returncode != 0 and "Connection closed" not in refused.stderr
    for sentence in (
        "train.py: The reference holds 4 images, but two halves need at least 20.",
        "train.py (process 1): The reference images cannot be used; the first process says why.",
    ):
        assert refused.stderr.count(sentence) == 1
    assert [path.name for path in tmp_path.glob("made-by-*")] == ["made-by-0"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes through /proc")
def test_a_run_whose_other_process_is_killed_ends_with_its_last_checkpoint(images, tmp_path):
    with subprocess.Popen(
        command(tmp_path, "--data", images, "--save-every=2", "--steps=100000"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        while not (tmp_path / "run/checkpoint/state.json").exists():
            assert agent.poll() is None, agent.stderr.read()
            time.sleep(0.02)
        os.kill(process_of(1, agent.pid), signal.SIGKILL)
        said = agent.stderr.read()
    assert agent.returncode != 0
    assert said.count("the processes of this run stopped working together") == 1
    assert "Go on with --resume." in said
    saved = json.loads((tmp_path / "run/checkpoint/state.json").read_text())["step"]
    assert saved > 0


def test_ctrl_c_saves_a_run_of_several_processes(images, tmp_path):
    with subprocess.Popen(
        command(tmp_path, "--data", images, "--save-every=100000", "--steps=100000"), cwd=tmp_path
    ) as agent:
        while not (tmp_path / "run/history.csv").exists():
            assert agent.poll() is None
            time.sleep(0.02)
        agent.send_signal(signal.SIGINT)
    saved = json.loads((tmp_path / "run/checkpoint/state.json").read_text())["step"]
    assert saved == steps_of(tmp_path)[-1] > 0


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_has_a_gpu_of_its_own_and_patience(monkeypatch, rank):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    chosen, groups = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("init_process_group", "new_group"):
        monkeypatch.setattr(
            torch.distributed, name, lambda backend, timeout=None: groups.append((backend, timeout))
        )
    for name, value in (("get_rank", rank), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    left = []
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append(True))
    with pytest.raises(ZeroDivisionError), processes("auto") as (_, device):
        assert [device] == chosen == [f"cuda:{rank}"] and not left
        _ = 1 / 0
    assert left == [True]
    assert groups == [("nccl", PATIENCE), ("gloo", PATIENCE)] and PATIENCE.total_seconds() > 3600


def test_processes_that_may_choose_train_on_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    for name in ("LOCAL_RANK", "RANK", "MASTER_PORT"):  # port 0: any that is free
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with processes("auto") as (team, device):
        assert (team.rank, team.count, device) == (0, 1, "auto")
        assert torch.distributed.get_backend() == "gloo"
