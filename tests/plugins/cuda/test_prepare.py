"""Preparing: every kernel is loaded before a capture can need it, and wrongly compiled device code is found."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panrt.plugins import native
from panrt.plugins.cuda_api import Code, Status
from panrt.plugins.frame_reference import Letterbox
from support.cases import network_cases
from support.compare import assert_identical
from tools import cuda_ops, hostcuda
from tools.hostcuda import FLAGS, FOLDER, ROOT, LaunchError, Out, SimulatedGpu, kernels

RPN, ROIS, DETECTIONS, MERGE = network_cases(0)
SMALL_RPN = replace(RPN, N=1, A=1, levels=((3, 5),), pre_nms_top_k=40, post_nms_top_k=30)
SMALL_MERGE = replace(MERGE, N=1, K=4, S=4, quarter_hw=(12, 10), padding=(0, 0), output_hw=None, count="all")
INT = Out((1,), np.int32)


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    """One whose kernels must be loaded before they are launched, as in a capture."""
    fresh = SimulatedGpu(kernels("plain"))
    fresh.call("hc_require_loaded", 1)
    yield fresh
    fresh.close()


def test_a_kernel_that_is_not_loaded_cannot_be_captured(gpu: SimulatedGpu) -> None:
    with pytest.raises(LaunchError, match="not permitted when stream is capturing"):
        SMALL_RPN.run(cuda_ops.rpn_proposals, gpu=gpu)


def test_every_kernel_of_every_op_is_loaded(gpu: SimulatedGpu) -> None:
    gpu.prepare()
    assert_identical(SMALL_RPN.run(cuda_ops.rpn_proposals, gpu=gpu), SMALL_RPN.run(native.rpn_proposals))
    detections = replace(DETECTIONS, N=1, R=33, C=3)
    assert_identical(detections.run(cuda_ops.box_detections, gpu=gpu), detections.run(native.box_detections))
    for half in (False, True):
        for layout, C in (("NCHW", 8), ("NHWC", 8), ("NHWC", 7), *([("NHWC8", 7)] if half else [])):
            (features, rois), options = replace(ROIS, C=C, R=4, half=half, layout="NCHW").arguments()
            if layout != "NCHW":
                features = [np.ascontiguousarray(f.transpose(0, 2, 3, 1)) for f in features]
            cuda_ops.pyramid_roi_align(features, rois, **options | {"layout": layout}, gpu=gpu)
    for K, S in ((4, 4), (255, 4), (4, 300)):
        for width in (40, 41):
            for half in (False, True):
                case = replace(SMALL_MERGE, K=K, S=S, mask_hw=(2, 3), output_hw=(40, width))
                (logits, boxes, scores, classes, count, masks), options = case.arguments()
                logits, masks = (x.astype(np.float16) if half else x for x in (logits, masks))
                cuda_ops.panoptic_merge(logits, boxes, scores, classes, count, masks, **options, gpu=gpu)
    letterbox = Letterbox((4, 6), (4, 6))
    for pixel_format, shape in (("BGR8", (4, 6, 3)), ("RGB8", (4, 6, 3)), ("NV12", (6, 6)), ("YUYV", (4, 6, 2))):
        cuda_ops.preprocess(np.zeros((1, *shape), np.uint8), letterbox, pixel_format=pixel_format, gpu=gpu)
    frame, ids, colors = np.zeros((1, 4, 6, 3), np.uint8), np.zeros((1, 4, 6), np.int32), np.zeros((1, 3), np.uint8)
    cuda_ops.overlay(frame, ids, colors, opacity=0.5, border=1, gpu=gpu)
    for dtype in (np.uint8, np.uint16):
        cuda_ops.narrow_map(ids, dtype, gpu=gpu)


def test_preparing_disturbs_no_capture_and_needs_no_device(gpu: SimulatedGpu) -> None:
    gpu.call("hc_set_devices", 0)
    gpu.prepare()
    kernels_loaded, mode = gpu.call("hc_loaded", INT, INT)
    assert (kernels_loaded[0], mode[0]) == (0, 0)
    gpu.call("hc_set_devices", 1)
    gpu.prepare()
    once, mode = gpu.call("hc_loaded", INT, INT)
    assert once[0] > 30
    assert mode[0] == 0  # the thread's capture mode is what it was
    launched = gpu.launches
    gpu.prepare()
    assert gpu.launches < launched or launched == 0  # the device is asked how it computes once


def test_device_code_that_fuses_multiply_adds_is_refused() -> None:
    if platform.machine() == "x86_64" and " fma " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no fused multiply-add")
    fused = ["-O2", "-ffp-contract=fast", *(["-mfma"] if platform.machine() == "x86_64" else [])]
    folder = ROOT / "plugins" / "cuda"
    simulation = [hostcuda.HOSTCUDA / f"{part}.cpp" for part in hostcuda.RUNTIME]
    sources = [*sorted(folder.glob("*.cu")), folder / "c_api.cpp", *simulation]
    objects = [hostcuda._object(s, fused if s.name == "prepare.cu" else FLAGS["plain"]) for s in sources]
    library = ctypes.CDLL(str(hostcuda._once(FOLDER / "fused.so", ["-shared", *map(str, objects)])))
    for function in ("panrt_cuda_prepare", "_ZN5panrt4cuda15prepare_overlayEv"):  # asks the host too; the device alone
        prepare = library[function]
        prepare.restype = Status
        status = prepare()
        assert status.code == Code.UNSUPPORTED
        assert b"fused multiply-adds; it needs" in status.message
