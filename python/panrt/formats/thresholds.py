"""Thresholds and classes that can be set while a file runs: what the inputs of its graph for them hold.

A graph has an input for each setting of its ops (`plugins/OPS.md`, version 2), and `panrt.formats.settable` says how it
gets them. Needs no ONNX, as sessions on engines need none.

Shapes: C thing classes, S semantic channels (0 is "things").
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.errors import ThresholdsFixedError
from panrt.formats.metadata import FileThresholds, ModelFile
from panrt.plugins import contract
from panrt.plugins.schema import BOX_DETECTIONS, PANOPTIC_MERGE, Op

DETECTION, INSTANCE, STUFF = "detection_thresholds", "instance_thresholds", "stuff_area_limits"
# The names of the graph's inputs, in the order of the op's settings.
INPUTS = {BOX_DETECTIONS.name: (DETECTION,), PANOPTIC_MERGE.name: (INSTANCE, STUFF)}
NAMES = tuple(name for names in INPUTS.values() for name in names)
LEAST_JOINT_SCORE = 0.5  # from here on an RoI has one class at most, so that all classes may be suppressed as one
MOST_PIXELS = 2**31 - 1  # a limit that no segment reaches

Arrays = Mapping[str, NDArray[Any]]  # by the name of the graph's input


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Thresholds to use in place of a file's own; None leaves the file's.

    An instance of the map has passed two of them: `detection_score` before non-maximum suppression, `instance_score`
    after it. So an `instance_score` below `detection_score` has no effect beyond that one. The number of detections
    that a frame can have (`max_detections`) is fixed in the file.

    Raises:
        ValueError: a threshold is out of range.
    """

    detection_score: float | None = None  # 0 to 1: a detection has to exceed it
    detection_nms: float | None = None  # 0 to 1: IoU with a better one of its class above which a detection is dropped
    instance_score: float | None = None  # 0 to 1: least score of an instance
    instance_overlap: float | None = None  # 0 to 1: largest share of an instance's mask that others hide
    stuff_area: int | None = None  # least output pixels of a stuff segment
    mask: float | None = None  # above 0, to 1: least probability inside a mask

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and (expected := _misfit(name, value)) is not None:
                raise ValueError(f"{name}: got {value!r}, expected {expected}.")

    def over(self, own: FileThresholds) -> FileThresholds:
        """Return a file's thresholds with these in place of its own."""
        return own._replace(**{name: value for name, value in dataclasses.asdict(self).items() if value is not None})


def _misfit(name: str, value: Any) -> str | None:
    """Return what is expected of a threshold; None: it has it."""
    if name == "stuff_area":
        is_number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        return None if is_number and 0 <= value <= MOST_PIXELS else f"an integer from 0 to {MOST_PIXELS}"
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if name == "mask":
        return None if is_number and 0 < np.float32(value) <= 1 else "a number above 0, at most 1"
    return None if is_number and 0 <= value <= 1 else "a number from 0 to 1"


# --- what is in effect ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The thresholds and classes of a session from now on, as its graph's inputs hold them."""

    thresholds: FileThresholds
    classes: tuple[str, ...] | None  # None: all
    arrays: Arrays


def settings(
    file: ModelFile,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    thresholds: Thresholds | FileThresholds | None = None,
    classes: Sequence[str] | None = None,
) -> Settings:
    """Return what is in effect with these thresholds and classes.

    Args:
        file: the metadata of the file.
        shapes: of the graph's inputs, by name, those of NAMES that it has.
        thresholds: that replace the file's own; None: none.
        classes: names of the classes that are found, things and stuff; None: all. Other classes are switched off:
            things are dropped before suppression and so leave their pixels to others, stuff leaves its pixels void.

    Raises:
        ThresholdsFixedError: the file or engine cannot change what is requested.
        ValueError: a class that the file does not have.
    """
    own = file.thresholds
    if isinstance(thresholds, Thresholds):
        thresholds = thresholds.over(own)
    elif thresholds is not None:
        _check_complete(thresholds)
    used = thresholds or own
    if used.max_detections != own.max_detections:
        raise ThresholdsFixedError(
            f"max_detections: got {used.max_detections}, the file has {own.max_detections}, which decides the size of "
            "its results; export the model again, with --max-detections."
        )
    chosen = None if classes is None else _chosen(file, classes)
    if INSTANCE not in shapes and (used != own or chosen is not None):
        raise ThresholdsFixedError(
            f"{file.name}: its engine was built with fixed thresholds; build it again with `panrt build`."
        )
    return Settings(used, chosen, _arrays(file, shapes, used, chosen))


def _check_complete(thresholds: FileThresholds) -> None:
    named = thresholds._asdict()
    del named["max_detections"]
    Thresholds(**named)


def _chosen(file: ModelFile, classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str):
        raise ValueError(f"classes: got the text {classes!r}, expected a list of names: [{classes!r}].")
    known = [category.name for category in (*file.things, *file.stuff)]
    for name in classes:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
            some = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {some}."
            raise ValueError(f"classes: {name!r} is not a class of {file.name}; {hint}")
    return tuple(dict.fromkeys(classes))


def _arrays(
    file: ModelFile, shapes: Mapping[str, tuple[int, ...]], used: FileThresholds, chosen: tuple[str, ...] | None
) -> Arrays:
    def scores(count: int) -> list[float]:
        """Return the threshold of each class; one that suppresses over all classes together counts them as one."""
        if count != len(file.things):
            _check_joint(file, used, chosen)
            return [used.detection_score] * count
        return [used.detection_score if chosen is None or c.name in chosen else math.inf for c in file.things]

    def limits(count: int) -> list[int]:
        """Return the limit of each channel, of which the first is "things"."""
        stuff = [used.stuff_area if chosen is None or c.name in chosen else MOST_PIXELS for c in file.stuff]
        return [used.stuff_area, *stuff][:count]

    found: dict[str, NDArray[Any]] = {}
    if DETECTION in shapes:
        C = shapes[DETECTION][0] - 1
        values = {"score_threshold": scores(C), "nms_threshold": used.detection_nms}
        found.update(filled(BOX_DETECTIONS, {"C": C}, values))
    if INSTANCE in shapes:
        S = shapes[STUFF][0]
        found.update(filled(PANOPTIC_MERGE, {"S": S}, _merge_values(used) | {"stuff_area_limit": limits(S)}))
    return found


def _check_joint(file: ModelFile, used: FileThresholds, chosen: tuple[str, ...] | None) -> None:
    """Reject what a file that suppresses over all classes together cannot do."""
    if chosen is not None and any(thing.name not in chosen for thing in file.things):
        raise ThresholdsFixedError(
            f"classes: {file.name} suppresses detections over all classes together, so that none of its things can be "
            "switched off; filter its results instead."
        )
    if used.detection_score < LEAST_JOINT_SCORE:
        raise ThresholdsFixedError(
            f"detection_score: got {used.detection_score}, expected at least {LEAST_JOINT_SCORE}, as {file.name} "
            "suppresses detections over all classes together."
        )


def _merge_values(thresholds: FileThresholds) -> dict[str, Any]:
    return {
        "score_threshold": thresholds.instance_score,
        "overlap_threshold": thresholds.instance_overlap,
        "mask_threshold": thresholds.mask,
    }


def filled(op: Op, letters: Mapping[str, int], values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the inputs of an op's settings, by the names of the graph, with these numbers; see `contract.settings`."""
    return dict(zip(INPUTS[op.name], contract.settings(op, letters, values), strict=True))
