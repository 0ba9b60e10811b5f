"""The runs of the ablations: which are trained and which refused, and what stands in the table."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import ablations

COMMAND = ("--data", "images", "--only", "small-batches", "only-16")


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that train, which leave as much of a run as is looked at, and nothing else is done."""
    commands = []

    def train(command: list[str]) -> SimpleNamespace:
        commands.append(command)
        folder = Path(command[command.index("--out") + 1]) / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {"batch_size": 32, "steps": int(command[command.index("--steps") + 1])}
        before = {"step": 0, "images": 0, "seconds": 0, "source": ""}
        state = {"step": 1, "seconds": 1, "recipe": recipe, "images": 9, "about": {}, "before": before}
        (folder / "config.json").touch()
        (folder / "state.json").write_text(json.dumps(state))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", train)
    monkeypatch.setattr(ablations, "compare", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return commands


def test_runs_of_the_same_length_go_on_and_those_of_another_are_refused_before_any_is_trained(
    trained: list[list[str]], capsys: pytest.CaptureFixture
) -> None:
    for _ in range(2):
        ablations.main([*COMMAND, "--out", "runs", "--kimg", "3.2"])
    assert [command[command.index("--steps") + 1] for command in trained] == ["100"] * 4
    assert ["--resume" in command for command in trained] == [False, False, True, True]
    for kimg, steps in ((6.4, 200), (1.6, 50)):
        for first in ("no-attention", "small-batches"):
            options = ["--only", first, "only-16", "--out", "runs", "--kimg", str(kimg), "--data", "images"]
            with pytest.raises(SystemExit) as stopped:
                ablations.main(options)
            named = "small-batches" if first == "small-batches" else "only-16"
            sentence = f"The run in 'runs/{named}' is one of 100 steps, but --kimg {kimg} makes {steps}: "
            assert capsys.readouterr().err.endswith(f"error: {sentence}name another --out.\n")
            assert stopped.value.code == 2
    assert len(trained) == 4
