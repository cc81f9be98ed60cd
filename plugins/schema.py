"""The custom ops, each declared once: tensors, attributes with their ranges, limits, and the struct that kernels take.

Whatever would repeat a declaration is derived from it: the checks of `contract`, the outputs that `native` allocates,
the ONNX attributes of `onnx_functions`, the argument structs of `cuda_api`, the nodes that `panrt.export.symbolic`
records, and the header `include/panrt/ops.h`, which `tools/generate_ops.py` writes. OPS.md says what the ops compute.
This module needs the standard library alone, so that file formats can be read without NumPy.

Shapes are legends (`legends`), such as "N 4A H W". The same letter is the same size everywhere in an op, but for H and
W of a tensor per pyramid level, which are the level's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

DOMAIN = "panrt"  # of the ops in ONNX
PLUGIN_NAMESPACE, PLUGIN_VERSION = "panrt", "2"  # of the plugins in PanRT's library; the newest of them
PLUGIN_ATTRIBUTES = ("plugin_namespace", "plugin_version")  # of every node, by which TensorRT finds its plugin

# The limits of OPS.md 1.3; include/panrt/limits.h has the same for compiled code. Real networks stay far below them.
# Within them no 32-bit count overflows, and no launch takes more than seconds.
MAX_IMAGES = 65535  # per batch
MAX_SIDE = 32768  # pixels of an image, cells of a map, and strides: an area fits int32
MAX_ROWS = 2**20  # RoIs or detections per image
MAX_LEVELS = 8  # of a pyramid
MAX_ANCHORS_PER_CELL = 16
MAX_ANCHORS = 2**31 - 1  # per image
MAX_CANDIDATES = 16384  # per level that enter NMS
MAX_BINS = 1024  # per RoI and axis
MAX_SAMPLES = 1024  # per bin and axis
MAX_POOLED = 2**30  # values per RoI
MAX_LEVEL_NUMBER = 64  # canonical_level, min_level
MAX_PAIRS = 2**21  # of RoI and class, per image
MAX_PAIRS_KEPT = 2**35  # pairs times max_detections
MAX_CODES = 65535  # detections and channels together
MAX_MASK_CELLS = 2**24  # per mask
MAX_PASTED = 2**38  # detections times pixels of the output
MAX_ROI_COORDINATE = 65536.0  # beyond it a RoI is outside every image, and pools to zero

# In a file with an open input size these ops have one more input, the last, of this name: (2,) int64, height and width.
# Their attributes of sizes are then 0, 0; the whole input is valid, and the output has its size.
INPUT_SIZE = "input_size"

# float32; int32; float32 that an engine may also feed as float16; float32 or float16, the same for all of an op.
Type = Literal["float32", "int32", "floating", "features"]


@dataclass(frozen=True, eq=False)
class Tensor:
    """An input or output."""

    name: str  # in ONNX `name_0`, `name_1` ... if there is one per level
    legend: str
    type: Type = "float32"
    per_level: bool = False


@dataclass(frozen=True)
class Within:
    """A bound that depends on the size of a tensor: `factor` times its `letters`, which `text` names."""

    factor: int
    letters: tuple[str, ...]
    text: str
    cure: str


@dataclass(frozen=True, eq=False)
class Attribute:
    """A number, or a list of numbers, each within the same range."""

    name: str
    type: Literal["int", "float"]
    note: str  # its meaning
    length: str | tuple[str, ...] = ""  # "": one number; "L", "A": a list of that letter's size; else a name per entry
    least: int | float | None = None
    above: float | None = None  # in place of `least`
    most: int | float | None = None
    unit: str = ""  # of an integer, for messages
    sizes: tuple[str, ...] = ()  # the letters whose size it is
    shown: bool = False  # by the shape of an output that CPU kernels are given, so they do not take it
    within: Within | None = None
    default: float | None = None  # of Python's keyword argument; nodes have every attribute

    @property
    def unread(self) -> int:
        """Return what kernels are given for it if they read it from an input: a number within its range."""
        return 0 if self.above is None else 1

    @property
    def python_type(self) -> str:
        """The type of the attribute in Python."""
        if self.name.endswith("_hw"):
            return f"tuple[{self.type}, {self.type}]"
        return f"Sequence[{self.type}]" if self.length else self.type


@dataclass(frozen=True)
class Field:
    """A member of the struct that kernels take, and where its value comes from."""

    name: str
    source: Literal["tensor", "size", "attribute", "type", "layout", "workspace", "workspace_bytes"]
    of: str  # the tensor, letter or attribute; "input_hw[0]" is an entry
    type: Literal["", "int64", "float32"] = ""  # instead of int32 for a size and of its own for an attribute
    length: int = 0  # of an array
    note: str = ""


class Setting(NamedTuple):
    """An input of version 2 of an op, for numbers that version 1 has as attributes."""

    tensor: Tensor
    attributes: tuple[str, ...]  # whose numbers it holds, in order; the first has all entries but one for each other


class Limit(NamedTuple):
    """A quantity of a call, and the largest that is supported."""

    name: str  # the argument to blame
    found: int
    most: int
    unit: str


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checked call."""

    letters: dict[str, int]
    levels: tuple[tuple[int, int], ...] = ()  # H, W of each pyramid level

    def __getitem__(self, letter: str) -> int:
        return self.letters[letter]


def no_limits(sizes: Sizes, attributes: Mapping[str, Any]) -> Iterator[Limit]:
    """Yield nothing: letters and attributes have all the bounds that an op needs."""
    yield from ()


@dataclass(frozen=True, eq=False)
class Op:
    """One op."""

    name: str  # in ONNX and TensorRT
    function: str  # in Python and C++
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[Attribute, ...]
    fields: tuple[Field, ...]  # of `<name>Args`, after those of its levels
    level_struct: str = ""  # the type of an entry of `levels`
    level_fields: tuple[Field, ...] = ()
    limits: Callable[[Sizes, Mapping[str, Any]], Iterator[Limit]] = no_limits  # on what letters and attributes give
    own_cpu_arguments: bool = False  # the CPU kernel has a struct of its own, in cpu/kernels.h
    settings: tuple[Setting, ...] = ()  # what version 2 reads from inputs in place of attributes
    version: int = 1
    launcher: str = ""  # the `function` of version 1, by which the CUDA kernels of all versions are called

    def __post_init__(self) -> None:
        if not self.launcher:
            object.__setattr__(self, "launcher", self.function)

    @cached_property
    def key(self) -> str:
        """Return a name that no other version of an op has."""
        return self.name if self.version == 1 else f"{self.name}{self.version}"

    @cached_property
    def plugin(self) -> dict[str, str]:
        """Return the attributes of its nodes by which TensorRT finds the plugin."""
        return dict(zip(PLUGIN_ATTRIBUTES, (PLUGIN_NAMESPACE, str(self.version)), strict=True))

    @cached_property
    def has_levels(self) -> bool:
        """Whether it works on a feature pyramid."""
        return any(tensor.per_level for tensor in self.inputs)

    @cached_property
    def has_features(self) -> bool:
        """Whether it takes features, which may be of either type and layout."""
        return any(tensor.type == "features" for tensor in self.inputs)

    @property
    def has_workspace(self) -> bool:
        """Whether its CUDA kernels need scratch memory."""
        return any(field.source == "workspace" for field in self.fields)

    def attribute(self, name: str) -> Attribute:
        """Return the attribute of this name."""
        return next(attribute for attribute in self.attributes if attribute.name == name)

    @cached_property
    def attribute_names(self) -> frozenset[str]:
        """The names of its attributes."""
        return frozenset(attribute.name for attribute in self.attributes)

    @cached_property
    def defaults(self) -> dict[str, float]:
        """The attributes that Python's callers may omit, with their values."""
        return {attribute.name: attribute.default for attribute in self.attributes if attribute.default is not None}


class Letter(NamedTuple):
    """The bounds of a size."""

    least: int = 0
    most: int | None = None
    unit: str = ""  # of what there may be `most`


_SIDE = Letter(1, MAX_SIDE, "cells per side")
LETTERS = {
    "N": Letter(1, MAX_IMAGES, "images"),
    "L": Letter(1, MAX_LEVELS, "levels"),
    "A": Letter(1, MAX_ANCHORS_PER_CELL, "anchors per cell"),
    "R": Letter(0, MAX_ROWS, "rows per image"),  # RoIs
    "C": Letter(1),  # channels, or classes of things
    "K": Letter(0),  # detections
    "S": Letter(1),  # semantic channels; bins per axis
    **dict.fromkeys(("H", "W", "h", "w", "Gh", "Gw"), _SIDE),
}


# --- the ops ----------------------------------------------------------------------------------------------------------

_STRIDES = Attribute("strides", "int", "pixels per cell", "L", least=1, most=MAX_SIDE, unit="pixels")
_NMS = Attribute("nms_threshold", "float", "IoU above which a box is suppressed", least=0.0, most=1.0)
_HW = ("height", "width")
_INPUT_HW = Attribute("input_hw", "int", "valid size of the network input", _HW, least=1, most=MAX_SIDE)


def _tensors(*names: str, note: str = "") -> tuple[Field, ...]:
    return tuple(Field(name, "tensor", name, note=note) for name in names)


def _sizes(**letters: str) -> tuple[Field, ...]:
    return tuple(Field(name, "size", letter) for name, letter in letters.items())


def _attributes(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, "attribute", name) for name in names)


_ALIGNED = "aligned to 16 bytes"
_WORKSPACE = (
    Field("workspace", "workspace", "", note="of any alignment"),
    Field("workspace_bytes", "workspace_bytes", ""),
)
_INPUT_SIDES = (Field("input_height", "attribute", "input_hw[0]"), Field("input_width", "attribute", "input_hw[1]"))
_LEVEL_SIDES = _sizes(height="H", width="W")
_STRIDE = Field("stride", "attribute", "strides", "float32", note="pixels of the network input per cell")


def _rpn_proposals_limits(sizes: Sizes, attributes: Mapping[str, Any]) -> Iterator[Limit]:
    anchors = 0
    for i, (H, W) in enumerate(sizes.levels):
        here = sizes["A"] * H * W
        anchors += here
        yield Limit(f"logits[{i}]", anchors, MAX_ANCHORS, "anchors of all levels so far")
        yield Limit("pre_nms_top_k", min(here, attributes["pre_nms_top_k"]), MAX_CANDIDATES, "candidates per level")


RPN_PROPOSALS = Op(
    name="RpnProposals",
    function="rpn_proposals",
    inputs=(Tensor("logits", "N A H W", per_level=True), Tensor("deltas", "N 4A H W", per_level=True)),
    outputs=(Tensor("rois", "N R 4"), Tensor("roi_count", "N", "int32")),
    attributes=(
        _STRIDES,
        Attribute("anchor_sizes", "float", "side of the square anchor", "L", above=0.0),
        Attribute("aspect_ratios", "float", "height / width", "A", above=0.0),
        Attribute("pre_nms_top_k", "int", "maximum number of candidates per level that enter NMS", least=1),
        Attribute("post_nms_top_k", "int", "proposals per image", least=1, most=MAX_ROWS, sizes=("R",), shown=True),
        _NMS,
        _INPUT_HW,
    ),
    limits=_rpn_proposals_limits,
    level_struct="RpnLevel",
    level_fields=(
        *_tensors("logits", "deltas"),
        *_LEVEL_SIDES,
        _STRIDE,
        Field("anchor_size", "attribute", "anchor_sizes"),
    ),
    fields=(
        Field("aspect_ratios", "attribute", "aspect_ratios", length=MAX_ANCHORS_PER_CELL),
        *_tensors("rois", note=_ALIGNED),
        *_tensors("roi_count"),
        *_WORKSPACE,
        *_sizes(images="N", level_count="L", anchor_count="A"),
        *_attributes("pre_nms_top_k", "post_nms_top_k", "nms_threshold"),
        *_INPUT_SIDES,
    ),
    own_cpu_arguments=True,
)


def _pyramid_roi_align_limits(sizes: Sizes, attributes: Mapping[str, Any]) -> Iterator[Limit]:
    pooled = sizes["C"] * sizes["S"] ** 2
    yield Limit("features: channels * output_size^2", pooled, MAX_POOLED, "numbers of a RoI")


PYRAMID_ROI_ALIGN = Op(
    name="PyramidRoiAlign",
    function="pyramid_roi_align",
    inputs=(Tensor("features", "N C H W", "features", per_level=True), Tensor("rois", "N R 4")),
    outputs=(Tensor("pooled", "N*R C S S", "features"),),
    attributes=(
        _STRIDES,
        Attribute("output_size", "int", "bins per axis", least=1, most=MAX_BINS, sizes=("S",)),
        Attribute("sampling_ratio", "int", "samples per bin and axis; 0 is adaptive", least=0, most=MAX_SAMPLES),
        Attribute("canonical_size", "float", "side of a RoI of canonical_level, pixels", above=0.0, default=224.0),
        Attribute(
            "canonical_level", "int", "level for RoIs of canonical_size", least=0, most=MAX_LEVEL_NUMBER, default=4
        ),
        Attribute("min_level", "int", "level of features_0", least=0, most=MAX_LEVEL_NUMBER, default=2),
    ),
    limits=_pyramid_roi_align_limits,
    level_struct="PyramidLevel",
    level_fields=(Field("data", "tensor", "features"), *_LEVEL_SIDES, _STRIDE),
    fields=(
        *_tensors("rois", "pooled"),
        Field("images", "size", "N", "int64"),
        Field("rois_per_image", "size", "R", "int64"),
        *_sizes(level_count="L", channels="C"),
        *_attributes("output_size", "sampling_ratio", "canonical_size", "canonical_level", "min_level"),
        Field("type", "type", "features"),
        Field("layout", "layout", "features", note="of features and pooled"),
    ),
    own_cpu_arguments=True,
)


def _box_detections_limits(sizes: Sizes, attributes: Mapping[str, Any]) -> Iterator[Limit]:
    pairs = sizes["R"] * sizes["C"]
    yield Limit("class_logits", sizes["C"], MAX_CODES, "classes")
    yield Limit("class_logits", pairs, MAX_PAIRS, "pairs of RoI and class")
    kept = MAX_PAIRS_KEPT // max(pairs, 1)
    yield Limit("max_detections", sizes["K"], kept, f"of {pairs} pairs of RoI and class")


BOX_DETECTIONS = Op(
    name="BoxDetections",
    function="box_detections",
    inputs=(
        Tensor("class_logits", "N R C+1"),
        Tensor("box_deltas", "N R 4C"),
        Tensor("rois", "N R 4"),
        Tensor("roi_count", "N", "int32"),
    ),
    outputs=(
        Tensor("boxes", "N K 4"),
        Tensor("scores", "N K"),
        Tensor("classes", "N K", "int32"),
        Tensor("count", "N", "int32"),
    ),
    attributes=(
        Attribute("box_weights", "float", "by which the deltas are divided", ("wx", "wy", "ww", "wh"), above=0.0),
        Attribute("score_threshold", "float", "probability that a detection must exceed"),
        _NMS,
        Attribute("max_detections", "int", "detections per image", least=1, most=MAX_ROWS, sizes=("K",), shown=True),
        _INPUT_HW,
    ),
    limits=_box_detections_limits,
    fields=(
        *_tensors("class_logits"),
        *_tensors("box_deltas", "rois", note=_ALIGNED),
        *_tensors("roi_count"),
        *_tensors("boxes", note=_ALIGNED),
        *_tensors("scores", "classes", "count"),
        *_tensors("thresholds", note="or null: the attributes"),
        *_WORKSPACE,
        *_sizes(images="N"),
        Field("rois_per_image", "size", "R", note="may be 0"),
        *_sizes(thing_classes="C"),
        *_attributes("max_detections"),
        Field("box_weights", "attribute", "box_weights", length=4),
        *_attributes("score_threshold", "nms_threshold"),
        *_INPUT_SIDES,
    ),
    own_cpu_arguments=True,
    settings=(Setting(Tensor("thresholds", "C+1"), ("score_threshold", "nms_threshold")),),
)


_QUARTER = Within(
    4, ("h", "w"), "four times the semantic logits'", "it is the valid size of the network input, padding excluded"
)


def _panoptic_merge_limits(sizes: Sizes, attributes: Mapping[str, Any]) -> Iterator[Limit]:
    yield Limit("mask_probs", sizes["Gh"] * sizes["Gw"], MAX_MASK_CELLS, "cells of a mask")
    yield Limit("scores", sizes["K"] + sizes["S"], MAX_CODES, "detections and channels together")
    H, W = sizes["H"], sizes["W"]
    yield Limit("scores", sizes["K"], MAX_PASTED // (H * W), f"detections on {(H, W)} pixels")


PANOPTIC_MERGE = Op(
    name="PanopticMerge",
    function="panoptic_merge",
    inputs=(
        Tensor("semantic_logits", "N S h w", "floating"),
        Tensor("boxes", "N K 4"),
        Tensor("scores", "N K"),
        Tensor("classes", "N K", "int32"),
        Tensor("count", "N", "int32"),
        Tensor("mask_probs", "N K Gh Gw", "floating"),
    ),
    outputs=(
        Tensor("panoptic", "N H W", "int32"),
        Tensor("segments", "N K+S 8", "int32"),
        Tensor("segment_scores", "N K+S"),
        Tensor("segment_count", "N", "int32"),
    ),
    attributes=(
        replace(_INPUT_HW, within=_QUARTER),
        replace(_INPUT_HW, name="output_hw", note="size of the panoptic map", sizes=("H", "W"), shown=True),
        Attribute("score_threshold", "float", "smallest score of an instance"),
        Attribute("overlap_threshold", "float", "largest occluded share of an instance", least=0.0, most=1.0),
        Attribute("stuff_area_limit", "int", "smallest stuff segment", least=0, unit="output pixels"),
        Attribute("mask_threshold", "float", "smallest probability inside a mask", above=0.0, most=1.0, default=0.5),
    ),
    limits=_panoptic_merge_limits,
    fields=(
        *_tensors("semantic_logits", "boxes", "scores", "classes", "count", "mask_probs"),
        *_tensors("panoptic", "segments", note=_ALIGNED),
        *_tensors("segment_scores", "segment_count"),
        *_tensors("thresholds", "stuff_area_limits", note="or null: the attributes"),
        *_WORKSPACE,
        Field("logit_type", "type", "semantic_logits"),
        Field("mask_type", "type", "mask_probs"),
        *_sizes(images="N"),
        Field("detections", "size", "K", note="may be 0"),
        *_sizes(channels="S", height="h", width="w", mask_height="Gh", mask_width="Gw"),
        Field("input_height", "attribute", "input_hw[0]", note="at most 4h"),
        Field("input_width", "attribute", "input_hw[1]", note="at most 4w"),
        Field("output_height", "attribute", "output_hw[0]"),
        Field("output_width", "attribute", "output_hw[1]"),
        *_attributes("score_threshold", "overlap_threshold", "stuff_area_limit", "mask_threshold"),
    ),
    own_cpu_arguments=True,
    settings=(
        Setting(Tensor("thresholds", "3"), ("score_threshold", "overlap_threshold", "mask_threshold")),
        Setting(Tensor("stuff_area_limits", "S", "int32"), ("stuff_area_limit",)),
    ),
)


def _settable(op: Op) -> Op:
    """Return version 2 of an op: its settings are inputs. Its kernels and their struct are those of version 1."""
    replaced = {name for setting in op.settings for name in setting.attributes}
    return replace(
        op,
        function=f"{op.function}_2",
        inputs=(*op.inputs, *(setting.tensor for setting in op.settings)),
        attributes=tuple(attribute for attribute in op.attributes if attribute.name not in replaced),
        version=2,
    )


BOX_DETECTIONS_2, PANOPTIC_MERGE_2 = _settable(BOX_DETECTIONS), _settable(PANOPTIC_MERGE)

OPS = {op.name: op for op in (RPN_PROPOSALS, PYRAMID_ROI_ALIGN, BOX_DETECTIONS, PANOPTIC_MERGE)}  # in version 1
ALL_OPS = (*OPS.values(), BOX_DETECTIONS_2, PANOPTIC_MERGE_2)
SIZED = tuple(op.name for op in OPS.values() if any(attribute.name == "input_hw" for attribute in op.attributes))
