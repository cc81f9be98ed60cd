"""Read data sets in the COCO panoptic format: COCO, Cityscapes through its panoptic JSON, and the tabletop.

Shapes: H x W pixels, G instances of one image, C thing classes, S semantic channels. Thing classes are numbered
0..C-1 and semantic channels 1..S-1, both in the order of the JSON's categories; channel 0 is all things together and
255 is void.
Boxes are (x0, y0, x1, y1) in pixels, tight and half-open: a single pixel at (3, 5) is (3, 5, 4, 6). The format is that
of https://cocodataset.org/#format-data; a label map codes an id as R + 256 G + 65536 B.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.errors import (
    ImageDeniedError,
    ImageFileError,
    ImageNotFoundError,
    PanopticFormatError,
    PanopticNotFoundError,
)
from panrt.formats import image_files
from panrt.formats.records import legible, shown
from panrt.model.data.classes import VOID, ClassTable
from panrt.model.data.panoptic_json import Annotation, Image, PanopticJson, check_folder, read_panoptic_png, within
from panrt.model.panoptic_map import areas, runs, some

MAX_MASK_BYTES = 2**31  # of the masks of one image


class Segment(NamedTuple):
    """One region of an image, as the JSON describes it."""

    id: int
    category_id: int
    is_crowd: bool
    area: int | None  # pixels; None: not in the JSON, `load_sample` counts it


class Record(NamedTuple):
    """An image of a data set, and its files."""

    image_id: int | str
    images: Path  # the folder, and the name in it
    image_name: str
    labels: Path
    label_name: str
    height: int | None  # of the upright image; None: not in the JSON
    width: int | None
    segments: tuple[Segment, ...]

    @property
    def image_path(self) -> Path:
        """The path of the image."""
        return self.images / self.image_name

    @property
    def label_path(self) -> Path:
        """The path of the label map."""
        return self.labels / self.label_name


class CocoPanoptic(NamedTuple):
    """A data set: its classes and its images, none of them loaded."""

    classes: ClassTable
    records: tuple[Record, ...]


class Sample(NamedTuple):
    """One loaded image."""

    image: NDArray[np.uint8]  # (H, W, 3) BGR, upright
    panoptic: NDArray[np.int32]  # (H, W) segment ids, 0 is void
    segments: tuple[Segment, ...]


class Targets(NamedTuple):
    """The training targets of one image."""

    boxes: NDArray[np.float32]  # (G, 4)
    classes: NDArray[np.int64]  # (G,), 0..C-1
    masks: NDArray[np.bool_]  # (G, H, W)
    semantic: NDArray[np.uint8]  # (H, W), 0 things, 1..S-1 stuff, 255 void


def read_coco_panoptic(
    annotations: Path | str, *, images: Path | str, labels: Path | str | None = None
) -> CocoPanoptic:
    """Read the JSON of a data set; images are loaded one by one with `load_sample`.

    Args:
        annotations: the JSON, for example `annotations/panoptic_val2017.json`.
        images: folder of the images. For Cityscapes `leftImg8bit/val`, which has one folder for each
            city.
        labels: folder of the label maps; by default the folder beside the JSON that has its name without `.json`.

    Returns:
        the data set, in the order of the JSON's annotations.

    Raises:
        PanopticNotFoundError: the JSON or a folder is missing.
        PanopticFormatError: the JSON is not in the format; the message names the place.
    """
    annotations, images = Path(annotations), Path(images)
    labels = annotations.with_suffix("") if labels is None else Path(labels)
    content = PanopticJson(annotations)
    classes = _class_table(content)
    known = {category.id for category in classes.things + classes.stuff}
    listed = content.images()
    annotated = content.annotations(of_truth=True)
    for role, folder in (("images", images), ("label maps", labels)):
        check_folder(folder, role, annotations)
    if not annotated:
        raise PanopticFormatError(f"{content.name}: annotations: there are none, expected one for each image.")
    records = []
    for i, annotation in enumerate(annotated):
        where = f"{content.name}: annotations[{i}]"
        if annotation.image_id not in listed:
            raise PanopticFormatError(
                f"{where}: image_id {shown(annotation.image_id)} is not among the images (ids are compared as they are "
                "written, a number is not a text)."
            )
        records.append(_record(annotation, listed[annotation.image_id], known, images, labels, where))
    return CocoPanoptic(classes, tuple(records))


def read_classes(annotations: Path | str) -> ClassTable:
    """Read the classes of a data set alone; `annotations` and errors as for `read_coco_panoptic`."""
    return _class_table(PanopticJson(annotations))


def load_sample(record: Record) -> Sample:
    """Load an image, upright, and its label map, and check that they agree with the JSON.

    Raises:
        PanopticNotFoundError: a file is missing.
        PanopticFormatError: a file is not an image, sizes differ, or label map and JSON have different ids.
    """
    image = _read_image(record)
    panoptic = read_panoptic_png(within(record.labels, record.label_name)).view(np.int32)
    _check_size(record, image.shape[:2], panoptic.shape)
    pixels = areas(panoptic)
    drawn, listed = pixels.keys() - {0}, {segment.id for segment in record.segments}
    if drawn != listed:
        differences = [
            text
            for text, ids in (
                ("ids {} are not in the JSON", drawn - listed),
                ("ids {} of the JSON have no pixel", listed - drawn),
            )
            if ids
            for text in [text.format(some(ids))]
        ]
        raise PanopticFormatError(
            f"{legible(record.label_path)}: {', '.join(differences)}; label maps and JSON are of different versions."
        )
    segments = (s if s.area is not None else s._replace(area=pixels[s.id]) for s in record.segments)
    return Sample(image, panoptic, tuple(segments))


def derive_targets(sample: Sample, classes: ClassTable, *, name: str = "image") -> Targets:
    """Return the training targets of a sample: instances without crowds, and stuff with all things merged to channel 0.

    A crowd counts as a thing in the semantic map, as in detectron2's `prepare_panoptic_fpn`.

    Raises:
        PanopticFormatError: the masks would take too much memory; the message begins with `name`.
    """
    thing_index, semantic_index = classes.thing_index(), classes.semantic_index()
    instances = [s for s in sample.segments if s.category_id in thing_index and not s.is_crowd]
    check_masks(len(instances), sample.panoptic.shape, name)
    ids = np.array([segment.id for segment in instances], np.int32)
    masks: NDArray[np.bool_] = np.equal(sample.panoptic[None], ids[:, None, None])
    channels = {segment.id: semantic_index[segment.category_id] for segment in sample.segments}
    found, lengths = runs(sample.panoptic)
    by_run = np.array([channels.get(number, VOID) for number in found.tolist()], np.uint8)
    semantic = np.repeat(by_run, lengths).reshape(sample.panoptic.shape)
    return Targets(
        boxes=tight_boxes(masks),
        classes=np.array([thing_index[segment.category_id] for segment in instances], np.int64),
        masks=masks,
        semantic=semantic,
    )


def check_masks(count: int, hw: tuple[int, ...], name: str) -> None:
    """Check that there is memory for a mask of each instance of an image.

    Raises:
        PanopticFormatError: they take more than MAX_MASK_BYTES.
    """
    height, width = hw
    if count * height * width > MAX_MASK_BYTES:
        raise PanopticFormatError(
            f"{name}: the masks of {count} things at {height}x{width} (H x W) take more than {MAX_MASK_BYTES >> 20} "
            "MiB; make the image smaller, or cut it into tiles."
        )


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the box (G, 4) of each mask (G, H, W); every mask has a pixel."""
    rows, columns = np.asarray(masks.any(2)), np.asarray(masks.any(1))
    height, width = masks.shape[1:]
    edges = (columns.argmax(1), rows.argmax(1), width - columns[:, ::-1].argmax(1), height - rows[:, ::-1].argmax(1))
    return np.stack(edges, -1).astype(np.float32).reshape(-1, 4)


def _class_table(content: PanopticJson) -> ClassTable:
    categories = content.categories()
    table = ClassTable(tuple(c for c in categories if c.is_thing), tuple(c for c in categories if not c.is_thing))
    if table.semantic_channels >= VOID:
        raise PanopticFormatError(
            f"{content.name}: categories: {len(table.stuff)} stuff classes do not fit the uint8 semantic map, "
            f"at most {VOID - 2} do."
        )
    return table


def _record(annotation: Annotation, image: Image, known: set[int], images: Path, labels: Path, where: str) -> Record:
    for i, segment in enumerate(annotation.segments):
        if segment.category_id not in known:
            raise PanopticFormatError(
                f"{where}.segments_info[{i}]: category_id {segment.category_id} is not among the categories."
            )
    segments = tuple(Segment(s.id, s.category_id, s.is_crowd, s.area) for s in annotation.segments)
    return Record(
        annotation.image_id,
        images,
        _image_name(image),
        labels,
        annotation.file_name,
        image.height,
        image.width,
        segments,
    )


def _image_name(image: Image) -> str:
    """Return the file of an image; `ulm/ulm_0_1_leftImg8bit.png` for Cityscapes' `ulm_0_1_gtFine_leftImg8bit.png`."""
    if isinstance(image.id, str) and image.file_name.endswith("_leftImg8bit.png") and "/" not in image.id:
        return f"{image.id.split('_')[0]}/{image.id}_leftImg8bit.png"
    return image.file_name


def _read_image(record: Record) -> NDArray[np.uint8]:
    try:
        return image_files.read_image(within(record.images, record.image_name))
    except ImageNotFoundError as error:
        raise PanopticNotFoundError(str(error)) from error
    except (ImageFileError, ImageDeniedError) as error:
        raise PanopticFormatError(str(error)) from error


def _check_size(record: Record, image_hw: tuple[int, ...], label_hw: tuple[int, ...]) -> None:
    """Check that image, label map and JSON are of one size, that of the upright image."""
    if record.height is None or record.width is None:
        expected, said = label_hw, "the label map is"
    else:
        expected, said = (record.height, record.width), "the JSON says"
    for path, found in ((record.image_path, image_hw), (record.label_path, label_hw)):
        if found == expected:
            continue
        text = f"{legible(path)}: is {found[0]}x{found[1]} (H x W), {said} {expected[0]}x{expected[1]}"
        turned = _orientation(path) if path == record.image_path and found == expected[::-1] else 1
        if turned < 5:
            raise PanopticFormatError(f"{text}; images and JSON are of different versions.")
        raise PanopticFormatError(
            f"{text}, which is the size before its EXIF orientation ({turned}) turns it. If the labels were drawn on "
            f"the unturned image, remove the tag (exiftool -Orientation= {legible(path.name)}); otherwise write "
            "labels and JSON for the upright one."
        )


def _orientation(path: Path) -> int:
    return image_files.read_header(image_files.read_file(path), path).orientation
