"""The page where there is no usable checkpoint."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import app
from sagan.sampler import Sampler

ROOT = Path(__file__).parents[2]


def assert_says_what_to_do(page, folder: Path) -> None:
    said = page.locator("#no-checkpoint").text_content()
    assert str(folder) in said and "train.py" in said
    assert page.get_by_role("tab").count() == 0


def test_the_app_opens_without_a_checkpoint_and_says_what_to_do(new_page, tmp_path):
    folder = tmp_path / "missing"
    command = [sys.executable, "-u", "app.py", "--checkpoint", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            found = (re.search(r"http://[\w.:]+", line) for line in server.stdout)
            page = new_page(next(filter(None, found))[0])
            assert_says_what_to_do(page, folder)
            page.close()
        finally:
            server.terminate()


@pytest.mark.parametrize("config", [None, "[]", "{"])
def test_the_page_says_what_is_wrong_with_a_checkpoint(new_page, serve, tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError) as error:
        Sampler.load(tmp_path)
    assert_says_what_to_do(new_page(serve(None, str(error.value))), tmp_path)


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "app.py", "--checkpoint", str(tmp_path), "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1
    assert f"The page cannot be served at 127.0.0.1, port {port}: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http", "²"])
def test_what_is_no_port_is_refused_in_one_sentence(monkeypatch, capsys, port):
    monkeypatch.setattr(sys, "argv", ["app.py", f"--port={port}"])
    with pytest.raises(SystemExit) as stopped:
        app.parse_arguments()
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"app.py: error: argument --port: {port!r} is not a port from 1 to 65535"


@pytest.mark.parametrize("port", [1, 7860, 65535])
def test_every_port_can_be_chosen(monkeypatch, port):
    monkeypatch.setattr(sys, "argv", ["app.py", f"--port={port}"])
    assert app.parse_arguments().port == port
