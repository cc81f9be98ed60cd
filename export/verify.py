"""Compare two runs of one network stage by stage: where they differ, by how much, and whether that is within limits.

    comparison = compare(TorchRunner(model, file), OnnxRunner("street.onnx"), images)
    print(comparison.table())

A run is anything that returns `Stages` for an image; stages that one side does not report are not compared. Features
are compared number by number, boxes by their best matches (rounding may reorder them), and panoptic maps by matched
segments, since IDs follow the order of scores.

Shapes: H x W network input, R RoIs, K detections, G mask side, D, S channels; h x w, Hl x Wl sizes of maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper

from panrt.errors import VerifyError
from panrt.export.frames import Frame
from panrt.export.onnx import prepared
from panrt.formats import onnx_graph, onnx_runtime
from panrt.formats.input_size import specialise
from panrt.formats.metadata import IMAGE, ModelFile, Precision, sized
from panrt.formats.onnx_file import read_onnx
from panrt.model.metric_table import text_table
from panrt.model.panoptic_fpn import PanopticFPN, merge
from panrt.model.panoptic_map import Category, PanopticMap, Segment
from panrt.model.panoptic_quality import PanopticStatistics, comparison_statistics, panoptic_quality
from panrt.model.segment_matching import Comparison as MapPair
from panrt.model.segment_matching import compare as compare_maps
from panrt.model.segment_matching import match_segments
from panrt.plugins.onnx_functions import OUTPUTS, add_functions

Array = NDArray[Any]

LEVELS = ("p2", "p3", "p4", "p5")
SAME_PROPOSAL = 0.9  # IoU of two proposals that are one
SAME_DETECTION = 0.5  # and of two detections of one class


class Detections(NamedTuple):
    boxes: Array  # (K, 4)
    scores: Array  # (K,), descending
    classes: Array  # (K,)
    mask_probs: Array  # (K, G, G)


class Stages(NamedTuple):
    """The stages of one image, in float32; None: not reported."""

    panoptic: PanopticMap
    pyramid: tuple[Array, ...] | None = None  # P2..P5, each (D, Hl, Wl)
    semantic_logits: Array | None = None  # (S, h, w)
    rois: Array | None = None  # (R, 4)
    detections: Detections | None = None


class Runner(Protocol):
    """One way to run a network."""

    @property
    def name(self) -> str: ...
    @property
    def file(self) -> ModelFile: ...
    def __call__(self, image: Frame) -> Stages:
        """Run the network on an image, (H, W, 3) uint8 BGR at the network's input size."""
        ...


class Limits(NamedTuple):
    """The largest differences that two runs may have."""

    features: float  # mean error over mean magnitude, of each stage before the ops
    pixels: float  # smallest share of the map that is the same
    pq: float  # smallest panoptic quality of one map against the other


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(features=1e-4, pixels=0.999, pq=0.995),
    "fp16": Limits(features=1e-2, pixels=0.99, pq=0.97),
    "int8": Limits(features=0.25, pixels=0.95, pq=0.85),
}
_ORDER: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def limits_of(a: ModelFile, b: ModelFile) -> Limits:
    """Return the limits of the coarser precision of two."""
    return LIMITS[max(a.precision, b.precision, key=_ORDER.index)]


# Runs -----------------------------------------------------------------------------------------------------------------


class TorchRunner:
    """The network in PyTorch, with the sizes and thresholds that a file has."""

    def __init__(self, model: PanopticFPN, file: ModelFile, *, name: str = "PyTorch") -> None:
        self.name = name
        self.file = file
        self._network = prepared(model, file.thresholds)

    @torch.inference_mode()
    def __call__(self, image: Frame) -> Stages:
        file, batch = self.file, torch.from_numpy(image[None])
        branches = self._network.branches(batch, valid_hw=file.valid_hw)
        config = self._network.config.merge
        found = merge(branches, config=config, image=batch, valid_hw=file.valid_hw, output_hw=file.output_hw)
        values = dict(zip(OUTPUTS["PanopticMerge"], found, strict=True))
        values.update(zip(LEVELS, branches.pyramid, strict=False))
        if branches.semantic_logits is not None:
            values["semantic_logits"] = branches.semantic_logits
        if branches.instances is not None:
            rois, roi_count = branches.instances.proposals
            boxes, scores, classes, count = branches.instances.detections
            values.update(rois=rois, roi_count=roi_count, boxes=boxes, scores=scores, classes=classes)
            values.update(detection_count=count, mask_probs=branches.instances.mask_probs)
        return _stages({name: value.numpy() for name, value in values.items()}, file)


class OnnxRunner:
    """A PanRT file in plain ONNX Runtime, as any program would run it."""

    def __init__(self, path: Path, *, input_hw: tuple[int, int] | None = None, threads: int | None = None) -> None:
        """Load it.

        Args:
            path: of the file.
            input_hw: of the images it will get, for a file that leaves it open; the file itself runs unchanged.
            threads: of ONNX Runtime; None leaves the number to it.

        Raises:
            ModelFileError: see `read_onnx` and `onnx_graph.check`; or its functions are not those of this PanRT.
            InputSizeError: the file needs an input size and got none, or has another one.
            VerifyError: ONNX Runtime cannot run it.
        """
        proto, said, _ = read_onnx(path)
        self.file = sized(said, input_hw, source=str(path))
        self._path = path
        checked = proto
        if self.file != said:
            checked = ModelProto()
            checked.CopyFrom(proto)
            onnx_graph.check_structure(checked, source=str(path))
            specialise(checked, self.file, source=str(path))
        onnx_graph.check(checked, self.file, source=str(path))
        if proto.functions:
            onnx_graph.check_functions(proto, source=str(path))
        self.name = f"{path} in ONNX Runtime"
        if not proto.functions:  # exported for TensorRT; ONNX Runtime needs the functions
            add_functions(proto)
        self._outputs = _with_stages(proto)
        try:
            self._model = onnx_runtime.Model(proto.SerializeToString(), threads=threads or 0)
        except onnx_runtime.ERRORS as error:
            raise _rejected(path, error) from error

    def __call__(self, image: Frame) -> Stages:
        batch = np.repeat(image[None], self.file.batch or 1, axis=0)
        try:
            found = self._model.run(self._outputs, {IMAGE: batch})
        except onnx_runtime.ERRORS as error:
            raise _rejected(self._path, error) from error
        return _stages(dict(zip(self._outputs, found, strict=True)), self.file)


def _rejected(path: Path, error: Exception) -> VerifyError:
    problem = onnx_runtime.problem(error)
    return VerifyError(f"{path}: ONNX Runtime {onnx_runtime.VERSION} cannot run it: {problem}")


def _with_stages(proto: ModelProto) -> list[str]:
    """Make the named values outputs of the graph, in place; return the names of all outputs."""
    names = [output.name for output in proto.graph.output]
    wanted = {*LEVELS, "semantic_logits", "rois", "roi_count", "boxes", "scores", "classes", "detection_count"}
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    for node in proto.graph.node:
        for name in node.output:
            if name in wanted | {"mask_probs"} and name in types:
                proto.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
                names.append(name)
    return names


def _stages(values: dict[str, Array], file: ModelFile) -> Stages:
    """Return the stages of the first image of a batch, from values by the names of `naming`."""
    rows = values["segments"][0, : int(values["segment_count"][0])].tolist()
    segments = [
        Segment(identity, file.category(category, is_thing=bool(is_thing)).id)
        for identity, category, is_thing, *_ in rows
    ]
    rois = detections = None
    if "rois" in values:
        rois = values["rois"][0, : int(values["roi_count"][0])]
    if "boxes" in values and "mask_probs" in values:
        count = int(values["detection_count"][0])
        detections = Detections(*(values[name][0, :count] for name in ("boxes", "scores", "classes", "mask_probs")))
    pyramid = tuple(values[name][0].astype(np.float32) for name in LEVELS if name in values)
    return Stages(
        PanopticMap(values["panoptic"][0], segments),
        pyramid=pyramid or None,
        semantic_logits=values["semantic_logits"][0] if "semantic_logits" in values else None,
        rois=rois,
        detections=detections,
    )


# Comparison -----------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """The errors of one stage; NaN: no such figure."""

    stage: str
    largest: float  # error
    mean: float  # error
    same: float  # share from 0 to 1
    limit: str  # "": the stage has no limit
    passed: bool


@dataclass(frozen=True)
class Comparison:
    """The comparison of B with A on a set of images."""

    a: str
    b: str
    images: int
    rows: tuple[Row, ...]
    pq: float  # of B's maps against A's, 0..1
    matched: int  # segments
    segments: tuple[int, int]  # of A and of B
    limits: Limits

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def table(self) -> str:
        """Return aligned text; errors of features are relative, of scores and masks absolute, shares in percent."""
        cells = [
            (
                row.stage,
                _number(row.largest),
                _number(row.mean),
                _share(row.same),
                row.limit,
                "" if not row.limit else "ok" if row.passed else "FAILED",
            )
            for row in self.rows
        ]
        return text_table(("", "largest error", "mean error", "same %", "limit", ""), cells)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; a figure that does not exist, or is not finite, is None."""

        def finite(value: object) -> object:
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {
            "a": self.a,
            "b": self.b,
            "images": self.images,
            "passed": self.passed,
            "stages": [{name: finite(value) for name, value in row._asdict().items()} for row in self.rows],
            "pq": finite(self.pq),
            "matched_segments": self.matched,
            "segments": list(self.segments),
            "limits": self.limits._asdict(),
        }


def compare(
    a: Runner,
    b: Runner,
    images: Sequence[Frame],
    *,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run both on every image and compare.

    Args:
        a: the reference.
        b: is compared with it.
        images: (H, W, 3) uint8 BGR at the network's input size.
        limits: None: those of the coarser precision.
        progress: called with the number of images done and of all.

    Raises:
        VerifyError: there are no images, or the two are not exports of one network at one size.
    """
    _check_comparable(a, b)
    if len(images) == 0:
        raise VerifyError("images: got none, expected at least one to compare on.")
    limits = limits or limits_of(a.file, b.file)
    categories = [Category(c.id, c.name, c.is_thing) for c in (*a.file.things, *a.file.stuff)]
    totals = _Totals(categories, a.file.thresholds.instance_score)
    for done, image in enumerate(images, start=1):
        totals.add(a(image), b(image))
        if progress is not None:
            progress(done, len(images))
    return totals.comparison(a.name, b.name, len(images), limits)


def _check_comparable(a: Runner, b: Runner) -> None:
    for field in ("name", "input_hw", "valid_hw", "output_hw", "thresholds", "things", "stuff"):
        left, right = getattr(a.file, field), getattr(b.file, field)
        if left != right:
            what = f"{left} and {right}" if field not in ("things", "stuff") else "different classes"
            raise VerifyError(f"{field}: {a.name} and {b.name} have {what}; export both with the same options.")


class _Error:
    """Errors of arrays of numbers, relative to their magnitude or absolute."""

    def __init__(self, *, relative: bool) -> None:
        self.relative = relative
        self.largest = self.total = self.magnitude = 0.0

    def add(self, expected: Array, found: Array) -> None:
        if not expected.size:
            return
        magnitudes = np.abs(expected.astype(np.float64)) if self.relative else np.ones(expected.shape)
        error = np.abs(found.astype(np.float64) - expected)
        scale = float(magnitudes.max()) or 1.0
        self.largest = max(self.largest, float(error.max()) / scale) if np.isfinite(error).all() else math.inf
        self.total += float(error.sum())
        self.magnitude += float(magnitudes.sum())

    @property
    def mean(self) -> float:
        return self.total / self.magnitude if self.magnitude else math.nan


class _Share:
    """The share of equal items among all."""

    def __init__(self) -> None:
        self.same = self.all = 0

    def add(self, same: int, all_: int) -> None:
        self.same += same
        self.all += all_

    @property
    def value(self) -> float:
        return self.same / self.all if self.all else math.nan


class _Totals:
    """Sums over the images."""

    def __init__(self, categories: Sequence[Category], least_score: float) -> None:
        self.categories = categories
        self.least_score = least_score
        self.features: dict[str, _Error] = {}
        self.argmax, self.proposals, self.detections = _Share(), _Share(), _Share()
        self.scores, self.masks = _Error(relative=False), _Error(relative=False)
        self.pixels = _Share()
        self.statistics = PanopticStatistics.empty(len(categories))
        self.matched, self.segments_a, self.segments_b = 0, 0, 0
        self.reported = {"proposals": False, "detections": False}

    def add(self, a: Stages, b: Stages) -> None:
        if a.pyramid is not None and b.pyramid is not None:
            for level, expected, found in zip(LEVELS, a.pyramid, b.pyramid, strict=False):
                self._features(level, expected, found)
        if a.semantic_logits is not None and b.semantic_logits is not None:
            self._features("semantic logits", a.semantic_logits, b.semantic_logits)
            best = [logits.argmax(axis=0) for logits in (a.semantic_logits, b.semantic_logits)]
            self.argmax.add(int((best[0] == best[1]).sum()), best[0].size)
        if a.rois is not None and b.rois is not None:
            self.reported["proposals"] = True
            overlap = iou(a.rois, b.rois)
            self.proposals.add(int((overlap.max(axis=1, initial=0) >= SAME_PROPOSAL).sum()), len(a.rois))
        if a.detections is not None and b.detections is not None:
            self.reported["detections"] = True
            self._detections(a.detections, b.detections)
        self._maps(a.panoptic, b.panoptic)

    def _features(self, stage: str, expected: Array, found: Array) -> None:
        self.features.setdefault(stage, _Error(relative=True)).add(expected, found)

    def _detections(self, a: Detections, b: Detections) -> None:
        """Compare the detections of A that enter its merge with the best match of the same class in B."""
        wanted = a.scores >= self.least_score
        overlap = iou(a.boxes[wanted], b.boxes) * (a.classes[wanted][:, None] == b.classes)
        same = overlap.max(axis=1, initial=0) >= SAME_DETECTION
        self.detections.add(int(same.sum()), len(same))
        if same.any():
            partner = overlap[same].argmax(axis=1)
            self.scores.add(a.scores[wanted][same], b.scores[partner])
            self.masks.add(a.mask_probs[wanted][same], b.mask_probs[partner])

    def _maps(self, a: PanopticMap, b: PanopticMap) -> None:
        pair = compare_maps(a, b, {category.id for category in self.categories})
        self.statistics += comparison_statistics(pair, self.categories)
        self.pixels.add(*_same_pixels(pair, {c.id for c in self.categories if not c.is_thing}))
        self.matched += len(match_segments(pair).matches)
        self.segments_a += len(a.segments)
        self.segments_b += len(b.segments)

    def comparison(self, a: str, b: str, images: int, limits: Limits) -> Comparison:
        rows = []
        for stage, error in self.features.items():
            same = self.argmax.value if stage == "semantic logits" else math.nan
            passed = error.mean <= limits.features and math.isfinite(error.largest)
            rows.append(Row(stage, error.largest, error.mean, same, f"mean {limits.features:g}", passed))
        if self.reported["proposals"]:
            rows.append(Row("proposals", math.nan, math.nan, self.proposals.value, "", True))
        if self.reported["detections"]:
            rows.append(Row("detections", self.scores.largest, self.scores.mean, self.detections.value, "", True))
            rows.append(Row("masks", self.masks.largest, self.masks.mean, math.nan, "", True))
        pixels, pq = self.pixels.value, panoptic_quality(self.statistics, self.categories).all.pq
        rows.append(Row("panoptic", math.nan, math.nan, pixels, f"{100 * limits.pixels:g} %", pixels >= limits.pixels))
        empty = math.isnan(pq)  # neither has a segment; the share of pixels decides
        rows.append(Row("PQ", math.nan, math.nan, pq, f"{100 * limits.pq:g} %", empty or pq >= limits.pq))
        return Comparison(a, b, images, tuple(rows), pq, self.matched, (self.segments_a, self.segments_b), limits)


def iou(a: Array, b: Array) -> Array:
    """Return the IoU of every pair of boxes: (n, 4), (m, 4) -> (n, m)."""
    size = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    common = np.clip(size, 0, None).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (a, b)]
    overlap: Array = common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9)
    return overlap


def _same_pixels(pair: MapPair, stuff: set[int]) -> tuple[int, int]:
    """Count the pixels that are void, the same stuff or a matched thing in both maps, and all pixels."""
    same = {(match.true_id, match.predicted_id) for match in match_segments(pair).matches} | {(0, 0)}
    count = total = 0
    for (left, right), pixels in pair.overlaps.items():
        total += pixels
        regions = pair.truth.get(left), pair.prediction.get(right)
        is_same_stuff = (
            regions[0] is not None
            and regions[1] is not None
            and regions[0].category_id == regions[1].category_id
            and regions[0].category_id in stuff
        )
        count += pixels * ((left, right) in same or is_same_stuff)
    return count, total


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1e}"


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.3f}".rstrip("0").rstrip(".")
