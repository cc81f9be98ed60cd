"""Scenarios of one session and several threads, run on every backend.

A story takes a session, distinct frames, and what shows which of them a result is of.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult
from panrt.errors import SessionBusyError, SessionClosedError, SessionError

Frames = Sequence[NDArray[np.uint8]]
Maps = Sequence[NDArray[np.int32]]

DEADLINE = 120.0  # seconds; a thread that is not through by then hangs


@contextmanager
def restless() -> Iterator[None]:
    """Let the interpreter go from thread to thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(*works: Callable[[], Any]) -> None:
    """Run all at once, begun together; the first exception of any of them is raised here."""
    barrier = threading.Barrier(len(works))
    failures: list[BaseException] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            barrier.wait(DEADLINE)
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


def calls_are_right(session: Any, frames: Frames, maps: Maps, *, rounds: int) -> None:
    """Every thread gets the results of its own frame, however the calls meet."""

    def work(number: int) -> None:
        for _ in range(rounds):
            np.testing.assert_array_equal(session(frames[number]).panoptic, maps[number])

    with restless():
        in_threads(*(lambda number=number: work(number) for number in range(len(frames))))


def pairs_are_right_or_refused(session: Any, frames: Frames, maps: Maps, *, rounds: int) -> None:
    """Threads that submit and collect get the results of their own frames, or an error when out of turn."""
    done: list[int] = []

    def work(number: int) -> None:
        right = 0
        while right < rounds:
            try:
                session.submit([Frame(frames[number], index=number)])
            except SessionBusyError:
                try:  # out of turn as well, and it must not steal
                    stolen = session.collect()
                except SessionError:
                    continue
                raise AssertionError(f"thread {number} got the result of frame {stolen[0].frame_index}") from None
            (result,) = session.collect()
            assert result.frame_index == number
            np.testing.assert_array_equal(result.panoptic, maps[number])
            right += 1
        done.append(number)

    with restless():
        in_threads(*(lambda number=number: work(number) for number in range(len(frames))))
    assert sorted(done) == list(range(len(frames)))


def a_call_amid_submissions_of_another_thread_is_refused(session: Any, frames: Frames, maps: Maps) -> None:
    """Nothing is computed for who comes out of turn, and whose turn it is gets what is its own."""
    refusals: list[str] = []

    def intrude() -> None:
        for use in (lambda: session(frames[1]), lambda: session.submit([Frame(frames[1])]), session.collect):
            try:
                use()
            except SessionBusyError as error:
                refusals.append(str(error))

    session.submit([Frame(frames[0])])
    in_threads(intrude)
    assert len(refusals) == 3, refusals
    (result,) = session.collect()
    np.testing.assert_array_equal(result.panoptic, maps[0])
    in_threads(lambda: np.testing.assert_array_equal(session(frames[1]).panoptic, maps[1]))  # now it is in turn


def a_producer_and_a_consumer_get_on(session: Any, frames: Frames, maps: Maps, *, rounds: int) -> None:
    """One thread submits, as fast as it may, and another one collects, in the same order."""
    free = threading.Semaphore(session.capacity)
    ready = threading.Semaphore(0)

    def produce() -> None:
        for number in range(rounds):
            assert free.acquire(timeout=DEADLINE)
            session.submit([Frame(frames[number % len(frames)], index=number)])
            ready.release()

    def consume() -> None:
        for number in range(rounds):
            assert ready.acquire(timeout=DEADLINE)
            (result,) = session.collect()
            free.release()
            assert result.frame_index == number
            np.testing.assert_array_equal(result.panoptic, maps[number % len(frames)])

    with restless():
        in_threads(produce, consume)


def closing_amid_calls_ends_them(open_session: Callable[[], Any], frames: Frames, maps: Maps) -> None:
    """Calls that another thread's `close` meets end with their result or with SessionClosedError, later ones too."""

    def call_until_closed(session: Any, number: int, began: threading.Event) -> None:
        while True:
            try:
                result: PanopticResult = session(frames[number])
            except SessionClosedError:
                return
            np.testing.assert_array_equal(result.panoptic, maps[number])
            began.set()

    def submit_until_closed(session: Any, number: int, began: threading.Event) -> None:
        while True:
            try:
                session.submit([Frame(frames[number])])
                (result,) = session.collect()
            except SessionClosedError:
                return
            except SessionBusyError:
                continue
            np.testing.assert_array_equal(result.panoptic, maps[number])
            began.set()

    for work in (call_until_closed, submit_until_closed):
        session, began = open_session(), threading.Event()

        def close(session: Any = session, began: threading.Event = began) -> None:
            assert began.wait(DEADLINE)
            session.close()
            session.close()

        users = [lambda n=n, s=session, b=began, w=work: w(s, n, b) for n in range(2)]
        in_threads(*users, close, close)
