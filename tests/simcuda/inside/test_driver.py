"""The simulated driver reports every misuse that it checks, through the bindings that the engine uses."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from tools.simcuda.control import KERNEL

ERROR = cu.CUresult
N = 64  # bytes
GARBAGE = 0xCD  # in pinned memory before a test uses it


def ok(result: tuple[Any, ...]) -> Any:
    assert result[0] == ERROR.CUDA_SUCCESS, result[0]
    return result[1] if len(result) == 2 else result[1:]


def refused(result: tuple[Any, ...], error: Any) -> None:
    assert result[0] == error


@pytest.fixture(autouse=True)
def context(gpu: ModuleType) -> Iterator[None]:
    ok(cu.cuInit(0))
    ok(cu.cuCtxSetCurrent(ok(cu.cuDevicePrimaryCtxRetain(0))))
    yield
    gpu.reset()  # a lost device would refuse the clean-up
    cu.cuCtxSetCurrent(None)
    ok(cu.cuDevicePrimaryCtxRelease(0))


class Buffers:
    """A stream, device memory and pinned memory in and out."""

    def __init__(self) -> None:
        self.stream = ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self.device = ok(cu.cuMemAlloc(N))
        self.pinned = [ok(cu.cuMemHostAlloc(N, 0)) for _ in range(2)]
        self.source, self.target = (
            np.ctypeslib.as_array((ctypes.c_uint8 * N).from_address(int(p))) for p in self.pinned
        )
        self.source[:] = self.target[:] = GARBAGE

    def upload(self) -> None:
        ok(cu.cuMemcpyHtoDAsync(self.device, self.pinned[0], N, self.stream))

    def download(self) -> None:
        ok(cu.cuMemcpyDtoHAsync(self.pinned[1], self.device, N, self.stream))

    def capture(self) -> Any:
        ok(cu.cuStreamBeginCapture(self.stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        self.upload()
        self.download()
        graph = ok(cu.cuStreamEndCapture(self.stream))
        executable = ok(cu.cuGraphInstantiate(graph, 0))
        ok(cu.cuGraphDestroy(graph))
        return executable

    def close(self, *, device: bool = True) -> None:
        ok(cu.cuStreamDestroy(self.stream))
        if device:
            ok(cu.cuMemFree(self.device))
        for pinned in self.pinned:
            ok(cu.cuMemFreeHost(pinned))


@pytest.fixture
def buffers() -> Iterator[Buffers]:
    made = Buffers()
    yield made
    made.close()


def test_a_missing_synchronise_reads_what_was_there_before(buffers: Buffers) -> None:
    buffers.source[:] = 7
    buffers.upload()
    buffers.download()
    assert (buffers.target == GARBAGE).all()
    ok(cu.cuStreamSynchronize(buffers.stream))
    assert (buffers.target == 7).all()


def test_a_source_that_is_overwritten_before_its_copy_ran_is_copied_as_it_is_then(buffers: Buffers) -> None:
    buffers.source[:] = 7
    buffers.upload()
    buffers.download()
    buffers.source[:] = 8  # too early
    ok(cu.cuStreamSynchronize(buffers.stream))
    assert (buffers.target == 8).all()


def test_a_source_that_is_written_after_its_copy_was_queued_is_missed_by_an_eager_device(
    buffers: Buffers, gpu: ModuleType
) -> None:
    gpu.schedule("eager")
    buffers.upload()
    buffers.source[:] = 7  # too late
    buffers.download()
    ok(cu.cuStreamSynchronize(buffers.stream))
    assert (buffers.target == GARBAGE).all()


def test_random_schedules_run_some_work_early_and_all_of_it_by_the_synchronise(
    buffers: Buffers, gpu: ModuleType
) -> None:
    seen = set()
    for seed in range(20):
        gpu.schedule("random", seed)
        buffers.source[:] = seed
        buffers.target[:] = GARBAGE
        buffers.upload()
        buffers.download()
        cu.cuCtxGetCurrent()
        seen.add(bool((buffers.target == seed).all()))
        ok(cu.cuStreamSynchronize(buffers.stream))
        assert (buffers.target == seed).all()
    assert seen == {False, True}


def test_synchronising_the_wrong_stream_waits_for_nothing(buffers: Buffers) -> None:
    other = ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    buffers.source[:] = 7
    buffers.upload()
    buffers.download()
    ok(cu.cuStreamSynchronize(other))
    assert (buffers.target == GARBAGE).all()
    ok(cu.cuStreamDestroy(other))


def test_streams_run_in_the_order_of_their_events_only(buffers: Buffers) -> None:
    second = ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    event = ok(cu.cuEventCreate(0))
    buffers.source[:] = 7
    buffers.upload()
    ok(cu.cuMemcpyDtoHAsync(buffers.pinned[1], buffers.device, N, second))
    ok(cu.cuStreamSynchronize(second))
    assert not (buffers.target == 7).all()  # nothing said that the upload comes first
    ok(cu.cuEventRecord(event, buffers.stream))
    ok(cu.cuStreamWaitEvent(second, event, 0))
    ok(cu.cuMemcpyDtoHAsync(buffers.pinned[1], buffers.device, N, second))
    ok(cu.cuStreamSynchronize(second))
    assert (buffers.target == 7).all()
    ok(cu.cuEventDestroy(event))
    ok(cu.cuStreamDestroy(second))


def test_the_default_stream_waits_for_blocking_streams_and_for_no_others(buffers: Buffers) -> None:
    blocking = ok(cu.cuStreamCreate(0))
    buffers.source[:] = 7
    ok(cu.cuMemcpyHtoDAsync(buffers.device, buffers.pinned[0], N, blocking))
    ok(cu.cuMemcpyDtoH(buffers.pinned[1], buffers.device, N))
    assert (buffers.target == 7).all()
    buffers.source[:] = 8
    buffers.upload()
    ok(cu.cuMemcpyDtoH(buffers.pinned[1], buffers.device, N))
    assert (buffers.target == 7).all()
    ok(cu.cuStreamDestroy(blocking))


def test_polling_lets_time_pass(buffers: Buffers) -> None:
    event = ok(cu.cuEventCreate(0))
    buffers.upload()
    buffers.download()
    ok(cu.cuEventRecord(event, buffers.stream))
    answers = [cu.cuEventQuery(event)[0] for _ in range(4)]
    assert answers == [ERROR.CUDA_ERROR_NOT_READY] * 3 + [ERROR.CUDA_SUCCESS]
    assert cu.cuStreamQuery(buffers.stream)[0] == ERROR.CUDA_SUCCESS
    ok(cu.cuEventDestroy(event))


def test_work_that_touches_freed_memory_loses_the_device(buffers: Buffers, gpu: ModuleType) -> None:
    device = ok(cu.cuMemAlloc(N))
    ok(cu.cuMemcpyHtoDAsync(device, buffers.pinned[0], N, buffers.stream))
    ok(cu.cuMemFree(device))
    refused(cu.cuStreamSynchronize(buffers.stream), ERROR.CUDA_ERROR_ILLEGAL_ADDRESS)
    refused(cu.cuMemAlloc(N), ERROR.CUDA_ERROR_ILLEGAL_ADDRESS)  # it sticks
    assert "uses freed memory" in gpu.findings()[0]
    gpu.reset()


def test_pinned_memory_that_is_freed_too_early_is_seen(buffers: Buffers, gpu: ModuleType) -> None:
    pinned = ok(cu.cuMemHostAlloc(N, 0))
    ok(cu.cuMemcpyDtoHAsync(pinned, buffers.device, N, buffers.stream))
    ok(cu.cuMemFreeHost(pinned))
    refused(cu.cuStreamSynchronize(buffers.stream), ERROR.CUDA_ERROR_ILLEGAL_ADDRESS)
    assert "uses freed host memory" in gpu.findings()[0]
    gpu.reset()


def test_a_graph_replays_with_what_its_buffers_hold_now(buffers: Buffers) -> None:
    graph = buffers.capture()
    assert (buffers.target == GARBAGE).all()  # capturing runs nothing
    for value in (1, 2):
        buffers.source[:] = value
        ok(cu.cuGraphLaunch(graph, buffers.stream))
        ok(cu.cuStreamSynchronize(buffers.stream))
        assert (buffers.target == value).all()
    ok(cu.cuGraphExecDestroy(graph))


def test_a_graph_with_a_stale_address_loses_the_device(gpu: ModuleType) -> None:
    buffers = Buffers()
    graph = buffers.capture()
    ok(cu.cuMemFree(buffers.device))
    ok(cu.cuGraphLaunch(graph, buffers.stream))
    refused(cu.cuStreamSynchronize(buffers.stream), ERROR.CUDA_ERROR_ILLEGAL_ADDRESS)
    assert "uses freed memory" in gpu.findings()[0]
    gpu.reset()
    ok(cu.cuGraphExecDestroy(graph))
    buffers.close(device=False)


def test_a_capture_is_spoilt_by_a_call_that_waits(buffers: Buffers) -> None:
    ok(cu.cuStreamBeginCapture(buffers.stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
    refused(cu.cuStreamSynchronize(buffers.stream), ERROR.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    refused(cu.cuStreamEndCapture(buffers.stream), ERROR.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)


@pytest.mark.parametrize(("mode", "disturbed"), [("GLOBAL", True), ("THREAD_LOCAL", False), ("RELAXED", False)])
def test_a_global_capture_disturbs_other_threads_and_a_thread_local_one_does_not(
    buffers: Buffers, mode: str, disturbed: bool
) -> None:
    ok(cu.cuStreamBeginCapture(buffers.stream, getattr(cu.CUstreamCaptureMode, f"CU_STREAM_CAPTURE_MODE_{mode}")))
    context = ok(cu.cuCtxGetCurrent())
    answer = []

    def allocate() -> None:
        ok(cu.cuCtxSetCurrent(context))
        result = cu.cuMemAlloc(N)
        answer.append(result[0])
        if result[0] == ERROR.CUDA_SUCCESS:
            ok(cu.cuMemFree(result[1]))

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    ended = cu.cuStreamEndCapture(buffers.stream)
    if disturbed:
        assert answer == [ERROR.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED]
        refused(ended, ERROR.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
    else:
        assert answer == [ERROR.CUDA_SUCCESS]
        ok(cu.cuGraphDestroy(ok(ended)))


@pytest.mark.parametrize("joins", [False, True])
def test_a_second_stream_joins_a_capture_and_must_come_back(buffers: Buffers, joins: bool) -> None:
    second = ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    fork, join = ok(cu.cuEventCreate(0)), ok(cu.cuEventCreate(0))
    ok(cu.cuStreamBeginCapture(buffers.stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
    buffers.upload()
    ok(cu.cuEventRecord(fork, buffers.stream))
    ok(cu.cuStreamWaitEvent(second, fork, 0))
    ok(cu.cuMemcpyDtoHAsync(buffers.pinned[1], buffers.device, N, second))
    ok(cu.cuEventRecord(join, second))
    if joins:
        ok(cu.cuStreamWaitEvent(buffers.stream, join, 0))
    ended = cu.cuStreamEndCapture(buffers.stream)
    if joins:
        ok(cu.cuGraphDestroy(ok(ended)))
    else:
        refused(ended, ERROR.CUDA_ERROR_STREAM_CAPTURE_UNJOINED)
    for event in (fork, join):
        ok(cu.cuEventDestroy(event))
    ok(cu.cuStreamDestroy(second))


def test_waiting_in_a_capture_for_work_outside_it_is_refused(buffers: Buffers) -> None:
    event = ok(cu.cuEventCreate(0))
    buffers.upload()
    ok(cu.cuEventRecord(event, buffers.stream))
    second = ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    ok(cu.cuStreamBeginCapture(second, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
    refused(cu.cuStreamWaitEvent(second, event, 0), ERROR.CUDA_ERROR_STREAM_CAPTURE_ISOLATION)
    refused(cu.cuStreamEndCapture(second), ERROR.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
    ok(cu.cuStreamDestroy(second))
    ok(cu.cuEventDestroy(event))


def test_a_pageable_copy_is_marked_in_the_log(buffers: Buffers, gpu: ModuleType) -> None:
    gpu.take_log()
    ok(cu.cuMemcpyHtoDAsync(buffers.device, np.zeros(N, np.uint8).ctypes.data, N, buffers.stream))
    buffers.upload()
    assert gpu.take_log() == ["cuMemcpyHtoDAsync!pageable", "cuMemcpyHtoDAsync"]


def test_a_copy_out_of_range_is_refused(buffers: Buffers, gpu: ModuleType) -> None:
    refused(cu.cuMemcpyHtoD(buffers.device, buffers.pinned[0], N + 1), ERROR.CUDA_ERROR_INVALID_VALUE)
    assert "not allocated on the device" in gpu.findings()[0]
    gpu.reset()


def test_memory_runs_out_and_comes_back(gpu: ModuleType) -> None:
    gpu.set_memory(2 * N)
    first = ok(cu.cuMemAlloc(2 * N))
    refused(cu.cuMemAlloc(1), ERROR.CUDA_ERROR_OUT_OF_MEMORY)
    ok(cu.cuMemFree(first))
    ok(cu.cuMemFree(ok(cu.cuMemAlloc(N))))


def test_the_call_that_is_to_fail_fails_once(gpu: ModuleType) -> None:
    gpu.fail("cuMemAlloc", gpu.OUT_OF_MEMORY, nth=2)
    first = ok(cu.cuMemAlloc(N))
    refused(cu.cuMemAlloc(N), ERROR.CUDA_ERROR_OUT_OF_MEMORY)
    assert gpu.failed()
    gpu.fail("cuMemFree")
    refused(cu.cuMemFree(first), ERROR.CUDA_ERROR_UNKNOWN)  # freed all the same: nothing is left over


def test_stale_handles_are_known_for_what_they_are(gpu: ModuleType) -> None:
    stream = ok(cu.cuStreamCreate(0))
    ok(cu.cuStreamDestroy(stream))
    refused(cu.cuStreamSynchronize(stream), ERROR.CUDA_ERROR_INVALID_HANDLE)
    refused(cu.cuStreamDestroy(stream), ERROR.CUDA_ERROR_INVALID_HANDLE)
    assert len(gpu.findings()) == 2
    gpu.reset()


def test_a_stream_of_another_context_is_refused(buffers: Buffers, gpu: ModuleType) -> None:
    major = cu.CUDA_VERSION // 1000
    made = ok(cu.cuCtxCreate(None, 0, 0) if major >= 13 else cu.cuCtxCreate(0, 0))
    refused(
        cu.cuMemcpyHtoDAsync(buffers.device, buffers.pinned[0], N, buffers.stream), ERROR.CUDA_ERROR_INVALID_CONTEXT
    )
    assert "of another context" in gpu.findings()[0]
    gpu.reset()
    ok(cu.cuCtxDestroy(made))


def test_without_a_context_there_is_no_memory() -> None:
    context = ok(cu.cuCtxPopCurrent())
    refused(cu.cuMemAlloc(N), ERROR.CUDA_ERROR_INVALID_CONTEXT)
    ok(cu.cuCtxPushCurrent(context))


def test_events_tell_the_time_between_work_that_is_done(buffers: Buffers) -> None:
    first, second = ok(cu.cuEventCreate(0)), ok(cu.cuEventCreate(0))
    ok(cu.cuEventRecord(first, buffers.stream))
    buffers.upload()
    ok(cu.cuEventRecord(second, buffers.stream))
    refused(cu.cuEventElapsedTime(first, second), ERROR.CUDA_ERROR_NOT_READY)
    ok(cu.cuEventSynchronize(second))
    assert ok(cu.cuEventElapsedTime(first, second)) >= 0
    for event in (first, second):
        ok(cu.cuEventDestroy(event))


def test_kernels_are_found_by_name_and_take_their_parameters_when_they_are_launched(buffers: Buffers) -> None:
    module = ok(cu.cuModuleLoadData(b"an image that nobody reads"))
    refused(cu.cuModuleGetFunction(module, b"missing"), ERROR.CUDA_ERROR_NOT_FOUND)
    scale = ok(cu.cuModuleGetFunction(module, b"scale"))
    buffers.source.view(np.float32)[:] = 3
    buffers.upload()
    address = int(buffers.device)
    parameters = ((address, address, 2.5), (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float))
    ok(cu.cuLaunchKernel(scale, 1, 1, 1, N // 4, 1, 1, 0, buffers.stream, parameters, 0))
    buffers.download()
    ok(cu.cuStreamSynchronize(buffers.stream))
    assert (buffers.target.view(np.float32) == 7.5).all()
    refused(
        cu.cuLaunchKernel(scale, 1, 1, 1, 2048, 1, 1, 0, buffers.stream, parameters, 0), ERROR.CUDA_ERROR_INVALID_VALUE
    )
    ok(cu.cuModuleUnload(module))


def test_a_kernel_that_strays_loses_the_device(buffers: Buffers, gpu: ModuleType) -> None:
    module = ok(cu.cuModuleLoadData(b""))
    scale = ok(cu.cuModuleGetFunction(module, b"scale"))
    freed = ok(cu.cuMemAlloc(N))
    ok(cu.cuMemFree(freed))
    parameters = ((int(freed), int(buffers.device), 1.0), (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float))
    ok(cu.cuLaunchKernel(scale, 1, 1, 1, 1, 1, 1, 0, buffers.stream, parameters, 0))
    refused(cu.cuStreamSynchronize(buffers.stream), ERROR.CUDA_ERROR_ILLEGAL_ADDRESS)
    assert "scale: touches memory that is not its own" in gpu.findings()
    gpu.reset()
    ok(cu.cuModuleUnload(module))


def test_python_work_runs_when_its_turn_comes_and_its_memory_is_checked(buffers: Buffers, gpu: ModuleType) -> None:
    seen = []

    @KERNEL
    def note(argument: int | None) -> int:
        seen.append(argument)
        return 0

    assert gpu.launch(int(buffers.stream), "note", note, 5, [(int(buffers.device), N)]) == 0
    assert seen == []
    ok(cu.cuStreamSynchronize(buffers.stream))
    assert seen == [5]
    assert gpu.launch(int(buffers.stream), "note", note, 6, [(int(buffers.device), N + 1)]) == 0
    refused(cu.cuStreamSynchronize(buffers.stream), ERROR.CUDA_ERROR_ILLEGAL_ADDRESS)
    assert seen == [5]
    gpu.reset()


def test_an_entry_point_that_is_not_simulated_says_so_under_its_own_name(gpu: ModuleType) -> None:
    gpu.take_log()
    refused(cu.cuDeviceGetPCIBusId(64, 0), ERROR.CUDA_ERROR_NOT_SUPPORTED)
    assert gpu.take_log() == ["cuDeviceGetPCIBusId"]


def test_a_host_that_follows_a_device_pointer_crashes_under_guard() -> None:
    script = (
        "import ctypes; from cuda.bindings import driver as cu; from tools.simcuda import control; cu.cuInit(0);"
        "cu.cuCtxSetCurrent(cu.cuDevicePrimaryCtxRetain(0)[1]); control.guard(); p = int(cu.cuMemAlloc(64)[1]);"
        "print('allocated', flush=True); ctypes.string_at(p, 1)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], env=env, check=False, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("allocated\n", -signal.SIGSEGV), run.stderr
