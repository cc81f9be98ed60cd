"""Frames through a session to sinks: order, fairness, age, losses, and how it all ends."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import panrt
from panrt import Tracker, TrackingConfig
from panrt.engine.frame import Frame
from panrt.engine.pipeline import Stream, stop_on_signals
from panrt.engine.results.result import PanopticResult
from panrt.engine.sources import SourceNotFoundError, SourceOptions, SourceUndecodableError, State, UnknownSourceError
from panrt.engine.sources.pattern import pattern
from panrt.errors import StreamError
from tools.clock import ManualClock
from tools.null_session import NullSession, map_of
from tools.streams import CLIP, IMAGES, drain, wait_for

HW = 24, 32


def uri(frames: int, rate: str = "max") -> str:
    return f"test://{HW[1]}x{HW[0]}@{rate}?frames={frames}"


@pytest.mark.parametrize(("capacity", "batch"), [(1, 1), (3, 1), (2, 4), (2, 0)])
def test_every_frame_of_a_file_has_its_own_result_in_order(capacity: int, batch: int) -> None:
    session = NullSession(capacity=capacity, batch=batch)
    with panrt.stream(uri(50), session, tracker=None) as stream:
        items = list(stream.pairs())
    assert [item.result.frame_index for item in items] == list(range(50))
    for item in items:
        assert np.array_equal(item.frame.image, pattern(item.frame.index, HW))
        assert np.array_equal(item.result.panoptic, map_of(pattern(item.frame.index, HW)))
        assert (item.result.captured_at, item.result.media_time) == (item.frame.captured_at, item.frame.media_time)
    assert max(session.batches) <= max(batch, 1)
    assert stream.status.results == sum(session.batches) == 50


def test_images_of_a_program_are_a_source_alone_or_beside_others() -> None:
    images = [pattern(index, HW) for index in range(7)]
    with panrt.stream(iter(images), NullSession()) as stream:
        items = list(stream.pairs())
    assert [item.frame.index for item in items] == list(range(7))
    assert all(np.array_equal(item.frame.image, image) for item, image in zip(items, images, strict=True))
    with panrt.stream([uri(3), images_of(images), images_of(images)], NullSession()) as stream:
        counts = Counter(item.frame.source for item in stream.pairs())
    assert counts == {uri(3): 3, "images": 7, "images#2": 7}
    with panrt.stream(images, NullSession()) as stream:  # a list of images is one source
        assert len(list(stream)) == 7


def images_of(images: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    yield from images


@pytest.mark.parametrize("source", [0, None, b"clip.mp4", [0], [uri(1), None]])
def test_what_is_no_source_is_one_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match="expected a URI or path, or an iterable of images"):
        panrt.stream(source, NullSession())


class Watched(NullSession):
    """Says when something was submitted, and when somebody waits for a result."""

    def __init__(
        self,
        *,
        submitted: Callable[[], object] = lambda: None,
        collecting: Callable[[], object] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._after_submit, self._before_collect = submitted, collecting
        self.flying = self.most_flying = 0

    def submit(self, frames: Sequence[Frame]) -> None:
        super().submit(frames)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        self._after_submit()

    def collect(self) -> tuple[panrt.PanopticResult, ...]:
        self._before_collect()
        self.flying -= 1
        return super().collect()


def running(stream: Stream) -> int:
    """How many of its sources have not ended."""
    return sum(source.state is not State.ENDED for source in stream.status.sources)


def wait_for_frames(stream: Stream) -> None:
    """Until every source has a frame to take, or has ended."""
    wait_for(lambda: all(source.waiting or source.state is State.ENDED for source in stream.status.sources))


def test_submissions_overlap_up_to_the_capacity_of_the_session() -> None:
    session = Watched(capacity=3, submitted=lambda: wait_for_frames(stream))
    stream = panrt.stream(uri(30), session)
    assert len(list(stream)) == 30
    assert session.most_flying == 3
    # A live source gains nothing from frames that wait behind others.
    clock = ManualClock()
    session = Watched(capacity=3, collecting=lambda: clock.advance(0.03, threads=lambda: running(stream)))
    stream = panrt.stream(uri(10, "100"), session, options=SourceOptions(clock=clock))
    assert list(stream)
    assert session.most_flying == 1


def test_several_sources_take_turns_and_share_batches() -> None:
    session = Watched(batch=4, collecting=lambda: wait_for_frames(stream))
    sources = [uri(60), uri(60), str(IMAGES)]
    counts: Counter[str] = Counter()
    indices: dict[str, list[int]] = {}
    stream = panrt.stream(sources, session)
    with stream:
        for result in stream:
            counts[result.source] += 1
            indices.setdefault(result.source, []).append(result.frame_index)
            if sum(counts.values()) == 90:
                # At least 23 batches of four, each but the first two with a frame of every source.
                assert min(counts.values()) >= 21, "a source was left behind"
    assert dict(counts) == {uri(60): 60, f"{uri(60)}#2": 60, str(IMAGES): 64}
    assert all(found == list(range(len(found))) for found in indices.values())
    assert max(session.batches) == 4


def test_of_live_sources_the_newest_frames_are_taken_and_every_drop_is_counted() -> None:
    clock = ManualClock()
    session = Watched(collecting=lambda: clock.advance(0.03, threads=lambda: running(stream)))
    stream = panrt.stream([uri(100, "100"), uri(100, "100")], session, options=SourceOptions(clock=clock))
    with stream:
        results = list(stream)
    status = stream.status
    for source in status.sources:
        assert source.captured == 100
        assert source.captured == source.delivered + source.dropped
        assert source.dropped > 50
    assert abs(status.sources[0].delivered - status.sources[1].delivered) <= 2
    assert len(results) == sum(source.delivered for source in status.sources)


def test_results_of_fast_live_source_are_no_older_than_a_period_and_inference() -> None:
    fps, inference, frames = 60, 0.040, 240
    clock = ManualClock()
    session = Watched(collecting=lambda: clock.advance(inference, threads=lambda: running(stream)))
    stream = panrt.stream(uri(frames, str(fps)), session, options=SourceOptions(clock=clock))
    with stream:
        ages = [clock.now() - result.captured_at for result in stream]
    (source,) = stream.status.sources
    assert max(ages) <= 1 / fps + inference + 1e-9
    assert source.captured == frames == len(ages) + source.dropped
    # The session is never idle while frames come, and does one more after the last.
    assert len(ages) == pytest.approx(frames / fps / inference, abs=2)
    assert stream.status.age is not None
    assert stream.status.age.worst == max(ages)


def test_things_keep_their_ids_unless_that_is_switched_off() -> None:
    tracked = [{s.name: s.id for s in result.segments} for result in panrt.stream(CLIP, NullSession(), limit=10)]
    assert len({ids["bright"] for ids in tracked}) == 1
    plain = [result.panoptic for result in panrt.stream(CLIP, NullSession(), limit=3, tracker=None)]
    with panrt.engine.sources.open_source(CLIP) as source:
        frames = drain(source, most=3)
    assert all(np.array_equal(ids, map_of(frame.image)) for ids, frame in zip(plain, frames, strict=True))


def test_tracker_may_be_given_by_its_options_or_as_one_that_outlives_a_stream() -> None:
    model = NullSession().model
    tracker = Tracker((*model.things, *model.stuff))

    def bright_ids(tracker: Tracker | TrackingConfig) -> set[int]:
        results = list(panrt.stream(CLIP, NullSession(), limit=3, tracker=tracker))
        return {segment.id for result in results for segment in result.segments if segment.name == "bright"}

    assert len(bright_ids(TrackingConfig(max_age=2))) == 1
    assert bright_ids(tracker) == bright_ids(tracker)


def test_tracker_of_one_source_is_rejected_for_several() -> None:
    model = NullSession().model
    tracker = Tracker((*model.things, *model.stuff))
    with pytest.raises(ValueError, match=r"tracker: got one Tracker for 2 sources.*TrackingConfig"):
        panrt.stream([uri(3), uri(3)], NullSession(), tracker=tracker)
    with pytest.raises(TypeError, match="tracker: got str, expected a TrackingConfig, a Tracker or None"):
        panrt.stream(uri(3), NullSession(), tracker="yes")  # type: ignore[arg-type]


def test_track_is_deprecated_and_still_switches_tracking_off() -> None:
    with pytest.warns(DeprecationWarning, match="use tracker=None"):
        stream = panrt.stream(uri(3), NullSession(), track=False)
    assert [result.frame_index for result in stream] == [0, 1, 2]
    assert not stream._trackers


def test_a_limit_ends_the_stream_after_just_so_many() -> None:
    session = NullSession(capacity=3, batch=4)
    assert len(list(panrt.stream(uri(50), session, limit=7))) == 7
    assert sum(session.batches) == 7


def test_leaving_the_loop_early_hands_what_was_begun_to_the_sinks(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    session = NullSession(capacity=3)
    with panrt.stream(uri(50), session, sinks=[str(path)]) as stream:
        for result in stream:
            if result.frame_index == 4:
                break
    lines = [json.loads(line)["frame_index"] for line in path.read_text().splitlines()]
    assert lines == list(range(len(lines)))
    assert len(lines) == sum(session.batches) >= 5
    assert session._waiting == type(session._waiting)()  # the session can go on to something else
    assert threads_of_ours() == []


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("source", "sink"))]


def test_leaving_the_loop_is_enough_to_end_everything(tmp_path: Path) -> None:
    gc.disable()  # it must not take a search for cycles
    try:
        for result in panrt.stream("test://32x24@100", NullSession(), sinks=[str(tmp_path / "out.jsonl")]):
            if result.frame_index > 3:
                assert len(threads_of_ours()) == 2
                break
        wait_for(lambda: not threads_of_ours())
    finally:
        gc.enable()


def test_a_stream_runs_once() -> None:
    stream = panrt.stream(uri(3), NullSession())
    assert len(list(stream)) == 3
    with pytest.raises(StreamError, match="it can run only once"):
        list(stream)


def test_a_source_that_ends_by_an_error_raises_it_after_the_last_result(tmp_path: Path) -> None:
    broken = tmp_path / "b.png"
    broken.write_bytes(b"no picture")
    (tmp_path / "a.jpg").write_bytes((IMAGES / "000001.jpg").read_bytes())
    path = tmp_path / "out.jsonl"
    results: list[PanopticResult] = []
    with pytest.raises(SourceUndecodableError, match=r"b\.png: not an image"):
        results.extend(panrt.stream([tmp_path, uri(9)], NullSession(), sinks=[str(path)]))
    assert len(path.read_text().splitlines()) == 10  # the other source was not cut off
    with pytest.raises(SourceNotFoundError):
        list(panrt.stream(tmp_path / "nope.mp4", NullSession()))
    with pytest.raises(UnknownSourceError):
        panrt.stream("tset://", NullSession())


def test_a_session_that_fails_ends_the_stream_with_its_error_and_sinks_keep_what_they_have(tmp_path: Path) -> None:
    class Failing(NullSession):
        def collect(self) -> tuple[panrt.PanopticResult, ...]:
            if self._waiting[0][1][0].index == 5:
                raise RuntimeError("the device is gone")
            return super().collect()

    path = tmp_path / "out.jsonl"
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(panrt.stream(uri(50), Failing(capacity=3), sinks=[str(path)]))
    assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_flight": 3}, "accepts 1 to 2"),
        ({"in_flight": 0}, "accepts 1 to 2"),
        ({"policy": "oldest"}, "policy: got 'oldest'"),
    ],
)
def test_an_option_that_does_not_do_is_refused_before_anything_starts(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        panrt.stream("test://", NullSession(capacity=2), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="source: got none"):
        panrt.stream([], NullSession())


def test_stopping_ends_a_live_stream_with_all_that_was_captured() -> None:
    with panrt.stream("test://32x24@100", NullSession()) as stream:
        for count, _ in enumerate(stream):
            if count == 10:
                stream.stop()
    source = stream.status.sources[0]
    assert source.state is State.ENDED
    assert source.captured == source.delivered + source.dropped
    assert stream.status.results == source.delivered


def test_the_status_tells_of_a_source_that_stalls_while_nobody_asks() -> None:
    seen: list[str] = []

    def watch(stream: Stream) -> None:
        wait_for(lambda: any("stalled" in trouble for trouble in stream.status.trouble))
        seen.extend(stream.status.trouble)
        stream.stop()

    # Two frames a second, where a frame is due every 0.1 s.
    options = SourceOptions(stall_after=0.1)
    with panrt.stream("test://32x24@2", NullSession(), options=options) as stream:
        watcher = threading.Thread(target=watch, args=(stream,))
        watcher.start()
        list(stream)
        watcher.join()
    assert seen == ["test://32x24@2: stalled (no frame for 0.1 s)"]


SCRIPT = """
import sys, panrt
from tools.null_session import NullSession
from panrt.engine.pipeline import stop_on_signals
with panrt.stream("test://32x24@100", NullSession(), sinks=sys.argv[1:]) as stream, stop_on_signals(stream):
    for count, _ in enumerate(stream):
        if count == 5:
            print("running", flush=True)
print(stream.status.results, stream.status.sources[0].delivered, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream_with_everything_written(number: signal.Signals, tmp_path: Path) -> None:
    lines, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, f"{lines}?policy=block", f"{video}?policy=block"],
        stdout=subprocess.PIPE, text=True, cwd=root,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    results, delivered = map(int, output.split())
    assert results == delivered == len(lines.read_text().splitlines())
    with panrt.engine.sources.open_source(video) as source:
        assert len(drain(source)) == results


def test_signal_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with panrt.stream(uri(3), NullSession()) as stream, stop_on_signals(stream):
        assert signal.getsignal(signal.SIGINT) is not before
        list(stream)
    assert signal.getsignal(signal.SIGINT) is before
