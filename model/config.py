"""Model configurations: frozen dataclasses, each network readable as one constructor call.

    config = make_config("panoptic_fpn_r50", merge=MergeConfig(stuff_area_limit=1024))

Values are checked once, here. Sizes are (height, width) in pixels; areas are in output pixels.
Sources: detectron2 `COCO-PanopticSegmentation/panoptic_fpn_R_{50,101}_3x`; Kirillov et al., Panoptic Feature Pyramid
Networks (CVPR 2019), figures 3-4 and tables 1 and 3 for the comparisons.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from panrt.formats import records
from panrt.formats.decoding import decode, encode
from panrt.model.data.classes import COCO, TABLETOP, VOID, ClassTable
from panrt.plugins.schema import MAX_SIDE

Activation = Literal["relu", "relu6"]
Norm = Literal["none", "group", "batch"]
TrunkNorm = Literal["frozen_batch", "group"]
Fusion = Literal["sum", "average"]
Suppression = Literal["per_class", "all_classes"]
Aggregation = Literal["sum", "concat"]


T = TypeVar("T")

LARGEST_WIDTH = 8192  # channels of a layer
MOST_THINGS = 10_000
MOST_STUFF = VOID - 1  # a channel each in a map of bytes, beside that of the things


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _within(low: float, high: float, default: T) -> T:
    """Declare a field whose numbers are from `low` to `high`, so that no configuration is an impossible network."""
    value: T = field(default=default, metadata={"range": (low, high)})
    return value


def _added(default: T, low: float | None = None, high: float | None = None) -> T:
    """Declare a field that files of earlier releases lack; see `panrt.formats.decoding`."""
    bounds = {} if low is None else {"range": (low, high)}
    value: T = field(default=default, metadata={"added": True, **bounds})
    return value


class _Bounded:
    """Checks the ranges that `_within` and `_added` declare, and the choices of a `Literal`."""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # type: ignore[arg-type]  # all that inherit from it are dataclasses
            value = getattr(self, one.name)
            if one.metadata.get("added") and isinstance(one.default, str):
                choices = typing.get_args(typing.get_type_hints(type(self))[one.name])
                _check(
                    value in choices,
                    f"{type(self).__name__}.{one.name}: got {records.shown(value)}, expected {' or '.join(choices)}.",
                )
            if "range" not in one.metadata:
                continue
            low, high = one.metadata["range"]
            numbers = value if isinstance(value, tuple) else (value,)
            where = f"{type(self).__name__}.{one.name}"
            _check(
                all(low <= number <= high for number in numbers),
                f"{where}: got {records.shown(value)}, expected {low:g} to {high:g}.",
            )


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(_Bounded):
    """ResNet or ResNeXt trunk. detectron2's model zoo strides in the first 1x1, torchvision in the 3x3."""

    depth: Literal[50, 101, 152] = 50
    stride_in_1x1: bool = True
    groups: int = _within(1, 256, 1)
    width_per_group: int = _within(1, 1024, 64)
    output_stride: Literal[8, 16, 32] = 32  # below 32: dilated convolutions instead of strides, no FPN
    norm: TrunkNorm = _added("frozen_batch")  # noqa: RUF009 - a field, as of `_within`

    @property
    def label(self) -> str:
        """The display name of the trunk."""
        return f"ResNet-{self.depth}"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.depth in (50, 101, 152), f"trunk depth: got {self.depth}, expected 50, 101 or 152.")
        _check(self.output_stride in (8, 16, 32), f"output_stride: got {self.output_stride}, expected 8, 16 or 32.")
        width = self.groups * self.width_per_group
        _check(
            self.norm != "group" or width % 32 == 0,
            f"trunk norm: group norm needs a multiple of 32 channels, groups * width_per_group are {width}.",
        )


@dataclass(frozen=True, kw_only=True)
class EfficientNetLiteConfig:
    """EfficientNet-Lite0 trunk: no squeeze-excitation, ReLU6, constant asymmetric padding."""

    @property
    def label(self) -> str:
        """The display name of the trunk."""
        return "EfficientNet-Lite0"


TrunkConfig: TypeAlias = ResNetConfig | EfficientNetLiteConfig


@dataclass(frozen=True, kw_only=True)
class FpnConfig(_Bounded):
    width: int = _within(1, LARGEST_WIDTH, 256)
    norm: Norm = "none"  # after every convolution
    separable: bool = False  # depthwise-separable output convolutions
    fusion: Fusion = _added("sum")  # noqa: RUF009  # of a lateral map and the one above


@dataclass(frozen=True, kw_only=True)
class RpnConfig(_Bounded):
    anchor_sizes: tuple[float, ...] = _within(1, MAX_SIDE, (32.0, 64.0, 128.0, 256.0, 512.0))  # one per level, P2..P6
    aspect_ratios: tuple[float, ...] = _within(0.01, 100, (0.5, 1.0, 2.0))  # height / width
    pre_nms_top_k: int = _within(1, 100_000, 1000)  # a level
    post_nms_top_k: int = _within(1, 100_000, 1000)  # an image
    nms_threshold: float = _within(0, 1, 0.7)
    conv_widths: tuple[int, ...] = _added((0,), 0, LARGEST_WIDTH)  # of the shared 3x3 layers; 0: the pyramid's width
    min_scale: float = _added(0.0, 0, 1)  # a delta shrinks a side of an anchor at most to this share; 0: to any

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = len(self.conv_widths)
        _check(1 <= layers <= 16, f"RpnConfig.conv_widths: got {layers} values, expected 1 to 16.")


@dataclass(frozen=True, kw_only=True)
class RoiConfig(_Bounded):
    """Pooling of RoIs; a box of side `canonical_size` is pooled from level `canonical_level`."""

    canonical_size: float = _within(1, MAX_SIDE, 224.0)
    canonical_level: int = _within(0, 16, 4)
    sampling_ratio: int = _within(0, 64, 0)  # 0: as many samples a bin as it has feature cells, rounded up


@dataclass(frozen=True, kw_only=True)
class BoxHeadConfig(_Bounded):
    pooled_size: int = _within(1, 64, 7)
    hidden: int = _within(1, LARGEST_WIDTH, 1024)
    box_weights: tuple[float, float, float, float] = _within(1e-3, 1e6, (10.0, 10.0, 5.0, 5.0))
    score_threshold: float = _within(0, 1, 0.05)
    nms_threshold: float = _within(0, 1, 0.5)
    max_detections: int = _within(1, 10_000, 100)
    convolutions: int = _added(0, 0, 16)  # 3x3, before the linear layers
    width: int = _added(256, 1, LARGEST_WIDTH)  # of the convolutions
    norm: Norm = _added("none")  # noqa: RUF009  # of the convolutions
    layers: int = _added(2, 1, 8)  # linear layers of `hidden` channels
    min_scale: float = _added(0.0, 0, 1)  # a delta shrinks a side of an RoI at most to this share; 0: to any
    suppression: Suppression = _added("per_class")  # noqa: RUF009

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            self.suppression == "per_class" or self.score_threshold >= 0.5,
            f"BoxHeadConfig.score_threshold: got {self.score_threshold:g}, expected at least 0.5 where boxes suppress "
            "those of all classes, as each RoI then has one class at most.",
        )


@dataclass(frozen=True, kw_only=True)
class MaskHeadConfig(_Bounded):
    pooled_size: int = _within(1, 64, 14)  # the masks have twice this side
    width: int = _within(1, LARGEST_WIDTH, 256)
    convolutions: int = _within(0, 64, 4)
    norm: Norm = "none"
    separable: bool = False


@dataclass(frozen=True, kw_only=True)
class InstanceConfig:
    """The parts of Mask R-CNN that follow the FPN."""

    rpn: RpnConfig = RpnConfig()
    roi: RoiConfig = RoiConfig()
    box: BoxHeadConfig = BoxHeadConfig()
    mask: MaskHeadConfig = MaskHeadConfig()


@dataclass(frozen=True, kw_only=True)
class SemanticConfig(_Bounded):
    """The semantic branch of figure 3 of the paper."""

    width: int = _within(1, LARGEST_WIDTH, 128)
    aggregation: Aggregation = "sum"
    norm: Norm = "group"
    separable: bool = False


@dataclass(frozen=True, kw_only=True)
class MergeConfig(_Bounded):
    score_threshold: float = _within(0, 1, 0.5)
    overlap_threshold: float = _within(0, 1, 0.5)
    stuff_area_limit: int = _within(0, MAX_SIDE**2, 4096)


@dataclass(frozen=True, kw_only=True)
class PanopticFPNConfig(_Bounded):
    """A network. Without `instance` it predicts stuff only, without `semantic` things only.

    `pixel_mean` and `pixel_std` are in B, G, R order and 0..255: every network here eats BGR, and weights that were
    trained on RGB have the input channels of their first convolution turned round when they are loaded.
    """

    name: str
    classes: ClassTable = COCO
    input_hw: tuple[int, int] = _within(1, MAX_SIDE, (800, 1344))  # default for export; the network takes any
    pixel_mean: tuple[float, float, float] = _within(-1000, 1000, (103.530, 116.280, 123.675))
    pixel_std: tuple[float, float, float] = _within(1e-6, 1000, (1.0, 1.0, 1.0))
    activation: Activation = "relu"
    trunk: TrunkConfig = ResNetConfig()
    fpn: FpnConfig | None = FpnConfig()  # None: the dilated baseline, a semantic head on C5 alone
    instance: InstanceConfig | None = InstanceConfig()
    semantic: SemanticConfig | None = SemanticConfig()
    merge: MergeConfig = MergeConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self.name, self.classes)
        instance = () if self.instance is None else (self.instance.mask, self.instance.box)
        for part in (self.fpn, *instance, self.semantic):
            fits = part is None or part.norm != "group" or part.width % 32 == 0
            _check(fits, f"{self.name}: {type(part).__name__}: group norm needs a width that is a multiple of 32.")
        _check(
            self.instance is not None or self.semantic is not None,
            f"{self.name}: neither instance nor semantic branch; a network needs at least one.",
        )
        dilated = isinstance(self.trunk, ResNetConfig) and self.trunk.output_stride < 32
        _check(
            self.fpn is None or not dilated,
            f"{self.name}: a dilated trunk has no pyramid of strides 4..32; set fpn=None or output_stride=32.",
        )
        _check(
            self.fpn is not None or (self.instance is None and isinstance(self.trunk, ResNetConfig)),
            f"{self.name}: without an FPN only a semantic branch on a ResNet is defined; set instance=None.",
        )
        if self.instance is not None:
            levels = len(self.instance.rpn.anchor_sizes)
            _check(levels == 5, f"{self.name}: rpn.anchor_sizes: got {levels} values, expected 5, for P2..P6.")
            ratios = len(self.instance.rpn.aspect_ratios)
            _check(1 <= ratios <= 32, f"{self.name}: rpn.aspect_ratios: got {ratios} values, expected 1 to 32.")


def _check_classes(name: str, classes: ClassTable) -> None:
    _check(records.line(name) is not None, f"name: got {records.shown(name)}, expected a line of text.")
    for kind, most in (("things", MOST_THINGS), ("stuff", MOST_STUFF)):
        table = getattr(classes, kind)
        _check(len(table) <= most, f"{name}: classes.{kind}: got {len(table)}, expected at most {most}.")
        for index, category in enumerate(table):
            where = f"{name}: classes.{kind}[{index}]"
            _check(category.is_thing == (kind == "things"), f"{where}: is_thing: got {category.is_thing}.")
            name_fits = records.line(category.name) is not None
            _check(name_fits, f"{where}: name: got {records.shown(category.name)}, expected a line of text.")
            colors = all(0 <= value <= 255 for value in category.color)
            _check(colors, f"{where}: color: got {records.shown(category.color)}, expected 0 to 255 three times.")


def panoptic_fpn_r50() -> PanopticFPNConfig:
    """Return the configuration of detectron2's `panoptic_fpn_R_50_3x`."""
    return PanopticFPNConfig(name="panoptic_fpn_r50")


def panoptic_fpn_r101() -> PanopticFPNConfig:
    """Return the configuration of detectron2's `panoptic_fpn_R_101_3x`."""
    return PanopticFPNConfig(name="panoptic_fpn_r101", trunk=ResNetConfig(depth=101))


def panoptic_fpn_r50_torchvision() -> PanopticFPNConfig:
    """Return `panoptic_fpn_r50` on a trunk that fits torchvision's ImageNet weights."""
    return PanopticFPNConfig(
        name="panoptic_fpn_r50_torchvision",
        pixel_std=(57.375, 57.120, 58.395),
        trunk=ResNetConfig(stride_in_1x1=False),
    )


def panoptic_fpn_lite() -> PanopticFPNConfig:
    """Return the configuration for small computers: EfficientNet-Lite0, an 80-wide FPN, narrow heads, 320x256 frames.

    RoI levels are half of COCO's, as the frames are about half as large; anchors are smaller still, as are the things.
    """
    return PanopticFPNConfig(
        name="panoptic_fpn_lite",
        classes=TABLETOP,
        input_hw=(256, 320),
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=(128.0, 128.0, 128.0),
        activation="relu6",
        trunk=EfficientNetLiteConfig(),
        fpn=FpnConfig(width=80, norm="batch", separable=True),
        instance=InstanceConfig(
            rpn=RpnConfig(
                anchor_sizes=(12.0, 24.0, 48.0, 96.0, 192.0),
                pre_nms_top_k=300,
                post_nms_top_k=150,
            ),
            roi=RoiConfig(canonical_size=112.0),
            box=BoxHeadConfig(pooled_size=7, hidden=256, max_detections=32),
            mask=MaskHeadConfig(width=80, norm="batch", separable=True),
        ),
        semantic=SemanticConfig(width=64, norm="batch", separable=True),
        merge=MergeConfig(stuff_area_limit=200),
    )


def semantic_fpn_r50() -> PanopticFPNConfig:
    """Return the semantic half of "two separate networks" (table 3)."""
    return PanopticFPNConfig(name="semantic_fpn_r50", instance=None)


def instance_fpn_r50() -> PanopticFPNConfig:
    """Return the instance half of "two separate networks" (table 3): Mask R-CNN."""
    return PanopticFPNConfig(name="instance_fpn_r50", semantic=None)


def semantic_dilated_r50() -> PanopticFPNConfig:
    """Return the dilated backbone at output stride 8 that FPN is compared with (figure 4)."""
    return PanopticFPNConfig(name="semantic_dilated_r50", trunk=ResNetConfig(output_stride=8), fpn=None, instance=None)


CONFIGS: Mapping[str, Callable[[], PanopticFPNConfig]] = types.MappingProxyType(
    {
        make.__name__: make
        for make in (
            panoptic_fpn_r50,
            panoptic_fpn_r101,
            panoptic_fpn_r50_torchvision,
            panoptic_fpn_lite,
            semantic_fpn_r50,
            instance_fpn_r50,
            semantic_dilated_r50,
        )
    }
)


def make_config(name: str, **overrides: Any) -> PanopticFPNConfig:
    """Return a named configuration with fields replaced: `make_config("panoptic_fpn_r50", merge=MergeConfig(...))`.

    The paper's comparisons of the semantic branch are overrides: `semantic=SemanticConfig(width=64)` or
    `SemanticConfig(aggregation="concat")` (tables 1c and 1d).

    Raises:
        ValueError: no such name, or an override does not fit the rest.
        TypeError: an override is not a field.
    """
    if name not in CONFIGS:
        raise ValueError(f"model name: got {name!r}, expected one of {', '.join(CONFIGS)}.")
    return dataclasses.replace(CONFIGS[name](), **overrides)


def to_json(value: PanopticFPNConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON values; `from_json` reads it back equal."""
    encoded = encode(value)
    assert isinstance(encoded, dict)
    return encoded


def from_json(data: Any) -> PanopticFPNConfig:
    """Read what `to_json` wrote.

    Raises:
        ValueError: a field is missing, unknown or of the wrong type; the message names it.
    """
    decoded = decode(PanopticFPNConfig, data, source="config")
    assert isinstance(decoded, PanopticFPNConfig)
    return decoded
