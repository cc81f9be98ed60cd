"""What cannot become an engine is found in the file, before TensorRT is asked, and named by its node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from panrt.errors import LintError, ModelFileError
from panrt.export.lint import lint
from panrt.formats.settable import without_defaults
from panrt.formats.thresholds import NAMES
from support.engines import demo, tiny_model

RTX: dict[str, Any] = {"flavour": "rtx", "release": (1, 7)}
TENSORRT_10_3: dict[str, Any] = {"flavour": "tensorrt", "release": (10, 3)}


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> NodeProto:
    names = [f"{kind}_{index}" for index in range(outputs)]
    return helper.make_node(kind, inputs or ["pixels"], names, f"a/{kind}", domain=domain, **attributes)


def constant(name: str, value: Any) -> NodeProto:
    return helper.make_node("Constant", [], [name], f"a/{name}", value=numpy_helper.from_array(np.array(value)))


def ours(kind: str = "PyramidRoiAlign", **attributes: Any) -> NodeProto:
    return node(kind, domain="panrt", **{"plugin_namespace": "panrt", "plugin_version": "1", **attributes})


def test_what_panrt_exports_has_nothing_to_complain_about() -> None:
    path = demo("fp32")
    linted = lint(path, **RTX)
    assert linted.warnings == ()
    assert linted.file.name == "panoptic_fpn_lite"
    proto = onnx.load(path)
    without_defaults(proto)  # or TensorRT would take thresholds for constants
    assert linted.model == proto.SerializeToString(deterministic=True)
    assert {*NAMES} <= {value.name for value in proto.graph.input}
    assert {*NAMES}.isdisjoint(tensor.name for tensor in proto.graph.initializer)
    assert lint(path, flavour="tensorrt", release=(10, 7)).warnings == ()


@pytest.mark.parametrize(
    ("opset", "release", "reads"),
    [
        (20, (10, 3), True),
        (20, (10, 8), True),
        (21, (10, 7), False),
        (21, (10, 8, 0, 43), False),
        (21, (10, 9), True),
        (21, (11, 4, 1), True),
    ],
)
def test_an_operator_that_came_later_than_its_opset_is_named(
    tmp_path: Path, opset: int, release: tuple[int, ...], reads: bool
) -> None:
    norms = [
        helper.make_node("GroupNormalization", ["pixels", "weight", "weight"], [name], f"{name}/GroupNormalization")
        for name in ("a", "b")
    ]
    path = saved(tiny_model(*norms, opset=opset), tmp_path)
    if reads:
        assert lint(path, flavour="tensorrt", release=release).warnings == ()
        return
    with pytest.raises(LintError) as caught:
        lint(path, flavour="tensorrt", release=release)
    assert [finding.node for finding in caught.value.findings] == ["a/GroupNormalization", "b/GroupNormalization"]
    said = f"of opset 21, which TensorRT reads from 10.9 on, not {'.'.join(map(str, release))}; export again with"
    assert all(said in finding.problem for finding in caught.value.findings)


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([node("NonZero")], r"a/NonZero: NonZero has outputs whose size depends on the data"),
        ([node("RoiAlign")], r"a/RoiAlign: TensorRT does not support RoiAlign"),
        ([constant("k", [4000]), node("TopK", "pixels", "k", outputs=2)], r"a/TopK: TopK of 4000, .* up to 3840"),
        ([node("TopK", "pixels", "image", outputs=2)], r"a/TopK: TopK with a k that depends on the data"),
        ([node("Resize", antialias=1)], r"a/Resize: Resize with antialias"),
        ([node("Resize", coordinate_transformation_mode="tf_crop_and_resize")], r"a/Resize: .*tf_crop_and_resize"),
        ([node("ScatterND", reduction="add")], r"a/ScatterND: ScatterND with reduction add"),
        ([constant("b", np.array([1], np.int32)), node("DequantizeLinear", "b", "b")], r"DequantizeLinear of int32"),
        ([node("Gelu", domain="other")], r"a/Gelu: operator other::Gelu is neither ONNX's nor PanRT's"),
        ([ours("MaskIou")], r"a/MaskIou: PanRT has no operator 'MaskIou'"),
        ([ours(plugin_version="2")], r"plugin_version: got '2', expected '1'"),
        ([ours(plugin_namespace="")], r"plugin_namespace: got '', expected 'panrt'"),
    ],
)
def test_a_node_that_does_not_build_is_named(tmp_path: Path, nodes: list[NodeProto], problem: str) -> None:
    path = saved(tiny_model(*nodes), tmp_path)
    with pytest.raises(LintError, match=problem) as caught:
        lint(path, **RTX)
    assert len(caught.value.findings) == 1
    assert str(caught.value).startswith(f"{path}: no engine can be built from it:")


def test_everything_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(LintError) as caught:
        lint(saved(tiny_model(node("NonZero"), ours(plugin_version="2"), node("RoiAlign")), tmp_path), **RTX)
    assert [finding.node for finding in caught.value.findings] == ["a/NonZero", "a/PyramidRoiAlign", "a/RoiAlign"]


def test_operators_that_tensorrt_has_pass(tmp_path: Path) -> None:
    nodes = [constant("k", [100]), node("TopK", "pixels", "k", outputs=2), node("ScatterND"), node("Resize"), ours()]
    assert lint(saved(tiny_model(*nodes), tmp_path), **RTX).warnings == ()


def test_weights_that_stay_in_float32_are_named(tmp_path: Path) -> None:
    path = saved(tiny_model(precision="fp16"), tmp_path)
    assert [str(finding) for finding in lint(path, **RTX).warnings] == [
        "head/MatMul: computes in fp32, in a file that declares fp16."
    ]
    assert lint(saved(tiny_model(precision="fp32"), tmp_path), **RTX).warnings == ()


def test_weights_that_are_dequantised_count_as_int8(tmp_path: Path) -> None:
    model = tiny_model(precision="int8")
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    model.graph.initializer.append(scale)
    quantised = [
        helper.make_node("QuantizeLinear", ["pixels", "scale"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["dq"], "dq"),
    ]
    nodes = [model.graph.node[0], *quantised, model.graph.node[1]]
    nodes[-1].input[0] = "dq"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert lint(saved(model, tmp_path), **RTX).warnings == ()


def test_a_half_precision_export_has_fallen_nowhere() -> None:
    assert lint(demo("fp16"), **RTX).warnings == ()


def test_jetpack_6_needs_the_export_that_is_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(
        LintError, match=r"opset 21: TensorRT 10\.3 reads up to 20; .* --target tensorrt-10\.3"
    ) as caught:
        lint(demo("fp32"), **TENSORRT_10_3)
    assert "has ONNX functions, which TensorRT 10.3 prefers to plugins" in str(caught.value)
    assert lint(saved(tiny_model(opset=20), tmp_path), **TENSORRT_10_3).warnings == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not protobuf at all", "not an ONNX file, or cut off"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "not exported by PanRT, or cut off"),
        (tiny_model(metadata='{"schema": 7}').SerializeToString(), "schema 7, this PanRT reads up to 1; upgrade"),
        (tiny_model(metadata="{").SerializeToString(), "its PanRT metadata: invalid JSON"),
        (tiny_model(colour="red").SerializeToString(), "unknown field colour"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        lint(path, **RTX)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tiny_model().SerializeToString()
    path = tmp_path / "m.onnx"
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"m\.onnx"):
            lint(path, **RTX)
    path.write_bytes(whole)
    lint(path, **RTX)
