"""The page over a small random generator, served once for all tests, and a browser to look at it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import gradio as gr
import pytest
import torch
from screen import opening

from sagan import export
from sagan.classes import Classes
from sagan.networks import Discriminator, Generator, SaganConfig
from sagan.sampler import CuratedFace, Sampler
from sagan.ui import build_app, launch_options, texts

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-features=LocalNetworkAccessChecks",  # a page that a test makes up may hold one of this machine
    *("--process-per-site", "--in-process-gpu"),  # a page finds Gradio's scripts compiled: a third less work
]
# The sign that Gradio 6.31 shows while it loads counts frames for as long as the page is open: 9 % of a core.
NO_CLOCKS = r"""(() => {
    const request = window.requestAnimationFrame;
    const isClock = (work) => /performance\.now\(\)-.+1e3/.test(work);
    window.requestAnimationFrame = (work) => (isClock(work) ? 0 : request(work));
})()"""
CURATED = (
    CuratedFace(11, (0.2, 0.7), "Look at the <b>left</b> cheek."),
    CuratedFace(12, (0.5, 0.5), "Look at the nose."),
    CuratedFace(13, (0.6, 0.3), "Look at the brow."),
)


def random_sampler(*names: str, counts: tuple[int, ...] = ()) -> Sampler:
    """A sampler over small random networks: seeds differ, and logits spread by 2 in both attention layers."""
    classes = Classes(names, counts)
    config = SaganConfig(g_width=8, d_width=8, z_dim=16, num_classes=len(names))
    generator, discriminator = Generator(config, spectral=False), Discriminator(config, spectral=False)
    with torch.no_grad(), pytest.MonkeyPatch.context() as quick:
        quick.setattr(export, "CALIBRATION_IMAGES", 64)
        export.measure_batch_norm(generator, classes)
        for name, layer in generator.attention.items():
            layer.gamma.copy_(torch.empty(()).uniform_(1, 2) * (torch.randint(2, ()) * 2 - 1))
            labels = torch.zeros(1, dtype=int) if names else None
            q, k = generator(torch.randn(1, config.z_dim), labels, extras="queries_keys")[1][name]
            scale = 2 / (q @ k.transpose(1, 2)).std()
            layer.query.weight *= scale
            layer.query.bias *= scale
    return Sampler(generator, discriminator, classes)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory) -> Iterator[None]:
    """Where the pages write: a folder of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


def stop(app: gr.Blocks) -> None:
    """End a server with all its connections.

    One that comes while uvicorn 0.54 closes stays open and goes on answering: a browser that has it would
    find the old page on it, not the next one of the same port.
    """
    app.close(verbose=False)
    for connection in list(app.server.server_state.connections):
        connection.loop.call_soon_threadsafe(connection.shutdown)
    app.server.thread.join(timeout=60)
    assert not app.server.thread.is_alive()


@contextmanager
def serving() -> Iterator[Callable[..., str]]:
    """serve(...) of an app, or of what build_app takes -> the address of the page, until the block ends.

    It ends with its tests: a page costs the processor a little while it is served.
    """
    with ExitStack() as stack:

        def serve(*args) -> str:
            app = args[0] if isinstance(args[0], gr.Blocks) else build_app(*args)
            address = app.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
            stack.callback(stop, app)
            return address

        yield serve


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """serve(...) as in `serving`, until the test is over."""
    with serving() as serve:
        yield serve


@pytest.fixture(scope="module")
def serve_long() -> Iterator[Callable[..., str]]:
    """The same, until the last test of the file is over."""
    with serving() as serve:
        yield serve


@pytest.fixture(scope="session")
def sampler() -> Sampler:
    sampler = random_sampler()
    sampler.curated = CURATED
    sampler.card = "# Test model\n\nMade of noise."
    return sampler


@pytest.fixture(scope="session")
def with_classes() -> Sampler:
    return random_sampler("none", "smiling", "bearded")


@pytest.fixture(scope="session")
def half_learned() -> Sampler:
    """A model one of whose three classes had no training images."""
    return random_sampler("none", "smiling", "bearded", counts=(0, 5, 9))


@pytest.fixture(scope="session")
def address(sampler: Sampler) -> Iterator[str]:
    with serving() as serve:
        yield serve(sampler)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser, address: str) -> Iterator:
    """One visitor's browser, so that scripts and fonts are fetched, and compiled, once for all tests."""
    context = browser.new_context(accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.add_init_script(NO_CLOCKS)
    context.new_page().goto(f"{address}theme.css")  # the process of all pages lives as long as one of them
    yield context
    context.close()


@pytest.fixture
def new_page(context, serve) -> Iterator:
    """new_page(address, width=1280, height=800) opens a page; any error in its scripts fails the test.

    It is closed before what the test served.
    """
    with opening(context) as open_page:
        yield open_page


START_AGAIN = """async () => {
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    for (const fold of document.querySelectorAll('details[open]')) fold.open = false;
    for (let i = 0; i < 3; i++) await frame(); // what is folded asks for nothing any more
    sagan.lab.set({ ...sagan.lab.FIRST });
    document.activeElement.blur();
    scrollTo(0, 0);
    const before = sagan.face, first = document.querySelector('#attention-view .choices button');
    first?.click();
    while (first && (sagan.face === before || sagan.pending())) await frame();
}"""


def start_again(page) -> None:
    """Bring a page back to what a first visitor sees, without loading it."""
    page.unroute_all()
    page.set_viewport_size({"width": 1280, "height": 800})
    page.mouse.move(0, 0)
    leave = page.locator("#tour-view .leave")
    if leave.is_visible():
        leave.click()
        leave.wait_for(state="hidden")
        page.wait_for_function("!sagan.pending()")
    page.get_by_role("tab", name=texts.ATTENTION_TAB, exact=True).click()
    page.evaluate(START_AGAIN)


class Pages:
    """One page of every address, which whoever asks for it finds as a first visitor does."""

    def __init__(self, open_page: Callable) -> None:
        self.open_page, self.pages = open_page, {}

    def __call__(self, address: str, prepare: Callable):
        """The page of an address, prepared."""
        if address in self.pages:
            start_again(self.pages[address])
        else:
            self.pages[address] = self.open_page(address)
        prepare(self.pages[address])
        return self.pages[address]


@pytest.fixture(scope="module")
def shared_pages(context, serve_long) -> Iterator[Pages]:
    """The pages that tests of a file share, closed before what these served."""
    with opening(context) as open_page:
        yield Pages(open_page)


@pytest.fixture
def prepared(request) -> Callable:
    """prepared(address, prepare) is a page of the test's own, or, where it is marked one_page, its file's.

    A page load takes a second of the processor. So marked are tests that do not look at how the page begins,
    and leave nothing on its way.
    """
    if request.node.get_closest_marker("one_page"):
        return request.getfixturevalue("shared_pages")
    return Pages(request.getfixturevalue("new_page"))


def wait_for_attention(page) -> None:
    page.wait_for_selector("#attention-view [data-drawn]")


@pytest.fixture
def page(prepared, address: str):
    """The page as a first visitor sees it, with the attention drawn."""
    return prepared(address, wait_for_attention)
