"""The TensorRT session, every line of it, on the simulated device."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import logging
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.session import TensorRTSession
from panrt.engine.frame import Frame
from panrt.engine.preprocess import fill, place
from panrt.engine.results.result import PanopticResult
from panrt.errors import CudaError, EngineError, FrameError, SessionError
from support import shared_sessions
from tools.simcuda import fake_tensorrt
from tools.simcuda.control import SCHEDULES, Schedule
from tools.simcuda.sessions import HW, MODEL, check, expected, open_session, picture, tensors


@pytest.fixture(autouse=True)
def python_of_the_device() -> Any:
    """What the device runs in Python does not fail."""
    yield
    failures = list(fake_tensorrt.failures)
    fake_tensorrt.failures.clear()
    assert failures == []


# Results


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_each_frame_gets_its_own_result_however_late_or_early_the_device_works(
    tmp_path: Path, gpu: ModuleType, schedule: Schedule, slots: int
) -> None:
    gpu.schedule(schedule, slots)
    with open_session(tmp_path, slots=slots) as session:
        assert (session.capacity, session.backend, session.graph_error) == (slots, "tensorrt", None)
        waiting: list[int] = []
        results: list[PanopticResult] = []
        for index in range(12):
            if len(waiting) == slots:
                results += session.collect()
                waiting.pop(0)
            session.submit([Frame(picture(index), index=index, captured_at=index / 30, source="camera")])
            waiting.append(index)
        while waiting:
            results += session.collect()
            waiting.pop(0)
        for index, result in enumerate(results):
            assert (result.frame_index, result.captured_at, result.source) == (index, index / 30, "camera")
            check(result, picture(index))


def test_a_result_is_the_users_own(tmp_path: Path) -> None:
    with open_session(tmp_path, slots=1) as session:
        first = session(picture(0))
        kept = first.panoptic.copy()
        session(picture(1))
    np.testing.assert_array_equal(first.panoptic, kept)  # neither overwritten nor freed


def test_frames_of_any_size_come_to_the_network_as_they_do_on_the_cpu(tmp_path: Path) -> None:
    image = picture(3, (50, 40))
    placement = place((50, 40), HW, MODEL.sizes.output_hw)
    target = np.empty((*HW, 3), np.uint8)
    fill(image, placement, np.array([104, 116, 123], np.uint8), target)
    with open_session(tmp_path) as session:
        result = session(image)
    height, width = placement.map_hw
    assert result.panoptic.shape == (height, width) == (16, 13)
    np.testing.assert_array_equal(result.panoptic, expected(target)[:height, :width])


def test_a_batch_holds_up_to_as_many_frames_as_the_engine_takes(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, batch=3)
    with open_session(tmp_path, model) as session:
        for count in (3, 1, 2):
            session.submit([Frame(picture(seed), index=seed) for seed in range(count)])
            results = session.collect()
            assert len(results) == count
            for seed, result in enumerate(results):
                check(result, picture(seed))
        for wrong in (0, 4):
            with pytest.raises(
                ValueError, match=rf"frames: got {wrong}, expected 1 to 3, the batch of .*pattern\.plan"
            ):
                session.submit([Frame(picture(0))] * wrong)


def test_the_part_of_the_input_that_is_not_valid_keeps_its_colour(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, valid_hw=(32, 48), output_hw=(16, 32))
    with open_session(tmp_path, model) as session:
        image = picture(0, (32, 48))
        result = session(image)
    np.testing.assert_array_equal(result.panoptic[:, :24], expected_part(image))


def expected_part(image: Any) -> Any:
    return fake_tensorrt.pattern(image[None]).panoptic[0]


def test_timings_add_up(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        started = time.perf_counter()
        timings = session(picture(0)).timings
        assert 0 < sum(timings) <= time.perf_counter() - started
        assert all(seconds > 0 for seconds in timings)


# The steady state


@pytest.mark.parametrize("integrated", [False, True])
def test_a_frame_costs_nine_driver_calls_and_neither_memory_nor_hidden_waits(
    tmp_path: Path, gpu: ModuleType, integrated: bool
) -> None:
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    with open_session(tmp_path) as session:
        session.submit([Frame(picture(0))])
        gpu.take_log()
        for index in range(20):
            session.submit([Frame(picture(index))])
            session.collect()
        calls = gpu.take_log()
    assert len(calls) == 20 * 9
    assert set(calls) == {
        "cuCtxPushCurrent", "cuCtxPopCurrent", "cuEventRecord", "cuGraphLaunch", "cuEventSynchronize",
        "cuEventElapsedTime",
    }  # fmt: skip
    assert not set(calls) & gpu.ALLOCATIONS
    assert set(calls) & gpu.SYNCHRONISATIONS == {"cuEventSynchronize"}  # the one that is meant
    assert not [call for call in calls if "!" in call]


def test_submit_does_not_wait(tmp_path: Path, gpu: ModuleType) -> None:
    with open_session(tmp_path) as session:
        busy = gpu.busy_seconds()
        session.submit([Frame(picture(0))])
        session.submit([Frame(picture(1))])
        assert gpu.busy_seconds() == busy
        check(session.collect()[0], picture(0))
        check(session.collect()[0], picture(1))


def test_a_gpu_that_shares_memory_gets_no_copies_and_no_memory_of_its_own(tmp_path: Path, gpu: ModuleType) -> None:
    gpu.use_facts("orin_jetpack6")
    with open_session(tmp_path) as session:
        assert session.gpu_memory == "mapped"
        assert gpu.alive()["host memory"] == 4  # of each slot that of its work, and that of its thresholds
        assert gpu.alive()["device memory"] == 6  # weights, scratch; of both slots: what a context keeps, thresholds
        gpu.take_log()
        for index in range(4):
            with session._context:
                session._slots[0].enqueue()  # what a graph replays
            check(session(picture(index)), picture(index))
        assert not [call for call in gpu.take_log() if call.startswith("cuMemcpy")]


def test_the_host_never_follows_a_device_pointer(tmp_path: Path, gpu: ModuleType) -> None:
    gpu.guard()
    with open_session(tmp_path) as session:
        check(session(picture(0)), picture(0))


def test_a_profile_takes_a_frame_apart_and_leaves_the_session_as_it_was(tmp_path: Path, gpu: ModuleType) -> None:
    with open_session(tmp_path) as session:
        before = gpu.alive()
        check(session(picture(0)), picture(0))
        profile = session.profile(runs=5)
        assert all(seconds > 0 for seconds in profile[:-1])
        assert profile.layers == {"backbone": 0.5e-3, "merge": 0.5e-3}
        assert gpu.alive() == before
        assert session.stages == {}
        check(session(picture(1)), picture(1))
        session.submit([Frame(picture(0))])
        with pytest.raises(SessionError, match="collect them before profiling"):
            session.profile()


# Graphs


def test_a_capture_that_fails_is_logged_and_the_session_works_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_session(tmp_path, uncapturable=True) as session:
        assert session.graph_error is not None
        assert "cannot be captured" in session.graph_error
        assert "runs without CUDA graphs" in caplog.text
        for index in range(4):
            check(session(picture(index)), picture(index))


@pytest.mark.parametrize("facts", ["rtx4090", "orin_jetpack6", "h200"])
@pytest.mark.parametrize("host", ["undefined", "zeros"])
@pytest.mark.parametrize("device", ["undefined", "zeros"])
def test_graphs_are_kept_whatever_memory_holds_that_nobody_wrote(
    tmp_path: Path, gpu: ModuleType, facts: str, host: str, device: str
) -> None:
    gpu.use_facts(facts)
    gpu.set_fact("fresh_memory.device", device)
    for kind in ("pinned", "mapped"):
        gpu.set_fact(f"fresh_memory.{kind}", host)
    for batch, seed in itertools.product((1, 3), range(3)):
        gpu.seed(1000 * seed)
        with open_session(tmp_path, dataclasses.replace(MODEL, batch=batch)) as session:
            assert session.graph_error is None
            check(session(picture(0)), picture(0))


@pytest.mark.parametrize("wrong", ["replays_differ", "replays_do_nothing"])
@pytest.mark.parametrize("facts", ["rtx4090", "orin_jetpack6"])
def test_a_replay_that_differs_is_not_trusted(
    tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture, facts: str, wrong: str
) -> None:
    gpu.use_facts(facts)
    with open_session(tmp_path, **{wrong: True}) as session:  # type: ignore[arg-type]
        assert session.graph_error == "a replay gave other results than a run without graph"
        for index in range(4):
            check(session(picture(index)), picture(index))
    assert "a replay gave other results" in caplog.text


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch"])
@pytest.mark.parametrize("nth", [1, 2])
def test_any_call_of_a_capture_may_fail(tmp_path: Path, gpu: ModuleType, call: str, nth: int) -> None:
    gpu.fail(call, nth=nth)
    with open_session(tmp_path) as session:
        assert gpu.failed()
        assert session.graph_error is not None
        assert call in session.graph_error
        check(session(picture(0)), picture(0))


def test_other_threads_use_the_gpu_while_a_session_captures(tmp_path: Path) -> None:
    first = open_session(tmp_path)
    stop = threading.Event()
    failures: list[BaseException] = []

    def infer() -> None:
        try:
            while not stop.is_set():
                check(first(picture(1)), picture(1))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=infer)
    thread.start()
    for _ in range(5):
        with open_session(tmp_path) as second:
            assert second.graph_error is None
            check(second(picture(2)), picture(2))
    stop.set()
    thread.join()
    first.close()
    assert failures == []


@pytest.mark.usefixtures("own_context")
def test_no_session_is_garbage_collected_during_a_capture(tmp_path: Path, gpu: ModuleType) -> None:
    dropped: list[Any] = [open_session(tmp_path)]
    dropped.append(dropped)  # a cycle, which only the collector finds
    stream = driver.Stream()
    alive = gpu.alive()

    def work() -> None:
        nonlocal dropped
        dropped = []
        if gc.isenabled():  # then any allocation may do this
            gc.collect()

    stream.capture(work).close()
    assert gpu.alive() == alive
    assert gc.isenabled()
    gc.collect()
    assert gpu.alive() != alive
    stream.close()


@pytest.mark.usefixtures("own_context")
@pytest.mark.parametrize("enabled", [True, False])
def test_a_capture_leaves_the_garbage_collector_as_it_was(enabled: bool) -> None:
    first, second = driver.Stream(), driver.Stream()
    (gc.enable if enabled else gc.disable)()
    try:

        def capture_another() -> None:
            second.capture(lambda: None).close()
            assert not gc.isenabled()

        def fail() -> None:
            raise ZeroDivisionError

        first.capture(capture_another).close()
        assert gc.isenabled() == enabled
        with pytest.raises(ZeroDivisionError):
            first.capture(fail)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    first.close()
    second.close()


# Misuse


def test_a_session_used_out_of_turn_says_so(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    with pytest.raises(SessionError, match="there is nothing to collect"):
        session.collect()
    session.submit([Frame(picture(0))])
    with pytest.raises(SessionError, match="called while submissions wait"):
        session(picture(0))
    session.submit([Frame(picture(1))])
    with pytest.raises(SessionError, match="2 submissions wait for their collect already"):
        session.submit([Frame(picture(2))])
    session.close()
    session.close()
    for use in (session.collect, lambda: session.submit([Frame(picture(0))]), lambda: session(picture(0))):
        with pytest.raises(SessionError, match=r"pattern\.plan is closed; panrt\.load opens it again"):
            use()


def test_what_is_no_frame_is_refused_and_the_session_goes_on(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        with pytest.raises(FrameError, match="expected"):
            session(np.zeros((4, 4, 2), np.uint8))
        check(session(picture(0)), picture(0))


# Engines that do not do


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ("image", (1, 32, 96, 3), "UINT8", True)}, r"input 'image' \(1, 32, 64, 3\) uint8 is expected, the "
         r"engine has input 'image' \(1, 32, 96, 3\) uint8.*build it again"),
        ({"image": ("image", (1, 32, 64, 3), "FLOAT", True)}, r"the engine has input 'image' .* float32"),
        ({"image": ("image", (-1, 32, 64, 3), "UINT8", True)}, r"input 'image' \(-1, 32, 64, 3\) uint8 leaves a size "
         "open.*Export the model with a fixed size"),
        ({"panoptic": ("ids", (1, 16, 32), "INT32", False)}, r"output 'panoptic' .* is expected, the engine has none"),
        ({"segments": ("segments", (1, 6), "INT32", False)}, r"the engine has output 'segments' \(1, 6\)"),
        ({"more": ("more", (1,), "INT32", False)}, r"the engine has output 'more' \(1,\) int32, which PanRT does not"),
    ],
)  # fmt: skip
def test_an_engine_that_is_not_the_models_is_refused_by_its_tensor(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    rows = {row[0]: row for row in tensors(MODEL)} | change
    with pytest.raises(EngineError, match=message):
        open_session(tmp_path, tensors=list(rows.values()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], "unexpected end of the serialized engine"),
        (lambda data: b"x" + data, "kSERIALIZATION_VERSION"),
        (lambda data: b"", "kSERIALIZATION_VERSION"),
    ],
)
def test_a_damaged_plan_is_refused_with_what_tensorrt_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, message: str
) -> None:
    whole = fake_tensorrt.plan
    monkeypatch.setattr(fake_tensorrt, "plan", lambda *args, **options: damage(whole(*args, **options)))
    with pytest.raises(EngineError, match=rf"pattern\.plan: .* 10\.3\.0 cannot deserialise it: .*{message}"):
        open_session(tmp_path)


def test_an_address_that_tensorrt_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_tensorrt.IExecutionContext, "set_tensor_address", lambda *_: False)
    with pytest.raises(EngineError, match="rejects the address of 'image': it logged no reason"):
        open_session(tmp_path)


# Failures of the device


def test_memory_may_run_out_at_every_allocation_and_nothing_is_left_over(tmp_path: Path, gpu: ModuleType) -> None:
    sites = 0
    for call in ("cuMemAlloc", "cuMemHostAlloc"):
        for nth in range(1, 20):
            gpu.reset()
            gpu.fail(call, gpu.OUT_OF_MEMORY, nth=nth)
            before = gpu.alive()
            try:
                session = open_session(tmp_path)
            except (CudaError, EngineError) as error:
                assert "OUT_OF_MEMORY" in str(error), error  # noqa: PT017
                assert gpu.failed()
                assert gpu.alive() == before
                sites += 1
            else:
                session.close()
                assert not gpu.failed()
                break
    assert sites == 14  # weights, scratch, 2 x (context, 2 x (device, pinned), first run)


def test_a_device_that_is_too_small_says_so(tmp_path: Path, gpu: ModuleType) -> None:
    gpu.set_memory(fake_tensorrt.WEIGHTS_BYTES + 100)
    with pytest.raises(CudaError, match=r"cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY .*close other programs on the GPU"):
        open_session(tmp_path)


def use(folder: Path) -> None:
    """A life of a session, of which any call may fail."""
    with open_session(folder) as session:
        session.submit([Frame(picture(0))])
        session.submit([Frame(picture(1))])
        check(session.collect()[0], picture(0))
        check(session.collect()[0], picture(1))
        session.submit([Frame(picture(2))])


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("sticks", [False, True])
def test_any_call_may_fail_at_any_time_and_nothing_is_left_over(
    tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture, sticks: bool, integrated: bool
) -> None:
    caplog.set_level(logging.CRITICAL)
    before = gpu.alive()
    raised = survived = 0
    for nth in range(1, 1000):
        gpu.reset()
        gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
        gpu.fail("*", gpu.UNKNOWN, nth=nth, sticks=sticks)
        try:
            use(tmp_path)
            survived += gpu.failed()
        except (CudaError, EngineError):
            raised += 1
        has_failed = gpu.failed()
        assert gpu.findings() == []
        assert gpu.alive() == before, nth
        gpu.reset()  # a lost device takes no clean-up
        cu.cuCtxSetCurrent(None)  # where it was that which failed
        if not has_failed:
            break
    assert raised > 50
    assert survived > 10  # failures of a capture and of closing are no failures of the session


@pytest.mark.parametrize("when", ["submit", "collect", "close"])
def test_a_lost_device_is_an_error_and_the_session_can_still_be_closed(
    tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    session = open_session(tmp_path)
    session.submit([Frame(picture(0))])
    gpu.kill(gpu.ILLEGAL_ADDRESS)
    message = r"CUDA_ERROR_ILLEGAL_ADDRESS \(an illegal memory access was encountered\); .* start it again"
    if when == "submit":
        with pytest.raises(CudaError, match=message):
            session.submit([Frame(picture(1))])
    if when == "collect":
        with pytest.raises(CudaError, match=message):
            session.collect()
    session.close()
    assert "while closing" in caplog.text


def test_an_engine_that_fails_on_the_device_is_reported_by_collect(
    tmp_path: Path, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(tmp_path)
    session.submit([Frame(picture(0))])
    gpu.schedule("lazy")
    gpu.fail("*", gpu.LAUNCH_FAILED)
    with pytest.raises(CudaError, match="CUDA_ERROR_LAUNCH_FAILED"):
        session.collect()
    session.close()


def test_closing_in_flight_waits_for_the_device_first(tmp_path: Path, gpu: ModuleType) -> None:
    for schedule in SCHEDULES:
        gpu.schedule(schedule)
        session = open_session(tmp_path)
        session.submit([Frame(picture(0))])
        session.submit([Frame(picture(1))])
        session.close()


# Neighbours


def test_two_sessions_in_two_threads_do_not_disturb_each_other(tmp_path: Path, gpu: ModuleType) -> None:
    gpu.schedule("random", 1)
    failures: list[BaseException] = []

    def infer(folder: Path, first: int) -> None:
        try:
            folder.mkdir()
            with open_session(folder) as session:
                for seed in range(first, first + 30):
                    check(session(picture(seed)), picture(seed))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=infer, args=(tmp_path / str(first), first)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_session_may_be_opened_used_and_closed_by_different_threads(tmp_path: Path) -> None:
    opened: list[TensorRTSession] = []
    thread = threading.Thread(target=lambda: opened.append(open_session(tmp_path)))
    thread.start()
    thread.join()
    check(opened[0](picture(0)), picture(0))
    thread = threading.Thread(target=opened[0].close)
    thread.start()
    thread.join()


def test_one_thread_may_submit_and_another_one_collect(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        collected: list[Any] = []
        for seed in range(3):
            session.submit([Frame(picture(seed))])
            thread = threading.Thread(target=lambda: collected.extend(session.collect()))
            thread.start()
            thread.join()
        for seed, result in enumerate(collected):
            check(result, picture(seed))
    assert len(collected) == 3


SHARED = [picture(seed) for seed in range(4)]
SHARED_MAPS = [expected(image) for image in SHARED]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_threads_that_share_a_session_get_right_results_or_are_refused(
    tmp_path: Path, gpu: ModuleType, schedule: Schedule
) -> None:
    gpu.schedule(schedule)
    with open_session(tmp_path) as session:
        shared_sessions.calls_are_right(session, SHARED, SHARED_MAPS, rounds=25)
        shared_sessions.a_call_amid_submissions_of_another_thread_is_refused(session, SHARED, SHARED_MAPS)
        shared_sessions.a_producer_and_a_consumer_get_on(session, SHARED, SHARED_MAPS, rounds=50)
        shared_sessions.pairs_are_right_or_refused(session, SHARED[:2], SHARED_MAPS[:2], rounds=15)
    shared_sessions.closing_amid_calls_ends_them(lambda: open_session(tmp_path), SHARED, SHARED_MAPS)


def test_our_stream_can_be_waited_for_by_other_libraries(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        version, address = session.stream.__cuda_stream__()
        assert (version, address) == (0, session.stream.address)


# Leaks


def test_opening_and_closing_leaves_nothing_behind(tmp_path: Path, gpu: ModuleType) -> None:
    before = gpu.alive()
    for index in range(100):
        with open_session(tmp_path) as session:
            check(session(picture(index)), picture(index))
    assert gpu.alive() == before


def test_ten_thousand_frames_leave_nothing_behind(tmp_path: Path, gpu: ModuleType) -> None:
    with open_session(tmp_path) as session:
        before = gpu.alive()
        image = picture(0)
        for _ in range(10_000):
            session(image)
        check(session(image), image)
        assert gpu.alive() == before
