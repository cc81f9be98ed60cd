"""Reads data sets in the COCO panoptic format: COCO, Cityscapes through its panoptic JSON, and the tabletop.

Shapes: H x W pixels, G instances of one picture, C thing classes, S semantic channels. Thing classes are numbered
0..C-1 and semantic channels 1..S-1, both in the order of the JSON's categories; channel 0 is all things together and
255 is void.
Boxes are (x0, y0, x1, y1) in pixels, tight and half-open: a single pixel at (3, 5) is (3, 5, 4, 6). The format is that
of https://cocodataset.org/#format-data; a label map codes an id as R + 256 G + 65536 B.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.model.data.classes import VOID, Category, ClassTable


class Segment(NamedTuple):
    """One region of a picture, as the JSON describes it."""

    id: int
    category_id: int
    is_crowd: bool
    area: int  # pixels


class Record(NamedTuple):
    """One picture and where its files are."""

    image_id: int | str
    image_path: Path
    label_path: Path
    height: int
    width: int
    segments: tuple[Segment, ...]


class CocoPanoptic(NamedTuple):
    """A data set: what it tells apart and its pictures, none of them loaded."""

    classes: ClassTable
    records: tuple[Record, ...]


class Sample(NamedTuple):
    """One loaded picture."""

    image: NDArray[np.uint8]  # (H, W, 3) BGR
    panoptic: NDArray[np.int32]  # (H, W) segment ids, 0 is void
    segments: tuple[Segment, ...]


class Targets(NamedTuple):
    """What the network is trained to say about one picture."""

    boxes: NDArray[np.float32]  # (G, 4)
    classes: NDArray[np.int64]  # (G,), 0..C-1
    masks: NDArray[np.bool_]  # (G, H, W)
    semantic: NDArray[np.uint8]  # (H, W), 0 things, 1..S-1 stuff, 255 void


def read_coco_panoptic(
    annotations: Path | str, *, images: Path | str, labels: Path | str | None = None
) -> CocoPanoptic:
    """Read the JSON of a data set; pictures are loaded one by one with `load_sample`.

    Args:
        annotations: the JSON, for example `annotations/panoptic_val2017.json`.
        images: folder of the pictures. For Cityscapes `leftImg8bit/val`, whose pictures lie in one folder for each
            city.
        labels: folder of the label maps; by default the folder beside the JSON that has its name without `.json`.

    Returns:
        the data set, in the order of the JSON's annotations.

    Raises:
        FileNotFoundError: the JSON or a folder is missing.
        ValueError: the JSON is not in the format; the message says where.
    """
    annotations, images = Path(annotations), Path(images)
    labels = annotations.with_suffix("") if labels is None else Path(labels)
    content = _content(annotations)
    for role, folder in (("images", images), ("labels", labels)):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; expected the {role} of {annotations.name} there, pass {role}=..."
            )
    classes = _class_table(_entries(content, "categories", annotations), annotations)
    known = {category.id for category in classes.things + classes.stuff}
    pictures = {
        _field(entry, "id", (int, str), f"{annotations}: images"): entry
        for entry in _entries(content, "images", annotations)
    }
    records = tuple(
        _record(
            entry,
            pictures=pictures,
            known=known,
            images=images,
            labels=labels,
            where=f"{annotations}: annotations[{i}]",
        )
        for i, entry in enumerate(_entries(content, "annotations", annotations))
    )
    return CocoPanoptic(classes, records)


def read_classes(annotations: Path | str) -> ClassTable:
    """The classes of a data set alone; `annotations` and errors as for `read_coco_panoptic`."""
    path = Path(annotations)
    return _class_table(_entries(_content(path), "categories", path), path)


def load_sample(record: Record) -> Sample:
    """Load a picture and its label map, and check that they agree with the JSON.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is no picture, sizes differ, or the ids of the label map are not those of the JSON.
    """
    image = _read(record.image_path)
    coded = _read(record.label_path).astype(np.int32)
    for path, found in ((record.image_path, image.shape[:2]), (record.label_path, coded.shape[:2])):
        if found != (record.height, record.width):
            raise ValueError(
                f"{path}: is {found[0]}x{found[1]} (H x W), the JSON says {record.height}x{record.width}; "
                "pictures and JSON are of different versions"
            )
    panoptic = coded[..., 2] + 256 * coded[..., 1] + 65536 * coded[..., 0]
    drawn, listed = set(np.unique(panoptic).tolist()) - {0}, {segment.id for segment in record.segments}
    if drawn != listed:
        raise ValueError(
            f"{record.label_path}: ids {sorted(drawn - listed)} are not in the JSON, ids {sorted(listed - drawn)} "
            "of the JSON have no pixel; label maps and JSON are of different versions"
        )
    return Sample(image, panoptic, record.segments)


def derive_targets(sample: Sample, classes: ClassTable) -> Targets:
    """Training targets of Panoptic FPN: instances without crowds, and stuff with all things merged to channel 0.

    A crowd counts as a thing in the semantic map, as in detectron2's `prepare_panoptic_fpn`.
    """
    thing_index, semantic_index = classes.thing_index(), classes.semantic_index()
    instances = [s for s in sample.segments if s.category_id in thing_index and not s.is_crowd]
    ids = np.array([segment.id for segment in instances], np.int32)
    masks: NDArray[np.bool_] = np.equal(sample.panoptic[None], ids[:, None, None])
    semantic = np.full(sample.panoptic.shape, VOID, np.uint8)
    for segment in sample.segments:
        semantic[sample.panoptic == segment.id] = semantic_index[segment.category_id]
    return Targets(
        boxes=tight_boxes(masks),
        classes=np.array([thing_index[segment.category_id] for segment in instances], np.int64),
        masks=masks,
        semantic=semantic,
    )


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The box (G, 4) of each mask (G, H, W); every mask has a pixel."""
    rows, columns = np.asarray(masks.any(2)), np.asarray(masks.any(1))
    height, width = masks.shape[1:]
    edges = (columns.argmax(1), rows.argmax(1), width - columns[:, ::-1].argmax(1), height - rows[:, ::-1].argmax(1))
    return np.stack(edges, -1).astype(np.float32).reshape(-1, 4)


def _content(annotations: Path) -> Any:
    if not annotations.is_file():
        raise FileNotFoundError(f"{annotations}: no such file; expected a COCO panoptic JSON")
    try:
        return json.loads(annotations.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{annotations}: not JSON ({error}); download or generate it again") from error


def _class_table(entries: list[dict[str, Any]], path: Path) -> ClassTable:
    categories = []
    for i, entry in enumerate(entries):
        where = f"{path}: categories[{i}]"
        color = _field(entry, "color", (list,), where)
        if len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
            raise ValueError(f"{where}: color: expected [R, G, B] of 0..255, got {color}")
        name, number = _field(entry, "name", (str,), where), _field(entry, "id", (int,), where)
        categories.append(Category(number, name, bool(_field(entry, "isthing", (int,), where)), tuple(color)))
    repeated = {c.id for c in categories if sum(c.id == other.id for other in categories) > 1}
    if repeated:
        raise ValueError(f"{path}: categories: ids {sorted(repeated)} are used twice")
    table = ClassTable(tuple(c for c in categories if c.is_thing), tuple(c for c in categories if not c.is_thing))
    if table.semantic_channels >= VOID:
        raise ValueError(
            f"{path}: categories: {len(table.stuff)} stuff classes do not fit the uint8 semantic map, "
            f"at most {VOID - 2} do"
        )
    return table


def _record(
    entry: dict[str, Any],
    *,
    pictures: dict[int | str, dict[str, Any]],
    known: set[int],
    images: Path,
    labels: Path,
    where: str,
) -> Record:
    image_id = _field(entry, "image_id", (int, str), where)
    if image_id not in pictures:
        raise ValueError(f"{where}: image_id {image_id!r} is not among the images")
    picture = pictures[image_id]
    segments: list[Segment] = []
    for i, info in enumerate(_entries(entry, "segments_info", where)):
        at = f"{where}.segments_info[{i}]"
        number, category = _field(info, "id", (int,), at), _field(info, "category_id", (int,), at)
        if category not in known:
            raise ValueError(f"{at}: category_id {category} is not among the categories")
        if number < 1 or any(number == other.id for other in segments):
            raise ValueError(f"{at}: id {number}: expected a positive id that no other segment of the picture has")
        crowd = bool(info.get("iscrowd", 0))  # the format lets it out for stuff
        segments.append(Segment(number, category, crowd, _field(info, "area", (int,), at)))
    return Record(
        image_id,
        _image_path(images, image_id, _field(picture, "file_name", (str,), f"{where}: its image")),
        labels / _field(entry, "file_name", (str,), where),
        _field(picture, "height", (int,), f"{where}: its image"),
        _field(picture, "width", (int,), f"{where}: its image"),
        tuple(segments),
    )


def _image_path(images: Path, image_id: int | str, file_name: str) -> Path:
    """Where a picture is; Cityscapes says `ulm_0_1_gtFine_leftImg8bit.png` and means `ulm/ulm_0_1_leftImg8bit.png`."""
    if isinstance(image_id, str) and file_name.endswith("_leftImg8bit.png"):
        return images / image_id.split("_")[0] / f"{image_id}_leftImg8bit.png"
    return images / file_name


def _read(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; the JSON names it, so the data set is incomplete or the folder is another"
        )
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"{path}: cannot be decoded as a picture; download or generate it again")
    return np.asarray(image, np.uint8)


def _entries(container: Any, name: str, where: Path | str) -> list[dict[str, Any]]:
    entries = container.get(name) if isinstance(container, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(
            f"{where}: {name}: expected a list of objects, got {type(entries).__name__}; is this a COCO panoptic JSON?"
        )
    return entries


def _field(entry: dict[str, Any], name: str, kinds: tuple[type, ...], where: str) -> Any:
    value = entry.get(name)
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{where}: {name}: expected {expected}, got {'nothing' if value is None else repr(value)}")
    return value
