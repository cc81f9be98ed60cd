"""The comparison finds nothing where there is nothing, and names the stage where two runs part."""

from __future__ import annotations

import dataclasses
import json
import math
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from panrt.cli import app
from panrt.cli.verify import SessionRunner
from panrt.engine.load import load
from panrt.errors import ExportError, ModelFileError, VerifyError
from panrt.export import to_onnx
from panrt.export.onnx import describe
from panrt.export.verify import (
    LIMITS,
    Comparison,
    Detections,
    Limits,
    OnnxRunner,
    Row,
    Stages,
    TorchRunner,
    compare,
    iou,
)
from panrt.formats.metadata import ModelFile
from panrt.formats.onnx_file import read_onnx
from panrt.model import PanopticFPN, save
from panrt.model.panoptic_map import PanopticMap, Segment
from support.networks import FRAMES, frames, lively

SIZE: dict[str, Any] = {"input_hw": (128, 160)}


class Form(NamedTuple):
    network: PanopticFPN
    weights: Path
    path: Path
    file: ModelFile


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Form:
    """With frames in the upper left three quarters, two an inference, and maps of another size."""
    network, folder = lively(), tmp_path_factory.mktemp("lite")
    save(network, folder / "lite.safetensors")
    file = to_onnx(network, folder / "lite.onnx", **SIZE, batch=2, valid_hw=(120, 160), output_hw=(240, 320)).file
    return Form(network, folder / "lite.safetensors", folder / "lite.onnx", file)


def images(count: int) -> list[NDArray[np.uint8]]:
    return list(np.ascontiguousarray(frames(count)[:, :128, :160]))


def rows(found: Comparison) -> dict[str, Row]:
    return {row.stage: row for row in found.rows}


def test_an_export_is_its_network_at_every_stage(lite: Form) -> None:
    found = compare(TorchRunner(lite.network, lite.file), OnnxRunner(lite.path, threads=1), images(2))
    by_stage = rows(found)
    levels = ["p2", "p3", "p4", "p5", "semantic logits"]
    assert list(by_stage) == [*levels, "proposals", "detections", "masks", "panoptic", "PQ"]
    assert found.passed
    assert all(by_stage[level].mean < 1e-5 for level in levels)
    assert by_stage["panoptic"].same >= 0.999
    assert found.segments[0] > 4


def test_a_session_of_panrt_is_compared_by_its_maps(lite: Form) -> None:
    with load(lite.path, backend="cpu", threads=1) as session:
        found = compare(OnnxRunner(lite.path, threads=1), SessionRunner(session, "lite"), images(2))
    assert list(rows(found)) == ["panoptic", "PQ"]
    assert found.passed
    assert rows(found)["panoptic"].same >= 0.999


def test_a_changed_branch_fails_and_those_before_it_do_not(lite: Form) -> None:
    changed = lively()
    assert changed.semantic is not None
    with torch.no_grad():
        changed.semantic.predictor.get_parameter("bias")[2] += 40
    found = compare(TorchRunner(lite.network, lite.file), TorchRunner(changed, lite.file), images(1))
    passed = {stage: row.passed for stage, row in rows(found).items()}
    assert passed["p2"]
    assert passed["p5"]
    assert not passed["semantic logits"]
    assert not passed["panoptic"]
    assert not found.passed


# Oracles of the figures


@dataclasses.dataclass
class Told:
    """A run whose stages are given."""

    file: ModelFile
    stages: Stages
    name: str = "told"

    def __call__(self, image: NDArray[np.uint8]) -> Stages:
        return self.stages


FILE = describe(lively(), input_hw=(32, 32))
THING, OTHER, STUFF, FLOOR = FILE.things[0].id, FILE.things[1].id, FILE.stuff[0].id, FILE.stuff[1].id


def judged(a: Stages, b: Stages, **options: Any) -> dict[str, Row]:
    return rows(compare(Told(FILE, a), Told(FILE, b), [np.zeros((32, 32, 3), np.uint8)], **options))


def strips(*segments: tuple[int, int, int]) -> PanopticMap:
    """(id, category, columns) from left to right on a map of 10 rows; id 0 is void."""
    ids = np.repeat([segment[0] for segment in segments], [segment[2] for segment in segments]).astype(np.int32)
    return PanopticMap(np.tile(ids, (10, 1)), [Segment(i, category) for i, category, _ in segments if i])


MAP = strips((1, THING, 4), (2, STUFF, 6))


def test_ids_in_another_order_are_no_difference() -> None:
    a = strips((1, THING, 3), (2, OTHER, 3), (3, STUFF, 3), (0, 0, 1))
    b = strips((2, THING, 3), (1, OTHER, 3), (3, STUFF, 3), (0, 0, 1))
    found = judged(Stages(a), Stages(b))
    assert found["panoptic"].same == 1
    assert found["PQ"].same == 1


def test_pixels_differ_where_a_thing_is_another_or_ends_elsewhere() -> None:
    a = strips((1, THING, 4), (2, OTHER, 3), (3, STUFF, 3))
    b = strips((1, THING, 3), (2, THING, 4), (3, STUFF, 3))  # one column handed over, and another class
    found = judged(Stages(a), Stages(b))
    assert found["panoptic"].same == pytest.approx((3 + 3) / 10)
    # thing: IoU 3/4 and one spurious; the other: missed; stuff: 1
    assert found["PQ"].same == pytest.approx((0.75 / 1.5 + 0 + 1) / 3)
    assert not found["panoptic"].passed


def test_stuff_that_shrank_below_half_still_agrees_where_it_is() -> None:
    a, b = strips((1, STUFF, 9), (2, FLOOR, 1)), strips((1, STUFF, 3), (2, FLOOR, 7))
    assert judged(Stages(a), Stages(b))["panoptic"].same == pytest.approx((3 + 1) / 10)


def test_errors_of_features_are_relative_to_the_reference() -> None:
    a = Stages(MAP, pyramid=(np.array([[[1.0, -4.0, 3.0]]], np.float32),))
    b = Stages(MAP, pyramid=(np.array([[[1.0, -4.4, 3.0]]], np.float32),))
    row = judged(a, b)["p2"]
    assert row.largest == pytest.approx(0.1)
    assert row.mean == pytest.approx(0.4 / 8)
    assert not row.passed


def test_a_feature_that_is_not_finite_never_passes() -> None:
    a = Stages(MAP, semantic_logits=np.ones((2, 1, 1), np.float32))
    b = Stages(MAP, semantic_logits=np.full((2, 1, 1), np.nan, np.float32))
    row = judged(a, b, limits=Limits(math.inf, 0, 0))["semantic logits"]
    assert not row.passed


def test_boxes_are_found_wherever_they_are_in_the_list() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 30], [5, 5, 9, 9]], np.float32)
    masks = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    scores, classes = np.array([0.9, 0.8, 0.1], np.float32), np.array([1, 0, 1], np.int32)
    a = Stages(MAP, rois=boxes, detections=Detections(boxes, scores, classes, masks))
    order = [1, 2, 0]
    moved = Detections(boxes[order], scores[order] - np.float32(0.05), classes[order], masks[order])
    found = judged(a, Stages(MAP, rois=boxes[order] + 0.01, detections=moved))
    assert found["proposals"].same == 1
    assert found["detections"].same == 1
    assert found["detections"].largest == pytest.approx(0.05)
    assert found["masks"].largest == 0
    other_class = moved._replace(classes=1 - moved.classes)
    assert judged(a, Stages(MAP, detections=other_class))["detections"].same == 0


def test_iou_is_that_of_the_hand_computed_boxes() -> None:
    a, b = np.array([[0, 0, 2, 2]], np.float32), np.array([[1, 0, 3, 2], [4, 4, 5, 5]], np.float32)
    np.testing.assert_allclose(iou(a, b), [[2 / 6, 0]])


def test_the_coarser_precision_sets_the_limits() -> None:
    half = dataclasses.replace(FILE, precision="fp16")
    found = compare(Told(half, Stages(MAP)), Told(FILE, Stages(MAP)), [np.zeros((32, 32, 3), np.uint8)])
    assert found.limits == LIMITS["fp16"]


def test_results_of_different_kinds_are_not_compared() -> None:
    other = dataclasses.replace(FILE, output_hw=(64, 64))
    with pytest.raises(VerifyError, match=r"output_hw: told and told have \(32, 32\) and \(64, 64\)"):
        compare(Told(FILE, Stages(MAP)), Told(other, Stages(MAP)), [np.zeros((32, 32, 3), np.uint8)])
    with pytest.raises(VerifyError, match="images: got none"):
        compare(Told(FILE, Stages(MAP)), Told(FILE, Stages(MAP)), [])


# Files


def test_files_that_are_not_ours_are_told_from_damaged_and_newer_ones(lite: Form, tmp_path: Path) -> None:
    content = lite.path.read_bytes()

    def refusal(content: bytes) -> str:
        path = tmp_path / "file.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelFileError) as caught:
            read_onnx(path)
        return str(caught.value)

    assert "not an ONNX file, or cut off" in refusal(content[: len(content) // 2])
    assert "not exported by PanRT" in refusal(b"")
    model = onnx.load_from_string(content)
    newer = {"schema": 99}
    del model.metadata_props[:]
    assert "not exported by PanRT" in refusal(model.SerializeToString())
    onnx.helper.set_model_props(model, {"panrt": json.dumps(newer)})
    assert "written with metadata schema 99" in refusal(model.SerializeToString())


def test_functions_that_are_not_panrts_are_never_run(lite: Form, tmp_path: Path) -> None:
    model = onnx.load_from_string(lite.path.read_bytes())
    merge = next(function for function in model.functions if function.name == "PanopticMerge")
    merge.node.append(onnx.helper.make_node("Loop", ["", ""], [], body=onnx.GraphProto(name="for ever")))
    path = tmp_path / "file.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        ModelFileError, match=r"file\.onnx: its ONNX function PanopticMerge is not the one of this PanRT"
    ):
        OnnxRunner(path)


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(lite: Form, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # as a disk that fills up while it is written to
    try:
        with pytest.raises(OSError, match="too large"):
            to_onnx(lite.network, path, input_hw=(64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"the old one"]


# The command


def run(*arguments: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def few(folder: Path, count: int) -> Path:
    for picture in sorted(FRAMES.iterdir())[:count]:
        (folder / picture.name).write_bytes(picture.read_bytes())
    return folder


def test_the_command_ends_with_0_within_limits_and_with_1_past_them(lite: Form, tmp_path: Path) -> None:
    pictures = few(tmp_path, 2)
    good = run(lite.weights, lite.path, "--frames", pictures, "--json")
    assert good.exit_code == 0, (good.output, good.exception)
    facts = json.loads(good.stdout)
    assert (facts["passed"], facts["images"]) == (True, 2)
    assert [stage["stage"] for stage in facts["stages"]][-2:] == ["panoptic", "PQ"]
    changed = lively()
    assert changed.semantic is not None
    with torch.no_grad():
        changed.semantic.predictor.get_parameter("bias")[2] += 40
    other = tmp_path / "other.safetensors"
    save(changed, other)
    bad = run(other, f"cpu:{lite.path}", "--frames", pictures, "--max-frames", 1)
    assert bad.exit_code == 1, (bad.output, bad.exception)
    assert "FAILED" in bad.stdout
    assert "BEYOND the limits on 1 frames" in bad.stdout
    lax = run(other, f"cpu:{lite.path}", "--frames", pictures, "--max-frames", 1, "--pixels", 0, "--pq", 0)
    assert lax.exit_code == 0


@pytest.mark.parametrize(
    ("forms", "message"),
    [
        (("{weights}", "{weights}"), "both PyTorch models"),
        (("{weights}", "missing.onnx"), "missing.onnx"),
        (("{weights}", "{broken}"), "not an ONNX file, or cut off"),
        (("{weights}", "{path}", "--frames", "{empty}"), "no images"),
    ],
)
def test_the_command_says_what_it_cannot_compare(
    forms: Sequence[str], message: str, lite: Form, tmp_path: Path
) -> None:
    broken, empty = tmp_path / "broken.onnx", tmp_path / "empty"
    broken.write_bytes(lite.path.read_bytes()[:5000])
    empty.mkdir()
    names = {"weights": lite.weights, "path": lite.path, "broken": broken, "empty": empty}
    arguments = [form.format(**names) for form in forms]
    if "--frames" not in arguments:
        arguments += ["--frames", str(FRAMES)]
    found = run(*arguments)
    assert (found.exit_code, found.stdout) == (2, ""), (found.output, found.exception)
    assert message in found.stderr


def test_errors_are_panrts() -> None:
    assert issubclass(VerifyError, ValueError)
    assert issubclass(ExportError, ValueError)
