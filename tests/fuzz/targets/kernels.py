"""The CPU kernels: through the contract with the cases of the tests, and the bindings under it with anything at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz import mutate
from fuzz.target import Files, Target, require
from panrt.plugins import _native, native
from support.cases import Case, detection_cases, merge_cases, roi_align_cases, rpn_cases

CASES = 10  # that an input stands for
OPS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "rpn": (rpn_cases, native.rpn_proposals),
    "roi": (roi_align_cases, native.pyramid_roi_align),
    "detections": (detection_cases, native.box_detections),
    "merge": (merge_cases, native.panoptic_merge),
}
_settings = settings(
    max_examples=CASES,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _cases(op: str, number: int) -> list[Case]:
    """Some cases of an op, the same for the same number."""
    drawn: list[Case] = []

    @seed(number)
    @_settings
    @given(OPS[op][0])
    def draw(case: Case) -> None:
        drawn.append(case)

    draw()
    return drawn


def kernel_files() -> tuple[Files, ...]:
    return tuple({op: b"0"} for op in OPS)


def mutate_kernels(rng: Random, files: Files) -> Files:
    return {op: str(rng.getrandbits(60)).encode() for op in files}


def check_kernels(folder: Path) -> None:
    """Each op takes each case, and gives the same on one thread and on three."""
    for op, (_, call) in OPS.items():
        path = folder / op
        if path.exists():
            for case in _cases(op, int(path.read_bytes())):
                first, second = (_arrays(case.run(call, threads=threads)) for threads in (1, 3))
                same = all(
                    np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, second, strict=True)
                )
                require(same, f"{op}: results do not depend on the number of threads: {case}")


def _arrays(result: Any) -> Sequence[np.ndarray[Any, Any]]:
    return (result,) if isinstance(result, np.ndarray) else result


# Bindings -------------------------------------------------------------------------------------------------------------


@lru_cache
def _calls() -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments that each binding takes, caught on their way from the contract; those of others are made."""
    caught: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def spy(name: str) -> Callable[..., None]:
        original = getattr(_native, name)

        def call(*inputs: Any, **options: Any) -> None:
            if any(np.size(array) for array in inputs[0]) or name not in caught:
                caught[name] = inputs, options
            original(*inputs, **options)

        return call

    class Spies:
        def __getattr__(self, name: str) -> Any:
            return spy(name) if name in BINDINGS else getattr(_native, name)

    with mock.patch.object(native, "_native", Spies()):
        for op, (_, run) in OPS.items():
            for case in _cases(op, 1):
                case.run(run, threads=1)
        x, table = np.zeros((1, 8, 8, 16), np.float32), np.zeros((3, 256), np.float32)
        native.Conv3x3(np.ones((16, 16, 3, 3), np.float32), np.zeros(16, np.float32), threads=1)(x, x.copy())
        image, ids = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.int32)
        native.look_up(image[None], table, out=np.zeros((1, 3, 4, 6), np.float32), threads=1)
        native.overlay(image, ids, np.zeros((3, 3), np.uint8), opacity=0.5, border=1, threads=1)
    return caught


BINDINGS = ("rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge", "conv3x3", "look_up", "overlay")


def binding_files() -> tuple[Files, ...]:
    _calls()
    return tuple({name: b"0"} for name in BINDINGS)


def check_bindings(folder: Path) -> None:
    """A binding refuses what it cannot take by an exception; nothing else is promised of it."""
    for name in BINDINGS:
        path = folder / name
        if path.exists():
            rng = Random(path.read_text())
            inputs, options = _calls()[name]
            inputs = tuple(
                [_copy(item) for item in array] if isinstance(array, (list, tuple)) else _copy(array)
                for array in inputs
            )
            options = dict(options)
            for _ in range(rng.choice((1, 1, 2, 3))):
                inputs, options = _spoil(rng, inputs, options)
            getattr(_native, name)(*inputs, **options)


def _copy(array: Any) -> Any:
    return np.array(array)


def _spoil(rng: Random, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if rng.random() < 0.4:
        name = rng.choice(list(options))
        return inputs, {**options, name: _other_option(rng, options[name])}
    new: list[Any] = list(inputs)
    at = rng.randrange(len(new))
    if isinstance(new[at], list):
        new[at] = (
            mutate.pieces(rng, new[at], lambda array: _other_array(rng, array))
            if new[at]
            else [np.zeros(0, np.float32)]
        )
    else:
        new[at] = _other_array(rng, new[at])
    return tuple(new), options


def _other_option(rng: Random, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return mutate.pieces(rng, list(value), lambda item: _other_option(rng, item))
    small: object = rng.choice((0, -1, 1, 2, 3, 7, 64, 257, 2**31 - 1, -(2**31), 2**31, 2**63, None, "1", [], True))
    if isinstance(value, float):
        return rng.choice((small, *mutate.FLOATS))
    return small


def _other_array(rng: Random, array: Any) -> Any:
    """Of another shape, type, layout or content, or no array at all."""
    if not isinstance(array, np.ndarray):
        return np.zeros((1, 4), np.float32)
    match rng.randrange(9):
        case 0:
            shape = mutate.pieces(rng, list(array.shape), lambda side: rng.choice((0, 1, side + 1, side * 2, 5)))
            return np.zeros([min(side, 300) for side in shape][:6], array.dtype)
        case 1:
            return array.astype(
                rng.choice((np.float64, np.float16, np.int64, np.uint8, np.bool_, np.complex64, object))
            )
        case 2:
            return array[::-1] if array.ndim else array
        case 3:
            return array.T
        case 4:
            wide = np.zeros(array.nbytes + 1, np.uint8)  # begins at an odd address
            return wide[1:].view(array.dtype).reshape(array.shape) if array.size else array
        case 5:
            array = array.copy()
            array.flags.writeable = False
            return array
        case 6:
            return rng.choice((None, 0, [], "array", np.float32(1), array.tolist()))
        case 7:
            return np.broadcast_to(array[:1], array.shape) if array.ndim else array
        case _:
            array = array.copy()
            if array.size:
                values = mutate.FLOATS if array.dtype.kind == "f" else (0, -1, 2**31 - 1, -(2**31), 5, 255)
                for _ in range(rng.randrange(1, 9)):
                    value = rng.choice(values)
                    with np.errstate(over="ignore"):
                        array.reshape(-1)[rng.randrange(array.size)] = (
                            value if array.dtype != np.uint8 else int(value) & 255
                        )
            return array


_FILES = frozenset({"open", "os.mkdir", "os.rename"})  # Hypothesis keeps notes

TARGETS = (
    Target(name="kernels", seeds=kernel_files, mutate=mutate_kernels, check=check_kernels, short=12, allowed=_FILES),
    Target(
        name="bindings",
        seeds=binding_files,
        mutate=mutate_kernels,
        check=check_bindings,
        short=600,
        lines=100,
        refusals=(TypeError, ValueError, OverflowError, BufferError, MemoryError),
    ),
)
