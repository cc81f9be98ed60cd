"""What goes into the four ops and what comes out: results, and the checks that every Python form shares.

Shapes: N images, L pyramid levels, A anchors per cell, R RoIs, C thing classes, K detections, S semantic channels (0 is
"things"), M mask side. Boxes are (x0, y0, x1, y1) in pixels of the network input, continuous, no +1. `OPS.md` says what
the ops compute; this file says only what they accept.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
Floating: TypeAlias = NDArray[np.float32] | NDArray[np.float16]
Int32: TypeAlias = NDArray[np.int32]
Layout: TypeAlias = Literal["NCHW", "NHWC"]

# How much the ops take, OPS.md 1.3: plugins/include/panrt/limits.h has the same for the other forms. No network comes
# near; a slip asks for no 32 GiB, nothing overflows, and no launch lasts longer than seconds.
MAX_IMAGES = 65535  # of a batch
MAX_SIDE = 32768  # pixels of an image, cells of a map, and strides: an area then fits int32
MAX_ROWS = 2**20  # RoIs or detections of an image
MAX_LEVELS = 8  # of a pyramid
MAX_ANCHORS_PER_CELL = 16
MAX_ANCHORS = 2**31 - 1  # of an image
MAX_CANDIDATES = 16384  # of a level that enter NMS
MAX_BINS = 1024  # of a RoI, a side
MAX_SAMPLES = 1024  # of a bin, a side
MAX_POOLED = 2**30  # numbers of a RoI
MAX_LEVEL_NUMBER = 64  # canonical_level, min_level
MAX_PAIRS = 2**21  # of RoI and class, of an image
MAX_PAIRS_KEPT = 2**35  # pairs times max_detections
MAX_CODES = 65535  # detections and channels together
MAX_MASK_CELLS = 2**24  # of a mask
MAX_PASTED = 2**38  # detections times pixels of the output
MAX_ROI_COORDINATE = 65536.0  # beyond it a RoI is no part of any image, and pools to zero


class Proposals(NamedTuple):
    """Output of RpnProposals."""

    rois: Float32  # (N, R, 4), best first, zero beyond roi_count
    roi_count: Int32  # (N,)


class Detections(NamedTuple):
    """Output of BoxDetections."""

    boxes: Float32  # (N, K, 4), zero beyond count
    scores: Float32  # (N, K), descending, zero beyond count
    classes: Int32  # (N, K), 0..C-1, zero beyond count
    count: Int32  # type: ignore[assignment]  # (N,); the field's name wins over tuple.count


class PanopticSegments(NamedTuple):
    """Output of PanopticMerge."""

    panoptic: Int32  # (N, H, W), segment id of each pixel, 0 is void
    segments: Int32  # (N, K + S, 8): id, category, is_thing, area, x0, y0, x1, y1; zero beyond segment_count
    segment_scores: Float32  # (N, K + S), 0 for stuff
    segment_count: Int32  # (N,)


class RpnSizes(NamedTuple):
    """Sizes that a checked call of RpnProposals has."""

    N: int
    A: int
    levels: tuple[tuple[int, int], ...]  # (Hl, Wl) a level


class RoiAlignSizes(NamedTuple):
    """Sizes that a checked call of PyramidRoiAlign has."""

    N: int
    C: int
    R: int
    levels: tuple[tuple[int, int], ...]  # (Hl, Wl) a level


class DetectionSizes(NamedTuple):
    """Sizes that a checked call of BoxDetections has."""

    N: int
    R: int
    C: int


class MergeSizes(NamedTuple):
    """Sizes that a checked call of PanopticMerge has."""

    N: int
    K: int
    S: int
    h: int
    w: int
    mask_h: int
    mask_w: int


def check_rpn_proposals(
    logits: Sequence[Float32],
    deltas: Sequence[Float32],
    *,
    strides: Sequence[int],
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    input_hw: tuple[int, int],
) -> RpnSizes:
    """Check the arguments of RpnProposals; raises ValueError or TypeError naming the one that does not fit."""
    L = _levels("logits", logits, deltas=deltas, strides=strides, anchor_sizes=anchor_sizes)
    A = _length("aspect_ratios", aspect_ratios)
    if A == 0:
        raise ValueError("aspect_ratios: expected one number an anchor of a cell, got none")
    _at_most("aspect_ratios", A, MAX_ANCHORS_PER_CELL, "anchors of a cell")
    for name, values in (("anchor_sizes", anchor_sizes), ("aspect_ratios", aspect_ratios)):
        for i, value in enumerate(values):
            _number(f"{name}[{i}]", value, above=0.0)
    _strides(strides)
    _integer("pre_nms_top_k", pre_nms_top_k, 1)
    _integer("post_nms_top_k", post_nms_top_k, 1, MAX_ROWS)
    _number("nms_threshold", nms_threshold, at_least=0.0, at_most=1.0)
    _height_width("input_hw", input_hw)
    sizes = {"A": A}
    levels = []
    anchors = 0
    for i in range(L):
        sizes.pop("H", None), sizes.pop("W", None)
        _array(f"logits[{i}]", logits[i], "N A H W", sizes)
        _array(f"deltas[{i}]", deltas[i], "N 4A H W", sizes)
        _positive(f"logits[{i}]", logits[i], sizes, "N", "H", "W")
        _map(f"logits[{i}]", sizes)
        anchors += (here := A * sizes["H"] * sizes["W"])
        _at_most(f"logits[{i}]", anchors, MAX_ANCHORS, "anchors of all levels so far")
        _at_most("pre_nms_top_k", min(here, pre_nms_top_k), MAX_CANDIDATES, "candidates of a level")
        levels.append((sizes["H"], sizes["W"]))
    return RpnSizes(sizes["N"], A, tuple(levels))


def check_pyramid_roi_align(
    features: Sequence[Floating],
    rois: Float32,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float,
    canonical_level: int,
    min_level: int,
    layout: Layout,
) -> RoiAlignSizes:
    """Check the arguments of PyramidRoiAlign; raises ValueError or TypeError naming the one that does not fit."""
    L = _levels("features", features, strides=strides)
    _strides(strides)
    _integer("output_size", output_size, 1, MAX_BINS)
    _integer("sampling_ratio", sampling_ratio, 0, MAX_SAMPLES)
    _number("canonical_size", canonical_size, above=0.0)
    _integer("canonical_level", canonical_level, 0, MAX_LEVEL_NUMBER)
    _integer("min_level", min_level, 0, MAX_LEVEL_NUMBER)
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout: expected 'NCHW' or 'NHWC', got {layout!r}")
    legend = " ".join(layout)
    sizes: dict[str, int] = {}
    levels = []
    for i in range(L):
        sizes.pop("H", None), sizes.pop("W", None)
        _array(f"features[{i}]", features[i], legend, sizes, (np.float32, np.float16))
        _positive(f"features[{i}]", features[i], sizes, "N", "C", "H", "W")
        _map(f"features[{i}]", sizes)
        if features[i].dtype != features[0].dtype:
            raise TypeError(
                f"features[{i}]: expected {features[0].dtype} like features[0], got {features[i].dtype}; "
                "give all levels in one type"
            )
        levels.append((sizes["H"], sizes["W"]))
    _array("rois", rois, "N R 4", sizes)
    _at_most("features: channels * output_size^2", sizes["C"] * output_size**2, MAX_POOLED, "numbers of a RoI")
    _at_most("rois", sizes["R"], MAX_ROWS, "rows of an image")
    return RoiAlignSizes(sizes["N"], sizes["C"], sizes["R"], tuple(levels))


def check_box_detections(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    input_hw: tuple[int, int],
) -> DetectionSizes:
    """Check the arguments of BoxDetections; raises ValueError or TypeError naming the one that does not fit."""
    sizes: dict[str, int] = {}
    _array("class_logits", class_logits, "N R C+1", sizes)
    _array("box_deltas", box_deltas, "N R 4C", sizes)
    _array("rois", rois, "N R 4", sizes)
    _array("roi_count", roi_count, "N", sizes, (np.int32,))
    _positive("class_logits", class_logits, sizes, "N", "C")
    if _length("box_weights", box_weights) != 4:
        raise ValueError(f"box_weights: expected 4 numbers (wx, wy, ww, wh), got {len(box_weights)}")
    for i, weight in enumerate(box_weights):
        _number(f"box_weights[{i}]", weight, above=0.0)
    _number("score_threshold", score_threshold)
    _number("nms_threshold", nms_threshold, at_least=0.0, at_most=1.0)
    _integer("max_detections", max_detections, 1, MAX_ROWS)
    _height_width("input_hw", input_hw)
    _at_most("class_logits", sizes["N"], MAX_IMAGES, "images")
    _at_most("rois", sizes["R"], MAX_ROWS, "rows of an image")
    _at_most("class_logits", sizes["C"], MAX_CODES, "classes")
    pairs = sizes["R"] * sizes["C"]
    _at_most("class_logits", pairs, MAX_PAIRS, "pairs of RoI and class")
    _at_most("max_detections", max_detections, MAX_PAIRS_KEPT // max(pairs, 1), f"of {pairs} pairs of RoI and class")
    return DetectionSizes(sizes["N"], sizes["R"], sizes["C"])


def check_panoptic_merge(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
    mask_threshold: float,
) -> MergeSizes:
    """Check the arguments of PanopticMerge; raises ValueError or TypeError naming the one that does not fit."""
    sizes: dict[str, int] = {}
    _array("semantic_logits", semantic_logits, "N S h w", sizes)
    _array("boxes", boxes, "N K 4", sizes)
    _array("scores", scores, "N K", sizes)
    _array("classes", classes, "N K", sizes, (np.int32,))
    _array("count", count, "N", sizes, (np.int32,))
    _array("mask_probs", mask_probs, "N K mask_h mask_w", sizes)
    _positive("semantic_logits", semantic_logits, sizes, "N", "S", "h", "w")
    _positive("mask_probs", mask_probs, sizes, "mask_h", "mask_w")
    for name, letters in (("semantic_logits", ("h", "w")), ("mask_probs", ("mask_h", "mask_w"))):
        _map(name, sizes, *letters)
    _at_most("mask_probs", sizes["mask_h"] * sizes["mask_w"], MAX_MASK_CELLS, "cells of a mask")
    _at_most("scores", sizes["K"] + sizes["S"], MAX_CODES, "detections and channels together")
    _height_width("input_hw", input_hw)
    _height_width("output_hw", output_hw)
    padded = (4 * sizes["h"], 4 * sizes["w"])
    if input_hw[0] > padded[0] or input_hw[1] > padded[1]:
        raise ValueError(
            f"input_hw: expected at most {padded}, four times the semantic logits' {sizes['h']} x {sizes['w']}, "
            f"got {tuple(input_hw)}; it is the valid size of the network input, padding excluded"
        )
    _number("score_threshold", score_threshold)
    _number("overlap_threshold", overlap_threshold, at_least=0.0, at_most=1.0)
    _integer("stuff_area_limit", stuff_area_limit, 0)
    _number("mask_threshold", mask_threshold, above=0.0, at_most=1.0)
    _at_most(
        "scores", sizes["K"], MAX_PASTED // (output_hw[0] * output_hw[1]), f"detections on {tuple(output_hw)} pixels"
    )
    return MergeSizes(*(sizes[name] for name in ("N", "K", "S", "h", "w", "mask_h", "mask_w")))


def check_overlay(
    frame: NDArray[np.uint8], panoptic: Int32, colors: NDArray[np.uint8], *, opacity: float, border: int
) -> None:
    """Raise unless the arguments of `overlay` fit."""
    sizes: dict[str, int] = {}
    _array("frame", frame, "H W 3", sizes, (np.uint8,))
    _array("panoptic", panoptic, "h w", sizes, (np.int32,))
    _array("colors", colors, "n 3", sizes, (np.uint8,))
    _positive("frame", frame, sizes, "H", "W")
    _positive("panoptic", panoptic, sizes, "h", "w")
    _number("opacity", opacity, at_least=0.0, at_most=1.0)
    _integer("border", border, 0)


def check_threads(threads: int | None) -> int:
    """A thread count: None means every core this process may use; raises ValueError or TypeError."""
    return _cores() if threads is None else _integer("threads", threads, 1, 1024)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _array(
    name: str,
    value: object,
    legend: str,
    sizes: dict[str, int],
    dtypes: tuple[type[np.generic], ...] = (np.float32,),
) -> None:
    """Check one array against a legend such as "N R C+1"; letters met for the first time are added to `sizes`."""
    wanted = _names(dtypes)
    dimensions = _dimensions(legend)
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a {_shape(dimensions, sizes)} {wanted} array, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(
            f"{name}: expected {_shape(dimensions, sizes)} {wanted}, got {value.shape} {value.dtype}; "
            f"convert with .astype(np.{np.dtype(dtypes[0]).name})"
        )
    fits = value.ndim == len(dimensions)
    found = dict(sizes)
    for size, (factor, letter, offset) in zip(value.shape, dimensions, strict=False):
        if letter == "":
            fits &= size == factor
        elif letter in found:
            fits &= size == factor * found[letter] + offset
        else:
            fits &= size >= offset and (size - offset) % factor == 0
            found[letter] = (size - offset) // factor
    if not fits:
        raise ValueError(f"{name}: expected {_shape(dimensions, sizes)} {wanted}, got {value.shape} {value.dtype}")
    if not value.flags.c_contiguous:
        raise ValueError(
            f"{name}: expected a C-contiguous array, got strides {value.strides} for shape {value.shape}; "
            "use np.ascontiguousarray"
        )
    if not value.flags.aligned:
        raise ValueError(f"{name}: expected an aligned array, got one whose address no {value.dtype} has; use .copy()")
    sizes.update(found)


@lru_cache(maxsize=64)
def _dimensions(legend: str) -> tuple[tuple[int, str, int], ...]:
    """The factor, letter and offset of each dimension: "4A" is (4, "A", 0), "C+1" is (1, "C", 1), "4" is (4, "", 0)."""
    parsed = []
    for word in legend.split():
        match = re.fullmatch(r"(\d*)([A-Za-z]\w*)?(?:\+(\d+))?", word)
        assert match is not None, legend
        parsed.append((int(match[1] or 1), match[2] or "", int(match[3] or 0)))
    return tuple(parsed)


def _shape(dimensions: tuple[tuple[int, str, int], ...], sizes: dict[str, int]) -> str:
    """The expected shape for a message: sizes where they are known, letters where they are free."""
    words = []
    for factor, letter, offset in dimensions:
        if letter in sizes or letter == "":
            words.append(str(factor * sizes.get(letter, 1) + offset))
        else:
            words.append((str(factor) if factor > 1 else "") + letter + (f" + {offset}" if offset else ""))
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"


def _positive(name: str, array: NDArray[np.generic], sizes: dict[str, int], *letters: str) -> None:
    for letter in letters:
        if sizes[letter] < 1:
            raise ValueError(f"{name}: expected {letter} of at least 1, got shape {array.shape}")


def _map(name: str, sizes: dict[str, int], *letters: str) -> None:
    """Images of a batch, and cells a side of the maps."""
    _at_most(name, sizes["N"], MAX_IMAGES, "images")
    for letter in letters or ("H", "W"):
        _at_most(name, sizes[letter], MAX_SIDE, "cells a side")


def _at_most(name: str, found: int, most: int, unit: str) -> None:
    if found > most:
        raise ValueError(f"{name}: expected at most {most} {unit}, got {found}")


def _levels(name: str, values: Sequence[object], **others: Sequence[object]) -> int:
    L = _length(name, values)
    if L == 0:
        raise ValueError(f"{name}: expected one array a pyramid level, got none")
    _at_most(name, L, MAX_LEVELS, "levels")
    for other, items in others.items():
        if _length(other, items) != L:
            raise ValueError(f"{other}: expected {L} entries, one a level like {name}, got {len(items)}")
    return L


def _length(name: str, values: Sequence[object]) -> int:
    if isinstance(values, (str, bytes, np.ndarray)) or not isinstance(values, Sequence):
        raise TypeError(f"{name}: expected a list or tuple, got {type(values).__name__}")
    return len(values)


def _strides(strides: Sequence[int]) -> None:
    for i, stride in enumerate(strides):
        _integer(f"strides[{i}]", stride, 1, MAX_SIDE)


def _height_width(name: str, value: tuple[int, int]) -> None:
    if _length(name, value) != 2:
        raise ValueError(f"{name}: expected (height, width), got {tuple(value)}")
    for axis, size in zip(("height", "width"), value, strict=True):
        _integer(f"{name} {axis}", size, 1, MAX_SIDE)


def _integer(name: str, value: int, at_least: int, at_most: int = 2**31 - 1) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r} ({type(value).__name__})") from None
    if not at_least <= number <= at_most:
        raise ValueError(f"{name}: expected an integer from {at_least} to {at_most}, got {number}")
    return number


def _number(
    name: str,
    value: float,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {value!r} ({type(value).__name__})")
    rounded = _rounded(float(min(max(value, -1e39), 1e39)))  # the ops compute with it; it may be 0 or infinite
    if not (math.isfinite(rounded) and at_least <= rounded <= at_most and (above == -math.inf or rounded > above)):
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"at least {at_least:g}"] if at_least > -math.inf else []
        bounds += [f"at most {at_most:g}"] if at_most < math.inf else []
        raise ValueError(f"{name}: expected a finite float32 {' and '.join(bounds)}".rstrip() + f", got {value!r}")


# The same few for every frame, and numpy takes its time over both.


@lru_cache(maxsize=64)
def _rounded(value: float) -> float:
    """To float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


@lru_cache(maxsize=64)
def _names(dtypes: tuple[type[np.generic], ...]) -> str:
    return " or ".join(np.dtype(dtype).name for dtype in dtypes)
