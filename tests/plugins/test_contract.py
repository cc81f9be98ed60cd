"""What the Python forms refuse: each bad argument raises at once, by name, with what was found and what is wanted."""

from __future__ import annotations

import math
import re
from collections import UserList
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from panrt.plugins import schema

Arguments = dict[str, Any]


def floats(*shape: int) -> Any:
    """Zeros, float32."""
    return np.zeros(shape, np.float32)


def arguments(op: str) -> Arguments:
    """A small call of an op that is accepted."""
    match op:
        case "rpn_proposals":
            return {
                "logits": [floats(2, 3, 4, 5), floats(2, 3, 2, 3)],
                "deltas": [floats(2, 12, 4, 5), floats(2, 12, 2, 3)],
                "strides": [4, 8],
                "anchor_sizes": [16.0, 32.0],
                "aspect_ratios": [0.5, 1.0, 2.0],
                "pre_nms_top_k": 10,
                "post_nms_top_k": 6,
                "nms_threshold": 0.7,
                "input_hw": (16, 20),
            }
        case "pyramid_roi_align":
            return {
                "features": [floats(2, 3, 4, 5), floats(2, 3, 2, 3)],
                "rois": floats(2, 7, 4),
                "strides": [4, 8],
                "output_size": 2,
                "sampling_ratio": 0,
                "canonical_size": 224.0,
                "canonical_level": 4,
                "min_level": 2,
            }
        case "box_detections":
            return {
                "class_logits": floats(2, 7, 4),
                "box_deltas": floats(2, 7, 12),
                "rois": floats(2, 7, 4),
                "roi_count": np.array([7, 3], np.int32),
                "box_weights": (10.0, 10.0, 5.0, 5.0),
                "score_threshold": 0.05,
                "nms_threshold": 0.5,
                "max_detections": 4,
                "input_hw": (16, 20),
            }
        case _:
            return {
                "semantic_logits": floats(2, 3, 4, 5),
                "boxes": floats(2, 6, 4),
                "scores": floats(2, 6),
                "classes": np.zeros((2, 6), np.int32),
                "count": np.array([6, 3], np.int32),
                "mask_probs": floats(2, 6, 28, 28),
                "input_hw": (16, 20),
                "output_hw": (24, 30),
                "score_threshold": 0.5,
                "overlap_threshold": 0.5,
                "stuff_area_limit": 64,
                "mask_threshold": 0.5,
            }


def call(ops: ModuleType, op: str, values: Arguments, **more: Any) -> Any:
    """Call an op with everything by name."""
    return getattr(ops, op)(**values, **more)


class Bad(NamedTuple):
    """An argument that does not fit, and how the message begins."""

    op: str
    argument: str
    value: Any
    error: type[Exception]
    message: str  # a regular expression, matched from the beginning


def swapped(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder())


def transposed(array: Any) -> Any:
    """The same shape in memory order turned around."""
    return array.T.copy().T


def misaligned(array: Any) -> Any:
    buffer = bytearray(array.nbytes + 1)
    return np.frombuffer(buffer, np.uint8)[1:].view(array.dtype).reshape(array.shape)


def array_faults(op: str, argument: str, legend: str) -> list[Bad]:
    """What may be wrong with any array; `legend` is its shape as a message writes it."""
    good, name = arguments(op)[argument], argument
    rest: list[Any] | None = None
    if isinstance(good, list):
        (good, *rest), name = good, f"{argument}[0]"
    shape, kind, found = re.escape(legend), good.dtype.name, re.escape(str(good.shape))
    name = re.escape(name)
    wanted = f"{name}: expected {shape} {kind}" + (" or float16" if argument == "features" else "")
    faults: list[tuple[Any, type[Exception], str]] = [
        (good.tolist(), TypeError, f"{name}: expected a {shape} .*array, got list$"),
        (None, TypeError, f"{name}: expected a {shape} .*array, got NoneType$"),
        (np.ma.masked_array(good), TypeError, f"{name}: expected a {shape} .*array, got MaskedArray$"),
        (good.astype(np.float64), TypeError, rf"{wanted}, got {found} float64; convert with .astype\(np.{kind}\)$"),
        (good.astype(np.int64), TypeError, f"{wanted}, got {found} int64; convert"),
        (good.astype(object), TypeError, f"{wanted}, got {found} object; convert"),
        (swapped(good), TypeError, f"{wanted}, got {found} >"),
        (good[None], ValueError, rf"{wanted}, got \(1, "),
        (
            good[:1].copy(),
            ValueError,
            rf"{wanted}, got \(1,|\S+: expected \(1,",
        ),  # where N is free, the next one differs
        (np.repeat(good, 2, axis=0)[::2], ValueError, f"{name}: expected a C-contiguous array, got strides "),
        (misaligned(good), ValueError, f"{name}: expected an aligned array, got a misaligned {kind} one"),
    ]
    if good.ndim > 1:
        faults.append((good[0], ValueError, rf"{wanted}, got \("))
        faults.append(
            (transposed(good), ValueError, f"{name}: expected a C-contiguous array, got strides .*ascontiguous")
        )
    if legend.rstrip(",)")[-1].isdigit() and "+" not in legend:
        faults.append((good[..., :-1].copy(), ValueError, rf"{wanted}, got \("))
    return [
        Bad(op, argument, value if rest is None else [value, *rest], error, message) for value, error, message in faults
    ]


def number_faults(op: str, argument: str, *bounds: str, name: str = "", wrap: Any = None) -> list[Bad]:
    """What may be wrong with any number; `bounds` are "above 0", "at least 0", "at most 1"."""
    wrap = wrap or (lambda value: value)
    name = re.escape(name or argument)
    wanted = f"{name}: expected a finite float32 {' and '.join(bounds)}".rstrip()
    values: list[Any] = [math.nan, math.inf, -math.inf, 1e300, 10**400, -(10**400)]
    values += {"above 0": [0, -1.0, 1e-60], "at least 0": [-0.01, -1], "": []}[bounds[0] if bounds else ""]
    values += [1.01, 2] if "at most 1" in bounds else []
    faults = [
        Bad(op, argument, wrap(value), ValueError, f"{wanted}, got {re.escape(repr(value))}$") for value in values
    ]
    for value in ("0.5", None, True, 1j, [0.5], np.array(0.5)):
        faults.append(
            Bad(op, argument, wrap(value), TypeError, f"{name}: expected a number, got {re.escape(repr(value))}")
        )
    return faults


def integer_faults(
    op: str, argument: str, least: int, most: int = 2**31 - 1, *, name: str = "", wrap: Any = None
) -> list[Bad]:
    """What may be wrong with any integer."""
    wrap, name = wrap or (lambda value: value), re.escape(name or argument)
    faults = [
        Bad(op, argument, wrap(value), ValueError, f"{name}: expected an integer from {least} to {most}, got {value}$")
        for value in (least - 1, -5, most + 1, 2**63, 10**30)
    ]
    for value in (1.5, 2.0, math.nan, "3", None, True, [4]):
        faults.append(
            Bad(op, argument, wrap(value), TypeError, f"{name}: expected an integer, got {re.escape(repr(value))}")
        )
    return faults


def size_faults(op: str, argument: str) -> list[Bad]:
    """What may be wrong with a (height, width)."""
    most = schema.MAX_SIDE
    faults = [
        Bad(op, argument, (16, 20, 3), ValueError, rf"{argument}: expected \(height, width\), got \(16, 20, 3\)$"),
        Bad(op, argument, (16,), ValueError, rf"{argument}: expected \(height, width\), got \(16,\)$"),
        Bad(op, argument, 16, TypeError, f"{argument}: expected a list or tuple, got int$"),
        Bad(op, argument, "16", TypeError, f"{argument}: expected a list or tuple, got str$"),
        Bad(op, argument, np.array([16, 20]), TypeError, f"{argument}: expected a list or tuple, got ndarray$"),
    ]
    faults += integer_faults(op, argument, 1, most, name=f"{argument} height", wrap=lambda value: (value, 20))
    return faults + integer_faults(op, argument, 1, most, name=f"{argument} width", wrap=lambda value: (16, value))


def level_faults(op: str, argument: str, first: str) -> list[Bad]:
    """What may be wrong with a list that has one entry a level, as many as the argument `first`."""
    good = list(arguments(op)[argument])
    faults = [
        Bad(op, argument, good[0], TypeError, f"{argument}: expected a list or tuple, got (ndarray|int|float)$"),
        Bad(op, argument, None, TypeError, f"{argument}: expected a list or tuple, got NoneType$"),
        Bad(op, argument, {0: 1, 1: 2}, TypeError, f"{argument}: expected a list or tuple, got dict$"),
        Bad(op, argument, iter(good), TypeError, f"{argument}: expected a list or tuple, got list_iterator$"),
    ]
    for wrong in (good[:1], good * 2, []):
        if argument == first:
            message = rf"\w+: expected {len(wrong)} entries, one per level, like {first}, got 2$"
            message = message if wrong else f"{first}: expected one array per pyramid level, got none$"
        else:
            message = f"{argument}: expected 2 entries, one per level, like {first}, got {len(wrong)}$"
        faults.append(Bad(op, argument, wrong, ValueError, message))
    return faults


def every_fault() -> list[Bad]:
    rpn, align, detect, merge = "rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge"

    def first(value: Any) -> Any:
        return [value, 8]

    return [
        *array_faults(rpn, "logits", "(N, 3, H, W)"),
        *array_faults(rpn, "deltas", "(2, 12, 4, 5)"),
        *level_faults(rpn, "logits", "logits"),
        *level_faults(rpn, "deltas", "logits"),
        *level_faults(rpn, "strides", "logits"),
        *level_faults(rpn, "anchor_sizes", "logits"),
        *integer_faults(rpn, "strides", 1, schema.MAX_SIDE, name="strides[0]", wrap=first),
        *number_faults(rpn, "anchor_sizes", "above 0", name="anchor_sizes[0]", wrap=first),
        *number_faults(rpn, "aspect_ratios", "above 0", name="aspect_ratios[1]", wrap=lambda value: [1.0, value, 2.0]),
        *integer_faults(rpn, "pre_nms_top_k", 1),
        *integer_faults(rpn, "post_nms_top_k", 1, schema.MAX_ROWS),
        *number_faults(rpn, "nms_threshold", "at least 0", "at most 1"),
        *size_faults(rpn, "input_hw"),
        Bad(rpn, "aspect_ratios", [], ValueError, "aspect_ratios: expected at least 1 number, got none$"),
        Bad(rpn, "aspect_ratios", 1.0, TypeError, "aspect_ratios: expected a list or tuple, got float$"),
        Bad(
            rpn,
            "aspect_ratios",
            [1.0, 2.0],
            ValueError,
            r"logits\[0\]: expected \(N, 2, H, W\) float32, got \(2, 3, 4, 5\)",
        ),
        Bad(
            rpn,
            "deltas",
            [floats(2, 12, 4, 5), floats(2, 12, 2, 4)],
            ValueError,
            r"deltas\[1\]: expected \(2, 12, 2, 3\) float32, got \(2, 12, 2, 4\) float32$",
        ),
        *array_faults(align, "features", "(N, C, H, W)"),
        *array_faults(align, "rois", "(2, R, 4)"),
        *level_faults(align, "features", "features"),
        *level_faults(align, "strides", "features"),
        *integer_faults(align, "strides", 1, schema.MAX_SIDE, name="strides[0]", wrap=first),
        *integer_faults(align, "output_size", 1, 1024),
        *integer_faults(align, "sampling_ratio", 0, 1024),
        *number_faults(align, "canonical_size", "above 0"),
        *integer_faults(align, "canonical_level", 0, 64),
        *integer_faults(align, "min_level", 0, 64),
        *(
            Bad(align, "layout", v, ValueError, "layout: expected 'NCHW' or 'NHWC', got ")
            for v in ("nchw", "", None, 3)
        ),
        Bad(align, "layout", "NHWC", ValueError, r"features\[1\]: expected \(2, H, W, 5\) .*, got \(2, 3, 2, 3\)"),
        Bad(
            align,
            "features",
            [floats(2, 3, 4, 5), floats(2, 3, 2, 3).astype(np.float16)],
            TypeError,
            r"features\[1\]: expected float32 like features\[0\], got float16; give all levels in one type$",
        ),
        Bad(
            align,
            "features",
            [floats(2, 3, 4, 5), floats(2, 4, 2, 3)],
            ValueError,
            r"features\[1\]: expected \(2, 3, H, W\) .*, got \(2, 4, 2, 3\)",
        ),
        Bad(align, "rois", floats(1, 7, 4), ValueError, r"rois: expected \(2, R, 4\) float32, got \(1, 7, 4\)"),
        Bad(align, "rois", floats(14, 5), ValueError, r"rois: expected \(2, R, 4\) float32, got \(14, 5\)"),
        *array_faults(detect, "class_logits", "(N, R, C + 1)"),
        *array_faults(detect, "box_deltas", "(2, 7, 12)"),
        *array_faults(detect, "rois", "(2, 7, 4)"),
        *array_faults(detect, "roi_count", "(2,)"),
        Bad(
            detect, "class_logits", floats(2, 7, 0), ValueError, r"class_logits: expected \(N, R, C \+ 1\) float32, got"
        ),
        Bad(
            detect,
            "box_weights",
            (10.0, 5.0),
            ValueError,
            r"box_weights: expected \(wx, wy, ww, wh\), got \(10.0, 5.0\)$",
        ),
        Bad(detect, "box_weights", 10.0, TypeError, "box_weights: expected a list or tuple, got float$"),
        *number_faults(
            detect, "box_weights", "above 0", name="box_weights ww", wrap=lambda value: (10.0, 10.0, value, 5.0)
        ),
        *number_faults(detect, "score_threshold"),
        *number_faults(detect, "nms_threshold", "at least 0", "at most 1"),
        *integer_faults(detect, "max_detections", 1, schema.MAX_ROWS),
        *size_faults(detect, "input_hw"),
        *array_faults(merge, "semantic_logits", "(N, S, h, w)"),
        *array_faults(merge, "boxes", "(2, K, 4)"),
        *array_faults(merge, "scores", "(2, 6)"),
        *array_faults(merge, "classes", "(2, 6)"),
        *array_faults(merge, "count", "(2,)"),
        *array_faults(merge, "mask_probs", "(2, 6, Gh, Gw)"),
        Bad(merge, "mask_probs", floats(2, 6, 0, 28), ValueError, "mask_probs: expected Gh of at least 1, got shape"),
        Bad(
            merge,
            "semantic_logits",
            floats(2, 0, 4, 5),
            ValueError,
            "semantic_logits: expected S of at least 1, got shape",
        ),
        Bad(
            merge,
            "semantic_logits",
            floats(3, 4, 5),
            ValueError,
            r"semantic_logits: expected \(N, S, h, w\) float32, got",
        ),
        *size_faults(merge, "input_hw"),
        *size_faults(merge, "output_hw"),
        Bad(
            merge,
            "input_hw",
            (17, 20),
            ValueError,
            r"input_hw: expected at most \(16, 20\), four times the semantic logits' 4 x 5, got \(17, 20\); it is",
        ),
        Bad(merge, "input_hw", [16, 21], ValueError, r"input_hw: expected at most \(16, 20\), .* got \(16, 21\);"),
        *number_faults(merge, "score_threshold"),
        *number_faults(merge, "overlap_threshold", "at least 0", "at most 1"),
        *number_faults(merge, "mask_threshold", "above 0", "at most 1"),
        *integer_faults(merge, "stuff_area_limit", 0),
    ]


def label(bad: Bad) -> str:
    return f"{bad.op}-{bad.argument}-{type(bad.value).__name__}"


@pytest.mark.parametrize("bad", every_fault(), ids=label)
def test_a_bad_argument_is_refused_by_name(python_ops: ModuleType, bad: Bad) -> None:
    values = arguments(bad.op) | {bad.argument: bad.value}
    with pytest.raises(bad.error) as raised:
        call(python_ops, bad.op, values)
    assert type(raised.value) is bad.error
    assert re.match(bad.message, str(raised.value)), str(raised.value)


OPS = ("rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("threads", "error", "found"),
    [
        (0, ValueError, "an integer from 1 to 1024, got 0"),
        (-1, ValueError, "an integer from 1 to 1024, got -1"),
        (1025, ValueError, "an integer from 1 to 1024, got 1025"),
        (2**70, ValueError, f"an integer from 1 to 1024, got {2**70}"),
        (True, TypeError, "an integer, got True"),
        (1.5, TypeError, "an integer, got 1.5 (float)"),
        ("2", TypeError, "an integer, got '2' (str)"),
    ],
)
def test_a_bad_thread_count_is_refused(
    native: ModuleType, op: str, threads: Any, error: type[Exception], found: str
) -> None:
    with pytest.raises(error, match=f"^threads: expected {re.escape(found)}$"):
        call(native, op, arguments(op), threads=threads)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("threads", [None, 1, 3, 1024, np.int64(2)])
def test_a_good_thread_count_is_taken(native: ModuleType, op: str, threads: Any) -> None:
    call(native, op, arguments(op), threads=threads)


def batchless(op: str) -> Arguments:
    """The arguments with N = 0."""
    return {
        name: [array[:0] for array in value]
        if isinstance(value, list) and isinstance(value[0], np.ndarray)
        else value[:0]
        if isinstance(value, np.ndarray)
        else value
        for name, value in arguments(op).items()
    }


@pytest.mark.parametrize("op", OPS)
def test_an_empty_batch_is_refused(python_ops: ModuleType, op: str) -> None:
    with pytest.raises(ValueError, match=r"^\S+: expected N of at least 1, got shape \(0, "):
        call(python_ops, op, batchless(op))


@pytest.mark.parametrize("letter", ["H", "W", "C"])
def test_an_empty_level_is_refused(python_ops: ModuleType, letter: str) -> None:
    shape = [0 if letter == axis else 2 for axis in "NCHW"]
    values = arguments("pyramid_roi_align") | {"features": [floats(*shape)] * 2}
    with pytest.raises(ValueError, match=rf"^features\[0\]: expected {letter} of at least 1, got shape \(2, "):
        call(python_ops, "pyramid_roi_align", values)


def test_no_thing_class_is_refused(python_ops: ModuleType) -> None:
    values = arguments("box_detections") | {"class_logits": floats(2, 7, 1), "box_deltas": floats(2, 7, 0)}
    with pytest.raises(ValueError, match=r"^class_logits: expected C of at least 1, got shape \(2, 7, 1\)$"):
        call(python_ops, "box_detections", values)


def as_numpy_scalar(value: Any) -> Any:
    """Ints and floats, also those in lists and tuples, as NumPy's own; lists as another sequence type."""
    if isinstance(value, (list, tuple)):
        return UserList(as_numpy_scalar(item) for item in value)
    return {int: np.int64, float: np.float64}.get(type(value), lambda same: same)(value)


@pytest.mark.parametrize("op", OPS)
def test_numpy_numbers_and_any_sequence_are_as_good(python_ops: ModuleType, op: str) -> None:
    got = call(python_ops, op, {name: as_numpy_scalar(value) for name, value in arguments(op).items()})
    wanted = call(python_ops, op, arguments(op))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("op", OPS)
def test_integers_may_stand_for_numbers(python_ops: ModuleType, op: str) -> None:
    values = {name: 1 if isinstance(value, float) else value for name, value in arguments(op).items()}
    call(python_ops, op, values)


@pytest.mark.parametrize("op", OPS)
def test_results_are_new_arrays(python_ops: ModuleType, op: str) -> None:
    first, second = call(python_ops, op, arguments(op)), call(python_ops, op, arguments(op))
    for a, b in zip(first, second, strict=True):
        assert a.flags.writeable
        assert not np.shares_memory(a, b)
