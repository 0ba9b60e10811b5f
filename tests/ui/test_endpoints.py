"""The public endpoints, called as programs call them."""

import asyncio
import copy
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio import processing_utils
from gradio.data_classes import PredictBodyInternal
from gradio.server_messages import EstimationMessage
from gradio.utils import get_upload_folder
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image
from randomness import draw
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from sagan import latents
from sagan.sampler import Sampler
from sagan.ui import api, build_app, patches, texts, work
from sagan.ui.gate import Gate

NOTHING = "There is nothing at this address."


@pytest.fixture(scope="module")
def client(address) -> Client:
    return Client(address, verbose=False)


def pixels(gallery: list[dict]) -> list[np.ndarray]:
    return [np.asarray(Image.open(item["image"])) for item in gallery]


def test_only_three_endpoints_are_public_and_their_parameters_have_names(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    names = {
        name: [parameter["parameter_name"] for parameter in info["parameters"]]
        for name, info in endpoints.items()
    }
    assert names == {
        "/faces": ["seed", "count", "truncation", "label"],
        "/walk": ["seed_a", "seed_b", "steps", "truncation", "label"],
        "/attention": ["seed", "layer", "x", "y", "truncation", "label"],
    }


def test_faces_are_those_of_the_sampler(client, sampler):
    seed, psi = draw.randrange(2**32 - 10), draw.random()
    answer = pixels(client.predict(seed=seed, count=3, truncation=psi, api_name="/faces"))
    z = [latents.truncate(latents.from_seed(seed + i, sampler.config.z_dim), psi) for i in range(3)]
    np.testing.assert_array_equal(answer, sampler.faces(np.stack(z)))


def test_the_walk_starts_and_ends_at_its_seeds(client, sampler):
    a, b = draw.sample(range(2**32), 2)
    answer = pixels(client.predict(seed_a=a, seed_b=b, steps=5, api_name="/walk"))
    ends = np.stack([latents.from_seed(seed, sampler.config.z_dim) for seed in (a, b)])
    assert len(answer) == 5
    np.testing.assert_array_equal([answer[0], answer[-1]], sampler.faces(ends))


def test_attention_is_the_row_of_the_pointed_place(client, sampler):
    seed, x, y = draw.randrange(2**32), draw.random(), draw.random()
    answer = client.predict(seed=seed, layer="32x32", x=x, y=y, api_name="/attention")
    z = latents.from_seed(seed, sampler.config.z_dim)
    row = sampler.attention(z, "32x32")[int(y * 32) * 32 + int(x * 32)].astype(np.float64)
    np.testing.assert_allclose(answer["weights"], row, atol=1e-6)
    assert answer["times_uniform"] == pytest.approx(1024 * row.max(), rel=1e-4)
    assert answer["entropy_bits"] == pytest.approx(-(row[row > 0] * np.log2(row[row > 0])).sum(), abs=1e-3)
    assert answer["gamma"] == pytest.approx(sampler.gammas["32x32"])


@pytest.mark.parametrize(
    ("endpoint", "arguments", "allowed"),
    [
        ("/faces", {"seed": -1}, "minimum value 0"),
        ("/faces", {"seed": 2**32}, "maximum value 4294967295"),
        ("/faces", {"count": 65}, "maximum value 64"),
        ("/faces", {"count": 0}, "minimum value 1"),
        ("/faces", {"truncation": 1.5}, "maximum value 1"),
        ("/faces", {"seed": None}, "seed must be an integer from 0 to 4294967295"),
        ("/faces", {"count": None}, "1 to 64 faces"),
        ("/walk", {"steps": None}, "2 to 64 faces"),
        ("/walk", {"truncation": None}, "Truncation must be a number from 0 to 1"),
        ("/walk", {"steps": 1}, "minimum value 2"),
        ("/walk", {"seed_b": 2**40}, "maximum value 4294967295"),
        ("/attention", {"x": None}, "x must be a number from 0 to 1"),
        ("/attention", {"y": None}, "y must be a number from 0 to 1"),
        ("/attention", {"x": 1.01}, "maximum value 1"),
        ("/attention", {"layer": "64x64"}, "['16x16', '32x32']"),
    ],
)
def test_what_is_out_of_range_is_refused_by_saying_what_is_allowed(client, endpoint, arguments, allowed):
    with pytest.raises(AppError) as error:
        client.predict(**arguments, api_name=endpoint)
    said = str(error.value)
    # What Gradio says of an exception that nobody expected would tell neither.
    (given,) = arguments.values()
    assert allowed in said and str(given) in said and len(said) < 300


def test_what_programs_ask_for_holds_up_no_visitor(client, page, monkeypatch):
    enough = threading.Event()
    monkeypatch.setattr(api, "way", lambda *_: enough.wait(60) and [])
    jobs = [client.submit(seed_a=1, seed_b=2, steps=2, api_name="/walk") for _ in range(5)]
    try:
        page.get_by_role("tab", name="Faces", exact=True).click()
        page.wait_for_selector("#sheet-view .grid button img")
        assert not any(job.done() for job in jobs)
    finally:
        enough.set()
    assert [job.result(timeout=60) for job in jobs] == [[]] * 5


class Waiting:
    """The queue of a page that is not served yet, so that whatever is pushed waits."""

    def __init__(self, sampler: Sampler) -> None:
        app = build_app(sampler)
        sheet = next(block._id for block in app.blocks.values() if block.elem_id == "sheet-view")
        self.events = {event.api_name: event._id for event in app.fns.values()}
        self.events["sheet"] = next(
            event._id for event in app.fns.values() if (sheet, "want") in event.targets
        )
        self.queue = app._queue

    def push(self, name: str, session: str) -> tuple[bool, str]:
        """Whether the event waits now, and its id or what was said."""
        body = PredictBodyInternal(fn_index=self.events[name], data=[], session_hash=session)
        with ThreadPoolExecutor(1) as other:  # in this thread a browser's event loop may run
            pushed = self.queue.push(body=body, request=None, username=None)
            return other.submit(asyncio.run, pushed).result()[:2]

    def unread(self, session: str) -> list[str]:
        """The ids of the events of which a session has messages, the oldest first; empties them."""
        messages = self.queue.pending_messages_per_session[session]
        return [messages.get_nowait().event_id for _ in range(messages.qsize())]


def test_an_idle_queue_rests_longer_than_gradios(sampler):
    gradios = gr.Blocks()._queue.sleep_when_free
    assert gradios < Waiting(sampler).queue.sleep_when_free == patches.LOOK_EVERY


def test_a_full_turn_of_the_queue_leaves_room_in_the_others(sampler):
    waiting = Waiting(sampler)
    for i in range(patches.MOST_IN_TURN):
        assert waiting.push(("walk", "faces")[i % 2], f"session {i}")[0]
    assert waiting.push("walk", "one more") == waiting.push("attention", "another") == (False, texts.TOO_BUSY)
    assert waiting.push("sheet", "visitor")[0]


def test_a_session_that_reads_no_answers_keeps_the_newest(sampler, monkeypatch):
    monkeypatch.setattr(patches, "MOST_UNREAD", 4)
    waiting = Waiting(sampler)
    events = [waiting.push("faces", "silent")[1] for _ in range(9)]
    others = {f"session {i}": waiting.push("faces", f"session {i}")[1] for i in range(9)}
    assert waiting.unread("silent") == events[-5:]
    assert all(waiting.unread(session) == [event] for session, event in others.items())


def test_a_session_that_is_forgotten_while_it_waits_stops_nobody(sampler):
    waiting = Waiting(sampler)
    sessions, events = waiting.queue.pending_messages_per_session, waiting.queue.pending_event_ids_session
    assert events.max_size >= sessions.max_size >= 4 * waiting.queue.max_size
    events.max_size = sessions.max_size = 3
    for name in ("a", "b", "c", "a", "d"):  # b is the one that asked longest ago
        assert waiting.push("faces", name)[0]
    assert list(sessions) == list(events) == ["c", "a", "d"]
    (turn,) = (turn for turn in waiting.queue.event_queue_per_concurrency_id.values() if turn.queue)
    assert [event.session_hash for event in turn.queue] == ["a", "b", "c", "a", "d"]
    for event in turn.queue:  # as Gradio tells all that wait how long it will take
        waiting.queue.send_message(event, EstimationMessage(queue_size=5))
    assert "b" not in sessions and len(waiting.unread("d")) == 2
    assert events["b"] == set() and "b" not in events  # as Gradio asks before it ends a stream


def test_no_statistics_are_made_of_events(sampler):
    waiting, gradios = Waiting(sampler).queue, gr.Blocks()._queue
    made = {"function": "faces", "status": "success", "process_time": 0.1}
    for queue in (waiting, gradios):
        queue.events_recorded += 1
        queue.compute_analytics_summary([made])
    assert waiting.cached_event_analytics_summary["functions"] == {}
    assert "faces" in gradios.cached_event_analytics_summary["functions"]


def test_a_long_name_of_a_session_is_refused_in_a_sentence(address):
    config = httpx.get(f"{address}config").json()
    faces = next(event["id"] for event in config["dependencies"] if event["api_name"] == "faces")

    def join(length: int) -> httpx.Response:
        body = {"fn_index": faces, "data": [1, 1, 1, 0], "session_hash": "x" * length}
        return httpx.post(f"{address}gradio_api/queue/join", json=body)

    assert join(64).status_code == 200
    told = {"session_hash": "x" * 64}
    with httpx.stream("GET", f"{address}gradio_api/queue/data", params=told, timeout=60) as messages:
        assert any(
            "process_completed" in line for line in messages.iter_lines()
        )  # and its picture is written
    answer = join(65)
    said = "A session name may have at most 64 characters."
    assert (answer.status_code, answer.json()) == (400, {"detail": said})


def written() -> set[Path]:
    """All that the pages and Gradio's readers of uploads have on the disk."""
    return {*Path(get_upload_folder()).rglob("*"), *Path(tempfile.gettempdir()).glob("tmp*")}


@pytest.mark.parametrize("end", ["", "/", "%0A", "%0a", "%0D", "%00", "%E2%80%A8"])
def test_nothing_is_written_for_who_asks(address, tmp_path, monkeypatch, end):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where Gradio keeps what it reads of a file
    before = written()
    for request in (
        httpx.Request("POST", f"{address}gradio_api/upload{end}", files={"files": ("a.bin", b"few")}),
        httpx.Request("POST", f"{address}gradio_api/component_server{end}", files={"f": ("a.bin", b"few")}),
        httpx.Request("GET", f"{address}gradio_api/deep_link{end}?session_hash=test"),
        httpx.Request(
            "POST", f"{address}gradio_api/process_recording{end}", files={"file": ("a.mp4", b"few")}
        ),
    ):
        answer = httpx.Client().send(request)
        assert (answer.status_code, answer.text) == (404, NOTHING)
    assert written() <= before


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=http://example.com/x.png",
        "gradio_api/file=HTTPS://example.com/x.png",
        "gradio_api/file=http%3A//example.com/x.png",
        "gradio_api/file/http://example.com/x.png",
        "gradio_api/proxy=https://some-space.hf.space/x.png",
        "gradio_api/dev/reload",
        "gradio_api/upload_progress?upload_id=test",
        "gradio_api/vibe-code/",
        "gradio_api/runs",
        "gradio_api/stream/test/1/1/playlist.m3u8",
        "monitoring",
        "monitoring/summary",
        "config/../gradio_api/dev/reload",
        "gradio_api//dev/reload",
        "login",
    ],
)
def test_only_what_the_page_asks_for_is_answered(address, path):
    answer = httpx.get(address + path)
    assert (answer.status_code, answer.text) == (404, NOTHING)


def test_what_programs_and_browsers_ask_for_is_answered(address):
    for path in (
        *("", "config", "config/", "theme.css", "favicon.ico", "manifest.json", "robots.txt"),
        *("static/fonts/SourceSansPro/SourceSansPro-Bold.woff2", "static/img/logo.svg"),
        *("gradio_api/info", "gradio_api/info/", "gradio_api/info?serialize=False", "gradio_api/app_id"),
        "gradio_api/startup-events",
    ):
        assert httpx.get(address + path).status_code == 200, path


def test_no_other_server_stands_before_the_page_where_spaces_ask_for_one(serve, sampler, monkeypatch):
    monkeypatch.setenv("GRADIO_SSR_MODE", "True")
    app = build_app(sampler)
    page = httpx.get(serve(app))
    assert not app.ssr_mode and app.node_process is None
    assert "window.gradio_config" in page.text


@pytest.mark.parametrize("prefix", ["", "/sagan", "/a/b"])
def test_below_a_prefix_the_same_routes_are_open(prefix):
    async def told(request: Request) -> PlainTextResponse:
        return PlainTextResponse("told")

    app = Starlette(routes=[Route("/{path:path}", told)], middleware=[Middleware(Gate)])
    client = TestClient(Starlette(routes=[Mount(prefix, app)]))
    for path in (
        "/",
        "/config",
        "/gradio_api/file=/tmp/a/face.png",
        "/gradio_api/heartbeat/abc",
        "/pwa_icon/192",
    ):
        assert client.get(prefix + path).text == "told"
    for path in (
        "/gradio_api/dev/reload",
        "/gradio_api/file=http://a.example/b",
        "/config/more",
        "/pwa_icon/a",
    ):
        assert client.get(prefix + path).status_code == 404


@pytest.mark.parametrize("path", ["run/predict", "queue/join"])
@pytest.mark.parametrize("chunks", [False, True])
def test_a_large_request_is_refused_before_it_is_read(address, path, chunks):
    def body(size: int) -> bytes | Iterator[bytes]:
        whole = b'{"fn_index": 0, "session_hash": "large", "data": ["' + bytes(size) + b'"]}'
        return iter([whole[:50], whole[50:]]) if chunks else whole

    def post(size: int) -> httpx.Response:
        kind = {"content-type": "application/json"}
        return httpx.post(f"{address}gradio_api/{path}", content=body(size), headers=kind, timeout=60)

    assert post(7000).status_code == 422  # no JSON, but read
    answer = post(9000)
    assert answer.status_code == 413
    assert answer.json() == {"detail": "A request may have 8,192 bytes at most."}


def test_a_body_where_none_is_read_is_no_error():
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(iter(["all of ", "it"]))

    app = Starlette(routes=[Route("/", stream)], middleware=[Middleware(Gate)])
    answer = TestClient(app).request("GET", "/", content=bytes(200_000))
    assert (answer.status_code, answer.text) == (200, "all of it")


def test_answers_to_events_name_the_model_and_what_browsers_may_keep_does_not(serve, sampler):
    own = copy.copy(sampler)
    for model, named in (("abc", "abc"), (None, "none")):
        own.sha256 = model
        address = serve(own)
        for path in ("run/predict", "queue/join"):
            for body in ({"data": [], "fn_index": 10_000, "session_hash": "test"}, {}):  # refused as well
                answer = httpx.post(f"{address}gradio_api/{path}", json=body)
                assert answer.headers["sagan-model"] == named
        for path in ("", "config", "theme.css", "gradio_api/info"):
            assert "sagan-model" not in httpx.get(address + path).headers


@pytest.fixture
def elsewhere(monkeypatch) -> Iterator[tuple[str, list[str]]]:
    """The address of a file that another server has, as if on another machine, and what was asked of it."""
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("content-length", "3")
            self.end_headers()
            self.wfile.write(b"few")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1"])
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/big.bin", asked
        server.shutdown()
        thread.join()


def as_file(path: str) -> dict:
    """A file as Gradio's components send it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_no_file_is_fetched_for_who_asks(address, elsewhere):
    url, asked = elsewhere
    config = httpx.get(f"{address}config").json()
    parts = {part["id"]: part["props"] for part in config["components"]}
    tried = set()
    for event in config["dependencies"]:
        values = [parts[i].get("value") for i in event["inputs"]]
        for place, part in enumerate(event["inputs"]):
            data = [*values[:place], as_file(url), *values[place + 1 :]]
            body = {"fn_index": event["id"], "data": data, "event_data": {}, "session_hash": "files"}
            if part not in tried and not event["queue"]:
                answer = httpx.post(f"{address}gradio_api/run/predict", json=body, timeout=60)
                assert asked == []
                assert (answer.status_code, answer.json()["error"]) == (500, texts.NO_FILES)
                tried.add(part)
    assert {"seed", "seed-b", "t", "psi", "label"} <= {parts[part].get("elem_id") for part in tried}


@pytest.mark.parametrize(
    ("endpoint", "values"),
    [("faces", [1, 1, 1, 0]), ("walk", [1, 7, 2, 1, 0]), ("attention", [1, "16x16", 0.5, 0.5, 1, 0])],
)
def test_public_endpoints_fetch_no_file_either(address, elsewhere, endpoint, values):
    url, asked = elsewhere
    for place in range(len(values)):
        data = [*values[:place], as_file(url), *values[place + 1 :]]
        call = f"{address}gradio_api/call/{endpoint}"
        event = httpx.post(call, json={"data": data}).json()["event_id"]
        answer = httpx.get(f"{call}/{event}", timeout=60).text
        assert asked == []
        assert answer.startswith("event: error\n") and texts.NO_FILES in answer


PRIVATE = {
    "curated": ("attention-view", {"index": 1}, "index must be an integer from 0 to 2"),
    "pick": ("sheet-view", {"seed": 5}, "seed must be an integer from 0 to 4294967295"),
    "jump": ("walk-view", {"t": 0.5}, "t must be a number from 0 to 1"),
    "go": ("tour-view", {"index": 3}, "index must be an integer from 0 to 8"),
    "leave": ("tour-view", {}, ""),
    "want": ("dials-view", {}, ""),
}


def send(address: str, name: str, data: object) -> httpx.Response:
    """Send an event of a view as the browser does, with the values of a first visit."""
    config = httpx.get(f"{address}config").json()
    parts = {part["id"]: part["props"] for part in config["components"]}
    view = next(i for i, props in parts.items() if props.get("elem_id") == PRIVATE[name][0])
    event = next(event for event in config["dependencies"] if [view, name] in event["targets"])
    values = [parts[i].get("value") for i in event["inputs"]]
    body = {"fn_index": event["id"], "data": values, "event_data": data, "session_hash": "test"}
    return httpx.post(f"{address}gradio_api/run/predict", json=body, timeout=120)


@pytest.mark.parametrize("name", sorted(set(PRIVATE) - {"leave", "want"}))
def test_what_a_view_tells_is_checked_on_the_server_too(address, name):
    _, good, allowed = PRIVATE[name]
    answer = send(address, name, good)
    assert answer.status_code == 200 and answer.json()["data"]
    (key,) = good
    for value in (-1, 2**40, "5", None, True, [0], {}):
        assert f"{allowed}, but was {value!r}." in send(address, name, {key: value}).json()["error"]
    for data in (None, {}, [key], key):
        assert allowed in send(address, name, data).json()["error"]


def test_what_the_dials_tell_is_checked_on_the_server_too(address):
    good = {"number": 1, "times": [0.5, 3], "maps": 5, "pins": [0, 63, 5, 6]}
    answer = send(address, "want", good)
    assert answer.status_code == 200 and answer.json()["data"]
    for name, bad, allowed in (
        ("maps", 6, "maps must be an integer from 0 to 5"),
        ("maps", "b", "maps must be an integer from 0 to 5"),
        ("pins", None, "pins must be a list of 0, 2, 4, 6, 8, 10 numbers"),
        ("pins", [3], "pins must be a list of 0, 2, 4, 6, 8, 10 numbers"),
        ("pins", [3] * 12, "pins must be a list of 0, 2, 4, 6, 8, 10 numbers"),
        ("pins", [3, 64], "pins must be an integer from 0 to 63"),
        ("times", [1], "times must be a list of 2 numbers"),
        ("times", [1, 3.5], "times must be a number from 0 to 3"),
    ):
        assert allowed in send(address, "want", good | {name: bad}).json()["error"]


def test_more_requests_than_can_wait_are_refused_in_a_sentence(address, monkeypatch):
    good = PRIVATE["curated"][1]
    monkeypatch.setattr(work, "_PLACES", threading.BoundedSemaphore(1))
    with work._PLACES:
        assert texts.TOO_BUSY in send(address, "curated", good).json()["error"]
    for index in (0, 1, 5, 1):  # a place is given back by an answer and by a refusal
        send(address, "curated", {"index": index})
    assert send(address, "curated", good).status_code == 200
    assert work._PLACES.acquire(blocking=False)


@pytest.mark.parametrize(
    ("name", "bad", "allowed"),
    [
        ("seed_a", -1, "seed_a must be an integer from 0 to 4294967295"),
        ("seed_b", 1.5, "seed_b must be an integer from 0 to 4294967295"),
        ("t", "0.5", "t must be a number from 0 to 1"),
        ("psi", 1.01, "psi must be a number from 0 to 1"),
    ],
)
def test_the_face_to_which_the_tour_returns_is_checked_on_the_server_too(address, name, bad, allowed):
    good = {"seed_a": 5, "seed_b": 6, "t": 0.25, "psi": 0.5, "label": None}
    answer = send(address, "leave", good)
    assert answer.status_code == 200 and answer.json()["data"][:4] == [5, 6, 0.25, 0.5]
    assert f"{allowed}, but was {bad!r}." in send(address, "leave", good | {name: bad}).json()["error"]
    assert allowed in send(address, "leave", {k: v for k, v in good.items() if k != name}).json()["error"]
