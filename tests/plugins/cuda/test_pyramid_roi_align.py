"""PyramidRoiAlign's CUDA kernels in the simulation, against the reference: every layout and type, in shuffled order.

Everything runs under AddressSanitizer and UndefinedBehaviorSanitizer but what says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from panrt.plugins import reference
from panrt.plugins.cuda_api import OverlayArgs, PyramidLevel, PyramidRoiAlignArgs
from support.cases import RoiAlignCase, roi_align_cases
from support.compare import assert_pooled
from tools import cuda_ops
from tools.hostcuda import Flavour, LaunchError, Out, SimulatedGpu, Struct, Traffic, kernels

Gpus = Callable[[Flavour], SimulatedGpu]
Array = NDArray[Any]

LAYOUTS = ["NCHW", "NHWC", "NHWC8"]
ORDERS = [("forward", 0), ("reverse", 0), ("random", 0), ("random", 1)]
FORMS = [("NCHW", False), ("NCHW", True), ("NHWC", False), ("NHWC", True), ("NHWC8", True)]


def pool(case: RoiAlignCase, layout: str, gpu: SimulatedGpu, order: tuple[str, int] = ("forward", 0)) -> Array:
    """(N*R, C, S, S) of a case whose features are NCHW, through another layout."""
    (features, rois), options = case.arguments()
    if layout != "NCHW":
        features = [np.ascontiguousarray(feature.transpose(0, 2, 3, 1)) for feature in features]
    pooled = cuda_ops.pyramid_roi_align(features, rois, layout=layout, gpu=gpu, order=order, **options)
    return pooled if layout == "NCHW" else np.ascontiguousarray(pooled.transpose(0, 3, 1, 2))


def friendly(C: int, output_size: int = 7, *, half: bool = False, R: int = 5, N: int = 1) -> RoiAlignCase:
    """RoIs of every size on a pyramid of three levels."""
    return RoiAlignCase(
        N=N, C=C, R=R, levels=((33, 31), (17, 16), (9, 8)), stride=4, rois=("inside", "jitter", "outside"),
        output_size=output_size, sampling_ratio=0, canonical_size=56.0, canonical_level=3, min_level=2, poison=(),
        half=half, layout="NCHW", seed=C + output_size,
    )  # fmt: skip


def assert_agrees(case: RoiAlignCase, layout: str, gpu: SimulatedGpu, order: tuple[str, int] = ("forward", 0)) -> None:
    """As the reference."""
    assert_pooled(pool(case, layout, gpu, order), case.run(reference.pyramid_roi_align), case.arguments()[0][0])


# --- Results ----------------------------------------------------------------------------------------------------------


@given(case=roi_align_cases, layout=st.sampled_from(LAYOUTS), order=st.sampled_from(ORDERS))
def test_every_layout_pools_as_the_reference_does(
    gpus: Gpus, case: RoiAlignCase, layout: str, order: tuple[str, int]
) -> None:
    assert_agrees(replace(case, half=case.half or layout == "NHWC8"), layout, gpus("asan"), order)


@pytest.mark.parametrize(("layout", "half"), FORMS)
@pytest.mark.parametrize("C", [1, 31, 33, 64, 256, 1025])
def test_channels_that_do_not_fill_a_block(gpus: Gpus, C: int, layout: str, half: bool) -> None:
    assert_agrees(friendly(C, 3 if C > 256 else 7, half=half, R=3), layout, gpus("asan"), ("random", C))


@pytest.mark.parametrize(("layout", "half"), FORMS)
@pytest.mark.parametrize("output_size", [1, 6, 8, 14, 31])
def test_bins_that_do_not_fill_a_tile(gpus: Gpus, output_size: int, layout: str, half: bool) -> None:
    assert_agrees(friendly(9, output_size, half=half, N=2, R=2), layout, gpus("asan"), ("random", output_size))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_extremes_of_float16_stay_what_they_are(gpus: Gpus, layout: str) -> None:
    for value in (65504.0, -65504.0, 2.0**-24, -(2.0**-14)):
        features = [np.full((1, 6, 6, 8), value, np.float16)]
        features = features if layout != "NCHW" else [features[0].transpose(0, 3, 1, 2).copy()]
        rois = np.array([[[3.0, 3.0, 21.0, 20.0]]], np.float32)
        pooled = cuda_ops.pyramid_roi_align(
            features, rois, strides=[4], output_size=7, sampling_ratio=0, layout=layout, gpu=gpus("asan")
        )
        assert (pooled == np.float16(value)).all()


@pytest.mark.parametrize(("layout", "half"), FORMS)
def test_rows_without_a_roi_are_zero(gpus: Gpus, layout: str, half: bool) -> None:
    case = replace(friendly(16, half=half, N=2), rois=("empty",))
    assert not pool(case, layout, gpus("asan")).any()


def test_more_rois_than_a_grid_has_blocks(gpus: Gpus) -> None:
    N, R = 2, 32800
    features = [np.arange(2 * 9, dtype=np.float32).reshape(2, 1, 3, 3)]
    rois = np.zeros((N, R, 4), np.float32)
    rois[:, ::7] = 4, 4, 8, 8  # the centre cell alone
    pooled = cuda_ops.pyramid_roi_align(
        features, rois, strides=[4], output_size=1, sampling_ratio=1, min_level=2, gpu=gpus("plain")
    )
    wanted = np.zeros((N, R), np.float32)
    wanted[:, ::7] = [[4], [13]]
    assert (pooled.reshape(N, R) == wanted).all()


@pytest.mark.parametrize(("layout", "half"), FORMS)
def test_the_order_of_threads_changes_nothing(gpus: Gpus, layout: str, half: bool) -> None:
    first, *others = (pool(friendly(40, half=half), layout, gpus("plain"), order) for order in ORDERS)
    for other in others:
        assert np.array_equal(first, other)


@pytest.mark.parametrize(("layout", "half"), FORMS)
def test_no_two_threads_race(gpus: Gpus, layout: str, half: bool) -> None:
    assert_agrees(friendly(16, half=half, R=3), layout, gpus("tsan"))


@pytest.mark.parametrize(("layout", "half"), [("NCHW", False), ("NHWC8", True)])
def test_no_two_blocks_race(layout: str, half: bool) -> None:
    gpu = SimulatedGpu(kernels("tsan"), {"HC_RACE": "grid"})
    assert_agrees(friendly(8, 3, half=half, R=4), layout, gpu)
    gpu.close()


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"images": 0}, 1, "images: expected 1 to 65535, got 0"),
        ({"rois_per_image": -1}, 1, "rois_per_image: expected 0 to 1048576, got -1"),
        ({"level_count": 9}, 1, "level_count: expected 1 to 8, got 9"),
        ({"level_count": 2}, 1, "levels: height: expected 1 to 32768, got 0"),
        ({"channels": 0}, 1, "channels: expected 1 to 1073741824, got 0"),
        ({"output_size": 0}, 1, "output_size: expected 1 to 1024, got 0"),
        ({"channels": 1 << 30}, 1, "channels * output_size^2: expected at most 1073741824 numbers"),
        ({"sampling_ratio": -1}, 1, "sampling_ratio: expected 0 to 1024, got -1"),
        ({"canonical_size": float("nan")}, 1, "canonical_size: expected a finite number above 0, got nan"),
        ({"type": 2}, 2, "float32 or float16"),
        ({"layout": 2}, 2, "NHWC8 in float16"),
        ({"rois": None}, 1, "rois or pooled is null"),
        ({"levels": [Struct(PyramidLevel, height=3, width=3, stride=4.0)]}, 1, "a level of features is null"),
        ({"levels": [Struct(PyramidLevel, data=16, height=12500, width=1, stride=4.0)]}, 2, "shared memory"),
        ({"levels": [Struct(PyramidLevel, data=8, height=3, width=3, stride=4.0)]}, 1, "aligned to 16 bytes"),
    ],
)
def test_arguments_outside_the_contract_are_refused(
    gpus: Gpus, changes: dict[str, Any], code: int, message: str
) -> None:
    given: dict[str, Any] = {
        "levels": [Struct(PyramidLevel, data=np.zeros((1, 1, 3, 3), np.float32), height=3, width=3, stride=4.0)],
        "rois": np.zeros((1, 1, 4), np.float32), "pooled": Out((1, 1, 7, 7), np.float32), "images": 1,
        "rois_per_image": 1, "level_count": 1, "channels": 1, "output_size": 7, "sampling_ratio": 0,
        "canonical_size": 224.0, "canonical_level": 4, "min_level": 2, "type": 0, "layout": 0,
    }  # fmt: skip
    with pytest.raises(LaunchError, match=re.escape(message)) as refused:
        gpus("asan").launch("panrt_cuda_pyramid_roi_align", Struct(PyramidRoiAlignArgs, **(given | changes)))
    assert refused.value.code == code
    assert refused.value.message.startswith("PyramidRoiAlign: ")


def test_a_struct_of_another_size_is_refused(gpus: Gpus) -> None:
    with pytest.raises(LaunchError, match="argument struct"):
        gpus("plain").launch("panrt_cuda_pyramid_roi_align", Struct(OverlayArgs))


# --- Traffic ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("half", "S"), [(False, 7), (False, 14), (True, 7), (True, 14)])
def test_channels_last_reads_a_cell_about_once_a_roi_and_writes_whole_sectors(
    tracing_gpu: SimulatedGpu, half: bool, S: int
) -> None:
    # RoIs of 16 to 600 pixels on the pyramid of an 800 x 1344 input with 256 channels. Ideal is every sector of
    # features that a RoI touches, once for this RoI, and every sector of the result once.
    rng = np.random.default_rng(S)
    dtype = np.float16 if half else np.float32
    sides = ((200, 336), (100, 168), (50, 84), (25, 42))
    features = [np.zeros((1, *side, 256), dtype) for side in sides]
    size = np.exp(rng.uniform(np.log(16), np.log(600), (8, 2)))
    low = rng.uniform(0, 1, (8, 2)) * (np.array([1333, 800]) - size).clip(1)
    rois = np.concatenate([low, (low + size).clip(None, [1333, 800])], axis=1).astype(np.float32)[None]
    cuda_ops.pyramid_roi_align(
        features, rois, strides=[4, 8, 16, 32], output_size=S, sampling_ratio=0, layout="NHWC", gpu=tracing_gpu
    )
    assert tracing_gpu.launches == 1
    assert tracing_gpu.trace is not None
    reads: list[Traffic] = [tracing_gpu.trace.reads[i] for i in range(4) if i in tracing_gpu.trace.reads]
    written = tracing_gpu.trace.writes[5]
    sectors, ideal = sum(read.sectors for read in reads), sum(read.block_sectors for read in reads)
    assert sectors == sum(read.ideal_sectors for read in reads)  # every request is whole sectors
    assert sectors <= 1.5 * ideal
    assert written.sectors == written.ideal_sectors == 8 * S * S * 256 * np.dtype(dtype).itemsize // 32
    assert (
        tracing_gpu.trace.shared_passes <= 1.05 * tracing_gpu.trace.shared_ideal_passes
    )  # bins that write their weights at once


@pytest.mark.parametrize("half", [False, True])
def test_channels_first_writes_whole_sectors(tracing_gpu: SimulatedGpu, half: bool) -> None:
    pool(friendly(64, 8, half=half), "NCHW", tracing_gpu)
    assert tracing_gpu.trace is not None
    written = tracing_gpu.trace.writes[4]
    assert written.sectors == written.ideal_sectors
