"""The results of the ops, and the checks of arguments that every Python form shares.

Shapes: N images, L pyramid levels, A anchors per cell, R RoIs, C thing classes, K detections, S semantic channels (0 is
"things"), Gh x Gw mask cells. Boxes are (x0, y0, x1, y1) in pixels of the network input, continuous, no +1. `schema`
declares the ops, OPS.md says what they compute.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import legends, schema
from .schema import LETTERS, MAX_LEVELS, OPS, Attribute, Op, Sizes, Tensor

Float32: TypeAlias = NDArray[np.float32]
Floating: TypeAlias = NDArray[np.float32] | NDArray[np.float16]
Int32: TypeAlias = NDArray[np.int32]
Layout: TypeAlias = Literal["NCHW", "NHWC"]
Array: TypeAlias = NDArray[Any]

_DTYPES: dict[schema.Type, tuple[type[np.generic], ...]] = {
    "float32": (np.float32,),
    "int32": (np.int32,),
    "floating": (np.float32,),  # float16 is for engines
    "features": (np.float32, np.float16),
}


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


def check(op: Op, tensors: Sequence[Any], attributes: Mapping[str, Any], *, layout: Layout = "NCHW") -> Sizes:
    """Check the arguments of an op against its declaration and return its sizes.

    Only the shapes and types of tensors are checked, but for those that hold settings: their numbers too.

    Args:
        op: its declaration.
        tensors: one entry per input; a list with an array per level if the input is one per level.
        attributes: all of the op's, by name.
        layout: of features.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.
    """
    sizes = check_shapes(op, tensors, attributes, layout=layout)
    if op.version > 1:
        _settings(op, dict(zip((tensor.name for tensor in op.inputs), tensors, strict=True)))
    return sizes


def check_shapes(op: Op, tensors: Sequence[Any], attributes: Mapping[str, Any], *, layout: Layout = "NCHW") -> Sizes:
    """Do as `check`, with tensors whose numbers mean nothing."""
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout: expected 'NCHW' or 'NHWC', got {layout!r}")
    letters: dict[str, int] = {}
    if op.has_levels:
        letters["L"] = _levels(op, tensors, attributes)
    for attribute in op.attributes:
        _attribute(attribute, attributes[attribute.name], letters)
    sizes = Sizes(letters, _tensors(op, tensors, letters, layout))
    for attribute in op.attributes:
        if attribute.within is not None:
            _within(attribute.name, attribute.within, attributes[attribute.name], letters)
    for limit in op.limits(sizes, attributes):
        _at_most(*limit)
    return sizes


def settings(op: Op, sizes: Mapping[str, int], attributes: Mapping[str, Any]) -> list[Array]:
    """Return the inputs that version 2 of an op has, with the numbers that version 1 has as attributes.

    Args:
        op: its declaration.
        sizes: of the letters in their legends.
        attributes: at least those that become inputs. The first of each input may be a list, with a number per entry.
    """
    arrays = []
    for tensor, (first, *others) in op.settings:
        array = np.empty(legends.shape(tensor.legend, sizes), _DTYPES[tensor.type][0])
        array[: len(array) - len(others)] = attributes[first]
        for i, name in enumerate(others, start=len(array) - len(others)):
            array[i] = attributes[name]
        arrays.append(array)
    return arrays


def sizes_of(op: Op, tensors: Sequence[Any], attributes: Mapping[str, Any], *, layout: Layout = "NCHW") -> Sizes:
    """Return the sizes of a call that is not checked; arguments as `check`.

    Tensors are anything that has a shape, and sizes may be symbols. H and W among the letters are the first level's.
    """
    letters: dict[str, Any] = {}
    for attribute in op.attributes:
        value = attributes[attribute.name]
        letters.update(zip(attribute.sizes, value if attribute.length else [value], strict=False))
        if isinstance(attribute.length, str) and attribute.length:
            letters[attribute.length] = len(value)
    levels: list[dict[str, Any]] = []
    for tensor, entry in zip(op.inputs, tensors, strict=True):
        legend = _legend(tensor, layout)
        legends.learn(legend, (entry[0] if tensor.per_level else entry).shape, letters)
        if tensor.per_level and not levels:
            levels = [{} for _ in entry]
            for level, own in zip(entry, levels, strict=True):
                legends.learn(legend, level.shape, own)
    return Sizes(letters, tuple((level["H"], level["W"]) for level in levels))


def outputs(
    op: Op,
    sizes: Sizes,
    features: DTypeLike = np.float32,
    *,
    layout: Layout = "NCHW",
    make: Callable[..., Array] = np.empty,
) -> list[Array]:
    """Return arrays for the outputs of a checked call.

    Args:
        op: its declaration.
        sizes: from `check` or `sizes_of`.
        features: the type of its features, if it has any.
        layout: of features.
        make: np.empty or np.zeros.
    """
    return [
        make(
            legends.shape(_legend(tensor, layout), sizes.letters),
            features if tensor.type == "features" else _DTYPES[tensor.type][0],
        )
        for tensor in op.outputs
    ]


def check_overlay(
    frame: NDArray[np.uint8], panoptic: Int32, colors: NDArray[np.uint8], *, opacity: float, border: int
) -> None:
    """Raise unless the arguments of `overlay` fit."""
    sizes: dict[str, int] = {}
    _array("frame", frame, "H W 3", sizes, (np.uint8,))
    _array("panoptic", panoptic, "h w", sizes, (np.int32,))
    _array("colors", colors, "n 3", sizes, (np.uint8,))
    for name, array, letters in (("frame", frame, "HW"), ("panoptic", panoptic, "hw")):
        for letter in letters:
            _at_least(name, letter, sizes[letter], 1, array)
    _number("opacity", opacity, at_least=0.0, at_most=1.0)
    _integer("border", border, 0)


def check_threads(threads: int | None) -> int:
    """Return a checked thread count; None means every core this process may use. Raises ValueError or TypeError."""
    return _cores() if threads is None else _integer("threads", threads, 1, 1024)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settings(op: Op, tensors: Mapping[str, Array]) -> None:
    """Check the numbers in inputs against the ranges of the attributes that version 1 has in their place."""
    ranges = OPS[op.name]
    for tensor, (first, *others) in op.settings:
        array = tensors[tensor.name]
        split = len(array) - len(others)
        _entries(tensor.name, ranges.attribute(first), 0, array[:split])
        for i, name in enumerate(others, start=split):
            _entries(tensor.name, ranges.attribute(name), i, array[i : i + 1])


def _entries(name: str, attribute: Attribute, start: int, array: Array) -> None:
    """Check numbers of an input; those of an attribute without bounds may be infinite."""
    least = -math.inf if attribute.least is None else attribute.least
    fits = array >= least if attribute.above is None else array > attribute.above  # false for NaN
    if attribute.most is not None:
        fits &= array <= attribute.most
    if not fits.all():
        index = int(fits.argmin())
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("above", attribute.above), ("at least", attribute.least), ("at most", attribute.most))
            if bound is not None
        ] or ["not NaN"]
        raise ValueError(
            f"{name}[{start + index}]: expected a {attribute.name} {' and '.join(bounds)}, got {array[index]!r}"
        )


def _levels(op: Op, tensors: Sequence[Any], attributes: Mapping[str, Any]) -> int:
    """Return the number of levels, the same in every argument that has one entry per level."""
    given = [(tensor.name, value) for tensor, value in zip(op.inputs, tensors, strict=True) if tensor.per_level]
    (name, values), *others = given
    L = _length(name, values)
    if L == 0:
        raise ValueError(f"{name}: expected one array per pyramid level, got none")
    _at_most(name, L, MAX_LEVELS, "levels")
    others += [(attribute.name, attributes[attribute.name]) for attribute in op.attributes if attribute.length == "L"]
    for other, items in others:
        if _length(other, items) != L:
            raise ValueError(f"{other}: expected {L} entries, one per level, like {name}, got {len(items)}")
    return L


def _tensors(op: Op, tensors: Sequence[Any], letters: dict[str, int], layout: Layout) -> tuple[tuple[int, int], ...]:
    """Check every array, add the sizes that they show to `letters`, and return H, W of each level."""
    features: list[Array] = []

    def check_one(name: str, tensor: Tensor, array: Any) -> None:
        for letter, size in _array(name, array, _legend(tensor, layout), letters, _DTYPES[tensor.type]).items():
            least, most, unit = LETTERS[letter]
            _at_least(name, letter, size, least, array)
            if most is not None:
                _at_most(name, size, most, unit)
        if tensor.type == "features":
            features.append(array)
            if array.dtype != features[0].dtype:
                raise TypeError(
                    f"{name}: expected {features[0].dtype} like {op.inputs[0].name}[0], got {array.dtype}; "
                    "give all levels in one type"
                )

    levels = []
    for i in range(letters.get("L", 0)):
        letters.pop("H", None), letters.pop("W", None)
        for tensor, arrays in zip(op.inputs, tensors, strict=True):
            if tensor.per_level:
                check_one(f"{tensor.name}[{i}]", tensor, arrays[i])
        levels.append((letters["H"], letters["W"]))
    for tensor, array in zip(op.inputs, tensors, strict=True):
        if not tensor.per_level:
            check_one(tensor.name, tensor, array)
    return tuple(levels)


def _at_least(name: str, letter: str, size: int, least: int, array: Array) -> None:
    if size < least:
        raise ValueError(f"{name}: expected {letter} of at least {least}, got shape {array.shape}")


@lru_cache(maxsize=64)
def _legend(tensor: Tensor, layout: Layout) -> str:
    """Return the legend of a tensor, with channels last if it has features of that layout."""
    if tensor.type != "features" or layout == "NCHW":
        return tensor.legend
    images, channels, *cells = tensor.legend.split()
    return " ".join([images, *cells, channels])


def _attribute(attribute: Attribute, value: Any, letters: dict[str, int]) -> None:
    """Check a number, or each of a list, and add the sizes that it fixes to `letters`."""
    name, length = attribute.name, attribute.length
    if not length:
        found = [_checked_number(name, attribute, value)]
    elif isinstance(length, str):
        size = _length(name, value)
        if size < LETTERS[length].least:
            raise ValueError(f"{name}: expected at least {LETTERS[length].least} number, got none")
        _at_most(name, size, LETTERS[length].most or size, LETTERS[length].unit)
        letters[length] = size
        found = [_checked_number(f"{name}[{i}]", attribute, entry) for i, entry in enumerate(value)]
    else:
        if _length(name, value) != len(length):
            raise ValueError(f"{name}: expected ({', '.join(length)}), got {tuple(value)}")
        found = [_checked_number(f"{name} {part}", attribute, entry) for part, entry in zip(length, value, strict=True)]
    if attribute.sizes:
        letters.update(zip(attribute.sizes, found, strict=True))


def _checked_number(name: str, attribute: Attribute, value: Any) -> int:
    """Check one number, and return it if it is an integer."""
    least, most = attribute.least, attribute.most
    if attribute.type == "int":
        return _integer(name, value, int(least or 0), 2**31 - 1 if most is None else int(most))
    _number(name, value, at_least=least, above=attribute.above, at_most=most)
    return 0


def _within(name: str, bound: schema.Within, value: Sequence[int], letters: Mapping[str, int]) -> None:
    found = [letters[letter] for letter in bound.letters]
    most = tuple(bound.factor * size for size in found)
    if any(size > limit for size, limit in zip(value, most, strict=True)):
        raise ValueError(
            f"{name}: expected at most {most}, {bound.text} {' x '.join(map(str, found))}, got {tuple(value)}; "
            f"{bound.cure}"
        )


def _array(
    name: str,
    value: object,
    legend: str,
    sizes: dict[str, int],
    dtypes: tuple[type[np.generic], ...] = (np.float32,),
) -> dict[str, int]:
    """Check an array against a legend such as "N R C+1"; add the letters that it is first to have to `sizes`."""
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
    new: dict[str, int] = {}
    for size, (factor, letter, offset) in zip(value.shape, dimensions, strict=False):
        if letter == "":
            fits &= size == factor
        elif (known := sizes.get(letter, new.get(letter))) is not None:
            fits &= size == factor * known + offset
        else:
            fits &= size >= offset and (size - offset) % factor == 0
            new[letter] = (size - offset) // factor
    if not fits:
        raise ValueError(f"{name}: expected {_shape(dimensions, sizes)} {wanted}, got {value.shape} {value.dtype}")
    if not value.flags.c_contiguous:
        raise ValueError(
            f"{name}: expected a C-contiguous array, got strides {value.strides} for shape {value.shape}; "
            "use np.ascontiguousarray"
        )
    if not value.flags.aligned:
        raise ValueError(f"{name}: expected an aligned array, got a misaligned {value.dtype} one; use .copy()")
    sizes.update(new)
    return new


@lru_cache(maxsize=64)
def _dimensions(legend: str) -> tuple[tuple[int, str, int], ...]:
    """Return factor, letter and offset of each axis: of "4A C+1 4", (4, "A", 0), (1, "C", 1), (4, "", 0)."""
    parsed = []
    for word in legends.words(legend):
        offset = sum(term.factor for term in word[1:])  # inputs have at most one letter per axis, and it comes first
        parsed.append((word[0].factor, "".join(word[0].letters), offset))
    return tuple(parsed)


def _shape(dimensions: tuple[tuple[int, str, int], ...], sizes: dict[str, int]) -> str:
    """Return the expected shape for a message: known sizes as numbers, free ones as letters."""
    words = []
    for factor, letter, offset in dimensions:
        if letter in sizes or letter == "":
            words.append(str(factor * sizes.get(letter, 1) + offset))
        else:
            words.append((str(factor) if factor > 1 else "") + letter + (f" + {offset}" if offset else ""))
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"


def _at_most(name: str, found: int, most: int, unit: str) -> None:
    if found > most:
        raise ValueError(f"{name}: expected at most {most} {unit}, got {found}")


def _length(name: str, values: Sequence[object]) -> int:
    if isinstance(values, (str, bytes, np.ndarray)) or not isinstance(values, Sequence):
        raise TypeError(f"{name}: expected a list or tuple, got {type(values).__name__}")
    return len(values)


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
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {value!r} ({type(value).__name__})")
    rounded = _rounded(float(min(max(value, -1e39), 1e39)))  # the ops compute with it; it may be 0 or infinite
    if not (
        math.isfinite(rounded)
        and (at_least is None or rounded >= at_least)
        and (above is None or rounded > above)
        and (at_most is None or rounded <= at_most)
    ):
        bounds = [] if above is None else [f"above {above:g}"]
        bounds += [] if at_least is None else [f"at least {at_least:g}"]
        bounds += [] if at_most is None else [f"at most {at_most:g}"]
        raise ValueError(f"{name}: expected a finite float32 {' and '.join(bounds)}".rstrip() + f", got {value!r}")


# The same few for every frame, and numpy takes its time over both.


@lru_cache(maxsize=64)
def _rounded(value: float) -> float:
    """Round to float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


@lru_cache(maxsize=64)
def _names(dtypes: tuple[type[np.generic], ...]) -> str:
    return " or ".join(np.dtype(dtype).name for dtype in dtypes)
