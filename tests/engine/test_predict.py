"""Images of any kind through a model, and the images that are written of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import panrt
from panrt.engine.sources import web_images
from panrt.engine.sources.pattern import pattern
from panrt.errors import SourceError, SourceNotFoundError, SourceTimeoutError, SourceUndecodableError
from tools.null_session import NullSession

HW = 24, 32
IMAGES = [pattern(number, HW) for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, image in enumerate(IMAGES, start=1):
        cv2.imwrite(str(folder / f"photo {number}.png"), image)
    return folder


def found(source: object, **options: object) -> list[NDArray[np.uint8]]:
    return [image for image, _ in panrt.predict(source, NullSession(), **options)]  # type: ignore[arg-type]


def test_files_arrays_and_lists_and_generators_of_them_are_sources(folder: Path) -> None:
    rgb = [np.ascontiguousarray(image[..., ::-1]) for image in IMAGES]
    sources = {
        "a folder": folder,
        "a glob": f"{folder}/*.png",
        "paths": [folder / "photo 1.png", str(folder / "photo 2.png"), IMAGES[2]],
        "arrays": IMAGES,
        "a batch": np.stack(IMAGES),
        "a generator": (each for each in [folder / "photo 1.png", *map(Image.fromarray, rgb[1:])]),
    }
    for source in sources.values():
        np.testing.assert_array_equal(np.stack(found(source)), np.stack(IMAGES))
    np.testing.assert_array_equal(np.stack(found(rgb, pixel_format="rgb8")), np.stack(IMAGES))
    np.testing.assert_array_equal(found(IMAGES[0])[0], IMAGES[0])
    np.testing.assert_array_equal(found(Image.fromarray(rgb[0]))[0], IMAGES[0])
    np.testing.assert_array_equal(found(panrt.Frame(IMAGES[1]))[0], IMAGES[1])


def test_a_prediction_knows_its_file_and_draws_itself(folder: Path) -> None:
    prediction = next(panrt.predict(folder / "photo 2.png", NullSession()))
    assert prediction.result.file_name == "photo 2.png"
    np.testing.assert_array_equal(prediction.overlay(), prediction.result.overlay(IMAGES[1]))


def test_a_damaged_file_does_not_stop_the_others_and_is_reported_at_the_end(folder: Path) -> None:
    (folder / "photo 2.png").write_bytes(b"no image")
    predictions = panrt.predict(folder, NullSession())
    assert [next(predictions).result.file_name for _ in range(2)] == ["photo 1.png", "photo 3.png"]
    with pytest.raises(SourceUndecodableError, match="photo 2"):
        next(predictions)


def test_what_is_no_image_is_an_error_at_once(folder: Path) -> None:
    for source in (None, 7, b"photo.jpg", {"a": 1}):
        with pytest.raises(TypeError, match=r"source: got .*, expected a path or address, an image"):
            panrt.predict(source, NullSession())
    with pytest.raises(SourceNotFoundError, match="no image or video matches"):
        panrt.predict(f"{folder}/*.jpg", NullSession())
    with pytest.raises(panrt.UnknownSourceError, match="is a live source, expected images"):
        panrt.predict("camera://0", NullSession())
    with pytest.raises(ValueError, match="pixel_format: got 'rgb'"):
        panrt.predict(IMAGES, NullSession(), pixel_format="rgb")  # type: ignore[arg-type]


def test_annotated_images_and_masks_have_the_names_of_their_files_and_replace_none(folder: Path) -> None:
    out = folder.parent / "out"
    sinks = [f"images://{out}", f"images://{out}?format=png", f"masks://{folder.parent}/masks"]
    for _ in range(2):
        for sink in sinks:
            list(panrt.predict(folder, NullSession(), sinks=sink))
    names = {path.name for path in out.iterdir()}
    assert names == {f"photo {n}{again}.{kind}" for n in (1, 2, 3) for again in ("", "-2") for kind in ("jpg", "png")}
    shown = cv2.imread(str(out / "photo 2.png"))
    np.testing.assert_array_equal(shown, NullSession()(IMAGES[1]).overlay(IMAGES[1]))
    mask = cv2.imread(str(folder.parent / "masks" / "photo 2.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, NullSession()(IMAGES[1]).ids())


def test_an_overwriting_sink_replaces_files_of_before_but_none_of_its_own(folder: Path) -> None:
    out = folder.parent / "out"
    for _ in range(2):
        list(panrt.predict([folder / "photo 1.png"] * 2, NullSession(), sinks=f"images://{out}?overwrite=yes"))
    assert {"photo 1.jpg", "photo 1-2.jpg"} <= {path.name for path in out.iterdir()}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_an_image_sink_takes_frames_and_a_video_sink_images(folder: Path) -> None:
    list(panrt.stream("test://32x24@max?frames=2", NullSession(), sinks=[str(folder.parent / "out.png")]))
    assert {"out.png", "out-2.png"} <= {path.name for path in folder.parent.iterdir()}
    list(panrt.predict(folder, NullSession(), sinks=str(folder.parent / "out.mp4")))
    assert len(found(folder.parent / "out.mp4")) == 3


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = cv2.imencode(".png", IMAGES[0])[1].tobytes()
        if self.path == "/gone.png":
            return self.send_error(404)
        if self.path == "/away.png":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return_bytes = body[:-9] if self.path == "/cut.png" else body if self.path != "/silent.png" else b""
        self.wfile.write(return_bytes)
        if self.path == "/silent.png":
            threading.Event().wait(2)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_image_of_a_web_server_is_a_source_with_or_without_a_suffix(server: str) -> None:
    for path in ("/a%20photo.png", "/photo?id=3"):
        (prediction,) = panrt.predict(server + path, NullSession())
        np.testing.assert_array_equal(prediction.image, IMAGES[0])
    assert next(panrt.predict(f"{server}/a%20photo.png", NullSession())).result.file_name == "a photo.png"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/gone.png", SourceNotFoundError),
        ("/cut.png", SourceError),
        ("/away.png", SourceError),
        ("/silent.png", SourceTimeoutError),
    ],
)
def test_a_download_that_fails_is_an_error_of_its_kind(server: str, path: str, error: type[SourceError]) -> None:
    with pytest.raises(error, match=path):
        list(panrt.predict(server + path, NullSession(), timeout=0.3))


def test_a_download_is_bounded(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_images, "MOST_BYTES", 100)
    with pytest.raises(SourceUndecodableError, match="has more than 100 bytes"):
        list(panrt.predict(f"{server}/a.png", NullSession()))
