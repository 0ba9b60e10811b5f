"""What the commands share."""

import argparse
import ast
import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sagan import checkpoint
from sagan.commands import CHECKPOINT, Unheard, add_checkpoint, refusal

ROOT = Path(__file__).parents[1]
PROGRAMS = [
    path
    for path in (*ROOT.glob("*.py"), *ROOT.glob("sagan/**/*.py"), *ROOT.glob("benchmarks/*.py"))
    if "__main__" in path.read_text(encoding="utf-8")
]


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_checkpoint(parser)
    return parser


def test_the_checkpoint_of_the_commands_is_the_shipped_one_from_any_folder_unless_another_is_named(
    parser, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)  # where "checkpoints/celeba64" could only be somebody's on the Hub
    assert parser.parse_args([]).checkpoint == CHECKPOINT
    assert checkpoint.find(CHECKPOINT) == ROOT / "checkpoints/celeba64"
    assert parser.parse_args(["--checkpoint", "owner/name"]).checkpoint == "owner/name"


def test_a_package_without_the_repository_asks_for_a_checkpoint_and_never_the_hub(tmp_path):
    shutil.copytree(ROOT / "sagan", tmp_path / "site" / "sagan")
    hub = tmp_path / "site" / "huggingface_hub.py"
    hub.write_text("def snapshot_download(*_, **__):\n    print('asked')\nmodel_info = snapshot_download\n")
    command = [sys.executable, "-m", "sagan.average_maps"]
    env = {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(
        "error: argument --checkpoint: 'checkpoints/celeba64' of the repository is not beside this package: "
        "name a folder or a Hub id"
    )


@pytest.mark.parametrize("named", ["owner/name", "checkpoints/mine", "/somewhere/mine"])
def test_an_own_checkpoint_may_stand_in_the_place_of_the_shipped_one(tmp_path, named):
    shutil.copytree(ROOT / "sagan", tmp_path / "sagan")
    source = (tmp_path / "sagan" / "commands.py").read_text()
    shipped = 'CHECKPOINT = str(REPOSITORY / "checkpoints/celeba64")'
    assert source.count(shipped) == 1
    (tmp_path / "sagan" / "commands.py").write_text(source.replace(shipped, f"CHECKPOINT = {named!r}"))
    code = "import argparse, sagan.commands as c; p = argparse.ArgumentParser(); c.add_checkpoint(p); "
    code += "print(p.format_help(), p.parse_args([]).checkpoint, sep='')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"(default: {named})" in done.stdout and done.stdout.splitlines()[-1] == named


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EACCES, "Permission denied", "a/b"), "'a/b' cannot be used: Permission denied."),
        (OSError("the port is taken"), "the port is taken"),
    ],
)
def test_a_refusal_names_the_path_where_there_is_one(error, sentence):
    assert refusal(error) == sentence


class Pipe(io.StringIO):
    """A pipe whose reader may be gone."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)

    def flush(self) -> None:
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_what_is_written_is_heard_as_long_as_somebody_reads_and_then_hurts_nobody():
    pipe = Pipe()
    stream = Unheard(pipe)
    print("first", file=stream, flush=True)
    pipe.gone = True
    print("second", file=stream, flush=True)
    assert stream.write("third") == 5
    assert pipe.getvalue() == "first\n" and stream.isatty() is False


def test_a_stream_that_was_closed_before_the_start_takes_everything():
    stream = Unheard(None)
    print("nothing", file=stream, flush=True)
    assert stream.write("more") == 4 and stream.isatty() is False


def test_letters_that_the_encoding_lacks_are_spelled_and_the_rest_is_as_it_was():
    raw = io.BytesIO()
    stream = Unheard(io.TextIOWrapper(raw, "latin-1"))
    text = "3 é of 'runs/€', \udcff"
    assert stream.write(text) == len(text) and stream.heard
    stream.flush()
    assert raw.getvalue().decode("latin-1") == "3 é of 'runs/\\u20ac', \\udcff"


MAIN = """
import sys
from tqdm import tqdm
from sagan.commands import run_program

def main():
    for _ in tqdm(range(3)):
        pass
    print("the figures")
    print("done", file=open("done", "w"))
    return {code}

run_program(main, {prints_result})
"""
LOST = "The result could not be printed.\n"


@pytest.mark.parametrize("output", [">&-", ">/dev/full", ">&{gone}"], ids=["closed", "full", "gone"])
@pytest.mark.parametrize("prints_result", [False, True])
def test_a_program_ends_its_work_and_tells_by_its_code_that_a_result_was_not_printed(
    tmp_path, output, prints_result
):
    (tmp_path / "main.py").write_text(MAIN.format(code=0, prints_result=prints_result))
    reader, gone = os.pipe()
    os.close(reader)
    command = ["bash", "-c", f"'{sys.executable}' main.py {output.format(gone=gone)}"]
    env = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, pass_fds=[gone])
    os.close(gone)
    assert done.returncode == prints_result
    assert (tmp_path / "done").read_text() == "done\n"
    said = done.stderr.decode().replace("\r", "\n").splitlines(keepends=True)[-1]
    assert said == LOST if prints_result else "100%" in said


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_of_which_nobody_hears_the_progress_prints_its_result(tmp_path, code):
    (tmp_path / "main.py").write_text(MAIN.format(code=code, prints_result=True))
    command = ["bash", "-c", f"'{sys.executable}' main.py 2>&-"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (code, b"the figures\n")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_is_run_so(path):
    *_, last = ast.parse(path.read_text(encoding="utf-8")).body
    prints_result = path.stem in ("metrics", "train_speed", "page_speed")
    call = "run_program(main, prints_result=True)" if prints_result else "run_program(main)"
    assert ast.unparse(last) == f"if __name__ == '__main__':\n    {call}"


def test_other_mistakes_of_writing_are_not_hidden():
    closed = Pipe()
    closed.close()
    with pytest.raises(ValueError):
        Unheard(closed).write("x")
