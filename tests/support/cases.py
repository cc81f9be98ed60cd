"""Inputs of the four ops, from ordinary to degenerate.

A case is a short recipe - sizes, kinds and one seed - and `arguments()` makes the arrays from it. Hypothesis draws and
shrinks the recipe, NumPy fills the arrays: that is quick, and a failure prints as one line that can be pasted into a
test, such as `MergeCase(N=1, K=2, ..., seed=0).run(native.panoptic_merge)`.

Shapes: as in OPS.md, N images, L levels, A anchors, R RoIs, C classes, K detections, S semantic channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Result = TypeVar("Result")
Array = NDArray[Any]

POISONS = ("nan", "inf", "-inf", "huge", "-huge", "tiny", "-0")
EXACT_IOUS = (0.0, 1 / 7, 1 / 3, 0.5, 0.7, 1.0)  # 1/7 and 1/3 are met exactly by squares half a side apart


class Case:
    """A recipe for the arguments of one op."""

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Inputs and options of a call."""
        raise NotImplementedError

    def run(self, op: Callable[..., Result], **more: Any) -> Result:
        """Call an op on the case."""
        inputs, options = self.arguments()
        return op(*inputs, **options, **more)


def poison(rng: np.random.Generator, array: Array, kinds: tuple[str, ...]) -> Array:
    """The array with up to a tenth of its elements, and at least one, replaced by each of the kinds."""
    largest = float(np.finfo(array.dtype).max)
    values = {
        "nan": np.nan,
        "inf": np.inf,
        "-inf": -np.inf,
        "huge": largest,
        "-huge": -largest,
        "tiny": float(np.finfo(array.dtype).smallest_subnormal),
        "-0": -0.0,
    }
    for kind in kinds if array.size else ():
        count = rng.integers(1, array.size // 10 + 2)
        array.reshape(-1)[rng.integers(0, array.size, count)] = values[kind]
    return array


def draw_boxes(
    rng: np.random.Generator, shape: tuple[int, ...], hw: tuple[float, float], kinds: tuple[str, ...], cell: float = 8.0
) -> Array:
    """Boxes (*shape, 4) float32 about an image of size hw, each of one of the kinds.

    Kinds: "inside", "grid" (corners on multiples of `cell`, many of them equal), "jitter" (one box, moved a little),
    "outside", "whole", "empty", "inverted", "tiny", "wide" (up to 65536 to either side), "beyond" (65537 and more),
    "poisoned" (NaN or infinite).
    """
    height, width = hw
    boxes = np.zeros((int(np.prod(shape)), 4), np.float32)
    image = np.array([width, height, width, height])
    shared = np.sort(rng.uniform(0, 1, (2, 2)), axis=0).reshape(4) * image
    for box in boxes:
        corners = np.sort(rng.uniform(0, 1, (2, 2)), axis=0).reshape(4) * image  # x0, y0, x1, y1
        match rng.choice(kinds):
            case "grid":
                low = cell * rng.integers(0, 3, 2)
                corners = np.concatenate([low, low + cell * rng.choice([1, 2, 2], 2)])
            case "jitter":
                corners = shared + rng.normal(0, 0.05, 4) * image
            case "outside":
                corners = corners + image * rng.choice([-2, -1, -0.5, 0.5, 1, 2], 2)[[0, 1, 0, 1]]
            case "whole":
                corners = np.array([0, 0, width, height]) + rng.choice([0.0, 1.0]) * np.array([-9, -9, 9, 9])
            case "empty":
                axis = rng.integers(2)
                corners[axis + 2] = corners[axis]
            case "inverted":
                corners = corners[[2, 3, 0, 1]]
            case "tiny":
                corners[2:] = corners[:2] + rng.choice([1e-30, 1e-3, 0.1], 2)
            case "wide":
                corners[0::2] = rng.choice([-65536.0, -3000.0, 0.0]), rng.choice([3000.0, 65536.0])
            case "beyond":
                corners[rng.integers(4)] = rng.choice([-1e30, -65537.0, 65537.0, 1e30])
            case "poisoned":
                corners[rng.integers(4)] = rng.choice([np.nan, np.inf, -np.inf])
        box[:] = corners
    return boxes.reshape(*shape, 4)


def draw_counts(rng: np.random.Generator, kind: str, N: int, rows: int) -> Array:
    """Counts (N,) int32: "all", "some", or "any", which may be negative or beyond the rows."""
    match kind:
        case "all":
            counts = np.full(N, rows)
        case "some":
            counts = rng.integers(0, rows + 1, N)
        case _:
            counts = rng.choice([-(2**31), -1, 0, rows, rows + 1, 2**31 - 1], N)
    return counts.astype(np.int32)


def draw_scores(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    """Logits or scores, float32: "distinct", "tied" (a few values, both zeros among them) or "equal"."""
    match kind:
        case "distinct":
            return rng.normal(0, 2, shape).astype(np.float32)
        case "tied":
            return rng.choice(np.array([-1.5, -0.0, 0.0, 0.25, 0.5, 2.0], np.float32), shape)
        case _:
            return np.full(shape, 0.5, np.float32)


def draw_deltas(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    """Box deltas, float32: "zero", "grid" (quarters, so that boxes meet exactly), "small" or "wild" (some overflow)."""
    match kind:
        case "zero":
            return np.zeros(shape, np.float32)
        case "grid":
            return (rng.integers(-2, 3, shape) / 4).astype(np.float32)
        case "small":
            return rng.normal(0, 0.3, shape).astype(np.float32)
        case _:
            return np.asarray(rng.normal(0, 1, shape) * rng.choice([0.1, 10, 1e4, 1e37], shape), np.float32)


@dataclass(frozen=True)
class RpnCase(Case):
    """RpnProposals."""

    N: int
    A: int
    levels: tuple[tuple[int, int], ...]  # (Hl, Wl)
    stride: int  # of the first level; each next one has twice that
    anchor_size: float  # in strides
    scores: str
    deltas: str
    poison_logits: tuple[str, ...]
    poison_deltas: tuple[str, ...]
    valid: float  # valid share of the first level's extent
    pre_nms_top_k: int
    post_nms_top_k: int
    nms_threshold: float
    seed: int

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rng = np.random.default_rng(self.seed)
        logits, deltas = [], []
        for H, W in self.levels:
            logits.append(poison(rng, draw_scores(rng, self.scores, (self.N, self.A, H, W)), self.poison_logits))
            deltas.append(poison(rng, draw_deltas(rng, self.deltas, (self.N, 4 * self.A, H, W)), self.poison_deltas))
        strides = [self.stride << i for i in range(len(self.levels))]
        return (logits, deltas), {
            "strides": strides,
            "anchor_sizes": [self.anchor_size * stride for stride in strides],
            "aspect_ratios": [1.0, 0.5, 2.0, 0.3][: self.A],
            "pre_nms_top_k": self.pre_nms_top_k,
            "post_nms_top_k": self.post_nms_top_k,
            "nms_threshold": self.nms_threshold,
            "input_hw": tuple(max(1, int(self.valid * side * self.stride)) for side in self.levels[0]),
        }


@dataclass(frozen=True)
class RoiAlignCase(Case):
    """PyramidRoiAlign."""

    N: int
    C: int
    R: int
    levels: tuple[tuple[int, int], ...]  # (Hl, Wl)
    stride: int  # of the first level; each next one has twice that
    rois: tuple[str, ...]  # kinds of `draw_boxes`, and "level": squares whose side decides a level, to one ulp
    output_size: int
    sampling_ratio: int
    canonical_size: float
    canonical_level: int
    min_level: int
    poison: tuple[str, ...]
    half: bool
    layout: str
    seed: int

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rng = np.random.default_rng(self.seed)
        dtype = np.float16 if self.half else np.float32
        features = []
        for H, W in self.levels:
            feature = rng.normal(0, 1, (self.N, self.C, H, W)).astype(dtype)
            # Sums of the largest numbers overflow in one order and not in another.
            feature = poison(rng, feature, tuple(kind for kind in self.poison if "huge" not in kind))
            features.append(feature.transpose(0, 2, 3, 1).copy() if self.layout == "NHWC" else feature)
        hw = (self.levels[0][0] * self.stride, self.levels[0][1] * self.stride)
        kinds = tuple(kind for kind in self.rois if kind != "level")
        rois = draw_boxes(rng, (self.N, self.R), hw, kinds, self.stride / 2)
        if "level" in self.rois:
            for roi in rois.reshape(-1, 4)[::2]:
                side = np.float32(self.canonical_size * 2.0 ** rng.integers(-2, 2))
                towards = side * rng.choice([0.0, 1.0, 2.0], 2)
                roi[:] = 0, 0, *np.nextafter(side, towards.astype(np.float32))
        options = {
            "strides": [self.stride << i for i in range(len(self.levels))],
            "output_size": self.output_size,
            "sampling_ratio": self.sampling_ratio,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
            "min_level": self.min_level,
        }
        return (features, rois), options | ({"layout": "NHWC"} if self.layout == "NHWC" else {})


@dataclass(frozen=True)
class DetectionCase(Case):
    """BoxDetections."""

    N: int
    R: int
    C: int
    hw: tuple[int, int]
    rois: tuple[str, ...]  # kinds of `draw_boxes`
    count: str
    scores: str
    deltas: str
    poison_logits: tuple[str, ...]
    poison_deltas: tuple[str, ...]
    box_weights: tuple[float, float, float, float]
    score_threshold: float
    nms_threshold: float
    max_detections: int
    seed: int

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rng = np.random.default_rng(self.seed)
        logits = poison(rng, draw_scores(rng, self.scores, (self.N, self.R, self.C + 1)), self.poison_logits)
        deltas = poison(rng, draw_deltas(rng, self.deltas, (self.N, self.R, 4 * self.C)), self.poison_deltas)
        rois = draw_boxes(rng, (self.N, self.R), self.hw, self.rois)
        count = draw_counts(rng, self.count, self.N, self.R)
        return (logits, deltas, rois, count), {
            "box_weights": self.box_weights,
            "score_threshold": self.score_threshold,
            "nms_threshold": self.nms_threshold,
            "max_detections": self.max_detections,
            "input_hw": self.hw,
        }


@dataclass(frozen=True)
class MergeCase(Case):
    """PanopticMerge."""

    N: int
    K: int
    S: int
    mask_hw: tuple[int, int]
    quarter_hw: tuple[int, int]
    padding: tuple[int, int]  # rows and columns of the network input that are not valid
    output_hw: tuple[int, int] | None  # None is the input's size
    boxes: tuple[str, ...]  # kinds of `draw_boxes`
    masks: str  # "blob", "flat", "ones" or "noise"
    count: str
    scores: str
    logits: str
    poison_logits: tuple[str, ...]
    poison_masks: tuple[str, ...]
    poison_scores: tuple[str, ...]
    score_threshold: float
    overlap_threshold: float
    stuff_area_limit: int
    mask_threshold: float
    seed: int

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rng = np.random.default_rng(self.seed)
        h, w = self.quarter_hw
        input_hw = (max(1, 4 * h - self.padding[0]), max(1, 4 * w - self.padding[1]))
        logits = poison(rng, draw_scores(rng, self.logits, (self.N, self.S, h, w)), self.poison_logits)
        scores = np.abs(draw_scores(rng, self.scores, (self.N, self.K)))
        return (
            logits,
            draw_boxes(rng, (self.N, self.K), input_hw, self.boxes, 4.0),
            poison(rng, scores, self.poison_scores),
            rng.integers(0, 80, (self.N, self.K)).astype(np.int32),
            draw_counts(rng, self.count, self.N, self.K),
            poison(rng, self._mask_probs(rng), self.poison_masks),
        ), {
            "input_hw": input_hw,
            "output_hw": self.output_hw or input_hw,
            "score_threshold": self.score_threshold,
            "overlap_threshold": self.overlap_threshold,
            "stuff_area_limit": self.stuff_area_limit,
            "mask_threshold": self.mask_threshold,
        }

    def _mask_probs(self, rng: np.random.Generator) -> Array:
        shape = (self.N, self.K, *self.mask_hw)
        match self.masks:
            case "blob":  # falls from 1 in a random place inside to 0 at about the border
                rows, columns = (
                    (np.arange(G, dtype=np.float32) + np.float32(0.5)) / np.float32(G) for G in self.mask_hw
                )
                x0, y0, spread = rng.uniform([[[0.3]], [[0.3]], [[0.2]]], [[[0.7]], [[0.7]], [[0.6]]], (3, *shape[:2]))
                x = (columns - x0[..., None])[..., None, :] / spread[..., None, None]
                y = (rows - y0[..., None])[..., :, None] / spread[..., None, None]
                return np.asarray(np.exp(-(x**2) - y**2), np.float32)
            case "flat":
                return np.full(shape, self.mask_threshold, np.float32)
            case "ones":
                return np.ones(shape, np.float32)
            case _:
                return rng.uniform(0, 1, shape).astype(np.float32)


# --- strategies -------------------------------------------------------------------------------------------------------

_seeds = st.integers(0, 2**32 - 1)
_batches = st.sampled_from([1, 1, 2, 3])
_nms_thresholds = st.sampled_from(EXACT_IOUS) | st.floats(0, 1)
_poisons = st.just(()) | st.just(()) | st.lists(st.sampled_from(POISONS), max_size=3, unique=True).map(tuple)
_score_kinds = st.sampled_from(["distinct", "tied", "equal"])
_delta_kinds = st.sampled_from(["zero", "grid", "small", "wild"])
_count_kinds = st.sampled_from(["all", "some", "any"])


def _kinds(*nasty: str) -> st.SearchStrategy[tuple[str, ...]]:
    friendly = st.sampled_from([("inside",), ("grid",), ("jitter",), ("inside", "grid", "jitter")])
    more = st.lists(st.sampled_from(nasty), max_size=2, unique=True)
    return st.tuples(friendly, more).map(lambda parts: (*parts[0], *parts[1]))


def _sizes(largest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


def _levels(largest: int) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    return st.lists(_sizes(largest), min_size=1, max_size=5).map(tuple)


rpn_cases = st.builds(
    RpnCase,
    N=_batches,
    A=st.integers(1, 4),
    levels=_levels(9),
    stride=st.sampled_from([4, 1, 7, 8]),
    anchor_size=st.sampled_from([2.0, 1.0, 4.5]),
    scores=_score_kinds,
    deltas=_delta_kinds,
    poison_logits=_poisons,
    poison_deltas=_poisons,
    valid=st.sampled_from([1.0, 0.8, 0.3, 4.0]),
    pre_nms_top_k=st.integers(1, 60) | st.just(1000),
    post_nms_top_k=st.integers(1, 60) | st.just(300),
    nms_threshold=_nms_thresholds,
    seed=_seeds,
)

roi_align_cases = st.builds(
    RoiAlignCase,
    N=_batches,
    C=st.sampled_from([1, 3, 4, 8, 17]),
    R=st.integers(0, 6),
    levels=_levels(20),
    stride=st.sampled_from([4, 2, 5, 16]),
    rois=_kinds("level", "outside", "whole", "empty", "inverted", "tiny", "wide", "beyond", "poisoned"),
    output_size=st.sampled_from([1, 2, 3, 7]),
    sampling_ratio=st.integers(0, 3),
    canonical_size=st.sampled_from([224.0, 112.0, 32.0, 8.0]),
    canonical_level=st.sampled_from([4, 2, 0]),
    min_level=st.sampled_from([2, 0, 3]),
    poison=_poisons,
    half=st.booleans(),
    layout=st.just("NCHW"),
    seed=_seeds,
)

detection_cases = st.builds(
    DetectionCase,
    N=_batches,
    R=st.integers(0, 40),
    C=st.sampled_from([1, 2, 3, 7, 20]),
    hw=_sizes(70),
    rois=_kinds("outside", "whole", "empty", "inverted", "tiny", "poisoned"),
    count=_count_kinds,
    scores=_score_kinds,
    deltas=_delta_kinds,
    poison_logits=_poisons,
    poison_deltas=_poisons,
    box_weights=st.sampled_from([(10.0, 10.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0), (3.0, 0.7, 1.3, 11.0)]),
    score_threshold=st.sampled_from([0.05, 0.0, -1.0, 0.125, 0.25, 0.5, 1.0]) | st.floats(0, 1),
    nms_threshold=_nms_thresholds,
    max_detections=st.integers(1, 50) | st.just(200),
    seed=_seeds,
)

merge_cases = st.builds(
    MergeCase,
    N=_batches,
    K=st.integers(0, 12) | st.just(40),
    S=st.integers(1, 9),
    mask_hw=st.just((28, 28)) | st.tuples(*[st.sampled_from([28, 1, 2, 7, 14])] * 2),
    quarter_hw=_sizes(12),
    padding=st.just((0, 0)) | st.tuples(st.integers(0, 31), st.integers(0, 31)),
    output_hw=st.none() | _sizes(20) | _sizes(90),
    boxes=_kinds("outside", "whole", "empty", "inverted", "tiny", "beyond", "poisoned"),
    masks=st.sampled_from(["blob", "flat", "ones", "noise"]),
    count=_count_kinds,
    scores=_score_kinds,
    logits=_score_kinds,
    poison_logits=_poisons,
    poison_masks=_poisons,
    poison_scores=_poisons,
    score_threshold=st.sampled_from([0.5, 0.0, 0.25, 1.0, -1.0]) | st.floats(0, 1),
    overlap_threshold=st.sampled_from([0.5, 0.0, 0.25, 1 / 3, 1.0]) | st.floats(0, 1),
    stuff_area_limit=st.sampled_from([0, 1, 16, 64, 4096]),
    mask_threshold=st.sampled_from([0.5, 0.25, 0.1, 0.9, 1.0]),
    seed=_seeds,
)


# --- sizes as a network has them --------------------------------------------------------------------------------------


def network_cases(seed: int) -> tuple[RpnCase, RoiAlignCase, DetectionCase, MergeCase]:
    """One case an op as a network on a 256 x 320 image gives them, valid 250 x 310."""
    levels = ((64, 80), (32, 40), (16, 20), (8, 10), (4, 5))
    image: dict[str, Any] = {"valid": 0.97, "stride": 4, "seed": seed}
    return (
        RpnCase(
            N=2,
            A=3,
            levels=levels,
            anchor_size=8.0,
            scores="distinct",
            deltas="small",
            poison_logits=(),
            poison_deltas=(),
            pre_nms_top_k=200,
            post_nms_top_k=150,
            nms_threshold=0.7,
            **image,
        ),
        RoiAlignCase(
            N=2,
            C=32,
            R=50,
            levels=levels[:4],
            stride=4,
            rois=("inside", "jitter"),
            output_size=7,
            sampling_ratio=0,
            canonical_size=224.0,
            canonical_level=4,
            min_level=2,
            poison=(),
            half=False,
            layout="NCHW",
            seed=seed,
        ),
        DetectionCase(
            N=2,
            R=150,
            C=80,
            hw=(250, 310),
            rois=("inside", "jitter"),
            count="some",
            scores="distinct",
            deltas="small",
            poison_logits=(),
            poison_deltas=(),
            box_weights=(10.0, 10.0, 5.0, 5.0),
            score_threshold=0.05,
            nms_threshold=0.5,
            max_detections=100,
            seed=seed,
        ),
        MergeCase(
            N=2,
            K=100,
            S=54,
            mask_hw=(28, 28),
            quarter_hw=(64, 80),
            padding=(6, 10),
            output_hw=(300, 372),
            boxes=("inside", "jitter"),
            masks="blob",
            count="some",
            scores="distinct",
            logits="distinct",
            poison_logits=(),
            poison_masks=(),
            poison_scores=(),
            score_threshold=0.5,
            overlap_threshold=0.5,
            stuff_area_limit=64,
            mask_threshold=0.5,
            seed=seed,
        ),
    )
