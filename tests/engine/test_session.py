"""A file in, panoptic results out, on the CPU: the same as plain ONNX Runtime gives, whatever the frames' size."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import panrt
from panrt.engine import bundled
from panrt.engine.backends.cpu.executor import DENSE, Executor
from panrt.engine.backends.cpu.partition import partition
from panrt.engine.backends.cpu.passes import winograd
from panrt.engine.backends.cpu.session import CpuSession
from panrt.engine.backends.cpu.steps import Convolution, Op, Subgraph
from panrt.engine.frame import Frame
from panrt.engine.pixel_formats import bgr
from panrt.engine.preprocess import place
from panrt.engine.results.result import PanopticResult
from panrt.errors import (
    BackendError,
    DeviceMapError,
    FrameError,
    InputSizeError,
    ModelFileError,
    SessionError,
    UnsupportedModelError,
)
from panrt.export import to_onnx
from panrt.formats import metadata
from support.networks import HEIGHT, THRESHOLDS, WIDTH, dynamic, exported, frames, lively
from support.rounding import differ_at_edges_alone
from tools.clock import PATIENCE

INPUT = (HEIGHT, WIDTH)
Outputs = list[NDArray[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return exported(folder / "model.onnx")


@pytest.fixture(scope="module")
def wide(folder: Path) -> Path:
    """Two images at a time, of which the left three quarters hold the frame, and maps larger than the input."""
    return exported(folder / "wide.onnx", batch=2, valid_hw=(HEIGHT, 240), output_hw=(2 * HEIGHT, 480))


@pytest.fixture(scope="module")
def session(model: Path) -> CpuSession:
    opened = panrt.load(model, threads=2)
    assert isinstance(opened, CpuSession)
    return opened


def by_onnx_runtime(path: Path, image: NDArray[np.uint8]) -> Outputs:
    """As a program does it that knows nothing of PanRT."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    plain = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs: Outputs = plain.run(None, {"image": image})
    return outputs


def rows(result: PanopticResult) -> list[tuple[int, bool, int, tuple[int, int, int, int]]]:
    return [(s.id, s.is_thing, s.area, s.box) for s in result.map_segments]


def expected_rows(outputs: Outputs, image: int) -> list[tuple[int, bool, int, tuple[int, int, int, int]]]:
    found = outputs[1][image, : outputs[3][image]].tolist()
    return [(row[0], bool(row[2]), row[3], (row[4], row[5], row[6], row[7])) for row in found]


# The same result


def test_a_session_gives_what_plain_onnx_runtime_gives(session: CpuSession, model: Path) -> None:
    things = 0
    for image in frames(6):
        plain = by_onnx_runtime(model, image[None])
        result = session(image)
        assert differ_at_edges_alone(result.panoptic, plain[0][0])
        assert [row[:2] for row in rows(result)] == [row[:2] for row in expected_rows(plain, 0)]
        np.testing.assert_allclose(
            [s.score for s in result.segments], plain[2][0, : len(result.segments)], atol=1e-4, rtol=0
        )
        things += sum(s.is_thing for s in result.segments)
    assert things > 12


def test_the_papers_network_gives_what_plain_onnx_runtime_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LEAST_CELLS", 300)  # the frame is small, for the network is slow
    path = tmp_path / "r50.onnx"
    to_onnx(lively("panoptic_fpn_r50"), path, input_hw=(128, 160), thresholds=THRESHOLDS)
    image = np.asarray(cv2.resize(frames(1)[0], (160, 128)), np.uint8)
    plain = by_onnx_runtime(path, image[None])
    with panrt.load(path, backend="cpu", threads=1) as opened:
        assert differ_at_edges_alone(opened(image).panoptic, plain[0][0])
    lifted = [step.name for step in partition(path).steps if isinstance(step, Convolution)]
    assert len(lifted) == 6  # level, RPN and semantic branch, on two levels
    assert len(np.unique(plain[0])) > 2


def test_a_batch_gives_what_its_frames_give_in_the_map_of_the_output_size(wide: Path) -> None:
    images = frames(3)[:, :, :240]
    with panrt.load(wide, threads=1) as opened:
        opened.submit([Frame(images[0], index=7, source="left"), Frame(images[1], index=9, source="right")])
        first, second = opened.collect()
        alone = opened(images[1])
        plain = by_onnx_runtime(wide, np.pad(images[:2], ((0, 0), (0, 0), (0, WIDTH - 240), (0, 0))))
    assert (first.frame_index, first.source, second.frame_index, second.source) == (7, "left", 9, "right")
    assert first.panoptic.shape == (2 * HEIGHT, 480)
    np.testing.assert_array_equal(alone.panoptic, second.panoptic)
    for number, result in enumerate((first, second)):
        assert differ_at_edges_alone(result.panoptic, plain[0][number])
        assert any(s.is_thing for s in result.segments)


def test_detections_that_cannot_enter_the_merge_do_not_reach_the_mask_head(model: Path) -> None:
    plan = partition(model)
    assert plan.free_rows
    some, everything = (
        Executor(plan, model, threads=1),
        Executor(dataclasses.replace(plan, free_rows=False), model, threads=1),
    )
    numbers = []
    for image in frames(4):
        few, all_of_them = some.run(image[None]), everything.run(image[None])
        np.testing.assert_array_equal(few.panoptic, all_of_them.panoptic)
        count = int(few.segment_count[0])
        assert count == int(all_of_them.segment_count[0])
        np.testing.assert_array_equal(few.segments[0, :count], all_of_them.segments[0, :count])
        np.testing.assert_array_equal(few.segment_scores[0, :count], all_of_them.segment_scores[0, :count])
        numbers.append(few.segments.shape[1])
    assert min(numbers) < 32  # a row for each detection that was kept, and for each of 5 semantic channels
    assert len(set(numbers)) > 1


def test_the_file_is_split_once_into_parts_and_ops_in_turn(model: Path) -> None:
    steps = partition(model).steps
    assert [DENSE if isinstance(step, Subgraph) else step.type for step in steps] == [
        DENSE, "Conv3x3", "Conv3x3", DENSE, "RpnProposals", "PyramidRoiAlign", DENSE, "BoxDetections",
        "PyramidRoiAlign", DENSE, "PanopticMerge",
    ]  # fmt: skip
    pools = [step for step in steps if isinstance(step, Op) and step.type == "PyramidRoiAlign"]
    assert all(op.nhwc for op in pools)
    first = steps[0]
    assert isinstance(first, Subgraph)
    layouts = {tensor.name: tensor.shape for tensor in first.outputs}
    assert layouts["p2:nhwc"] == (1, HEIGHT // 4, WIDTH // 4, 80)
    assert "p2" not in layouts


def test_weights_kept_in_float16_compute_in_float32(model: Path, tmp_path: Path, session: CpuSession) -> None:
    proto = onnx.load(model)
    graph = proto.graph
    for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1]:
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, name + ".half"))
        graph.node.insert(0, helper.make_node("Cast", [name + ".half"], [name], to=TensorProto.FLOAT))
    small = tmp_path / "half.onnx"
    onnx.save(proto, small)
    assert small.stat().st_size < 0.6 * model.stat().st_size
    image = frames(1)[0]
    plain = by_onnx_runtime(small, image[None])
    with panrt.load(small, threads=1) as opened:
        result = opened(image)
    assert differ_at_edges_alone(result.panoptic, plain[0][0])
    assert len(result.segments) == plain[3][0]


def test_a_float16_file_gives_what_the_float32_file_gives_but_for_rounding(tmp_path: Path, session: CpuSession) -> None:
    half = exported(tmp_path / "fp16.onnx", precision="fp16")
    with panrt.load(half, threads=1) as opened:
        assert opened.model.precision == "fp16"
        agreement = [np.mean(opened(image).panoptic == session(image).panoptic) for image in frames(3)]
    assert min(agreement) > 0.9  # an untrained network is far more nervous than a trained one


@pytest.mark.skipif(os.environ.get("PANRT_TEST_PROFILE") != "full", reason="quantising takes half a minute")
def test_an_int8_file_gives_what_plain_onnx_runtime_gives(tmp_path: Path) -> None:
    small = exported(tmp_path / "int8.onnx", precision="int8", samples=list(frames(1)))
    with panrt.load(small, threads=1) as opened:
        for image in frames(2):
            assert np.mean(opened(image).panoptic != by_onnx_runtime(small, image[None])[0][0]) < 1e-2


# Frames of any size


@given(
    frame=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    valid=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    output=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
)
def test_a_frame_fills_the_valid_part_along_one_axis_and_keeps_its_aspect(
    frame: tuple[int, int], valid: tuple[int, int], output: tuple[int, int]
) -> None:
    (height, width), shown = place(frame, valid, output)
    assert (height == valid[0] and width <= valid[1]) or (width == valid[1] and height <= valid[0])
    assert all(1 <= part <= whole for part, whole in zip(shown, output, strict=True))
    scale = min(valid[0] / frame[0], valid[1] / frame[1])
    assert abs(height - frame[0] * scale) <= 1
    assert abs(width - frame[1] * scale) <= 1


@pytest.mark.parametrize(
    ("size", "shown"),
    [((256, 320), (256, 320)), ((512, 640), (256, 320)), ((100, 320), (100, 320)), ((301, 77), (256, 65)),
     ((1, 1), (256, 256)), ((1080, 1920), (180, 320))],
)  # fmt: skip
def test_the_map_is_the_part_that_holds_the_frame(
    session: CpuSession, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    frame = np.resize(frames(1)[0], (*size, 3))
    result = session(frame)
    assert result.panoptic.shape == shown
    ids, areas = np.unique(result.panoptic, return_counts=True)
    found = {int(i): int(area) for i, area in zip(ids, areas, strict=True) if i}
    assert {s.id: s.area for s in result.map_segments} == found
    for s in result.map_segments:
        ys, xs = np.nonzero(result.panoptic == s.id)
        assert s.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_a_frame_of_the_input_size_reaches_the_network_as_it_is(session: CpuSession) -> None:
    image = frames(1)[0]
    assert np.array_equal(session._prepare((Frame(image),)).images[0], image)
    small = session._prepare((Frame(image[:100]),)).images[0]
    assert np.array_equal(small[:100], image[:100])
    assert (small[100:] == 127).all()


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4, 2), np.uint8), np.zeros((3, 4, 5), np.uint8), np.zeros((4, 4, 3), np.int32),
     np.zeros((0, 4, 3), np.uint8), "frame.jpg"],
)  # fmt: skip
def test_what_is_no_frame_is_refused(session: CpuSession, frame: Any) -> None:
    with pytest.raises(FrameError, match=r"frame: got .*, expected .*\(H, W, 3\)"):
        session(frame)


def test_the_cpu_takes_no_array_of_a_gpu_and_has_no_map_on_one(session: CpuSession) -> None:
    array = types.SimpleNamespace(shape=(8, 8, 3), __cuda_array_interface__={})
    with pytest.raises(FrameError, match=r"got SimpleNamespace, .* only engines of `panrt build` take arrays"):
        session(array)
    result = session(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DeviceMapError, match=r"panoptic_device: .* the CPU backend .*; use result\.panoptic\."):
        result.panoptic_device  # noqa: B018
    with pytest.raises(SessionError, match="runs on the CPU, which has no CUDA stream to wait for"):
        session.wait_for(0)


def test_frames_in_other_pixel_formats_are_converted_first(session: CpuSession) -> None:
    image = frames(1)[0]
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    luma = np.asarray(image[:height, :width].mean(axis=2), np.uint8)
    raw = Frame(np.stack([luma, np.full_like(luma, 128)], axis=-1), pixel_format="yuyv")  # grey
    np.testing.assert_array_equal(session(raw).panoptic, session(bgr(raw)).panoptic)


# A session's life


def test_results_come_in_the_order_of_their_submission_with_what_the_frames_say(session: CpuSession) -> None:
    images = frames(3)
    expected = [session(image).panoptic for image in images]
    collected: list[PanopticResult] = []
    for index, image in enumerate(images):
        session.submit([Frame(image.copy(), index=index, captured_at=index / 2, media_time=index / 4, source="clip")])
        if index:
            collected += session.collect()
    collected += session.collect()
    for index, (result, panoptic) in enumerate(zip(collected, expected, strict=True)):
        assert (result.frame_index, result.captured_at, result.media_time, result.source) == (
            index, index / 2, index / 4, "clip",
        )  # fmt: skip
        np.testing.assert_array_equal(result.panoptic, panoptic)
        assert all(seconds > 0 for seconds in result.timings)
        assert set(result.colors) == {s.id for s in result.segments}


def test_results_outlive_the_session_and_later_frames(model: Path) -> None:
    images = frames(2)
    with panrt.load(model, threads=1) as opened:
        result = opened(images[0])
        before = result.panoptic.copy()
        opened(images[1])
    np.testing.assert_array_equal(result.panoptic, before)


def test_submit_does_not_wait_for_the_inference(session: CpuSession, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, submitted, infer = Frame(frames(1)[0]), threading.Event(), session._infer

    def waiting(*arguments: Any) -> Any:
        assert submitted.wait(PATIENCE), "submit waits for this"
        return infer(*arguments)

    monkeypatch.setattr(session, "_infer", waiting)
    session.submit([frame])
    submitted.set()
    (result,) = session.collect()
    assert result.panoptic.shape == frame.hw


def test_use_out_of_turn_is_refused(model: Path) -> None:
    opened = panrt.load(model, threads=1)
    frame = Frame(frames(1)[0])
    with pytest.raises(SessionError, match="there is nothing to collect"):
        opened.collect()
    with pytest.raises(ValueError, match="frames: got 2, expected 1 to 1"):
        opened.submit([frame, frame])
    for _ in range(opened.capacity):
        opened.submit([frame])
    with pytest.raises(SessionError, match="2 submissions wait"):
        opened.submit([frame])
    with pytest.raises(SessionError, match="collect them first"):
        opened(frame)
    opened.close()
    opened.close()
    for use in (opened.collect, lambda: opened.submit([frame]), lambda: opened(frame)):
        with pytest.raises(SessionError, match="is closed"):
            use()


# Files and backends


def test_auto_says_which_backend_it_took_and_why(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="panrt"), panrt.load(model) as opened:
        assert opened.backend == "cpu"
    assert "backend cpu (not tensorrt: " in caplog.text
    assert "not rtx: " in caplog.text


def test_an_explicit_backend_is_never_replaced(model: Path, tmp_path: Path) -> None:
    for name in ("tensorrt", "rtx"):
        with pytest.raises(BackendError, match=f"the backend '{name}' cannot run it: "):
            panrt.load(model, backend=name)
    engine = tmp_path / "model.plan"
    engine.write_bytes(b"an engine")
    with pytest.raises(BackendError, match="'cpu' cannot run it: it is a TensorRT engine"):
        panrt.load(engine, backend="cpu")
    with pytest.raises(BackendError, match="no backend can run it here"):
        panrt.load(engine)


def test_the_cpu_has_no_gpu_to_prepare_frames_on(model: Path) -> None:
    for backend in ("cpu", "auto"):
        with pytest.raises(SessionError, match="the backend 'cpu' has no GPU to prepare frames on"):
            panrt.load(model, backend=backend, preprocess="gpu")
    with pytest.raises(ValueError, match="preprocess: got 'fpga', expected host or gpu"):
        panrt.load(model, preprocess="fpga")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gpu_memory: got 'fast', expected auto or mapped or device"):
        panrt.load(model, gpu_memory="fast")  # type: ignore[arg-type]


def test_an_unknown_backend_is_answered_with_the_nearest(model: Path) -> None:
    with pytest.raises(ValueError, match=r"got 'tensorrrt', expected auto, .*; did you mean 'tensorrt'"):
        panrt.load(model, backend="tensorrrt")
    with pytest.raises(ValueError, match="threads: got 0"):
        panrt.load(model, threads=0)


def test_an_open_input_size_has_to_be_chosen_and_a_fixed_one_cannot_be(model: Path) -> None:
    with pytest.raises(
        InputSizeError, match=r"dynamic\.onnx: leaves the size of its input open; .*input_hw=\(512, 1024\)"
    ):
        panrt.load(dynamic())
    with pytest.raises(InputSizeError, match=r"dynamic\.onnx: width: got 100, expected a multiple of 32"):
        panrt.load(dynamic(), input_hw=(96, 100))
    with panrt.load(dynamic(), threads=1, input_hw=(96, 128)) as opened:
        assert opened(frames(1)[0]).panoptic.shape == (96, 120)
    with panrt.load(model, threads=1, input_hw=INPUT) as opened:
        assert opened.model.input_hw == INPUT
    with pytest.raises(
        InputSizeError, match=r"model\.onnx: its input is 256x320 \(height x width\) and cannot be 96x128"
    ):
        panrt.load(model, input_hw=(96, 128))


def test_a_model_that_comes_with_panrt_goes_by_its_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bundled.MODELS, "tabletop", model)
    with panrt.load("tabletop", threads=1) as opened:
        assert opened.model.name == "panoptic_fpn_lite"
    monkeypatch.setitem(bundled.MODELS, "tabletop", tmp_path / "tabletop.onnx")
    with pytest.raises(FileNotFoundError, match="lacks the bundled model 'tabletop'; 'panrt export tabletop"):
        panrt.load("tabletop")
    with pytest.raises(FileNotFoundError, match="no such file, and no model of that name; did you mean tabletop"):
        panrt.load("tabeltop")


def test_a_file_that_is_not_ours_is_refused_by_what_is_wrong_with_it(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    with pytest.raises(FileNotFoundError, match=r"other\.onnx: no such file"):
        panrt.load(path)
    for damage in (b"", b"no ONNX at all", model.read_bytes()[:100_000]):
        path.write_bytes(damage)
        with pytest.raises(ModelFileError, match=r"other\.onnx: not (an ONNX file|exported by PanRT), or cut off"):
            panrt.load(path)
    proto = onnx.load(model)
    proto.metadata_props[0].value = proto.metadata_props[0].value.replace('"schema": 1', '"schema": 9')
    onnx.save(proto, path)
    with pytest.raises(ModelFileError, match="metadata schema 9"):
        panrt.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, path)
    with pytest.raises(ModelFileError, match="not exported by PanRT, or cut off"):
        panrt.load(path)


def test_an_op_that_this_version_lacks_is_named(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    node = next(node for node in proto.graph.node if node.op_type == "BoxDetections")
    path = tmp_path / "newer.onnx"
    kept = [attribute for attribute in node.attribute if attribute.name != "box_weights"]
    del node.attribute[:]
    node.attribute.extend(kept)
    onnx.save(proto, path)
    with pytest.raises(UnsupportedModelError, match=r"BoxDetections' lacks attribute box_weights"):
        panrt.load(path)
    node.op_type = "RotatedDetections"
    onnx.save(proto, path)
    with pytest.raises(UnsupportedModelError, match=r"is panrt\.RotatedDetections, this PanRT has RpnProposals, "):
        panrt.load(path)


def test_a_file_without_functions_runs_too(model: Path, tmp_path: Path, session: CpuSession) -> None:
    proto = onnx.load(model)
    del proto.functions[:]
    path = tmp_path / "bare.onnx"
    onnx.save(proto, path)
    image = frames(1)[0]
    with panrt.load(path, threads=2) as opened:
        np.testing.assert_array_equal(opened(image).panoptic, session(image).panoptic)


def test_the_runtime_needs_neither_torch_nor_the_exporter(model: Path) -> None:
    program = (
        "import sys, numpy as np, panrt\n"
        f"with panrt.load({str(model)!r}, threads=1) as session:\n"
        "    session(np.zeros((60, 80, 3), np.uint8)).overlay(np.zeros((60, 80, 3), np.uint8))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "panrt.engine.backends.cpu.session" in loaded
    assert not {name for name in loaded if name.startswith(("torch", "panrt.model.", "panrt.export"))}


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, panrt; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    names = {name.split(".")[0] for name in done.stdout.split()}
    assert names.isdisjoint({"torch", "numpy", "cv2", "onnx", "onnxruntime", "av", "rich", "typer"})


def test_metadata_survives_the_way_through_the_file(session: CpuSession, model: Path) -> None:
    entries = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    assert session.model == metadata.loads(entries[metadata.KEY], source="model")
    assert session.model.valid_hw == INPUT
