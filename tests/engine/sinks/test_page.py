"""The live page as a browser shows it: headless Chromium takes a picture of it."""

from __future__ import annotations

import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import cv2
import numpy as np
import pytest
from benchmarks.null_session import STUFF, THING, NullSession

import panrt
from support.streams import CHROMIUM, free_port, http_server, wait_for

FPS_PLOT, AGE_PLOT = (26, 127, 100), (179, 89, 0)  # RGB, of the page's light colours
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=1200,640 --timeout=20000"
)


def test_a_browser_shows_the_stream_the_classes_and_the_plots(tmp_path: Path) -> None:
    page = f"http://127.0.0.1:{free_port()}/"
    asked = threading.Event()

    def frame(handler: BaseHTTPRequestHandler) -> None:
        """The page in a frame, beside a picture that is late: Chromium waits for that before it looks."""
        if handler.path == "/late":
            asked.set()
            time.sleep(8)
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        style = "border:0;width:100vw;height:100vh"
        body = f'<body style="margin:0"><iframe src="{page}" style="{style}"></iframe><img src="/late" hidden>'
        handler.wfile.write(body.encode())

    picture = tmp_path / "page.png"
    stream = panrt.stream("test://320x240@30", NullSession(), sinks=[page.replace("http", "web").rstrip("/")])
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    try:
        wait_for(lambda: stream.status.results > 3)
        with http_server(frame) as port:
            command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}"]
            done = subprocess.run(
                [*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=60, check=False
            )
    finally:
        stream.stop()
        thread.join(20)
    assert picture.exists(), done.stderr
    assert asked.is_set()
    shown = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB).astype(int)
    aside = shown[:, 880:]

    def pixels(color: tuple[int, int, int], *, within: int = 12) -> int:
        return int((np.abs(aside - color).max(axis=-1) <= within).sum())

    assert pixels(THING.color) > 60  # the swatches of the legend
    assert pixels(STUFF.color) > 60
    assert pixels(FPS_PLOT, within=40) > 20  # thin lines, whose edges are blended
    assert pixels(AGE_PLOT, within=40) > 20
    view = shown[60:360, 30:850]
    # The frames are there with their overlay: half of it the colour of the thing or the stuff, which the pattern's own
    # greys and saturated bars are not.
    assert view.std() > 30
    assert np.ptp(view.reshape(-1, 3).mean(axis=0)) > 5


@pytest.mark.parametrize("missing", ['src="http', "@import", "url("])
def test_the_page_needs_nothing_from_elsewhere(missing: str) -> None:
    assert missing not in (Path(panrt.engine.sinks.__file__).parent / "page.html").read_text()
