"""The models that PanRT knows by name: where their weights are, what they are like, and their licence.

The weights are detectron2's (https://github.com/facebookresearch/detectron2, MODEL_ZOO.md). PanRT distributes none of
them. The model zoo publishes no whole hash: the six hexadecimal digits in a file's name are the start of its MD5,
enough to recognise a damaged download, not a forged one. `sha256` is None where no whole hash is known; the hash of the
first download is then recorded, and every later one is held to it.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from panrt.errors import UnknownModelError

HUB = "https://dl.fbaipublicfiles.com/detectron2/"
LICENCE = "CC BY-SA 3.0"
LICENCE_ADDRESS = "https://creativecommons.org/licenses/by-sa/3.0/"
BUNDLED = ("tabletop",)  # part of the package, no entry here
SCHEME = "hf://"  # of files on the Hugging Face hub


class Cost(NamedTuple):
    """Multiply-adds of convolutions and matrix products of one inference; `panrt info` counts the same."""

    per_pixel: float  # of the input: trunk, FPN, RPN head, semantic head
    fixed: float  # box head, on all its RoIs
    per_detection: float  # mask head; the CPU backend computes it for detections that can reach the map


class Entry(NamedTuple):
    """A model of the catalogue."""

    name: str
    aliases: tuple[str, ...]
    path: str  # of the weights, below the hub's address
    size: int  # bytes of their tensors; the file is slightly larger
    md5_prefix: str
    sha256: str | None  # None: not published, recorded at the first download
    config: str  # the network, a name of `panrt.model.config.CONFIGS`
    pq: float  # panoptic quality on COCO val2017 in percent, as published
    latency: float  # seconds per image of detectron2 on a V100 at a short side of 800, as published
    cost: Cost
    licence: str = LICENCE
    source: str = "detectron2 model zoo, COCO train2017"


_R_50_3X = Entry(
    name="panoptic_fpn_R_50_3x",
    aliases=("coco",),
    path="COCO-PanopticSegmentation/panoptic_fpn_R_50_3x/139514569/model_final_c10459.pkl",
    size=184_320_920,
    md5_prefix="c10459",
    sha256=None,
    config="panoptic_fpn_r50",
    pq=41.5,
    latency=0.053,
    cost=Cost(per_pixel=213.0e3, fixed=14.3e9, per_detection=0.53e9),
)
_R_50_1X = _R_50_3X._replace(
    name="panoptic_fpn_R_50_1x",
    aliases=(),
    path="COCO-PanopticSegmentation/panoptic_fpn_R_50_1x/139514544/model_final_dbfeb4.pkl",
    md5_prefix="dbfeb4",
    pq=39.4,
)
_R_101_3X = _R_50_3X._replace(
    name="panoptic_fpn_R_101_3x",
    aliases=("coco-large",),
    path="COCO-PanopticSegmentation/panoptic_fpn_R_101_3x/139514519/model_final_cafdb1.pkl",
    size=260_498_328,
    md5_prefix="cafdb1",
    config="panoptic_fpn_r101",
    pq=43.0,
    latency=0.066,
    cost=_R_50_3X.cost._replace(per_pixel=287.0e3),
)
ENTRIES = (_R_50_3X, _R_101_3X, _R_50_1X)


def provenance(entry: Entry) -> str:
    """Return where the weights of an entry come from, and their licence, as one readable line."""
    return f"{entry.name} of the {entry.source}; licence {entry.licence}, {LICENCE_ADDRESS}"


def find(name: str) -> Entry | None:
    """Return the entry of a name or alias; None if there is none."""
    return next((entry for entry in ENTRIES if name == entry.name or name in entry.aliases), None)


def get(name: str) -> Entry:
    """Return the entry of a name or alias.

    Raises:
        UnknownModelError: there is none; the message lists the nearest names.
    """
    entry = find(name)
    if entry is None:
        raise UnknownModelError(f"{name!r}: no model of that name; {suggestion(name)}")
    return entry


def names() -> tuple[str, ...]:
    """Return every name and alias that can be given for a model."""
    return (*BUNDLED, *(alias for entry in ENTRIES for alias in (*entry.aliases, entry.name)))


def suggestion(name: str) -> str:
    """Return the nearest names to one that is unknown, as the end of a message."""
    folded = {known.lower(): known for known in names()}
    near = difflib.get_close_matches(name.lower(), folded, n=2, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(folded[match] for match in near)}? 'panrt models' lists all names."
    return f"models by name are {', '.join(names())}; 'panrt models' lists them."
