"""The ops' work as graphs of ONNX Runtime's own operators, as lean as they can be written.

They do less than the contract (no guard against values that are not finite, no padding), in the peer's favour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from panrt.plugins.box_reference import MAX_SIZE_DELTA, grid_anchors

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from panrt.plugins import _native

Array = NDArray[np.float32]
Run = Callable[[], list[NDArray[np.generic]]]
OPSET = 18


class Graph:
    """A graph under construction; an operator is a method call that returns the names of its outputs."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[np.generic]) -> str:
        """Name of an initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> tuple[str, ...]:
        """Append a node; gives the names of its outputs."""
        names = tuple(f"v{len(self.nodes)}_{i}" for i in range(outputs))
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def session(
        self, inputs: dict[str, NDArray[np.generic]], outputs: Sequence[str], threads: int
    ) -> onnxruntime.InferenceSession:
        """Compile; threads do not spin, so that contenders which take turns do not disturb each other."""
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ]
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "peer", values, results, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def roi_align_per_level(
    features: Sequence[Array],
    level_rois: Sequence[Array],
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    threads: int,
) -> Run:
    """Build one RoiAlign per level, each on the RoIs of its level, (Rl, 4); results are not gathered."""
    graph = Graph()
    inputs: dict[str, NDArray[np.generic]] = {}
    outputs: list[str] = []
    for i, (feature, rois, stride) in enumerate(zip(features, level_rois, strides, strict=True)):
        inputs |= {f"feature{i}": feature, f"rois{i}": rois, f"image{i}": np.zeros(len(rois), np.int64)}
        outputs += graph.op(
            "RoiAlign",
            f"feature{i}",
            f"rois{i}",
            f"image{i}",
            coordinate_transformation_mode="half_pixel",
            output_height=output_size,
            output_width=output_size,
            sampling_ratio=sampling_ratio,
            spatial_scale=1.0 / stride,
        )
    session = graph.session(inputs, outputs, threads)
    return lambda: session.run(None, inputs)


def rpn_proposals(
    logits: Sequence[Array],
    deltas: Sequence[Array],
    *,
    threads: int,
    **attributes: Unpack[_native.RpnProposalsAttributes],
) -> Run:
    """Build TopK per level, decoding of the selection, NonMaxSuppression with the level as class, TopK."""
    graph = Graph()
    op, constant = graph.op, graph.constant
    inputs: dict[str, NDArray[np.generic]] = {}
    boxes, scores, sizes = [], [], []
    aspect_ratios, input_hw = attributes["aspect_ratios"], attributes["input_hw"]
    A = len(aspect_ratios)
    for i, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
        H, W = logit.shape[2:]
        inputs |= {f"logits{i}": logit, f"deltas{i}": delta}
        k = min(attributes["pre_nms_top_k"], A * H * W)
        sizes.append(k)
        flat = op("Reshape", *op("Transpose", f"logits{i}", perm=[0, 2, 3, 1]), constant(np.array([-1])))[0]
        codes = op("Reshape", f"deltas{i}", constant(np.array([A, 4, H, W])))[0]
        codes = op("Reshape", *op("Transpose", codes, perm=[2, 3, 0, 1]), constant(np.array([-1, 4])))[0]
        best, order = op("TopK", flat, constant(np.array([k])), outputs=2)
        anchors = constant(grid_anchors((H, W), attributes["strides"][i], attributes["anchor_sizes"][i], aspect_ratios))
        boxes.append(_decode(graph, op("Gather", codes, order)[0], op("Gather", anchors, order)[0], input_hw))
        scores.append(best)
    all_boxes = op("Concat", *boxes, axis=0)[0]
    all_scores = op("Concat", *scores, axis=0)[0]
    # One class a level: a candidate has its logit in its own level's row and is left out of the others.
    level = np.repeat(np.arange(len(sizes)), sizes)
    own = constant(level[None] == np.arange(len(sizes))[:, None])
    by_level = op("Where", own, all_scores, constant(np.float32(-np.inf)))[0]
    keep = op(
        "NonMaxSuppression",
        op("Unsqueeze", all_boxes, constant(np.array([0])))[0],
        op("Unsqueeze", by_level, constant(np.array([0])))[0],
        constant(np.array([attributes["post_nms_top_k"]])),
        constant(np.array([attributes["nms_threshold"]], np.float32)),
        constant(np.array([-1e30], np.float32)),
    )[0]
    kept = op("Gather", keep, constant(np.array(2)), axis=1)[0]
    kept_scores = op("Gather", all_scores, kept)[0]
    limit = op("Min", op("Shape", kept_scores)[0], constant(np.array([attributes["post_nms_top_k"]])))[0]
    first = op("TopK", kept_scores, limit, outputs=2)[1]
    rois = op("Gather", all_boxes, op("Gather", kept, first)[0])[0]
    session = graph.session(inputs, [rois], threads)
    return lambda: session.run(None, inputs)


def box_detections(
    class_logits: Array,
    box_deltas: Array,
    rois: Array,
    *,
    threads: int,
    **attributes: Unpack[_native.BoxDetectionsAttributes],
) -> Run:
    """Build softmax, decoding of every class, NonMaxSuppression with the class as batch item, TopK. One image."""
    graph = Graph()
    op, constant = graph.op, graph.constant
    R, C = class_logits.shape[1], class_logits.shape[2] - 1
    inputs: dict[str, NDArray[np.generic]] = {"logits": class_logits[0], "deltas": box_deltas[0], "rois": rois[0]}
    probabilities = op("Softmax", "logits", axis=1)[0]
    foreground = op("Slice", probabilities, *(constant(np.array([v])) for v in (0, C, 1)))[0]
    scores = op("Unsqueeze", *op("Transpose", foreground, perm=[1, 0]), constant(np.array([1])))[0]  # (C, 1, R)
    codes = op("Reshape", "deltas", constant(np.array([R, C, 4])))[0]
    codes = op(
        "Div", op("Transpose", codes, perm=[1, 0, 2])[0], constant(np.array(attributes["box_weights"], np.float32))
    )[0]
    boxes = _decode(graph, codes, "rois", attributes["input_hw"])  # (C, R, 4)
    keep = op(
        "NonMaxSuppression",
        boxes,
        scores,
        constant(np.array([attributes["max_detections"]])),
        constant(np.array([attributes["nms_threshold"]], np.float32)),
        constant(np.array([attributes["score_threshold"]], np.float32)),
    )[0]
    where = op("Gather", keep, constant(np.array([0, 2])), axis=1)[0]  # (class, RoI)
    kept_scores = op("GatherND", op("Squeeze", scores, constant(np.array([1])))[0], where)[0]
    limit = op("Min", op("Shape", kept_scores)[0], constant(np.array([attributes["max_detections"]])))[0]
    best, order = op("TopK", kept_scores, limit, outputs=2)
    chosen = op("Gather", where, order)[0]
    session = graph.session(inputs, [op("GatherND", boxes, chosen)[0], best, chosen], threads)
    return lambda: session.run(None, inputs)


def _decode(graph: Graph, deltas: str, boxes: str, input_hw: tuple[int, int]) -> str:
    """Box decoding and clipping on (..., 4) tensors that broadcast; the deltas are divided by their weights already."""
    op, constant = graph.op, graph.constant
    split = constant(np.array([2, 2]))
    low, high = op("Split", boxes, split, axis=-1, outputs=2)
    size = op("Sub", high, low)[0]
    half = constant(np.float32(0.5))
    centre = op("Add", low, op("Mul", size, half)[0])[0]
    shift, growth = op("Split", deltas, split, axis=-1, outputs=2)
    new_centre = op("Add", op("Mul", shift, size)[0], centre)[0]
    new_size = op("Mul", *op("Exp", *op("Min", growth, constant(MAX_SIZE_DELTA))), size)[0]
    new_half = op("Mul", new_size, half)[0]
    corners = op("Concat", op("Sub", new_centre, new_half)[0], op("Add", new_centre, new_half)[0], axis=-1)[0]
    limit = np.array([input_hw[1], input_hw[0], input_hw[1], input_hw[0]], np.float32)
    return op("Min", *op("Max", corners, constant(np.float32(0))), constant(limit))[0]
