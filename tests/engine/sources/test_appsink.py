"""GStreamer through `gi` in both of its forms: alone, and with the overrides of python3-gst-1.0."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from panrt.engine.sources import appsink
from panrt.engine.sources.appsink import AppSink, PipelineError, Sample

SECOND = 10**9


class Buffer:
    """Twelve bytes at two seconds."""

    pts = 2 * SECOND
    mapped = 0

    def __init__(self, *, over_it: bool) -> None:
        self.memory = bytearray(range(12))
        self.over_it = over_it

    def map(self, flags: object) -> Any:
        self.mapped += 1
        if self.over_it:
            return SimpleNamespace(data=memoryview(self.memory))
        return True, SimpleNamespace(data=bytes(self.memory))

    def unmap(self, info: object) -> None:
        self.mapped -= 1


class Pipeline:
    """Gives one buffer, then says that its stream has ended."""

    def __init__(self, buffer: Buffer) -> None:
        self.samples = [SimpleNamespace(get_buffer=lambda: buffer, get_caps=lambda: SimpleNamespace(to_string=str))]
        self.states: list[str] = []

    def get_by_name(self, name: str) -> Any:
        assert name == "frames"
        return SimpleNamespace(try_pull_sample=lambda nanoseconds: self.samples.pop() if self.samples else None)

    def get_bus(self) -> Any:
        return SimpleNamespace(pop_filtered=lambda kinds: SimpleNamespace(type=2))

    def get_clock(self) -> Any:
        return SimpleNamespace(get_time=lambda: 105 * SECOND)

    def get_base_time(self) -> int:
        return 102 * SECOND

    def set_state(self, state: str) -> str:
        self.states.append(state)
        return "success"


def pretend(monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, *, started: object) -> None:
    """Let these modules be what is imported."""
    gst = SimpleNamespace(
        SECOND=SECOND,
        CLOCK_TIME_NONE=2**64 - 1,
        MapFlags=SimpleNamespace(READ=1),
        MessageType=SimpleNamespace(ERROR=1, EOS=2),
        State=SimpleNamespace(PLAYING="playing", NULL="null"),
        StateChangeReturn=SimpleNamespace(FAILURE="failure"),
        init_check=lambda arguments: started,
        parse_launch=lambda text: pipeline,
    )
    modules = {
        "gi": SimpleNamespace(require_version=lambda name, version: None),
        "gi.repository.Gst": gst,
        "gi.repository.GstApp": None,
        "gi.repository.GLib": SimpleNamespace(Error=RuntimeError),
    }
    monkeypatch.setattr(appsink, "importlib", SimpleNamespace(import_module=modules.__getitem__))


@pytest.mark.parametrize("over_it", [False, True])
def test_both_forms_give_a_buffer_that_outlives_its_memory(monkeypatch: pytest.MonkeyPatch, over_it: bool) -> None:
    buffer = Buffer(over_it=over_it)
    pipeline = Pipeline(buffer)
    pretend(monkeypatch, pipeline, started=True if over_it else (True, []))
    sink = AppSink("fakesrc")
    sample = sink.pull(1.0)
    buffer.memory[:] = bytes(12)
    assert sample == Sample(bytes(range(12)), "", 2.0, 1.0)
    assert buffer.mapped == 0
    with pytest.raises(PipelineError, match="the stream ended"):
        sink.pull(1.0)
    sink.close()
    assert pipeline.states == ["playing", "null"]


@pytest.mark.parametrize("started", [False, (False, [])])
def test_gstreamer_that_does_not_start_is_none(monkeypatch: pytest.MonkeyPatch, started: object) -> None:
    pretend(monkeypatch, Pipeline(Buffer(over_it=False)), started=started)
    assert appsink.load() == (None, "GStreamer cannot be initialised")


@pytest.mark.parametrize("error", [ImportError("No module named 'gi'"), ValueError("Namespace GstApp not available")])
def test_a_python_without_gi_or_its_descriptions_says_so(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> Any:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    assert appsink.load() == (None, str(error))
    with pytest.raises(PipelineError, match=str(error)):
        AppSink("fakesrc")
