"""detectron2's YAML configurations as configurations of PanRT.

A file names its bases with `_BASE_`; what no file sets has detectron2's default (`detectron2_keys`). A key that changes
results and is not supported at its value is an error; a key that changes nothing at inference is ignored; a key that
detectron2 does not have is an error, as it belongs to another project's network.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from panrt.errors import ConfigFileError
from panrt.formats import records
from panrt.formats.metadata import SIZE_DIVISOR
from panrt.model.config import (
    BoxHeadConfig,
    FpnConfig,
    InstanceConfig,
    MaskHeadConfig,
    MergeConfig,
    Norm,
    PanopticFPNConfig,
    ResNetConfig,
    RoiConfig,
    RpnConfig,
    SemanticConfig,
    TrunkNorm,
)
from panrt.model.conversion.class_names import class_table
from panrt.model.conversion.described import Described
from panrt.model.conversion.detectron2_keys import (
    BASES,
    FIXED,
    FIXED_INSTANCES,
    FIXED_STUFF,
    READ,
    is_ignored,
    written,
)
from panrt.model.conversion.yaml_files import read_yaml

DEEPEST_CHAIN = 16  # files
LONGEST_LITERAL = 300  # characters of a Python literal in a text
_DEFAULTS = {
    **READ,
    **{key: default for table in (FIXED, FIXED_INSTANCES, FIXED_STUFF) for key, (default, _) in table.items()},
}
_BATCH_NORMS = ("BN", "SyncBN", "naiveSyncBN", "nnSyncBN", "naiveSyncBN_N", "FrozenBN")


class Setting(NamedTuple):
    """The value of a key and where it was found."""

    value: Any
    source: str


def read_detectron2_config(path: Path) -> Described:
    """Read a configuration with its bases.

    Args:
        path: a `.yaml` file: one of detectron2's or derived from one, or what detectron2 wrote beside the weights.

    Returns:
        The configuration; the names of its classes are COCO's if it names COCO's data, else numbered.

    Raises:
        ConfigFileError: a file cannot be read, or describes a network that PanRT does not have; the message names the
            file and the key.
        OSError: from the file system.
    """
    notes: list[str] = []
    settings = _read_chain(path, (), notes)
    return describe(settings, path, notes)


# Files ----------------------------------------------------------------------------------------------------------------


def _read_chain(path: Path, below: tuple[Path, ...], notes: list[str]) -> dict[str, Setting]:
    """Read a file and its bases; `below` are the files that lead to it."""
    resolved = path.resolve()
    if resolved in below:
        names = " -> ".join(one.name for one in (*below[below.index(resolved) :], resolved))
        raise ConfigFileError(f"{path}: _BASE_ leads in a circle: {records.legible(names)}.")
    if len(below) == DEEPEST_CHAIN:
        raise ConfigFileError(f"{path}: _BASE_ leads through more than {DEEPEST_CHAIN} files.")
    content = read_yaml(path)
    bases = content.pop("_BASE_", [])
    settings: dict[str, Setting] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        settings |= _read_base(path, base, (*below, resolved), notes)
    for name, value in _flat(content).items():
        settings[name.removeprefix("MODEL.")] = Setting(_literal(value), str(path))
    return settings


def _read_base(path: Path, base: object, below: tuple[Path, ...], notes: list[str]) -> dict[str, Setting]:
    if not isinstance(base, str) or records.line(base) is None or not base:
        raise ConfigFileError(f"{path}: _BASE_: got {records.shown(base)}, expected the path of a .yaml file.")
    if re.match(r"[A-Za-z][\w+.-]*:", base):
        raise ConfigFileError(
            f"{path}: _BASE_: {base} is a remote address, which is never opened; download the file, and write its "
            "path beside _BASE_."
        )
    found = path.parent / Path(base).expanduser()
    if found.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigFileError(f"{path}: _BASE_: got {base}, expected a .yaml file.")
    if not found.is_file() and found.name in BASES:
        notes.append(f"{found.name} is detectron2's, as there is no such file beside {path.name}")
        return {key: Setting(value, found.name) for key, value in BASES[found.name].items()}
    if not found.is_file():
        raise ConfigFileError(f"{path}: _BASE_: there is no file {found}; put it there, or correct the path.")
    return _read_chain(found, below, notes)


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """{"MODEL": {"FPN": {"NORM": "GN"}}} -> {"MODEL.FPN.NORM": "GN"}."""
    found: dict[str, Any] = {}
    left = [("", content)]
    while left:
        prefix, table = left.pop()
        for name, value in table.items():
            if isinstance(value, dict):
                left.append((f"{prefix}{name}.", value))
            else:
                found[f"{prefix}{name}"] = value
    return found


def _literal(value: Any) -> Any:
    """A text may be a Python literal, as in `TRAIN: ("coco_2017_train",)`; tuples become lists."""
    if isinstance(value, str) and len(value) <= LONGEST_LITERAL:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return value
    return _listed(value)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


# Keys -----------------------------------------------------------------------------------------------------------------


class _Keys:
    """The settings, checked as they are read."""

    def __init__(self, settings: Mapping[str, Setting], path: Path) -> None:
        self.settings = settings
        self.path = path

    def __getitem__(self, key: str) -> Any:
        setting = self.settings.get(key)
        return _DEFAULTS[key] if setting is None else setting.value

    def source(self, key: str) -> str:
        """Return the file that a value is from, for messages."""
        setting = self.settings.get(key)
        return f"{self.path}: detectron2's default of" if setting is None else f"{setting.source}:"

    def fail(self, key: str, expected: str) -> NoReturn:
        raise ConfigFileError(
            f"{self.source(key)} {written(key)}: got {records.shown(self[key])}, expected {expected}."
        )

    def number(self, key: str, low: float, high: float) -> float:
        value = records.real(self[key])
        if value is None or not low <= value <= high:
            self.fail(key, f"a number from {low:g} to {high:g}")
        return value

    def whole(self, key: str, low: int, high: int) -> int:
        value = records.whole(self[key])
        if value is None or not low <= value <= high:
            self.fail(key, f"a whole number from {low} to {high}")
        return value

    def one_of(self, key: str, choices: Sequence[Any]) -> Any:
        value = self[key]
        if value not in choices or type(value) not in map(type, choices):
            self.fail(key, " or ".join(map(repr, choices)))
        return value

    def numbers(self, key: str, count: int) -> list[float]:
        value = self[key]
        found = [records.real(item) for item in value] if isinstance(value, list) else []
        if len(found) != count or None in found:
            self.fail(key, f"{count} numbers")
        return [number for number in found if number is not None]

    def table(self, key: str) -> list[list[float]]:
        """Return a list of lists of numbers, one for each level, as the anchors have them."""
        value = self[key]
        if not isinstance(value, list) or not all(isinstance(row, list) and row for row in value) or not value:
            self.fail(key, "a list of numbers for each level")
        rows = [[records.real(item) for item in row] for row in value]
        if any(item is None for row in rows for item in row):
            self.fail(key, "a list of numbers for each level")
        return [[item for item in row if item is not None] for row in rows]

    def norm(self, key: str) -> Norm:
        value = self.one_of(key, ("", "GN", *_BATCH_NORMS))
        return "none" if value == "" else "group" if value == "GN" else "batch"

    def check_fixed(self, table: Mapping[str, tuple[Any, Any]]) -> None:
        for key, (_, supported) in table.items():
            value = self[key]
            if value != supported or isinstance(value, bool) != isinstance(supported, bool):
                cure = ""
                if key not in self.settings:
                    cure = "; if the file is derived from another, begin it with _BASE_: Base-Panoptic-FPN.yaml"
                self.fail(key, f"{supported!r}, the only value that PanRT supports{cure}")

    def check_known(self) -> None:
        for key in self.settings:
            if key not in _DEFAULTS and not is_ignored(key):
                raise ConfigFileError(
                    f"{self.source(key)} {records.legible(written(key))}: got {records.shown(self[key])}, but "
                    "detectron2 has no such key, so it may be of a network that PanRT does not have; if it changes "
                    "nothing at inference, delete it."
                )


# The network ----------------------------------------------------------------------------------------------------------

_ARCHITECTURES = ("PanopticFPN", "GeneralizedRCNN", "SemanticSegmentor")


def describe(settings: Mapping[str, Setting], path: Path, notes: list[str]) -> Described:
    """Return the network of these settings; `read_detectron2_config` says more."""
    keys = _Keys({key: value for key, value in settings.items() if not _is_empty(value.value)}, path)
    keys.check_known()
    architecture = keys.one_of("META_ARCHITECTURE", _ARCHITECTURES)
    keys.check_fixed(FIXED)
    things, stuff, depth = 0, 0, keys.one_of("RESNETS.DEPTH", (50, 101, 152))
    if architecture != "SemanticSegmentor":
        keys.check_fixed(FIXED_INSTANCES)
        things = keys.whole("ROI_HEADS.NUM_CLASSES", 1, 10_000)
    if architecture != "GeneralizedRCNN":
        keys.check_fixed(FIXED_STUFF)
        stuff = keys.whole("SEM_SEG_HEAD.NUM_CLASSES", 1, 254) - 1
    rgb = keys.one_of("INPUT.FORMAT", ("BGR", "RGB")) == "RGB"
    statistics = [keys.numbers(key, 3)[:: -1 if rgb else 1] for key in ("PIXEL_MEAN", "PIXEL_STD")]
    try:
        config = PanopticFPNConfig(
            name=_name(path, depth),
            classes=class_table(things, stuff, data_sets=_data_sets(keys), notes=notes),
            input_hw=_input_hw(keys, notes),
            pixel_mean=_three(statistics[0]),
            pixel_std=_three(statistics[1]),
            trunk=_trunk(keys, depth),
            fpn=FpnConfig(
                width=keys.whole("FPN.OUT_CHANNELS", 1, 8192),
                norm=keys.norm("FPN.NORM"),
                fusion="sum" if keys.one_of("FPN.FUSE_TYPE", ("sum", "avg")) == "sum" else "average",
            ),
            instance=_instances(keys) if things else None,
            semantic=SemanticConfig(
                width=keys.whole("SEM_SEG_HEAD.CONVS_DIM", 1, 8192), norm=keys.norm("SEM_SEG_HEAD.NORM")
            )
            if architecture != "GeneralizedRCNN"
            else None,
            merge=MergeConfig(
                score_threshold=keys.number("PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0, 1),
                overlap_threshold=keys.number("PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", 0, 1),
                stuff_area_limit=keys.whole("PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 0, 2**30),
            ),
        )
    except ConfigFileError:
        raise
    except ValueError as error:
        raise ConfigFileError(f"{path}: {error}") from error
    return Described(config, rgb, tuple(notes))


def _is_empty(value: Any) -> bool:
    """An empty section says nothing."""
    return isinstance(value, dict) and not value


def _name(path: Path, depth: int) -> str:
    generic = path.stem.lower() in ("config", "cfg", "model") or records.line(path.stem, longest=100) is None
    return f"panoptic_fpn_r{depth}" if generic else path.stem


def _data_sets(keys: _Keys) -> list[str]:
    return [*_texts(keys, "DATASETS.TRAIN"), *_texts(keys, "DATASETS.TEST")]


def _texts(keys: _Keys, key: str) -> list[str]:
    value = keys[key]
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        keys.fail(key, "names of data sets")
    return value


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _input_hw(keys: _Keys, notes: list[str]) -> tuple[int, int]:
    """The size of a frame whose aspect ratio makes both limits tight, padded."""
    low, high = keys.whole("INPUT.MIN_SIZE_TEST", 0, 32768), keys.whole("INPUT.MAX_SIZE_TEST", 1, 32768)
    if low == 0:
        notes.append("INPUT.MIN_SIZE_TEST is 0, so frames are not resized; the default input is 800x1344")
        return 800, 1344
    height, width = (side + -side % SIZE_DIVISOR for side in (min(low, high), high))
    return height, width


def _trunk(keys: _Keys, depth: Any) -> ResNetConfig:
    kind = keys.one_of("RESNETS.NORM", ("GN", *_BATCH_NORMS))
    norm: TrunkNorm = "group" if kind == "GN" else "frozen_batch"  # a batch norm that infers is a frozen one
    return ResNetConfig(
        depth=depth,
        stride_in_1x1=keys.one_of("RESNETS.STRIDE_IN_1X1", (True, False)),
        groups=keys.whole("RESNETS.NUM_GROUPS", 1, 256),
        width_per_group=keys.whole("RESNETS.WIDTH_PER_GROUP", 1, 1024),
        norm=norm,
    )


def _instances(keys: _Keys) -> InstanceConfig:
    ratio, other = "ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", "ROI_MASK_HEAD.POOLER_SAMPLING_RATIO"
    sampling_ratio = keys.whole(ratio, 0, 64)
    if keys[other] != keys[ratio]:
        keys.fail(other, f"{sampling_ratio}, as for boxes ({written(ratio)})")
    weights = keys.numbers("ROI_BOX_HEAD.BBOX_REG_WEIGHTS", 4)
    return InstanceConfig(
        rpn=RpnConfig(
            anchor_sizes=_anchor_sizes(keys),
            aspect_ratios=_aspect_ratios(keys),
            pre_nms_top_k=keys.whole("RPN.PRE_NMS_TOPK_TEST", 1, 16384),
            post_nms_top_k=keys.whole("RPN.POST_NMS_TOPK_TEST", 1, 100_000),
            nms_threshold=keys.number("RPN.NMS_THRESH", 0, 1),
            conv_widths=_conv_widths(keys),
        ),
        roi=RoiConfig(sampling_ratio=sampling_ratio),
        box=BoxHeadConfig(
            pooled_size=keys.whole("ROI_BOX_HEAD.POOLER_RESOLUTION", 1, 64),
            hidden=keys.whole("ROI_BOX_HEAD.FC_DIM", 1, 8192),
            box_weights=(weights[0], weights[1], weights[2], weights[3]),
            score_threshold=keys.number("ROI_HEADS.SCORE_THRESH_TEST", 0, 1),
            nms_threshold=keys.number("ROI_HEADS.NMS_THRESH_TEST", 0, 1),
            max_detections=keys.whole("TEST.DETECTIONS_PER_IMAGE", 1, 10_000),
            convolutions=keys.whole("ROI_BOX_HEAD.NUM_CONV", 0, 16),
            width=keys.whole("ROI_BOX_HEAD.CONV_DIM", 1, 8192),
            norm=keys.norm("ROI_BOX_HEAD.NORM"),
            layers=keys.whole("ROI_BOX_HEAD.NUM_FC", 1, 8),
        ),
        mask=MaskHeadConfig(
            pooled_size=keys.whole("ROI_MASK_HEAD.POOLER_RESOLUTION", 1, 64),
            width=keys.whole("ROI_MASK_HEAD.CONV_DIM", 1, 8192),
            convolutions=keys.whole("ROI_MASK_HEAD.NUM_CONV", 0, 64),
            norm=keys.norm("ROI_MASK_HEAD.NORM"),
        ),
    )


def _anchor_sizes(keys: _Keys) -> tuple[float, ...]:
    key, levels = "ANCHOR_GENERATOR.SIZES", len(FIXED_INSTANCES["RPN.IN_FEATURES"][1])
    rows = keys.table(key)
    rows = rows * levels if len(rows) == 1 else rows
    if len(rows) != levels or any(len(row) != 1 for row in rows):
        keys.fail(key, f"one size for each of {levels} levels, which is what PanRT's RpnProposals supports")
    return tuple(row[0] for row in rows)


def _aspect_ratios(keys: _Keys) -> tuple[float, ...]:
    key, levels = "ANCHOR_GENERATOR.ASPECT_RATIOS", len(FIXED_INSTANCES["RPN.IN_FEATURES"][1])
    rows = keys.table(key)
    if len(rows) not in (1, levels) or any(row != rows[0] for row in rows) or len(rows[0]) > 16:
        keys.fail(key, "the same ratios for all levels, at most 16, which is what PanRT's RpnProposals supports")
    return tuple(rows[0])


def _conv_widths(keys: _Keys) -> tuple[int, ...]:
    key = "RPN.CONV_DIMS"
    value = keys[key]
    found = [records.whole(item) for item in value] if isinstance(value, list) else []
    if not 1 <= len(found) <= 16 or any(item is None or not (item == -1 or 1 <= item <= 8192) for item in found):
        keys.fail(key, "1 to 16 numbers of channels, or -1")
    # -1 is the number of channels before, which is the pyramid's where nothing else came first
    widths: list[int] = []
    for item in found:
        assert item is not None
        widths.append(item if item > 0 else widths[-1] if widths else 0)
    return tuple(widths)
