"""What the comparison of training speeds refuses."""

import pytest
import torch

from benchmarks import train_speed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batch-sizes", "64", "0"], "argument --batch-sizes: '0' is not a whole number from 1 up"),
        (["--rounds", "0"], "argument --rounds: '0' is not a whole number from 1 up"),
        (["--steps", "-3"], "argument --steps: '-3' is not a whole number from 1 up"),
        (["--steps", "all"], "argument --steps: 'all' is not a whole number from 1 up"),
        (["--device", "cuda:99"], "There is no device 'cuda:99' here: use cpu, cuda, or cuda:0 and so on."),
        (["--device", "tpu"], "There is no device 'tpu' here: use cpu, cuda, or cuda:0 and so on."),
    ],
    ids=str,
)
def test_options_that_cannot_be_met_end_it_with_one_sentence_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, options: list[str], sentence: str
) -> None:
    monkeypatch.setattr(torch, "randn", lambda *_, **__: pytest.fail("something was computed"))
    with pytest.raises(SystemExit) as stopped:
        train_speed.main(options)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {sentence}")
