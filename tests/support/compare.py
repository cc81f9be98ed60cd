"""Comparisons of op results that say where the first difference is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins import reference
from panrt.plugins.contract import Detections, PanopticSegments, Proposals
from support.cases import RoiAlignCase


def assert_identical(
    got: Proposals | Detections | PanopticSegments, wanted: Proposals | Detections | PanopticSegments
) -> None:
    """Every array of a result has the wanted type, shape and values (-0 equals 0), NaN nowhere."""
    for name, a, b in zip(wanted._fields, got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{name}: {a.dtype}{a.shape}, wanted {b.dtype}{b.shape}"
        assert_no_difference(name, a, b, a != b)


def assert_pooled(
    got: NDArray[Any],
    wanted: NDArray[Any],
    features: Sequence[NDArray[Any]],
    free: NDArray[np.bool_] | None = None,
    *,
    tolerance: float | None = None,
) -> None:
    """Pooled features agree to 1e-5 (float16: 2e-3) of the largest finite one, and are not finite in the same places.

    Args:
        got, wanted: (N*R, C, S, S) or (N*R, S, S, C).
        features: what was pooled.
        free: elements, in the shape of the result, that are not compared.
        tolerance: another share of the largest feature.
    """
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), (
        f"pooled: {got.dtype}{got.shape}, wanted {wanted.dtype}{wanted.shape}"
    )
    half = wanted.dtype == np.float16
    largest = max(float(np.abs(f[np.isfinite(f)], dtype=np.float64).max(initial=0.0)) for f in features)
    # Where all features are subnormal, rounding to one is more than any share of them.
    allowed = (tolerance or (2e-3 if half else 1e-5)) * largest + float(np.finfo(wanted.dtype).smallest_normal)
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wrong = np.where(np.isfinite(b), ~(np.abs(a - b) <= allowed), np.isfinite(a))
    assert_no_difference(f"pooled (allowed {allowed:.3g})", got, wanted, wrong if free is None else wrong & ~free)


def assert_no_difference(name: str, got: NDArray[Any], wanted: NDArray[Any], wrong: NDArray[np.bool_]) -> None:
    """No element is wrong; the message has the first that is, and how many are."""
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{name}{list(first)}: {got[first]!r}, wanted {wanted[first]!r}; "
            f"{np.count_nonzero(wrong)} of {wrong.size} elements differ"
        )


def reached(case: RoiAlignCase, cells: int) -> NDArray[np.bool_]:
    """Bins, (N*R, C, S, S), with a sample of weight in a cell that is not finite or so many cells from one."""
    (features, rois), options = case.arguments()
    masks: list[NDArray[np.float32]] = []
    for feature in features:
        mask = np.pad(~np.isfinite(feature), [(0, 0), (0, 0), (cells, cells), (cells, cells)])
        size = 2 * cells + 1
        mask = np.lib.stride_tricks.sliding_window_view(mask, (size, size), axis=(2, 3))
        masks.append(np.asarray(mask.any(axis=(4, 5)), np.float32))
    found: NDArray[np.bool_] = reference.pyramid_roi_align(masks, rois, **options) > 0
    return found
