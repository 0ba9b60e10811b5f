"""The sampling command: what it writes, that it writes all or nothing, and what it refuses."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagan import checkpoint, sample
from sagan.classes import Classes
from sagan.latents import SEEDS, from_seed, from_seeds, truncate
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sample import main
from sagan.sampler import Sampler

CLASSES = ("dark", "bright", "1")  # the last name looks like the index of another class
PLAIN = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8)
CONDITIONAL = SaganConfig(image_size=32, z_dim=12, g_width=8, d_width=8, num_classes=3)


def save(folder: Path, config: SaganConfig, classes: Classes) -> Path:
    generator, discriminator = Generator(config, spectral=False), Discriminator(config, spectral=False)
    for name, parameter in generator.named_parameters():
        if not name.endswith(("norm.weight", "gain.weight")):
            parameter.data.normal_(0, 0.3)  # the weights networks start with give faces too much alike
    checkpoint.save(folder, classes, generator, discriminator, [], "")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoints") / "plain", PLAIN, Classes())


@pytest.fixture(scope="module")
def conditional(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoints") / "conditional", CONDITIONAL, Classes(CLASSES))


def expected_faces(folder: Path, seeds: list[int], psi: float = 1, labels=None) -> np.ndarray:
    latents = np.stack([truncate(from_seed(seed, 12), psi) for seed in seeds])
    return Sampler.load(folder).faces(latents, labels)


def run(folder: Path, out: Path, *options: object) -> int:
    return main(["--checkpoint", str(folder), "--out", str(out), *map(str, options)])


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# What it writes


def test_an_array_holds_the_faces_of_consecutive_seeds(plain, tmp_path, capsys):
    assert run(plain, tmp_path / "x.npy", "--count", 19, "--seed", 40) == 0
    faces = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert (faces.shape, faces.dtype) == ((19, 32, 32, 3), np.uint8)
    assert len(np.unique(faces, axis=0)) == 19
    np.testing.assert_array_equal(faces, expected_faces(plain, list(range(40, 59))))
    assert "19/19" in capsys.readouterr().err
    assert names(tmp_path) == ["x.npy"]


def test_a_zip_holds_a_png_a_face_named_by_its_seed(plain, tmp_path):
    assert run(plain, tmp_path / "x.zip", "--count", 3, "--seed", SEEDS - 2) == 0
    seeds = [SEEDS - 2, SEEDS - 1, 0]
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{seed}.png" for seed in seeds]
        dates = {info.date_time for info in archive.infolist()}
        assert dates == {(1980, 1, 1, 0, 0, 0)}  # none, so that equal commands write equal files
        faces = [np.asarray(Image.open(archive.open(name))) for name in archive.namelist()]
    np.testing.assert_array_equal(faces, expected_faces(plain, seeds))


def test_a_png_is_one_sheet_of_all_faces(plain, tmp_path):
    assert run(plain, tmp_path / "x.PNG", "--count", 4) == 0
    picture = np.asarray(Image.open(tmp_path / "x.PNG"))
    assert picture.shape == (70, 70, 3)
    first, second, third, _ = expected_faces(plain, [0, 1, 2, 3])
    np.testing.assert_array_equal(picture[2:34, 2:34], first)
    np.testing.assert_array_equal(picture[2:34, 36:68], second)
    np.testing.assert_array_equal(picture[36:68, 2:34], third)


def test_truncation_reaches_the_latents(plain, tmp_path):
    run(plain, tmp_path / "x.npy", "--count", 2, "--truncation", 0.4)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected_faces(plain, [0, 1], 0.4))


@pytest.mark.parametrize("ending", ["npy", "zip", "png"])
def test_equal_commands_write_equal_files(plain, tmp_path, ending):
    for name in ("a", "b"):
        run(plain, tmp_path / f"{name}.{ending}", "--count", 2)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


@pytest.mark.parametrize(
    ("chosen", "label"), [("bright", 1), ("0", 0), ("2", 2), ("1", 2)], ids=["name", "0", "2", "name first"]
)
def test_a_class_is_chosen_by_name_or_index(conditional, tmp_path, chosen, label):
    run(conditional, tmp_path / "x.npy", "--count", 3, "--class", chosen)
    expected = expected_faces(conditional, [0, 1, 2], labels=[label] * 3)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


def test_without_a_class_the_seed_chooses_and_all_classes_come_equally_often(conditional, tmp_path):
    run(conditional, tmp_path / "x.npy", "--count", 20, "--seed", 100)  # more than are drawn at once
    expected = expected_faces(conditional, list(range(100, 120)), labels=[(100 + i) % 3 for i in range(20)])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


def test_without_a_class_those_that_had_no_training_image_are_left_out(tmp_path):
    save(tmp_path / "model", CONDITIONAL, Classes(CLASSES, (4, 0, 9)))
    run(tmp_path / "model", tmp_path / "x.npy", "--count", 5, "--seed", 3)
    expected = expected_faces(tmp_path / "model", [3, 4, 5, 6, 7], labels=[2, 0, 2, 0, 2])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


@pytest.mark.parametrize("first", [5, SEEDS - 20])
def test_latents_of_no_more_faces_than_are_drawn_at_once_are_in_memory(plain, tmp_path, monkeypatch, first):
    asked = []
    monkeypatch.setattr(
        sample, "from_seeds", lambda seeds, size: asked.append(seeds) or from_seeds(seeds, size)
    )
    run(plain, tmp_path / "x.zip", "--count", 37, "--seed", first)
    seeds = [(first + i) % SEEDS for i in range(37)]
    assert asked == [seeds[:16], seeds[16:32], seeds[32:]]
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == [f"{seed}.png" for seed in seeds]
        last = np.asarray(Image.open(archive.open(archive.namelist()[-1])))
    np.testing.assert_array_equal(last, expected_faces(plain, seeds[-1:])[0])


# All or nothing


@pytest.mark.parametrize("ending", ["npy", "zip", "png"])
def test_a_file_that_exists_is_refused_before_anything_is_read_and_stays(
    plain, tmp_path, monkeypatch, capsys, ending
):
    monkeypatch.setattr(Sampler, "load", lambda *_: pytest.fail("a checkpoint was read"))
    out = tmp_path / f"x.{ending}"
    out.write_text("photographs")
    assert refused(capsys, plain, out) == f"'{out}' exists: name another --out, or add --overwrite."
    assert out.read_text() == "photographs" and names(tmp_path) == [out.name]


def test_with_overwrite_a_file_that_exists_is_replaced_and_another_one_made(plain, tmp_path):
    (tmp_path / "x.npy").write_text("old")
    for name in ("x.npy", "new.npy"):
        assert run(plain, tmp_path / name, "--count", 1, "--overwrite") == 0
        assert np.load(tmp_path / name).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
@pytest.mark.parametrize("ending", ["npy", "zip", "png"])
def test_a_command_that_is_stopped_leaves_the_old_file_and_nothing_else(
    plain, tmp_path, monkeypatch, capsys, ending, error
):
    out = tmp_path / f"x.{ending}"
    out.write_text("old")
    faces, calls = Sampler.faces, []

    def stop_in_the_second_chunk(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return faces(self, *args)

    monkeypatch.setattr(Sampler, "faces", stop_in_the_second_chunk)
    if isinstance(error, KeyboardInterrupt):
        assert run(plain, out, "--overwrite") == 130
        assert capsys.readouterr().err.endswith(f"Stopped; '{out}' was not written.\n")
    else:
        with pytest.raises(SystemExit, match="2"):
            run(plain, out, "--overwrite")
        assert capsys.readouterr().err.endswith(
            f"error: '{out}' could not be written: No space left on device.\n"
        )
    assert len(calls) == 2
    assert out.read_text() == "old"
    assert names(tmp_path) == [out.name]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another signal there")
def test_ctrl_c_ends_the_real_command_and_leaves_nothing(plain, tmp_path):
    command = [sys.executable, "-m", "sagan.sample", "--checkpoint", plain, "--out", tmp_path / "x.npy"]
    child = subprocess.Popen([*command, "--count", "50000"], stderr=subprocess.PIPE, text=True)
    try:
        while "Sampling" not in child.stderr.readline():  # the bar appears as the workers start
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, rest = child.communicate(timeout=300)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert rest.endswith(f"Stopped; '{tmp_path / 'x.npy'}' was not written.\n")
    assert names(tmp_path) == []


@pytest.mark.parametrize("output", [">&- 2>&-", "2> /dev/full"], ids=["closed", "full"])
def test_faces_are_written_where_nobody_sees_the_progress(plain, tmp_path, output):
    command = f"'{sys.executable}' -m sagan.sample --checkpoint '{plain}' --count 2 --out x.npy {output}"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env).returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected_faces(plain, [0, 1]))


# Refusals


def refused(capsys, folder: Path, out: Path, *options: object) -> str:
    """The one line with which the command ends with status 2."""
    with pytest.raises(SystemExit) as end:
        run(folder, out, *options)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("python -m sagan.sample: error: ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--count", 0], "--count must be from 1 to 4294967296, the number of seeds, but was 0."),
        (["--count", 10**10], f"--count must be from 1 to {SEEDS}, the number of seeds, but was {10**10}."),
        (["--seed", -1], "A seed must be an integer from 0 to 4294967295, but was -1."),
        (["--seed", SEEDS], "A seed must be an integer from 0 to 4294967295, but was 4294967296."),
        (["--truncation", 1.5], "Truncation must be a number from 0 to 1, but was 1.5."),
        (["--truncation", "nan"], "Truncation must be a number from 0 to 1, but was nan."),
        (["--class", "red"], "There is no class 'red': this model has none; leave --class out."),
        (["--count", "many"], "argument --count: invalid int value: 'many'"),
    ],
    ids=str,
)
def test_options_that_cannot_be_met_end_the_command_with_one_sentence(
    plain, tmp_path, capsys, options, sentence
):
    assert refused(capsys, plain, tmp_path / "x.npy", *options) == sentence
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["x.jpg", "x", "npy"])
def test_an_ending_that_is_not_known_is_refused_with_those_that_are(plain, tmp_path, capsys, name):
    out = tmp_path / name
    assert refused(capsys, plain, out) == f"--out must end in .npy, .zip, .png, but was '{out}'."


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")], ids=repr
)
def test_too_little_memory_is_one_sentence(plain, tmp_path, monkeypatch, capsys, error):
    def full(*_):
        raise error

    monkeypatch.setattr(sample, "sheet", full)
    said = "There is too little memory: choose a smaller --count, or close other programs."
    assert refused(capsys, plain, tmp_path / "x.png") == said
    assert names(tmp_path) == []


def test_a_mistake_of_the_program_is_not_told_as_one_of_its_user(plain, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(sample, "sheet", fail)
    with pytest.raises(RuntimeError, match="multiplied"):
        run(plain, tmp_path / "x.png")


def test_a_place_where_nothing_can_be_written_is_refused_before_sampling(
    plain, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Sampler, "faces", lambda *_: pytest.fail("faces were drawn"))
    (tmp_path / "folder.npy").mkdir()
    for out in (tmp_path / "missing" / "x.npy", tmp_path / "folder.npy"):
        sentence = f"'{out}' cannot be written: its folder does not exist, or it is a folder itself."
        assert refused(capsys, plain, out) == sentence


@pytest.mark.parametrize("chosen", ["red", "3", "-1", "١"])
def test_a_class_that_is_not_there_is_refused_with_those_that_are(conditional, tmp_path, capsys, chosen):
    sentence = refused(capsys, conditional, tmp_path / "x.npy", f"--class={chosen}")
    assert sentence == f"There is no class '{chosen}': this model has 0 (dark), 1 (bright), 2 (1)."


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path, capsys):
    sentence = refused(capsys, tmp_path / "nothing", tmp_path / "x.npy")
    assert sentence.startswith(f"No checkpoint at '{tmp_path / 'nothing'}': ")


def test_help_names_every_option_with_its_default(help_of):
    text = help_of(main)
    for words in (
        "--checkpoint CHECKPOINT folder or Hub id (default: checkpoints/celeba64)",
        "--count COUNT how many faces (default: 64)",
        "x.npy: uint8 array (count, S, S, 3); x.zip: a PNG per face, named by seed; x.png: one sheet",
        "--overwrite replace --out where it exists (default: refuse)",
        "(default: 0)",
        "less variety and often cleaner faces (default: 1.0)",
        "(default: the seeds go through them in turn)",
    ):
        assert words in text
