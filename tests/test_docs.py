"""What the documents say of the code: every option is explained, and every link leads somewhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import train
from sagan.layers import SelfAttention

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("checkpoints/**/*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    """A page without what it quotes in fences and backticks."""
    return re.sub(r"`[^`]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path, link: str) -> bool:
    """Whether a relative link of a page leads to no file, or to no heading of it."""
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return True
    return bool(anchor) and anchor not in anchors(target.read_text(encoding="utf-8"))


def test_every_option_of_the_training_is_explained_once():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`--.+?) \|", text, flags=re.MULTILINE)
    explained = [name for cell in first_cells for name in re.findall(r"--[a-z-]+", cell)]
    options = {name for action in train.build_parser()._actions for name in action.option_strings}
    assert sorted(explained) == sorted(options - {"-h", "--help"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    links = LINK.findall(without_code(page.read_text(encoding="utf-8")))
    own = [link for link in links if not link.startswith(("http://", "https://"))]
    assert [link for link in own if broken(page, link)] == []


def test_broken_links_are_seen(tmp_path):
    (tmp_path / "a.md").write_text("# One\n\n## The second, with *stress*\n")
    page = tmp_path / "b.md"
    page.write_text("# B\n")
    good = ["a.md", "a.md#one", "a.md#the-second-with-stress", "#b"]
    bad = ["c.md", "a.md#two", "#one"]
    assert [link for link in good + bad if broken(page, link)] == bad


CODE = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("code", CODE)
def test_python_in_the_documents_runs(code, tmp_path, monkeypatch):
    """The lines on attention get a layer's parts, and do what the layer does."""
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    layer, x = SelfAttention(16), torch.randn(2, 16, 5, 7)
    torch.nn.init.normal_(layer.gamma)
    layer.eval()
    known = {"torch": torch, "x": x, "gamma": layer.gamma}
    known |= {name: getattr(layer, name) for name in ("query", "key", "value")}
    exec(code, known)
    if "y" in known:
        torch.testing.assert_close(known["y"], layer(x))
    else:
        assert known["face"].shape == (64, 64, 3)


def test_every_page_of_the_documents_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in LINK.findall(text)}
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= linked
