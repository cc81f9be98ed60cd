"""Calls of `panrt.plugins._native` with whatever a caller may pass: each ends with a result, ValueError or TypeError.

A call begins as a right one, drawn from a seed; then some of its arguments are spoilt. Run alone, for as long as you
like, and against a module that was built with sanitizers (`make fuzz-native` does both):

    python tests/support/fuzz_native.py --seconds 600 [--seed 1] [--module build/.../_native.so]

The call that is on its way is kept in the file of --last, so that a crash can be repeated: --seed S --only N.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Numbers on which arithmetic, conversions to integers and comparisons go different ways.
ODD = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-45, 2.0**31, -(2.0**31), 2.0**32, 65536.0, 65537.0, -1.0, 0.5],
    np.float32,
)
ODD_INTS = np.array([0, 1, 2, 5, -1, 2**31 - 1, -(2**31), 100, 10**6], np.int32)
SCALARS: list[Any] = [
    0, 1, -1, 3, 16, 257, 1024, 1025, 2**20, 2**31 - 1, 2**31, -(2**31), 2**63, -(2**70),
    0.0, -0.0, 0.5, 1.0, 1e-45, 1e-320, 3.5e38, float("nan"), float("inf"), float("-inf"), None, "1", b"", [], True,
]  # fmt: skip


class Call(NamedTuple):
    """A right call."""

    name: str
    arrays: dict[str, Any]  # or lists of arrays, in the order of the signature
    options: dict[str, Any]


class Draw:
    """What a call is made of, the same for a seed everywhere."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.numbers = np.random.default_rng(seed)

    def one(self, *values: Any) -> Any:
        return self.choice.choice(values)

    def floats(self, *shape: int) -> NDArray[np.float32]:
        kind = self.choice.randrange(4)
        if kind == 0:
            return self.numbers.choice(ODD, shape)
        values = self.numbers.standard_normal(shape).astype(np.float32)
        if kind == 1:
            values[self.numbers.random(shape) < 0.1] = self.choice.choice(list(ODD))
        return values

    def ints(self, *shape: int) -> NDArray[np.int32]:
        return self.numbers.choice(ODD_INTS, shape)

    def bytes(self, *shape: int) -> NDArray[np.uint8]:
        return self.numbers.integers(0, 256, shape, np.uint8)

    def boxes(self, *shape: int) -> NDArray[np.float32]:
        if self.choice.random() < 0.3:
            return self.floats(*shape, 4)
        corners = self.numbers.uniform(-20, 200, (*shape, 2))
        return np.concatenate([corners, corners + self.numbers.uniform(0, 100, (*shape, 2))], -1).astype(np.float32)


def rpn_proposals(draw: Draw) -> Call:
    n, a, k = draw.one(1, 2), draw.one(1, 3), draw.one(1, 10, 300)
    sizes = [(draw.one(1, 7, 16), draw.one(1, 9)) for _ in range(draw.one(1, 3))]
    return Call(
        "rpn_proposals",
        {
            "logits": [draw.floats(n, a, *hw) for hw in sizes],
            "deltas": [draw.floats(n, 4 * a, *hw) for hw in sizes],
            "rois": np.empty((n, k, 4), np.float32),
            "roi_count": np.empty(n, np.int32),
        },
        {
            "strides": [4.0 * 2**i for i in range(len(sizes))],
            "anchor_sizes": [draw.one(1.0, 32.0, 3e38)] * len(sizes),
            "aspect_ratios": [draw.one(0.5, 1.0, 3e38)] * a,
            "pre_nms_top_k": draw.one(1, 20, 2**31 - 1),
            "nms_threshold": draw.one(0.0, 0.5, 1.0),
            "input_height": draw.one(1, 64, 32768),
            "input_width": draw.one(1, 64, 32768),
        },
    )


def pyramid_roi_align(draw: Draw) -> Call:
    n, c, r, s = draw.one(1, 2), draw.one(1, 5, 16), draw.one(0, 1, 20), draw.one(1, 2, 7)
    dtype, nhwc = draw.one(np.float32, np.float16), draw.one(True, False)
    sizes = [(draw.one(1, 2, 13), draw.one(1, 20)) for _ in range(draw.one(1, 3))]
    with np.errstate(over="ignore"):
        features = [draw.floats(*((n, *hw, c) if nhwc else (n, c, *hw))).astype(dtype) for hw in sizes]
    return Call(
        "pyramid_roi_align",
        {
            "features": features,
            "rois": draw.boxes(n, r),
            "pooled": np.empty((n * r, s, s, c) if nhwc else (n * r, c, s, s), dtype),
        },
        {
            "strides": [4.0 * 2**i for i in range(len(sizes))],
            "output_size": s,
            "sampling_ratio": draw.one(0, 1, 2, 1024),
            "canonical_size": draw.one(224.0, 1e-38, 3e38),
            "canonical_level": draw.one(0, 4, 64),
            "min_level": draw.one(0, 2, 64),
            "nhwc": nhwc,
        },
    )


def box_detections(draw: Draw) -> Call:
    n, r, c, k = draw.one(1, 2), draw.one(0, 1, 30), draw.one(1, 4), draw.one(1, 10, 100)
    return Call(
        "box_detections",
        {
            "class_logits": draw.floats(n, r, c + 1),
            "box_deltas": draw.floats(n, r, 4 * c),
            "rois": draw.boxes(n, r),
            "roi_count": draw.one(draw.ints(n), np.full(n, r, np.int32)),
            "boxes": np.empty((n, k, 4), np.float32),
            "scores": np.empty((n, k), np.float32),
            "classes": np.empty((n, k), np.int32),
            "count": np.empty(n, np.int32),
        },
        {
            "box_weights": [draw.one(10.0, 1e-38, 3e38)] * 4,
            "score_threshold": draw.one(-3e38, 0.0, 0.05),
            "nms_threshold": draw.one(0.0, 0.5, 1.0),
            "input_height": draw.one(1, 64, 32768),
            "input_width": draw.one(1, 64, 32768),
        },
    )


def panoptic_merge(draw: Draw) -> Call:
    n, k, s = draw.one(1, 2), draw.one(0, 1, 12), draw.one(1, 2, 6)
    (h, w), (gh, gw) = draw.one((1, 1), (8, 8), (9, 5)), draw.one((1, 1), (2, 3), (14, 14))
    return Call(
        "panoptic_merge",
        {
            "semantic_logits": draw.floats(n, s, h, w),
            "boxes": draw.boxes(n, k),
            "scores": draw.floats(n, k),
            "classes": draw.ints(n, k),
            "count": draw.one(draw.ints(n), np.full(n, k, np.int32)),
            "mask_probs": draw.floats(n, k, gh, gw),
            "panoptic": np.empty((n, *draw.one((1, 1), (4 * h, 4 * w), (7, 90))), np.int32),
            "segments": np.empty((n, k + s, 8), np.int32),
            "segment_scores": np.empty((n, k + s), np.float32),
            "segment_count": np.empty(n, np.int32),
        },
        {
            "input_height": draw.one(1, 4 * h, 4 * h - 3),
            "input_width": draw.one(1, 4 * w, 4 * w - 3),
            "score_threshold": draw.one(-3e38, 0.0, 0.5),
            "overlap_threshold": draw.one(0.0, 0.5, 1.0),
            "stuff_area_limit": draw.one(0, 1, 2**31 - 1),
            "mask_threshold": draw.one(1e-45, 0.5, 1.0),
        },
    )


def overlay(draw: Draw) -> Call:
    hw = draw.one((1, 1), (10, 17), (3, 200))
    return Call(
        "overlay",
        {
            "frame": draw.bytes(*hw, 3),
            "panoptic": draw.ints(*draw.one((1, 1), (10, 17), (200, 3))),
            "colors": draw.bytes(draw.one(0, 1, 5), 3),
            "result": np.empty((*hw, 3), np.uint8),
        },
        {"opacity": draw.one(0, 128, 256), "border": draw.one(0, 1, 64, 2**31 - 1)},
    )


def conv3x3(draw: Draw) -> Call:
    n, c, o = draw.one(0, 1, 2), draw.one(16, 32), draw.one(16, 32)
    hw = draw.one((1, 1), (4, 4), (5, 9), (0, 3))
    return Call(
        "conv3x3",
        {
            "input": draw.floats(n, *hw, c),
            "weights": draw.floats(36, o // 16, c, 16),
            "bias": draw.floats(o),
            "output": np.empty((n, *hw, o), np.float32),
            "workspace": np.zeros((1, 1), np.float32),  # set below, where the number of threads is known
        },
        {"lower": draw.one(-np.inf, 0.0), "upper": draw.one(np.inf, 6.0), "variant": draw.one(0, 0, 1, 2)},
    )


def look_up(draw: Draw) -> Call:
    n, hw = draw.one(0, 1, 2), draw.one((1, 1), (5, 9), (33, 2), (0, 3))
    return Call(
        "look_up",
        {
            "image": draw.bytes(n, *hw, 3),
            "table": draw.floats(3, 256),
            "output": np.empty((n, 3, *hw), np.float32),
        },
        {},
    )


CALLS = (rpn_proposals, pyramid_roi_align, box_detections, panoptic_merge, overlay, conv3x3, look_up)


def misaligned(array: NDArray[Any]) -> NDArray[Any]:
    """The same at an odd address."""
    data = np.frombuffer(bytearray(array.nbytes + 64), np.uint8)
    start = 1 - data.ctypes.data % 2
    moved = data[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    copy: NDArray[Any] = array.copy()
    copy.flags.writeable = False
    return copy


def other_shape(array: NDArray[Any], draw: Draw) -> NDArray[Any]:
    shape = list(array.shape)
    if shape:
        shape[draw.choice.randrange(len(shape))] = draw.one(0, 1, 2, 3, 40)
    return np.zeros(shape, array.dtype) if np.prod(shape, dtype=float) < 1e7 else array


def without_memory(array: NDArray[Any], draw: Draw) -> NDArray[Any]:
    """A side that no int holds, which an empty array may have."""
    shape = list(array.shape)
    if len(shape) < 2:
        return array[:0]
    first, second = draw.choice.sample(range(len(shape)), 2)
    shape[first], shape[second] = 0, draw.one(2**31, 2**40, 2**31 - 1)
    for other in range(len(shape)):
        if other not in (first, second):
            shape[other] = 1
    return np.empty(shape, array.dtype)


def spoilt(value: Any, draw: Draw, others: list[NDArray[Any]]) -> Any:
    """An array that is wrong in one way, or no array."""
    if isinstance(value, list):
        if draw.choice.random() < 0.3:
            return draw.one(value[:-1], value + value[-1:], [], None, tuple(value), value[0])
        copy = list(value)
        index = draw.choice.randrange(len(copy))
        copy[index] = spoilt(copy[index], draw, others)
        return copy
    array: NDArray[Any] = value
    ways: list[Callable[[], Any]] = [
        lambda: array.astype(draw.one(np.float64, np.float16, np.int64, np.uint8, np.bool_, np.complex64)),
        lambda: array.astype(array.dtype.newbyteorder()),
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: array[..., ::-1],
        lambda: np.asfortranarray(array),
        lambda: np.broadcast_to(array.reshape(-1)[:1], array.shape) if array.size else array,
        lambda: read_only(array),
        lambda: misaligned(array),
        lambda: np.ma.masked_array(array),
        lambda: array.view(np.recarray),
        lambda: other_shape(array, draw),
        lambda: without_memory(array, draw),
        lambda: array.astype(object),
        lambda: array.astype("S4"),
        lambda: array.data if array.size else None,
        lambda: draw.one(None, 0, "array", array.tolist()),
        lambda: draw.one(*others),
    ]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return draw.choice.choice(ways)()


def drawn(seed: int, number: int) -> tuple[str, list[Any], dict[str, Any]]:
    """The arguments of one call."""
    draw = Draw(seed * 1_000_003 + number)
    call = draw.choice.choice(CALLS)(draw)
    threads = draw.one(1, 1, 2, 3, 16)
    if call.name == "conv3x3":
        channels, filters = call.arrays["input"].shape[3], call.arrays["output"].shape[3]
        call.arrays["workspace"] = np.zeros((threads, 36 * 20 * (channels + filters)), np.float32)
    options = {**call.options, "threads": threads}
    flat = [a for value in call.arrays.values() for a in (value if isinstance(value, list) else [value])]
    for _ in range(draw.one(0, 1, 1, 1, 2, 3)):
        if draw.choice.random() < 0.65:
            name = draw.choice.choice(list(call.arrays))
            if call.arrays[name] is not None and not isinstance(call.arrays[name], (int, str)):
                # one may be spoilt already, in a way that does not go together with this one
                with contextlib.suppress(AttributeError, ValueError, TypeError, IndexError):
                    call.arrays[name] = spoilt(call.arrays[name], draw, flat)
        else:
            name = draw.choice.choice(list(options))
            value = draw.choice.choice(SCALARS)
            options[name] = [value] * len(options[name]) if isinstance(options[name], list) and value != [] else value
    return call.name, list(call.arrays.values()), options


class Tally(NamedTuple):
    """How calls ended."""

    ended: Counter[str]
    surprises: list[str]


def run(native: ModuleType, seed: int, numbers: range, *, last: Path | None = None, seconds: float = 1e9) -> Tally:
    """Make the calls of a seed."""
    ended: Counter[str] = Counter()
    surprises: list[str] = []
    until = time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > until:
            break
        name, arrays, options = drawn(seed, number)
        if last is not None:
            last.write_text(f"--seed {seed} --only {number}  # {name}\n")
        try:
            getattr(native, name)(*arrays, **options)
            ended[f"{name} ok"] += 1
        except (ValueError, TypeError) as error:
            ended[f"{name} {type(error).__name__}"] += 1
            if not str(error):
                surprises.append(f"--seed {seed} --only {number}: {name}: an error without a message")
        except BaseException as error:
            surprises.append(f"--seed {seed} --only {number}: {name}: {type(error).__name__}: {error}")
    return Tally(ended, surprises)


def several_callers(native: ModuleType, *, rounds: int) -> None:
    """The same calls from four threads at once give the same bytes, each into memory of its own."""

    def outputs(number: int) -> bytes:
        name, arrays, options = drawn(0, number)
        try:
            getattr(native, name)(*arrays, **options)
        except (ValueError, TypeError):
            return b""
        return b"".join(np.asarray(a).tobytes() for a in arrays if isinstance(a, np.ndarray) and a.dtype != np.uint8)

    names = [number for number in range(400) if drawn(0, number)[0] in ("look_up", "overlay", "panoptic_merge")][
        :rounds
    ]
    expected = [outputs(number) for number in names]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(number for number, bytes_ in zip(names, expected, strict=True) if outputs(number) != bytes_)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise AssertionError(f"calls differ when others run beside them: {wrong}")


def loaded(path: Path) -> ModuleType:
    """A module from a build folder, without the package around it."""
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=10**12)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", type=int, help="Make this call of the seed alone.")
    parser.add_argument("--module", type=Path, help="The _native of a build folder; default: the installed one.")
    parser.add_argument("--last", type=Path, help="Where to keep the call that is on its way.")
    options = parser.parse_args()
    if options.module is None:
        from panrt.plugins import _native as native  # noqa: PLC0415  (one that a sanitizer watches does without PanRT)
    else:
        native = loaded(options.module)
    numbers = range(options.calls) if options.only is None else range(options.only, options.only + 1)
    tally = run(native, options.seed, numbers, last=options.last, seconds=options.seconds)
    several_callers(native, rounds=20)
    for how, count in sorted(tally.ended.items()):
        print(f"  {how:<34} {count}")
    print(*tally.surprises, sep="\n")
    return bool(tally.surprises)


if __name__ == "__main__":
    sys.exit(main())
