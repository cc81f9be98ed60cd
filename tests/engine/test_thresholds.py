"""Thresholds and classes that are set while a file runs: the same to the bit as an export with these thresholds."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

import panrt
from panrt.engine import bundled
from panrt.engine.backends.cpu.session import CpuSession
from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult
from panrt.errors import ModelFileError, UnsupportedModelError
from panrt.export import to_onnx
from panrt.formats import metadata
from panrt.formats.metadata import FileThresholds
from panrt.formats.onnx_file import read_onnx
from panrt.formats.onnx_graph import read_graph
from panrt.formats.thresholds import DETECTION, INPUTS, INSTANCE, NAMES, STUFF, Settings, Thresholds, settings
from panrt.plugins.onnx_functions import add_functions
from panrt.plugins.schema import OPS
from support.networks import THRESHOLDS, exported, frames, lively
from tools.random_thresholds import random_classes, random_thresholds

FULL = os.environ.get("PANRT_TEST_PROFILE") == "full"
SETTINGS, CASES = (200, 20) if FULL else (4, 3)
SIZE = (128, 160)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("exports") / "model.onnx", input_hw=SIZE)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Corners of frames, of the network's size."""
    corners = [image[y : y + 128, x : x + 160] for image in frames(5) for y in (0, 128) for x in (0, 160)]
    return np.ascontiguousarray(corners[:CASES])


def fixed(path: Path, target: Path, thresholds: FileThresholds) -> Path:
    """A file of an older version: the ops have these thresholds as attributes, and no inputs for them."""
    proto = onnx.load(path)
    values = {
        "BoxDetections": {"score_threshold": thresholds.detection_score, "nms_threshold": thresholds.detection_nms},
        "PanopticMerge": {
            "score_threshold": thresholds.instance_score,
            "overlap_threshold": thresholds.instance_overlap,
            "stuff_area_limit": thresholds.stuff_area,
            "mask_threshold": thresholds.mask,
        },
    }
    for node in proto.graph.node:
        if node.op_type in values:
            node.input[:] = [name for name in node.input if name not in INPUTS[node.op_type]]
            has = {a.name: helper.get_attribute_value(a) for a in node.attribute} | values[node.op_type]
            del node.attribute[:]
            for attribute in OPS[node.op_type].attributes:
                value = has[attribute.name]
                typed = float(value) if attribute.type == "float" and not attribute.length else value
                node.attribute.append(helper.make_attribute(attribute.name, typed))
            for name, value in OPS[node.op_type].plugin.items():
                node.attribute.append(helper.make_attribute(name, value))
    for field in (proto.graph.input, proto.graph.initializer):
        kept = [value for value in field if value.name not in NAMES]
        del field[:]
        field.extend(kept)
    for opset in proto.opset_import:
        opset.version = 1 if opset.domain == "panrt" else opset.version
    _say(proto, thresholds)
    add_functions(proto)
    target.write_bytes(proto.SerializeToString(deterministic=True))
    return target


def _say(proto: ModelProto, thresholds: FileThresholds) -> None:
    entry = next(entry for entry in proto.metadata_props if entry.key == metadata.KEY)
    file = dataclasses.replace(metadata.loads(entry.value, source="test"), thresholds=thresholds)
    entry.value = metadata.dumps(file)


def plain(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime, as a program uses it that knows nothing of PanRT."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_same(found: PanopticResult, wanted: PanopticResult) -> None:
    np.testing.assert_array_equal(found.panoptic, wanted.panoptic)
    assert found.segments == wanted.segments


def settings_of(path: Path, thresholds: Thresholds) -> Settings:
    file = read_onnx(path).file
    shapes = {DETECTION: (len(file.things) + 1,), INSTANCE: (3,), STUFF: (len(file.stuff) + 1,)}
    return settings(file, shapes, thresholds=thresholds)


# --- the same as an export with these thresholds ----------------------------------------------------------------------


@pytest.mark.slow
def test_set_thresholds_give_what_a_file_with_them_gives_on_the_cpu_and_in_onnx_runtime(
    model: Path, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    found_segments: set[int] = set()
    onnx_runtime = plain(model)
    with panrt.load(model, threads=1) as session:
        for seed in range(SETTINGS):
            chosen = random_thresholds(seed)
            session.thresholds = chosen
            older = fixed(model, tmp_path / "older.onnx", session.thresholds)
            feeds = settings_of(model, chosen).arrays
            wanted_by_runtime = plain(older)
            with panrt.load(older, threads=1) as wanted:
                assert wanted.thresholds == session.thresholds
                for image in images:
                    assert_same(session(image), wanted(image))
                    outputs = onnx_runtime.run(None, {"image": image[None], **feeds})
                    for output, expected in zip(
                        outputs, wanted_by_runtime.run(None, {"image": image[None]}), strict=True
                    ):
                        np.testing.assert_array_equal(output, expected)
                    found_segments.add(int(outputs[3][0]))
    assert len(found_segments) > 2, "the thresholds change nothing, so this shows nothing"


def test_an_export_with_other_thresholds_differs_in_defaults_alone(model: Path, tmp_path: Path) -> None:
    """So what holds for a file with other defaults holds for an export."""
    other = THRESHOLDS._replace(detection_score=0.25, instance_score=0.5, stuff_area=2**24 + 1, mask=0.3)
    to_onnx(lively(), tmp_path / "other.onnx", input_hw=SIZE, thresholds=other)
    changed, again = onnx.load(model), onnx.load(tmp_path / "other.onnx")
    named = settings_of(model, Thresholds(detection_score=0.25, instance_score=0.5, stuff_area=2**24 + 1, mask=0.3))
    for tensor in changed.graph.initializer:
        if tensor.name in named.arrays:
            tensor.CopyFrom(numpy_helper.from_array(named.arrays[tensor.name], tensor.name))
    _say(changed, other)
    assert changed.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def test_a_file_of_an_older_version_becomes_a_new_one_when_it_is_read(model: Path, tmp_path: Path) -> None:
    older = fixed(model, tmp_path / "older.onnx", THRESHOLDS)
    assert b"detection_thresholds" not in older.read_bytes()
    found, new = read_graph(older).proto, read_graph(model).proto
    assert found.graph.input == new.graph.input
    assert list(found.graph.node) == list(new.graph.node)
    assert found.functions == new.functions
    assert {t.name: t for t in found.graph.initializer} == {t.name: t for t in new.graph.initializer}


def test_the_bundled_model_can_be_set() -> None:
    image = frames(1)[0]
    with panrt.load(bundled.locate("tabletop"), threads=1) as session:
        everything = session(image)
        best = max(segment.score for segment in everything.segments if segment.is_thing)
        session.thresholds = Thresholds(instance_score=min(1.0, math.nextafter(best, 2) + 1e-6))
        assert not any(segment.is_thing for segment in session(image).segments)
        session.thresholds = None
        assert_same(session(image), everything)


# --- between frames ---------------------------------------------------------------------------------------------------


def test_frames_keep_the_thresholds_of_their_submit(model: Path, images: NDArray[np.uint8]) -> None:
    strict = Thresholds(instance_score=1.0, stuff_area=2**31 - 1)
    with panrt.load(model, threads=1) as session:
        usual = session(images[0])
        assert usual.segments
        session.submit([Frame(images[0], captured_at=0.0)])
        session.thresholds = strict
        session.submit([Frame(images[0], captured_at=0.0)])
        session.thresholds = None
        (first,), (second,) = session.collect(), session.collect()
        assert_same(first, usual)
        assert second.segments == ()
        assert not second.panoptic.any()


def test_thresholds_that_stay_are_the_same_arrays_for_every_frame(model: Path, images: NDArray[np.uint8]) -> None:
    with panrt.load(model, threads=1, thresholds=Thresholds(mask=0.4)) as session:
        assert isinstance(session, CpuSession)
        arrays = session.settings.arrays
        for image in images:
            session(image)
            assert session.settings.arrays is arrays
            assert all(session._executor._values[name] is arrays[name] for name in NAMES)


def test_only_chosen_classes_are_found_and_others_take_no_pixels(model: Path) -> None:
    image = frames(1)[0]
    with panrt.load(model, threads=1) as session:
        things, stuff = ([c.name for c in classes] for classes in (session.model.things, session.model.stuff))
        everything = session(image)
        found_things = sorted({s.name for s in everything.segments if s.is_thing})
        found_stuff = sorted({s.name for s in everything.segments if not s.is_thing})
        assert found_things
        assert found_stuff
        session.classes = stuff
        without_things = session(image)
        assert not any(segment.is_thing for segment in without_things.segments)
        owned = everything.panoptic > len([s for s in everything.segments if s.is_thing])
        areas = {s.name: s.area for s in without_things.segments}
        assert all(areas[s.name] >= s.area for s in everything.segments if not s.is_thing), "stuff only grows"
        assert owned.any()
        session.classes = [*things, found_stuff[0]]
        assert session.classes == (*things, found_stuff[0])
        one_stuff = session(image)
        assert {s.name for s in one_stuff.segments if not s.is_thing} == {found_stuff[0]}
        assert [s for s in one_stuff.segments if s.is_thing] == [s for s in everything.segments if s.is_thing]
        other = np.isin(everything.panoptic, [s.id for s in everything.segments if s.name in found_stuff[1:]])
        assert not one_stuff.panoptic[other].any(), "pixels of other stuff are void"
        session.classes = []
        assert session(image).segments == ()
        session.classes = None
        assert_same(session(image), everything)


@pytest.mark.parametrize("seed", [1, 3])
def test_classes_are_set_as_they_are_given_to_load(model: Path, images: NDArray[np.uint8], seed: int) -> None:
    with panrt.load(model, threads=1) as session:
        chosen, names = random_thresholds(seed), random_classes(session.model, seed)
        with panrt.load(model, threads=1, thresholds=chosen, classes=names) as other:
            session.thresholds, session.classes = chosen, names
            assert (session.thresholds, session.classes) == (other.thresholds, other.classes)
            assert_same(session(images[0]), other(images[0]))


# --- what is invalid --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("detection_score", 1.5, "a number from 0 to 1"),
        ("detection_nms", -0.1, "a number from 0 to 1"),
        ("instance_score", math.nan, "a number from 0 to 1"),
        ("instance_score", True, "a number from 0 to 1"),
        ("instance_overlap", "0.5", "a number from 0 to 1"),
        ("mask", 0, "a number above 0, at most 1"),
        ("mask", 1e-60, "a number above 0, at most 1"),
        ("stuff_area", 0.5, "an integer from 0 to 2147483647"),
        ("stuff_area", 2**31, "an integer from 0 to 2147483647"),
    ],
)
def test_a_threshold_out_of_range_is_named_with_its_value_and_range(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: got .*, expected {expected}"):
        Thresholds(**{name: value})


def test_what_a_session_cannot_set_leaves_it_as_it_was(model: Path) -> None:
    with panrt.load(model, threads=1, classes=["mug"]) as session:
        assert isinstance(session, CpuSession)
        before = session.settings
        for problem, value in (("'mgu' is not a class of .*mug", ["mug", "mgu"]), ("expected a list of names", "mug")):
            with pytest.raises(ValueError, match=problem):
                session.classes = value
        with pytest.raises(panrt.ThresholdsFixedError, match=r"max_detections: got 5, the file has 32"):
            session.thresholds = session.thresholds._replace(max_detections=5)
        with pytest.raises(ValueError, match=r"mask: got 2, expected"):
            session.thresholds = session.thresholds._replace(mask=2)
        assert session.settings is before
    with pytest.raises(panrt.SessionClosedError):
        session.thresholds = None


def test_load_closes_a_session_whose_options_are_invalid(model: Path) -> None:
    with pytest.raises(ValueError, match="'sofa' is not a class"):
        panrt.load(model, threads=1, classes=["sofa"])


def test_a_file_whose_inputs_are_not_those_of_its_ops_is_rejected(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"

    def saved(change: Any) -> Path:
        proto = onnx.load(model)
        change(proto)
        onnx.save(proto, path)
        return path

    def without_default(proto: ModelProto) -> None:
        proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == INSTANCE))

    def of_another_shape(proto: ModelProto) -> None:
        next(v for v in proto.graph.input if v.name == STUFF).type.tensor_type.shape.dim[0].dim_value = 9

    def exchanged(proto: ModelProto) -> None:
        node = next(node for node in proto.graph.node if node.op_type == "BoxDetections")
        node.input[-1] = INSTANCE

    for change, problem in ((without_default, "lacks a default"), (of_another_shape, "lacks a default")):
        with pytest.raises(ModelFileError, match=problem):
            panrt.load(saved(change), backend="cpu")
    with pytest.raises(UnsupportedModelError, match="expected detection_thresholds last"):
        panrt.load(saved(exchanged), backend="cpu")
