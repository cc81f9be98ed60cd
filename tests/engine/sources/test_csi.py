"""CSI cameras: GStreamer itself, with stand-ins for the two elements of a Jetson (`support.argus`)."""

from __future__ import annotations

import numpy as np
import pytest

from panrt.engine.pixel_formats import bgr
from panrt.engine.sources import SourceOptions, gstreamer, open_source
from support.clock import PATIENCE
from support.streams import drain

pytestmark = pytest.mark.usefixtures("csi_camera")
NV12 = SourceOptions(pixel_format="nv12", timeout=PATIENCE)
SMALL = "csi://0?width=160&height=120"


@pytest.fixture(autouse=True)
def by_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `gi` cannot be imported."""
    monkeypatch.setattr(gstreamer.appsink, "load", lambda: (None, "no gi"))


def test_frames_are_those_of_the_sensor_with_its_times() -> None:
    with open_source("csi://0?width=162&height=120&fps=20", options=NV12) as source:
        frames = drain(source, most=4)
    bars = [(b, g, r) for g in (255, 0) for r in (255, 0) for b in (255, 0)][:7]  # of SMPTE: white, yellow, cyan ...
    for frame in frames:
        assert (frame.pixel_format, frame.image.shape, frame.hw) == ("nv12", (180, 162), (120, 162))
        assert np.abs(bgr(frame)[20, 11::23].astype(int) - bars).max() <= 3
    times = [frame.media_time for frame in frames]
    assert np.allclose(np.diff(times) % 0.05, 0, atol=1e-6) or np.allclose(np.diff(times) % 0.05, 0.05, atol=1e-6)


def test_bgr_frames_are_converted_from_the_same_nv12() -> None:
    with open_source(SMALL, options=SourceOptions(timeout=PATIENCE)) as source:
        [frame] = drain(source, most=1)
    with open_source(SMALL, options=NV12) as source:
        [raw] = drain(source, most=1)
    assert np.array_equal(frame.image[:80], bgr(raw)[:80])  # below, the test picture has noise
