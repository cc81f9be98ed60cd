"""What a URI means, and what is said of one that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from panrt.engine.sources import SourceNotFoundError, SourceOptions, UnknownSourceError, open_source
from panrt.engine.sources.argus import CsiOptions, argus_pipeline
from panrt.engine.sources.demo import demo_clip
from panrt.engine.sources.open import parse
from panrt.engine.uri import redact


@pytest.mark.parametrize(
    ("uri", "live", "lasting"),
    [
        ("camera://0", True, True),
        ("/dev/video0", True, True),
        ("csi://0?width=1920&height=1080&fps=60&flip=2", True, True),
        ("rtsp://host/path?channel=1", True, True),
        ("http://host/stream", True, True),
        ("http://host/clip.mp4", False, False),
        ("test://64x48@30", True, False),
        ("test://64x48@max", False, False),
        ("test://", True, False),
        ("demo://tabletop", False, False),
        ("clip.mp4", False, False),
        ("RTSP://host/path", True, True),
        ("HTTP://host/clip.MP4", False, False),
        ("Test://64x48@30", True, False),
        ("FILE:///clip.mp4", False, False),
        ("rtsp://admin:p[a]@s:s@host/path", True, True),
    ],
)
def test_what_is_live_drops_by_default_and_what_lasts_is_connected_again(uri: str, live: bool, lasting: bool) -> None:
    spec = parse(uri)
    assert (spec.live, spec.lasting) == (live, lasting)
    assert open_source(uri).policy == ("latest" if live else "block")
    assert open_source(uri, options=SourceOptions(policy="block")).policy == "block"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("rstp://host/a", "did you mean rtsp"),
        ("camra://0", "did you mean camera"),
        ("zzz://0", "expected one of camera, csi, rtsp"),
        ("camera://front", "'front', expected a number"),
        ("camera://0?widht=3", "unknown option 'widht'; did you mean width"),
        ("camera://0?fourcc=MJPEG", "did you mean MJPG"),
        ("csi://front", "'front', expected a number"),
        ("csi://0?fourcc=MJPG", "unknown option 'fourcc'"),
        ("csi://0?flip=8", "flip: got 8, expected 0 to 7"),
        ("csi://0?fps=0", "fps: got 0, expected 1 to 1000"),
        ("csi://0?width=641&height=480", "expected even sides"),
        ("csi://0?width=16384&height=16384", "at most 35,389,440 pixels"),
        ("csi://0?mode=1%20!%20filesink%20location=/x", "expected a number"),
        ("csi://0 ! filesink", "expected a number"),
        ("rtsp:///path", "names no host"),
        ("test://64@30", "expected WIDTHxHEIGHT@FPS"),
        ("test://0x48@30", "expected sizes from 1"),
        ("test://64x48@0", "a rate above 0"),
        ("demo://street", "expected one of tabletop"),
        ("", "got an empty name"),
        ("file://clip.mp4", "three slashes"),
        ("test://64x48@30?frames=\u0663", "expected a number"),
        ("rtsp://admin:Zq#Zq@host/path", "%23 for #"),
        ("rtsp://admin:Zq/Zq@host/path", "%2F for /"),
        ("rtsp://admin:Zq?Zq@host/path", "%3F for ?"),
        ("rtsp://admin:Zq%Zq@host/path", "%25 for %"),
        ("rstp://admin:Zq#Zq@host/path", "did you mean rtsp"),
        ("camera://admin:Zq@host", "expected a number"),
        ("test://admin:Zq@host", "expected WIDTHxHEIGHT@FPS"),
        ("demo://admin:Zq@host", "expected one of tabletop"),
    ],
)
def test_a_uri_that_means_nothing_is_answered_with_what_would(uri: str, said: str) -> None:
    with pytest.raises(UnknownSourceError) as caught:
        parse(uri)
    assert said in str(caught.value)
    assert "Zq" not in str(caught.value)


@pytest.mark.parametrize("text", ["admin:Zq@host/path", "//admin:Zq@host", "rtsp:admin:Zq@host/live", "admin:Zq@*"])
def test_an_address_without_a_scheme_is_no_file_and_not_shown(text: str) -> None:
    with pytest.raises(SourceNotFoundError) as caught:
        open_source(text)
    assert "Zq" not in str(caught.value)


@pytest.mark.parametrize("text", [5000 * "x", "a\0b", "a\ud800", "a**b"])
def test_what_no_file_can_be_called_is_not_found(text: str) -> None:
    try:
        with open_source(text) as source:
            source._thread.join()
        error = source.error
    except SourceNotFoundError as caught:
        error = caught
    assert isinstance(error, SourceNotFoundError)
    assert len(str(error)) < 200


def test_a_file_in_a_folder_that_looks_like_a_scheme_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xyz:").mkdir()
    (tmp_path / "xyz:" / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert parse("xyz://a.png").live is False


def test_a_login_is_never_shown() -> None:
    uri = "rtsp://admin:secret@10.0.0.9:554/live?x=1"
    assert redact(uri) == "rtsp://10.0.0.9:554/live?x=1"
    assert "secret" not in repr(open_source(uri).status)
    assert redact("test://640x480@60") == "test://640x480@60"


def test_a_folder_or_glob_without_pictures_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="a folder without images"):
        parse(str(tmp_path))
    with pytest.raises(SourceNotFoundError, match="no image or video matches"):
        parse(str(tmp_path / "*.png"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "newest"}, "policy: got 'newest', expected latest or block"),
        ({"timeout": 0}, "timeout: got 0"),
        ({"backoff": (2.0, 1.0)}, "backoff"),
        ({"rtsp_transport": "quic"}, "tcp or udp"),
    ],
)
def test_an_option_that_does_not_do_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SourceOptions(**options)  # type: ignore[arg-type]


def test_argus_pipeline_asks_for_what_was_asked_and_leaves_colours_to_others() -> None:
    pipeline = argus_pipeline(1, CsiOptions(width=1920, height=1080, fps=60, mode=2, flip=3))
    assert pipeline.split(" ! ") == [
        "nvarguscamerasrc sensor-id=1 sensor-mode=2",
        "video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=60/1",
        "nvvidconv flip-method=3",
        "video/x-raw,format=NV12",
    ]


def test_the_demo_clip_is_there() -> None:
    assert demo_clip("tabletop").stat().st_size > 100_000
