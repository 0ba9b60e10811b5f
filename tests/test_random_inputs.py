"""The tests draw random inputs, and a run that failed tells how to draw the same ones again."""

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
FAILING = """
from randomness import draw

def test_that_fails():
    assert not f"drawn {draw.random()}"
"""


def test_the_seed_that_a_run_on_several_workers_tells_draws_the_same_again(tmp_path):
    (tmp_path / "test_failing.py").write_text(FAILING)
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())

    def run(*options: str) -> tuple[str, str]:
        command = [sys.executable, "-m", "pytest", "-q", *options, "test_failing.py"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        found = re.search(r"drawn ([\d.e-]+).* --seed (\d+)", done.stdout, re.DOTALL)
        assert found, done.stdout + done.stderr
        return found.groups()

    drawn, seed = run("-n", "2")
    assert run("--seed", seed) == (drawn, seed)
