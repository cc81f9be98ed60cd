"""One session shared by threads, streams or signal handlers: right results, or an error for a caller out of turn."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import panrt
from panrt.engine.backends.cpu.session import CpuSession
from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult
from panrt.engine.sinks.sink import Context, Item, Sink, SinkSpec
from panrt.errors import SessionBusyError, SessionClosedError, SessionError, StreamError
from support import shared_sessions
from support.networks import exported, frames
from tools.null_session import NullSession, map_of

Frames = list[NDArray[np.uint8]]


def pictures(count: int) -> Frames:
    """Small noise, each of its own, for sessions without a network."""
    return list(np.random.default_rng(3).integers(0, 256, (count, 24, 32, 3), np.uint8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(params=["cpu", "null"])
def backend(request: pytest.FixtureRequest, model: Path) -> Any:
    """How to open a session, its frames, and their maps as one thread gets them."""
    if request.param == "null":
        images = pictures(4)
        return lambda: NullSession(capacity=2), images, [map_of(image) for image in images]
    images = list(frames(4))
    with panrt.load(model, threads=1) as session:
        return lambda: panrt.load(model, threads=1), images, [session(image).panoptic for image in images]


def rounds(open_session: Any) -> int:
    with open_session() as session:
        return 6 if isinstance(session, CpuSession) else 200


def test_calls_from_several_threads_give_each_its_own_result(backend: Any) -> None:
    open_session, images, maps = backend
    assert len({panoptic.tobytes() for panoptic in maps}) == len(maps), "the frames cannot be told apart"
    with open_session() as session:
        shared_sessions.calls_are_right(session, images, maps, rounds=rounds(open_session))


def test_pairs_of_submit_and_collect_from_several_threads_are_right_or_refused(backend: Any) -> None:
    open_session, images, maps = backend
    with open_session() as session:
        shared_sessions.pairs_are_right_or_refused(session, images[:3], maps[:3], rounds=rounds(open_session) // 2)


def test_a_call_amid_submissions_of_another_thread_is_refused(backend: Any) -> None:
    open_session, images, maps = backend
    with open_session() as session:
        shared_sessions.a_call_amid_submissions_of_another_thread_is_refused(session, images, maps)


def test_one_thread_may_submit_what_another_one_collects(backend: Any) -> None:
    open_session, images, maps = backend
    with open_session() as session:
        session(images[0])  # what was before does not matter
        shared_sessions.a_producer_and_a_consumer_get_on(session, images, maps, rounds=2 * rounds(open_session))


def test_closing_while_other_threads_are_in_calls_ends_them(backend: Any) -> None:
    open_session, images, maps = backend
    shared_sessions.closing_amid_calls_ends_them(open_session, images, maps)


# Signals and interrupts


class Interrupted(NullSession):
    """Runs something in the midst of its work, as a signal handler or an interrupt would."""

    def __init__(self, what: Any, **options: Any) -> None:
        super().__init__(**options)
        self.what = what
        self.freed = 0

    def _finish(self, work: float, frames: tuple[Frame, ...]) -> tuple[PanopticResult, ...]:
        what, self.what = self.what, None
        if what is not None:
            what(self)
        assert self.freed == 0
        return super()._finish(work, frames)

    def _free(self) -> None:
        self.freed += 1


def test_a_signal_handler_may_close_the_session_that_it_interrupts() -> None:
    (image,) = pictures(1)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: session.close())
    try:
        session = Interrupted(lambda session: signal.raise_signal(signal.SIGUSR1))
        assert np.array_equal(session(image).panoptic, map_of(image))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert session.freed == 1
    with pytest.raises(SessionClosedError, match="null is closed"):
        session(image)
    session.close()
    assert session.freed == 1


def test_a_call_from_within_a_call_is_refused_instead_of_waiting_for_itself() -> None:
    image, other = pictures(2)

    def intrude(session: NullSession) -> None:
        for use in (lambda: session(other), lambda: session.submit([Frame(other)]), session.collect):
            with pytest.raises(SessionError, match="from within another call of the same thread"):
                use()

    with Interrupted(intrude) as session:
        assert np.array_equal(session(image).panoptic, map_of(image))


def interrupt(session: NullSession) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_collect_can_be_repeated() -> None:
    image, other = pictures(2)
    with Interrupted(interrupt, capacity=2) as session:
        session.submit([Frame(image)])
        session.submit([Frame(other)])
        with pytest.raises(KeyboardInterrupt):
            session.collect()
        for expected in (image, other):
            (result,) = session.collect()
            assert np.array_equal(result.panoptic, map_of(expected))


def test_an_interrupted_stream_leaves_nothing_in_the_session(tmp_path: Path) -> None:
    with Interrupted(interrupt, capacity=3) as session:
        with pytest.raises(KeyboardInterrupt):
            list(panrt.stream("test://32x24@max?frames=9", session, sinks=[str(tmp_path / "out.jsonl")]))
        on_their_way = sum(session.batches)
        (image,) = pictures(1)
        assert np.array_equal(session(image).panoptic, map_of(image))
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == on_their_way >= 1


# Streams


def test_while_a_stream_runs_the_session_is_the_streams(tmp_path: Path) -> None:
    (image,) = pictures(1)
    path = tmp_path / "second.jsonl"
    with NullSession(capacity=2) as session:
        with panrt.stream("test://32x24@max?frames=9", session) as stream:
            results = iter(stream)
            next(results)
            for use in (lambda: session(image), lambda: session.submit([Frame(image)]), session.collect):
                with pytest.raises(SessionBusyError):
                    use()
            with pytest.raises(SessionBusyError, match="a stream runs on it"):
                list(panrt.stream("test://32x24@max?frames=9", session, sinks=[str(path)]))
            assert [result.frame_index for result in results] == list(range(1, 9))
        assert not path.exists()
        assert np.array_equal(session(image).panoptic, map_of(image))


def test_a_stream_may_go_from_thread_to_thread_between_its_steps() -> None:
    """As web frameworks iterate over generators: each step on whichever thread of a pool is free."""
    with NullSession(capacity=2) as session, panrt.stream("test://32x24@max?frames=9", session) as stream:
        results = iter(stream)
        seen: list[int] = []
        for _ in range(9):
            shared_sessions.in_threads(lambda: seen.append(next(results).frame_index))
        assert seen == list(range(9))


def test_two_threads_cannot_take_steps_of_a_stream_at_once() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold(session: NullSession) -> None:
        inside.set()
        assert go_on.wait(shared_sessions.DEADLINE)

    with Interrupted(hold) as session, panrt.stream("test://32x24@max?frames=3", session) as stream:
        results = iter(stream)

        def intrude() -> None:
            assert inside.wait(shared_sessions.DEADLINE)
            try:
                with pytest.raises(StreamError, match="another thread is iterating over it"):
                    next(results)
                with pytest.raises(StreamError, match="it can run only once"):
                    iter(stream)
            finally:
                go_on.set()

        shared_sessions.in_threads(intrude, lambda: next(results))
        assert len(list(results)) == 2


def test_closing_a_stream_from_another_thread_ends_its_iteration() -> None:
    began = threading.Event()
    seen: list[int] = []
    with NullSession(capacity=2) as session:
        stream = panrt.stream("test://32x24@max", session)

        def iterate() -> None:
            for result in stream:
                seen.append(result.frame_index)
                began.set()

        def close() -> None:
            assert began.wait(shared_sessions.DEADLINE)
            stream.close()

        with shared_sessions.restless():
            shared_sessions.in_threads(iterate, close)
        assert seen == list(range(len(seen)))
        assert session._waiting == type(session._waiting)()
        (image,) = pictures(1)
        assert np.array_equal(session(image).panoptic, map_of(image))


def test_a_sink_that_calls_back_is_refused_or_served_and_hangs_nothing() -> None:
    errors: list[BaseException] = []
    (image,) = pictures(1)

    class Calling:
        def write(self, item: Item) -> None:
            try:
                session(image)
            except SessionBusyError as error:
                errors.append(error)
            stream.close()

        def close(self) -> None:
            """Nothing is held."""

    def open_writer(context: Context) -> Calling:
        return Calling()

    with NullSession() as session:
        sink = Sink(SinkSpec("calling", open_writer, recording=True))
        stream = panrt.stream("test://32x24@max?frames=50", session, sinks=[sink])
        shared_sessions.in_threads(lambda: list(stream))
    assert errors
    assert sink.status.state == "closed"
