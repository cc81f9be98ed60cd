"""Mask AP against hand-computed cases and hotcoco: that the records reach pycocotools as they should."""

from __future__ import annotations

import contextlib
import io
import json
import math

import hotcoco
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from panrt.model.mask_ap import Detection, TrueInstance, mask_ap

CUP, BOX = 1, 4


def square(x: int, y: int, size: int, *, width: int = 120) -> np.ndarray:
    mask = np.zeros((100, width), np.bool_)
    mask[y : y + size, x : x + size] = True
    return mask


def test_perfect_masks_have_ap_one_in_their_area_range() -> None:
    truth = [TrueInstance(square(0, 0, 10), CUP), TrueInstance(square(20, 20, 40), CUP)]
    detections = [Detection(mask, category, 0.9) for mask, category, *_ in truth]
    result = mask_ap([(truth, detections)], [CUP, BOX])
    assert list(result[:6]) == pytest.approx([1, 1, 1, 1, 1, math.nan], nan_ok=True)
    assert result.per_category == pytest.approx({CUP: 1, BOX: math.nan}, nan_ok=True)


def test_an_iou_of_0_72_is_found_at_five_of_the_ten_thresholds() -> None:
    found = square(0, 0, 10)
    found[:, 9:] = False
    found[8:] = False  # 72 of 100 pixels
    result = mask_ap([([TrueInstance(square(0, 0, 10), CUP)], [Detection(found, CUP, 0.9)])], [CUP])
    assert (result.ap, result.ap50, result.ap75) == pytest.approx((0.5, 1, 0))


def test_a_false_positive_with_a_higher_score_halves_the_precision() -> None:
    truth = [TrueInstance(square(0, 0, 10), CUP)]
    detections = [Detection(square(50, 50, 10), CUP, 0.9), Detection(square(0, 0, 10), CUP, 0.8)]
    assert mask_ap([(truth, detections)], [CUP]).ap == pytest.approx(0.5)
    assert mask_ap([(truth, detections[1:])], [CUP]).ap == pytest.approx(1)


def test_detections_on_a_crowd_are_ignored() -> None:
    truth = [TrueInstance(square(0, 0, 10), CUP), TrueInstance(square(40, 40, 50), CUP, is_crowd=True)]
    detections = [Detection(square(50, 50, 10), CUP, 0.9), Detection(square(0, 0, 10), CUP, 0.8)]
    assert mask_ap([(truth, detections)], [CUP]).ap == pytest.approx(1)


def test_a_stated_area_decides_the_range() -> None:
    truth = [TrueInstance(square(0, 0, 10), CUP, area=100.0**2)]
    assert mask_ap([(truth, [Detection(square(0, 0, 10), CUP, 0.9)])], [CUP]).large == pytest.approx(1)


def test_without_detections_ap_is_zero_and_without_objects_nan() -> None:
    assert mask_ap([([TrueInstance(square(0, 0, 10), CUP)], [])], [CUP]).ap == 0
    assert math.isnan(mask_ap([([], [Detection(square(0, 0, 10), CUP, 0.9)])], [CUP]).ap)
    assert math.isnan(mask_ap([([], [])], [CUP]).ap)


def random_images(seed: int) -> list[tuple[list[TrueInstance], list[Detection]]]:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        truth, detections = [], []
        for _ in range(rng.integers(0, 6)):
            x, y, size = (int(rng.integers(low, high)) for low, high in ((0, 90), (0, 90), (4, 70)))
            category = int(rng.choice([CUP, BOX]))
            truth.append(TrueInstance(square(x, y, size, width=200), category, is_crowd=bool(rng.random() < 0.15)))
            moved = square(x + int(rng.integers(0, 6)), y, size, width=200)
            detections.append(Detection(moved, category, float(rng.random())))
        detections.append(Detection(square(3, 5, 30, width=200), CUP, float(rng.random())))
        images.append((truth, detections))
    return images


@pytest.mark.parametrize("seed", range(5))
def test_a_random_set_equals_hotcoco(seed: int) -> None:
    images = random_images(seed)

    def record(image_id: int, index: int, item: TrueInstance | Detection) -> dict[str, object]:
        runs = coco_mask.encode(np.asfortranarray(item.mask, dtype=np.uint8))
        area = float(item.mask.sum())
        segmentation = {"size": list(item.mask.shape), "counts": runs["counts"].decode()}
        common = {"id": index, "image_id": image_id, "category_id": item.category_id, "area": area}
        return {**common, "segmentation": segmentation, "bbox": coco_mask.toBbox(runs).tolist()}

    truths = [(i, item) for i, (truth, _) in enumerate(images, start=1) for item in truth]
    found = [(i, item) for i, (_, detections) in enumerate(images, start=1) for item in detections]
    coco = {
        "images": [{"id": i, "height": 100, "width": 200} for i in range(1, len(images) + 1)],
        "categories": [{"id": CUP, "name": "cup"}, {"id": BOX, "name": "box"}],
        "annotations": [
            {**record(i, n, item), "iscrowd": int(item.is_crowd)} for n, (i, item) in enumerate(truths, start=1)
        ],
    }
    results = [{**record(i, n, item), "score": item.score} for n, (i, item) in enumerate(found, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        peer_truth = hotcoco.COCO(coco)
        peer = hotcoco.COCOeval(peer_truth, peer_truth.load_res(results), "segm")
        peer.run()
    result = mask_ap(images, [CUP, BOX])
    expected = [math.nan if value == -1 else value for value in peer.stats[:6]]
    assert list(result[:6]) == pytest.approx(expected, rel=0, abs=1e-9, nan_ok=True)


def test_the_result_prints_and_is_plain_json() -> None:
    result = mask_ap([([TrueInstance(square(0, 0, 10), CUP)], [Detection(square(0, 0, 10), CUP, 0.9)])], [CUP])
    assert result.table().splitlines()[-1].split() == ["Masks", "100.0", "100.0", "100.0", "100.0", "-", "-"]
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["per_category"] == {"1": pytest.approx(1)}


def test_input_that_does_not_fit_is_refused() -> None:
    mask = square(0, 0, 10)
    with pytest.raises(
        ValueError, match=r"image 0, TrueInstance: expected an \(H, W\) bool mask, got \(100, 120\) uint8"
    ):
        mask_ap([([TrueInstance(mask.astype(np.uint8), CUP)], [])], [CUP])
    with pytest.raises(ValueError, match="image 0, Detection: category 4 is not among the 1 to evaluate"):
        mask_ap([([], [Detection(mask, BOX, 0.5)])], [CUP])
    with pytest.raises(ValueError, match=r"image 0: expected masks of one size, got \[\(100, 120\), \(100, 200\)\]"):
        mask_ap([([TrueInstance(mask, CUP)], [Detection(square(0, 0, 9, width=200), CUP, 0.5)])], [CUP])
