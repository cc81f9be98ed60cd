"""The live page as a browser shows it, while servers stop, hang and start again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import panrt
from panrt.engine.frame import Frame
from panrt.engine.sinks import Context, Item
from panrt.engine.sinks.address import parse_address
from panrt.engine.sinks.web import WebWriter
from panrt.engine.sources import open_source
from panrt.engine.sources.source import State
from panrt.engine.status import Meter, StreamStatus
from panrt.formats.metadata import Category, ModelFile
from support.browser import Tab, browser
from tools.null_session import STUFF, THING, NullSession, model_file
from tools.streams import free_port, wait_for

FPS_PLOT, AGE_PLOT = (26, 127, 100), (179, 89, 0)  # RGB, of the page's light colours
HW = 48, 64


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


class Source:
    """Writes frames of one grey value to a page, as a stream does."""

    def __init__(self, port: int, grey: int, *, names: tuple[str, ...] = ("cam",), **options: str) -> None:
        self.names = names
        self.grey = grey
        self.model: ModelFile = model_file()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._options = options
        self._port = port
        self._stop = threading.Event()

    def status(self) -> StreamStatus:
        assert self.may_answer.wait(60)
        fresh = open_source("test://8x8").status
        sources = tuple(replace(fresh, name=name, state=State.LIVE, dropped=0) for name in self.names)
        return Meter().status(sources, ())

    @contextmanager
    def serving(self) -> Iterator[WebWriter]:
        writer = WebWriter(
            parse_address("web", f"127.0.0.1:{self._port}", self._options), Context(self.model, self.status)
        )
        thread = threading.Thread(target=self._write, args=(writer,))
        thread.start()
        try:
            yield writer
        finally:
            self._stop.set()
            thread.join()
            self.may_answer.set()
            writer.close()
            self._stop.clear()

    def _write(self, writer: WebWriter) -> None:
        session = NullSession()
        index = 0
        while not self._stop.wait(0.05):
            for name in self.names:
                image = np.full((*HW, 3), self.grey, np.uint8)
                image[0] = 255 - self.grey  # so that both classes are there
                frame = Frame(image, index, captured_at=time.monotonic(), source=name)
                result = session(frame)
                writer.write(Item(frame, replace(result, panoptic=np.zeros(HW, np.int32))))  # no overlay
            index += 1


GREY = """(() => {
    const image = document.querySelector("figure img"), canvas = document.createElement("canvas");
    if (!image || !image.naturalWidth) return -1;
    canvas.width = canvas.height = 8;
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0, 8, 8);
    return pen.getImageData(4, 4, 1, 1).data[0];
})()"""


def near(grey: int) -> str:
    return f"Math.abs({GREY} - {grey}) < 12"


def text(name: str) -> str:
    return f'document.getElementById("{name}").textContent'


def test_a_browser_shows_the_stream_the_classes_and_the_plots(tab: Tab) -> None:
    port = free_port()
    stream = panrt.stream("test://320x240@30", NullSession(), sinks=[f"web://127.0.0.1:{port}"])
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    try:
        wait_for(lambda: stream.status.results > 3)
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait("document.querySelector('figure img').naturalWidth === 320")
        tab.value(
            "for (let n = 0; n < 60; n++) { past.fps.push(30 + n % 5); past.age.push(5 + n % 3); }"
        )  # half a minute
        tab.value("window.filled = past.fps.length")
        tab.wait("past.fps.length > window.filled")  # drawn
        shown = tab.picture().astype(int)
        legend = tab.value("Array.from(document.querySelectorAll('#classes li'), (row) => row.textContent)")
        caption = tab.value("document.querySelector('figcaption').textContent")
        connection = tab.value(text("connection"))
    finally:
        stream.stop()
        thread.join(60)
    aside = shown[:, 880:]

    def pixels(color: tuple[int, int, int], *, within: int = 12) -> int:
        return int((np.abs(aside - color).max(axis=-1) <= within).sum())

    assert pixels(THING.color) > 60  # the swatches of the legend
    assert pixels(STUFF.color) > 60
    assert pixels(FPS_PLOT, within=40) > 60  # a line of 60 values, one or more pixels each; its edges are blended
    assert pixels(AGE_PLOT, within=40) > 60
    view = shown[60:360, 30:850]
    # The frames are there with their overlay: half of it the colour of the thing or the stuff, which the pattern's own
    # greys and saturated bars are not.
    assert view.std() > 30
    assert np.ptp(view.reshape(-1, 3).mean(axis=0)) > 5
    assert legend == ["bright1", "dark1"]
    assert "test://320x240@30 · live" in caption
    assert " old" in caption
    assert connection == ""


def test_the_page_says_that_its_picture_is_old_and_shows_the_stream_of_the_next_server(tab: Tab) -> None:
    port = free_port()
    with Source(port, 40).serving():
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait(near(40))
    tab.wait(text("connection") + ".startsWith('No connection for ')")
    assert "The images are old." in tab.value(text("connection"))
    assert tab.value("getComputedStyle(document.querySelector('figure img')).filter") != "none"
    with Source(port, 200).serving():
        tab.wait(near(200))
        tab.wait(text("connection") + " === ''")


def test_the_page_notices_a_restart_between_two_of_its_questions(tab: Tab) -> None:
    port = free_port()
    with Source(port, 40).serving():
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait(near(40))
        tab.value("POLL_ = setTimeout, window.setTimeout = () => 0, 1")  # it asks no more
        tab.value("new Promise((done) => POLL_(done, 600))")
    with Source(port, 200).serving():
        tab.value("window.setTimeout = POLL_, poll(), 1")
        tab.wait(near(200))


def test_the_page_connects_again_when_the_server_dropped_its_stream(tab: Tab) -> None:
    port = free_port()
    source = Source(port, 40)
    with source.serving() as writer:
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait(near(40))
        first = tab.value("views[0].name")
        for client in tuple(writer._server.clients._clients.values()):
            if client.is_answered:
                client.shut()  # as when a viewer accepted no results for too long
        wait_for(lambda: not writer._feeds)
        source.grey = 200
        tab.wait(near(200))
        assert tab.value("views[0].name") != first
        assert tab.value(text("connection")) == ""


def test_the_page_tells_of_a_server_that_hangs(tab: Tab) -> None:
    port = free_port()
    source = Source(port, 40)
    with source.serving():
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait(near(40))
        source.may_answer.clear()
        tab.wait(text("connection") + ".includes('the server does not answer')")
        source.may_answer.set()
        tab.wait(text("connection") + " === ''")


def test_names_from_files_are_shown_as_text(tab: Tab) -> None:
    port = free_port()
    evil = "<img src=x onerror=window.hit=1>"
    source = Source(port, 40, names=(f"{evil}.mp4", "javascript:window.hit=1"))
    model = model_file()
    source.model = replace(
        model,
        name=f"{evil}model",
        things=(Category(1, f"{evil}thing", True, (1, 2, 3)),),
        stuff=(Category(2, "</script><script>window.hit=1</script>", False, (3, 2, 1)),),
    )
    with source.serving():
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait("document.querySelectorAll('#classes li').length === 6")  # two sources, each with both classes
        assert tab.value("typeof window.hit") == "undefined"
        assert tab.value("document.images.length") == 2
        body = tab.value("document.body.innerText")
        for shown in (f"{evil}.mp4 · live", f"{evil}model", f"{evil}thing", "</script><script>window.hit=1</script>"):
            assert shown in body
        # And were it put there as a script, it would not run.
        tab.value("document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 1'})), 1")
        assert tab.value("typeof window.hit") == "undefined"


def test_each_source_has_its_own_legend_and_only_some_are_streamed_at_once(tab: Tab) -> None:
    port = free_port()
    with Source(port, 40, names=tuple(f"cam{number}" for number in range(7))).serving():
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait("views.length === 7 && views.filter((view) => view.image.naturalWidth).length === 4")
        tab.value("views[6].button.click()")
        tab.wait("views[6].image.naturalWidth > 0")
        assert tab.value("views.map((view) => Boolean(view.name))") == [False, True, True, True, False, False, True]
        assert tab.value("document.querySelectorAll('#classes li.source').length") == 7
        assert tab.value(text("connection")) == ""


def test_the_page_works_with_a_token_and_hides_it_from_the_address(tab: Tab) -> None:
    port = free_port()
    token = "a-token-of-the-test"
    with Source(port, 40, token=token).serving():
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait("document.body.innerText.includes('open the URL that was printed')")
        tab.go(f"http://127.0.0.1:{port}/?token={token}")
        tab.wait(near(40))
        assert tab.value("location.href") == f"http://127.0.0.1:{port}/"
        assert tab.value("document.cookie") == ""  # no script can read it
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait(near(40))
    with Source(port, 200, token="another-token").serving():
        tab.wait(text("connection") + ".includes('the token is no longer valid')")


def test_no_other_site_can_embed_the_page_or_its_stream(tab: Tab) -> None:
    port, other = free_port(), free_port()
    with Source(port, 40).serving(), Source(other, 40).serving() as writer:
        tab.go(f"http://127.0.0.1:{port}/")  # the same site to the browser, and another origin
        tab.wait(near(40))
        script = f"""new Promise((done) => {{
            const image = new Image();
            image.onload = () => done("shown");
            image.onerror = () => done("blocked");
            image.src = "http://127.0.0.1:{other}/stream.mjpg";
        }})"""
        tab.call("Page.setBypassCSP", enabled=True)  # the page that embeds would allow it
        tab.go(f"http://127.0.0.1:{port}/")
        tab.wait(near(40))
        assert tab.value(script) == "blocked"
        assert (
            tab.value(f"fetch('http://127.0.0.1:{other}/status.json').then(() => 'read', () => 'blocked')") == "blocked"
        )
        tab.call("Page.setBypassCSP", enabled=False)
        assert writer._server.clients.counts.requests[403] >= 2


@pytest.mark.parametrize(
    "missing", ['src="http', "@import", "url(", "innerHTML", "onclick=", "eval(", "insertAdjacent"]
)
def test_the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_text(missing: str) -> None:
    assert missing not in (Path(panrt.engine.sinks.__file__).parent / "page.html").read_text()
