"""Imports run one way, and nothing reads pickles: the rules of the house, checked in the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = {"app": ROOT / "app.py", "train": ROOT / "train.py"}


def module_name(path: Path) -> str:
    """sagan/ui/faces.py -> "sagan.ui.faces", sagan/ui/__init__.py -> "sagan.ui"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = PROGRAMS | {module_name(path): path for path in sorted((ROOT / "sagan").rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """The names of all modules that a file imports, also inside functions; relative ones made absolute."""
    package = path.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            for alias in node.names:  # "from sagan import data" imports sagan.data
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


DIRECT = {name: set(imported(path)) for name, path in MODULES.items()}


def reached(name: str) -> set[str]:
    """The modules of this project that importing `name` brings in, directly or not."""
    found: set[str] = set()
    todo = [name]
    while todo:
        new = {other for other in DIRECT[todo.pop()] if other in MODULES} - found
        found |= new
        todo += new
    return found


def third_party(name: str) -> set[str]:
    return {other.partition(".")[0] for other in DIRECT[name]}


def test_the_reading_of_imports_sees_every_form(tmp_path, monkeypatch):
    package = ROOT / "sagan" / "ui"
    source = (
        "import torch.nn\nfrom . import texts\nfrom ..data import x\ndef f():\n    from sagan import layers\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: source)
    assert set(imported(package / "any.py")) == {"torch.nn", "sagan.ui.texts", "sagan.data", "sagan.layers"}


def test_the_modules_of_the_design_are_there():
    names = (
        "layers",
        "networks",
        "losses",
        "data",
        "trainer",
        "checkpoint",
        "latents",
        "sampler",
        "heatmaps",
        "metrics",
        "ui",
    )
    assert {f"sagan.{name}" for name in names} <= MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_no_module_imports_itself_through_others(name):
    assert name not in reached(name)


@pytest.mark.parametrize(
    "chain",
    [
        ("layers", "networks", "checkpoint", "sampler", "ui", "app"),
        ("data", "learner", "trainer", "train"),
        ("losses", "learner", "trainer", "train"),
        ("recipe", "learner", "trainer", "train"),
        ("networks", "learner", "trainer", "train"),
        ("checkpoint", "trainer", "train"),
        ("recipe", "resuming", "settings", "train"),
        ("checkpoint", "metrics", "train"),
        ("device", "trainer", "train"),
        ("latents", "sampler"),
        ("sampler", "sample"),
    ],
    ids=" <- ".join,
)
def test_imports_run_from_right_to_left(chain):
    names = [name if name in PROGRAMS else f"sagan.{name}" for name in chain]
    for i, left in enumerate(names):
        for right in names[i + 1 :]:
            assert left in reached(right), f"{right} does not use {left}"
            assert right not in reached(left), f"{left} must not use {right}"


def test_the_parts_of_the_networks_know_nothing_of_the_rest():
    assert not reached("sagan.layers")
    assert reached("sagan.networks") == {"sagan.layers"}
    assert DIRECT["sagan.seeds"] & MODULES.keys() == {"sagan.latents", "sagan.networks"}
    for name in ("losses", "data", "latents", "heatmaps", "recipe"):
        assert not reached(f"sagan.{name}"), name


def test_a_step_of_training_knows_nothing_of_the_run_that_it_is_a_step_of():
    run = {"trainer", "resuming", "card", "checkpoint", "film", "pictures", "export"}
    assert not {f"sagan.{name}" for name in run} & reached("sagan.learner")


def test_sampling_and_training_do_not_know_each_other():
    training = {f"sagan.{name}" for name in ("trainer", "learner", "recipe", "resuming", "card", "settings")}
    assert not training & reached("sagan.sampler")
    assert "sagan.sampler" not in reached("sagan.trainer")
    assert not (training | {"sagan.pictures"}) & reached("app")  # which loads matplotlib
    assert not training & reached("sagan.metrics")


@pytest.mark.parametrize(
    "name", [name for name in MODULES if not name.startswith("sagan.ui") and name != "app"]
)
def test_nothing_outside_the_page_imports_the_page_or_gradio(name):
    assert not any(other.startswith("sagan.ui") for other in reached(name))
    assert "gradio" not in third_party(name)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("sagan.ui")])
def test_the_page_never_imports_torch(name):
    assert not third_party(name) & {"torch", "torchvision", "safetensors"}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_reads_or_writes_pickles(name):
    assert not third_party(name) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("load", "save"):
            assert ast.unparse(node.value) not in ("torch", "torch.jit"), f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "torch.jit", "torch.serialization"):
            assert not {alias.name for alias in node.names} & {"load", "save"}, f"line {node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle", f"line {node.lineno}"
