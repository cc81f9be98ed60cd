"""The JSON of the COCO panoptic format, as found in practice: each field is checked, none trusted.

Read are `categories` (id, name, isthing, color), `images` (id, file_name, height, width) and `annotations` (image_id,
file_name, segments_info of id, category_id, area, iscrowd). Fields that follow from others may be missing: a colour is
assigned, an area is counted in the label map, a label map has the name of its image. Whole numbers may be written as
floats. Other fields are ignored. Source: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from cv2 import COLOR_BGR2RGBA, IMREAD_UNCHANGED, cvtColor

from panrt.errors import (
    ImageDeniedError,
    ImageFileError,
    ImageNotFoundError,
    PanopticFormatError,
    PanopticNotFoundError,
)
from panrt.formats import image_files, records
from panrt.formats.metadata import Category
from panrt.formats.records import legible, shown
from panrt.model.data.classes import made_up_colors
from panrt.model.panoptic_map import Segment

MAX_ID = 2**24 - 1  # of a segment: three channels of 8 bits
MAX_CATEGORY_ID = 2**31 - 1
MAX_LABEL_PIXELS = 2**27
_NEEDED = (
    "needed is a panoptic JSON, whose annotations have segments_info: for COCO panoptic_train2017.json or "
    "panoptic_val2017.json, for Cityscapes what createPanopticImgs.py writes"
)
ImageId = int | str


class Image(NamedTuple):
    """An image, as the JSON lists it."""

    id: ImageId
    file_name: str
    height: int | None  # of the upright image; None: not in the JSON
    width: int | None


class Annotation(NamedTuple):
    """The label map of an image, as the JSON lists it."""

    image_id: ImageId
    file_name: str
    segments: tuple[Segment, ...]


class PanopticJson:
    """A parsed file; its parts are checked when they are read."""

    def __init__(self, path: Path | str) -> None:
        """Read the file.

        Raises:
            PanopticNotFoundError: it is not there.
            PanopticFormatError: it cannot be read, is not JSON, or holds no object or list.
        """
        self.path = Path(path)
        self.name = legible(path)
        self._root: Any = records.parse(
            _read_text(self.path), source=self.name, error=PanopticFormatError, cure=_cure(self.path)
        )
        if not isinstance(self._root, (dict, list)):
            raise PanopticFormatError(f"{self.name}: expected an object with annotations, got {shown(self._root)}.")

    def categories(self) -> tuple[Category, ...]:
        """Return every category; one without a colour gets one that depends on the JSON alone.

        Raises:
            PanopticFormatError: a field is missing or wrong, or an id is listed twice.
        """
        # COCO's own list of its categories is a bare list
        listed = self._root if _is_list_with(self._root, "isthing") else self._list("categories")
        entries = [_Node(f"{self.name}: categories[{i}]", entry) for i, entry in enumerate(listed)]
        if any("isthing" not in node.fields for node in entries):
            self._raise_if_of_another_kind()
        ids = [node.whole("id", 0, MAX_CATEGORY_ID) for node in entries]
        _check_unique(ids, f"{self.name}: categories", "category")
        colors = [_color(node) for node in entries]
        made_up = made_up_colors(
            [i for i, color in zip(ids, colors, strict=True) if color is None], [c for c in colors if c is not None]
        )
        return tuple(
            Category(number, node.text("name"), node.flag("isthing"), made_up[number] if color is None else color)
            for node, number, color in zip(entries, ids, colors, strict=True)
        )

    def images(self) -> dict[ImageId, Image]:
        """Return every image by its id.

        Raises:
            PanopticFormatError: a field is missing or wrong, or an id is listed twice.
        """
        images: dict[ImageId, Image] = {}
        for i, entry in enumerate(self._list("images")):
            node = _Node(f"{self.name}: images[{i}]", entry)
            image = Image(node.image_id("id"), node.file_name("file_name"), node.side("height"), node.side("width"))
            if image.id in images:
                raise PanopticFormatError(f"{node.where}: image {shown(image.id)} is listed twice.")
            images[image.id] = image
        return images

    def annotations(self, *, of_truth: bool) -> tuple[Annotation, ...]:
        """Return every annotation.

        Args:
            of_truth: read areas and crowds too; predictions have none.

        Raises:
            PanopticFormatError: a field is missing or wrong, or an id is listed twice.
        """
        entries = self._list("annotations")
        if entries and not any("segments_info" in entry for entry in entries if isinstance(entry, dict)):
            self._raise_if_of_another_kind()
        names = self._label_names(entries)
        annotations = tuple(
            _annotation(_Node(f"{self.name}: annotations[{i}]", entry), names, of_truth=of_truth)
            for i, entry in enumerate(entries)
        )
        _check_unique([annotation.image_id for annotation in annotations], f"{self.name}: annotations", "image")
        return annotations

    def _label_names(self, entries: Sequence[Any]) -> Mapping[ImageId, str]:
        """Return the names of label maps that annotations do not name: those of their images, as PNG."""
        if all(isinstance(entry, dict) and entry.get("file_name") is not None for entry in entries):
            return {}
        if not isinstance(self._root, dict) or "images" not in self._root:
            return {}
        return {
            image.id: str(PurePosixPath(image.file_name).with_suffix(".png"))
            for image in self.images().values()
            if PurePosixPath(image.file_name).name
        }

    def _list(self, name: str) -> list[Any]:
        value = self._root.get(name) if isinstance(self._root, dict) else None
        if not isinstance(value, list):
            self._raise_if_of_another_kind()
            found = shown(value) if isinstance(self._root, dict) and name in self._root else "nothing"
            raise PanopticFormatError(f"{self.name}: {name}: expected a list of objects, got {found}; {_NEEDED}.")
        return value

    def _raise_if_of_another_kind(self) -> None:
        kind = _kind(self._root)
        if kind is not None:
            raise PanopticFormatError(f"{self.name}: this is {kind}; {_NEEDED}.")


def _annotation(node: _Node, names: Mapping[ImageId, str], *, of_truth: bool) -> Annotation:
    image_id = node.image_id("image_id")
    name = (
        names[image_id] if node.fields.get("file_name") is None and image_id in names else node.file_name("file_name")
    )
    listed = node.fields.get("segments_info")
    if not isinstance(listed, list):
        node.wrong("segments_info", "a list of objects")
    segments: list[Segment] = []
    seen: set[int] = set()
    for i, entry in enumerate(listed):
        info = _Node(f"{node.where}.segments_info[{i}]", entry)
        number = info.whole("id", 1, MAX_ID)
        if number in seen:
            raise PanopticFormatError(f"{info.where}: id {number}: another segment of the image has it too.")
        seen.add(number)
        category = info.whole("category_id", 0, MAX_CATEGORY_ID)
        if of_truth:
            segments.append(Segment(number, category, _area(info), info.flag("iscrowd", default=False)))
        else:
            segments.append(Segment(number, category))
    return Annotation(image_id, name, tuple(segments))


def _area(node: _Node) -> int | None:
    """Return the area in pixels; None if the JSON has none, or that of a polygon, which is not a whole number."""
    value = node.fields.get("area")
    if value is None:
        return None
    number = records.real(value)
    if number is None or number < 0:
        node.wrong("area", "a number of pixels")
    return int(number) if number.is_integer() else None


def _color(node: _Node) -> tuple[int, int, int] | None:
    value = node.fields.get("color")
    if value is None:
        return None
    channels = [records.whole(channel) for channel in value] if isinstance(value, list) else []
    red, green, blue = channels if len(channels) == 3 else (None, None, None)
    if red is None or green is None or blue is None or not all(0 <= c <= 255 for c in (red, green, blue)):
        node.wrong("color", "[R, G, B] of 0..255")
    return red, green, blue


class _Node:
    """A JSON object and its place in the file, for messages."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise PanopticFormatError(f"{where}: expected an object, got {shown(value)}.")
        self.where = where
        self.fields: Mapping[str, Any] = value

    def wrong(self, name: str, expected: str) -> NoReturn:
        found = shown(self.fields[name]) if name in self.fields else "nothing"
        raise PanopticFormatError(f"{self.where}: {name}: expected {expected}, got {found}.")

    def whole(self, name: str, least: int, most: int) -> int:
        number = records.whole(self.fields.get(name))
        if number is None or not least <= number <= most:
            self.wrong(name, f"a whole number from {least} to {most}")
        return number

    def flag(self, name: str, *, default: bool | None = None) -> bool:
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        number = int(value) if isinstance(value, bool) else records.whole(value)
        if number not in (0, 1):
            self.wrong(name, "0 or 1")
        return number == 1

    def side(self, name: str) -> int | None:
        return None if self.fields.get(name) is None else self.whole(name, 1, image_files.MAX_SIDE)

    def text(self, name: str) -> str:
        value = records.line(self.fields.get(name))
        if not value:
            self.wrong(name, "a name of one line")
        return value

    def image_id(self, name: str) -> ImageId:
        """Return the id of an image: COCO numbers its images, Cityscapes names them."""
        value = self.fields.get(name)
        found = records.line(value) if isinstance(value, str) else records.whole(value)
        if found is None:
            self.wrong(name, "a whole number or a name")
        return found

    def file_name(self, name: str) -> str:
        """Return the path of a file within its folder."""
        value = self.text(name)
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise PanopticFormatError(
                f"{self.where}: {name}: got {shown(value)}, expected a path within the folder of the files; give a "
                "folder that holds them all, and names relative to it."
            )
        return value


def _read_text(path: Path) -> bytes:
    name = legible(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PanopticNotFoundError(f"{name}: is not a file; expected a COCO panoptic JSON.")
        return path.read_bytes()
    except PanopticFormatError:
        raise
    except FileNotFoundError as error:
        raise PanopticNotFoundError(f"{name}: no such file; expected a COCO panoptic JSON.") from error
    except (OSError, ValueError) as error:  # a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise PanopticFormatError(f"{name}: cannot be read ({reason}); expected a COCO panoptic JSON.") from error


def _cure(path: Path) -> str:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return "JSON lines are not a panoptic JSON; the sink coco://DIR writes one"
    return "expected a COCO panoptic JSON; download or generate it again"


def _is_list_with(root: Any, field: str) -> bool:
    return isinstance(root, list) and bool(root) and isinstance(root[0], dict) and field in root[0]


_LISTS = {  # by a field of the first entry of a list
    "score": "a list of detections (COCO results), which have no label maps",
    "segments_info": 'a bare list of annotations, which belongs into an object:  {"annotations": [...]}',
    "segmentation": "a list of instance annotations",
    "isthing": "a list of categories alone",
}
_ANNOTATIONS = {  # by a field of the first annotation
    "keypoints": "a keypoint JSON (its annotations have keypoints)",
    "segmentation": "an instance JSON (its annotations have segmentation)",
    "bbox": "a detection JSON (its annotations have bbox)",
    "caption": "a caption JSON (its annotations have caption)",
}


def _kind(root: Any) -> str | None:
    """Return what a JSON that is not panoptic is, if its content shows it."""
    if isinstance(root, list):
        return _first(root, _LISTS) or "a list, not an object with annotations"
    if "shapes" in root and "imagePath" in root:
        return "an annotation of labelme"
    if isinstance(root.get("images"), list) and root.get("annotations") is None:
        return "a list of images without annotations, as COCO has for its test set"
    annotations = root.get("annotations")
    kind = _first(annotations, _ANNOTATIONS) if not _is_list_with(annotations, "segments_info") else None
    categories = root.get("categories")
    if kind is None and categories and isinstance(categories, list) and not _is_list_with(categories, "isthing"):
        return "a JSON whose categories do not state which are things (isthing)"
    return kind


def _first(entries: Any, kinds: Mapping[str, str]) -> str | None:
    return next((kind for field, kind in kinds.items() if _is_list_with(entries, field)), None)


def _check_unique(ids: Sequence[ImageId], where: str, what: str) -> None:
    if repeated := [i for i, count in Counter(ids).items() if count > 1]:
        raise PanopticFormatError(f"{where}: {what} {shown(repeated[0])} is listed more than once.")


# Files that a JSON names ---------------------------------------------------------------------------------------------


def check_folder(folder: Path, role: str, path: Path) -> None:
    """Raise PanopticNotFoundError unless the folder of the images or label maps of a JSON is there."""
    if not os.path.isdir(folder):
        raise PanopticNotFoundError(
            f"{legible(folder)}: no such folder; expected the {role} of {legible(path.name)} there. Name the folder "
            "that holds them."
        )


def within(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder; a link may not lead out of it.

    Raises:
        PanopticNotFoundError: there is no such file.
        PanopticFormatError: it is a link to somewhere else.
    """
    path = folder / name
    try:
        real = os.path.realpath(path, strict=True)
    except (OSError, ValueError) as error:
        raise PanopticNotFoundError(
            f"{legible(path)}: no such file; the JSON names it, so the data set is incomplete or the folder is another."
        ) from error
    if os.path.commonpath([real, os.path.realpath(folder)]) != os.path.realpath(folder):
        raise PanopticFormatError(
            f"{legible(path)}: is a link to {legible(real)}, outside of its folder, and not followed; copy the files "
            "(cp -rL), or name the folder that holds them."
        )
    return path


def read_panoptic_png(path: Path | str) -> npt.NDArray[np.uint32]:
    """Decode a panoptic PNG to its (H, W) segment ids.

    An orientation is not applied: ids are as they are stored. A palette is looked up, for a PNG that was made smaller
    without loss may have got one.

    Raises:
        PanopticNotFoundError: no such file.
        PanopticFormatError: it is no readable PNG, or not an 8-bit RGB one.
    """
    path = Path(path)
    try:
        data = image_files.read_file(path)
        header = image_files.read_header(data, path)
        image_files.check_size(header, path, most=MAX_LABEL_PIXELS)
        _check_label_format(header, path)
        bgr = image_files.decode(data, IMREAD_UNCHANGED, path)
    except ImageNotFoundError as error:
        raise PanopticNotFoundError(str(error)) from error
    except (ImageFileError, ImageDeniedError) as error:
        raise PanopticFormatError(f"{error} A label map is an 8-bit RGB PNG.") from error
    if bgr.shape[2] == 4 and (bgr[..., 3] != 255).any():
        raise PanopticFormatError(
            f"{legible(path)}: expected an 8-bit RGB PNG, id = R + 256 G + 65536 B, got transparent pixels; write it "
            "without alpha."
        )
    rgba = cvtColor(bgr[..., :3], COLOR_BGR2RGBA)
    ids: npt.NDArray[np.uint32] = rgba.view("<u4")[..., 0]  # R is the lowest byte
    ids &= MAX_ID
    return ids


def _check_label_format(header: image_files.Header, path: Path) -> None:
    kinds = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
    if header.format != "PNG":
        found = f"a {header.format} file"
    elif header.color_type == 3 or (header.color_type in (2, 6) and header.bit_depth == 8):
        return
    else:
        found = f"a PNG of {header.bit_depth} bits, {kinds.get(header.color_type, 'of no known kind')}"
    raise PanopticFormatError(
        f"{legible(path)}: expected an 8-bit RGB PNG, id = R + 256 G + 65536 B, got {found}; is this the folder of the "
        "panoptic label maps?"
    )
