"""Average precision of instance masks by the COCO rules, computed by pycocotools (the `[train]` extra).

Shapes: H, W image size. AP is the mean over the IoU thresholds 0.50:0.05:0.95 and the categories of the 101-point
interpolated precision, with at most 100 detections per image and category. Objects are small up to 32**2, medium up to
96**2 and large from 96**2 pixels. Detections on crowds and of another area range are ignored. Source: `cocoeval.py`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panrt.model.metric_table import nan_to_none, percent, text_table

Record = dict[str, object]  # a COCO annotation or image
Mask = npt.NDArray[np.bool_]  # (H, W)


class TrueInstance(NamedTuple):
    """An annotated object."""

    mask: Mask  # (H, W)
    category_id: int
    is_crowd: bool = False
    area: float | None = None  # pixels, decides the area range; None: of the mask


class Detection(NamedTuple):
    """A detected object."""

    mask: Mask  # (H, W)
    category_id: int
    score: float


class MaskAp(NamedTuple):
    """Average precision as fractions; NaN if there is no ground truth."""

    ap: float  # IoU 0.50:0.95
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    per_category: dict[int, float]  # AP by category id

    def table(self) -> str:
        """Return aligned text in percent."""
        header = ("", "AP", "AP50", "AP75", "small", "medium", "large")
        return text_table(header, [("Masks", *map(percent, self[:6]))])

    def to_json(self) -> dict[str, object]:
        """Return plain data for `json.dumps`."""
        per_category = nan_to_none({str(category): ap for category, ap in self.per_category.items()})
        return {**nan_to_none(self._asdict()), "per_category": per_category}


def mask_ap(
    images: Iterable[tuple[Sequence[TrueInstance], Sequence[Detection]]], category_ids: Sequence[int]
) -> MaskAp:
    """Compute the mask AP of a stream of (ground truth, detections), one image at a time.

    Args:
        images: the masks of an image are of its size.
        category_ids: categories to average over.

    Raises:
        ValueError: a mask is no (H, W) bool array or of another size than its image, or a category is unknown.
    """
    sizes: list[Record] = []
    truth: list[Record] = []
    detected: list[Record] = []
    for image_id, (instances, detections) in enumerate(images):
        shapes = {instance.mask.shape for instance in instances} | {detection.mask.shape for detection in detections}
        if len(shapes) > 1:
            raise ValueError(f"image {image_id}: expected masks of one size, got {sorted(shapes)}.")
        height, width = next(iter(shapes), (0, 0))
        sizes.append({"id": image_id, "height": height, "width": width})
        for instance in instances:
            record = _record(image_id, len(truth), instance, category_ids)
            area = record["area"] if instance.area is None else instance.area
            truth.append({**record, "area": area, "iscrowd": int(instance.is_crowd)})
        for detection in detections:
            record = _record(image_id, len(detected), detection, category_ids)
            detected.append({**record, "iscrowd": 0, "score": detection.score})

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print
        evaluation = COCOeval(_coco(sizes, truth, category_ids), _coco(sizes, detected, category_ids), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # (thresholds, recalls, categories, areas), 100 detections
    areas = evaluation.params.areaRngLbl
    overall = precision[..., areas.index("all")]
    thresholds = evaluation.params.iouThrs.round(2).tolist()
    return MaskAp(
        ap=_mean(overall),
        ap50=_mean(overall[thresholds.index(0.5)]),
        ap75=_mean(overall[thresholds.index(0.75)]),
        small=_mean(precision[..., areas.index("small")]),
        medium=_mean(precision[..., areas.index("medium")]),
        large=_mean(precision[..., areas.index("large")]),
        per_category={int(c): _mean(overall[:, :, i]) for i, c in enumerate(evaluation.params.catIds)},
    )


def _record(image_id: int, index: int, item: TrueInstance | Detection, category_ids: Sequence[int]) -> Record:
    """Return a COCO annotation; its id is not 0, which pycocotools takes for unmatched."""
    where = f"image {image_id}, {type(item).__name__}"
    if item.mask.ndim != 2 or item.mask.dtype != np.bool_:
        raise ValueError(f"{where}: expected an (H, W) bool mask, got {item.mask.shape} {item.mask.dtype}.")
    if item.category_id not in category_ids:
        raise ValueError(f"{where}: category {item.category_id} is not among the {len(category_ids)} to evaluate.")
    runs = coco_mask.encode(np.asfortranarray(item.mask, dtype=np.uint8))
    return {
        "id": index + 1,
        "image_id": image_id,
        "category_id": item.category_id,
        "segmentation": runs,
        "area": float(coco_mask.area(runs)),
    }


def _coco(images: list[Record], annotations: list[Record], category_ids: Sequence[int]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": i} for i in category_ids]}
    coco.createIndex()
    return coco


def _mean(precision: npt.NDArray[np.float64]) -> float:
    """Return the mean of the defined values; pycocotools marks categories without ground truth by -1."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")
