"""No call of PanRT changes which CUDA contexts are current for its caller, whatever they are meanwhile."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cuda.bindings import driver as cu

import panrt
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.session import TensorRTSession
from panrt.engine.frame import Frame
from panrt.errors import CudaError, CudaStreamError, EngineError, FrameError, SessionError
from tools.simcuda import control
from tools.simcuda.device_arrays import CudaArray
from tools.simcuda.sessions import check, contexts_unchanged, open_session, picture


def make_context() -> Any:
    """As `pycuda.autoinit` and `Device.make_context` do: it is current afterwards."""
    cu.cuInit(0)
    made = cu.cuCtxCreate(None, 0, 0) if cu.CUDA_VERSION >= 13000 else cu.cuCtxCreate(0, 0)
    return made[1]


@contextlib.contextmanager
def a_program(kind: str) -> Iterator[None]:
    """A program that has contexts of its own in this thread before PanRT comes."""
    cu.cuInit(0)
    made = []
    if kind == "primary":
        cu.cuCtxPushCurrent(cu.cuDevicePrimaryCtxRetain(0)[1])
    elif kind != "none":
        made = [make_context() for _ in range({"one": 1, "two": 2}[kind])]
    try:
        yield
    finally:
        if kind == "primary":
            cu.cuCtxPopCurrent()
            cu.cuDevicePrimaryCtxRelease(0)
        for context in reversed(made):
            cu.cuCtxDestroy(context)


PROGRAMS = ("none", "primary", "one", "two")


@pytest.mark.parametrize("current_later", PROGRAMS)
@pytest.mark.parametrize("current_first", PROGRAMS)
def test_no_public_call_changes_the_callers_contexts(
    tmp_path: Path, kernels: Kernels, current_first: str, current_later: str
) -> None:
    """Those calls are made in the midst of another program's contexts than the session was opened in."""
    with a_program(current_first):
        with contexts_unchanged():
            session = open_session(tmp_path, kernels=kernels)
        with a_program(current_later):
            for call in (
                lambda: check(session(picture(0)), picture(0)),
                lambda: session(picture(0)).overlay(),
                lambda: session.submit([Frame(picture(1))]),
                lambda: session.submit([Frame(picture(2, (50, 40)), pixel_format="rgb8")]),
                session.collect,
                session.collect,
                lambda: session.profile(runs=2),
                lambda: session.reserve(test_no_public_call_changes_the_callers_contexts),
                lambda: session.release(test_no_public_call_changes_the_callers_contexts),
                lambda: session.wait_for(0),
                lambda: session.submit([Frame(picture(3))]),
                session.close,
                session.close,
            ):
                with contexts_unchanged():
                    call()
        with contexts_unchanged(), open_session(tmp_path, kernels=kernels) as session:
            check(session(picture(1)), picture(1))


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_call_that_raises_changes_the_callers_contexts(tmp_path: Path, gpu: ModuleType, program: str) -> None:
    with a_program(program):
        session: TensorRTSession
        failures: tuple[tuple[Callable[[], object], type[Exception]], ...] = (
            (lambda: open_session(tmp_path, tensors=[("image", (1, 1, 1, 3), "UINT8", True)]), EngineError),
            (lambda: session([1, 2, 3]), FrameError),
            (lambda: session.collect(), SessionError),  # noqa: PLW0108  (a session of its own each time)
            (lambda: session.submit([]), ValueError),
            (lambda: session.wait_for("stream"), CudaStreamError),
            (lambda: session(picture(0, (50, 40))).overlay(), FrameError),
        )
        for fails, error in failures:
            with open_session(tmp_path) as session, contexts_unchanged():
                with pytest.raises(error):
                    fails()
                check(session(picture(0)), picture(0))
        session = open_session(tmp_path)
        session.submit([Frame(picture(0))])
        gpu.fail("cuEventSynchronize")
        with contexts_unchanged(), pytest.raises(CudaError):
            session.collect()
        gpu.fail("cuGraphLaunch")
        with contexts_unchanged(), pytest.raises(CudaError):
            session(picture(0))
        with contexts_unchanged():
            session.close()


@pytest.mark.parametrize("integrated", [False, True])
def test_the_callers_contexts_are_the_same_whichever_call_fails(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, integrated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    with a_program("one"):
        own = control.contexts()
        for nth in range(1, 1000):
            gpu.reset()
            gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
            gpu.fail("*", gpu.UNKNOWN, nth=nth)
            with contextlib.suppress(CudaError, EngineError), open_session(tmp_path, kernels=kernels) as session:
                session(picture(0))
                session.submit([Frame(picture(1))])
                session.collect()
            assert control.contexts() == own, nth
            if not gpu.failed():
                break
        assert nth > 50
        gpu.reset()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_stream_and_its_sinks_leave_contexts_alone(tmp_path: Path, kernels: Kernels, program: str) -> None:
    with a_program(program), contexts_unchanged(), open_session(tmp_path, kernels=kernels) as session:
        before = control.contexts()
        seen: list[Any] = []
        pictures = [picture(seed) for seed in range(6)]
        with panrt.stream(iter(pictures), session, sinks=[str(tmp_path / "out.mp4"), seen.append]) as stream:
            for _ in stream:
                assert control.contexts() == before
        assert control.contexts() == before
        assert len(seen) == 6
        with contexts_unchanged():
            for _ in panrt.stream(iter(pictures), session):  # left in the middle
                break


def in_thread(work: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []


def test_other_threads_keep_their_contexts_too(tmp_path: Path, kernels: Kernels) -> None:
    with a_program("one"):
        session = open_session(tmp_path, kernels=kernels)
        drawing = session(picture(0)).start_overlay()
        assert drawing is not None

        def in_none() -> None:
            check(session(picture(1)), picture(1))
            drawing.overlay()
            assert control.contexts() == []

        def in_its_own() -> None:
            with a_program("two"), contexts_unchanged():
                check(session(picture(2)), picture(2))
                session.close()

        with contexts_unchanged():
            in_thread(in_none)
            in_thread(in_its_own)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_session_that_is_dropped_frees_itself_in_its_own_context(
    tmp_path: Path, gpu: ModuleType, program: str
) -> None:
    before = gpu.alive()
    session = open_session(tmp_path)
    session.submit([Frame(picture(0))])
    with a_program(program):
        with contexts_unchanged():
            del session
            gc.collect()
        held = {kind for kind, count in gpu.alive().items() if count != before.get(kind)}
        assert held <= {"context", "primary context"}  # the program's
    assert gpu.alive() == before


# PyCUDA's calls, before and after PanRT's


def test_pycuda_may_make_its_context_after_a_session_was_opened(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        assert control.contexts() == []
        context = make_context()  # `import pycuda.autoinit`
        check(session(picture(0)), picture(0))
        assert int(cu.cuCtxPopCurrent()[1]) == int(context)  # `context.pop()`, as it does at the end
        assert control.contexts() == []
        check(session(picture(1)), picture(1))
        cu.cuCtxDestroy(context)
        check(session(picture(2)), picture(2))


def test_a_session_runs_in_the_context_that_is_current_when_it_is_opened(tmp_path: Path, gpu: ModuleType) -> None:
    primary = gpu.alive().get("primary context")
    context = make_context()
    with open_session(tmp_path) as session:
        assert gpu.alive().get("primary context") == primary
        assert control.contexts() == [int(context)]
        cu.cuCtxPopCurrent()  # current no more, and the session does not care
        check(session(picture(0)), picture(0))
        cu.cuCtxPushCurrent(context)
        check(session(picture(1)), picture(1))
    assert control.contexts() == [int(context)]
    cu.cuCtxDestroy(context)


def test_a_context_that_was_destroyed_under_a_session_takes_all_with_it(
    tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    context = make_context()
    session = open_session(tmp_path, uncapturable=True)
    check(session(picture(0)), picture(0))
    cu.cuCtxDestroy(context)  # as `pycuda.autoinit` does when Python ends
    gpu.take_log()
    with pytest.raises(CudaError, match="cuCtxPushCurrent: CUDA_ERROR_INVALID_CONTEXT"):
        session(picture(0))
    caplog.clear()
    session.close()
    assert "while closing" in caplog.text
    assert set(gpu.take_log()) == {"cuCtxPushCurrent"}  # nothing is freed that may be somebody else's by now
    assert control.findings() == ["cuCtxPushCurrent: no such context"] * 2
    gpu.reset()


def test_a_current_context_that_another_thread_destroyed_is_left_where_it_is(tmp_path: Path) -> None:
    context = make_context()
    in_thread(lambda: cu.cuCtxDestroy(context))
    assert control.contexts() == [int(context)]
    with open_session(tmp_path) as session:
        check(session(picture(0)), picture(0))
    assert control.contexts() == [int(context)]


def test_arrays_and_session_must_be_of_one_context(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    with open_session(tmp_path, kernels=kernels) as session, a_program("one"):
        array = CudaArray(picture(0))
        array.names_stream = False
        with pytest.raises(FrameError, match="memory of CudaArray belongs to another CUDA context than the session's"):
            session(array)
        with pytest.raises(CudaStreamError, match="is not a stream of the CUDA context that the session runs in"):
            session.wait_for(int(array.stream))
        assert control.findings() == ["cuEventRecord: the stream is of another context than the current one"]
        gpu.reset()
        array.close()
        check(session(picture(0)), picture(0))
