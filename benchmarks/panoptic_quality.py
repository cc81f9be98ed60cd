"""Time the panoptic quality of PanRT against other packages, on the same data and to the same numbers.

    python -m benchmarks.panoptic_quality [--images 64] [--width 320] [--height 256] [--repeats 7]

Memory: maps and segments to PQ, against torchmetrics, whose form of the maps is made beforehand. Files: JSON and PNG
folders to PQ, against panopticapi and hotcoco, which use every CPU, while PanRT uses one by default. Runs are
interleaved, medians are printed. A package that is not installed is skipped; `pip install --no-deps panopticapi-lite`
installs panopticapi.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import numpy.typing as npt

from panrt.model.metric_table import text_table
from panrt.model.panoptic_folders import evaluate_folders
from panrt.model.panoptic_map import Category, IdMap, PanopticMap, Segment
from panrt.model.panoptic_quality import evaluate

CATEGORIES = tuple(Category(i, f"category {i}", is_thing=i <= 8) for i in range(1, 13))
Pairs = list[tuple[PanopticMap, PanopticMap]]
Contestant = tuple[str, Callable[[], float]]  # name, a run that returns PQ


def make_pairs(images: int, height: int, width: int, seed: int = 0) -> Pairs:
    """Four bands of stuff and 12 ellipses per image; in the prediction each ellipse has moved a little or is lost."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        truth = 1 + np.repeat(np.arange(height) * 4 // height, width).reshape(height, width).astype(np.int32)
        predicted = np.roll(truth, 3, axis=0)
        for segment_id in range(5, 17):
            centre, axes = rng.integers((width, height)), rng.integers(4, height // 4, size=2)
            _draw(truth, centre, axes, segment_id)
            if rng.random() < 0.9:
                _draw(predicted, centre + rng.integers(-3, 4, size=2), axes, segment_id)
        category = {i: i + 8 if i <= 4 else int(rng.integers(1, 9)) for i in range(1, 17)}
        pairs.append((_to_map(truth, category), _to_map(predicted, category)))
    return pairs


def _draw(ids: IdMap, centre: IdMap, axes: IdMap, segment_id: int) -> None:
    cv2.ellipse(ids, centre.tolist(), axes.tolist(), 0, 0, 360, segment_id, -1)


def _to_map(ids: IdMap, category: dict[int, int]) -> PanopticMap:
    present, areas = np.unique(ids, return_counts=True)
    return PanopticMap(ids, [Segment(i, category[i], n) for i, n in zip(present.tolist(), areas.tolist(), strict=True)])


def _categories_and_ids(panoptic_map: PanopticMap) -> npt.NDArray[np.int64]:
    """Return category and segment id of every pixel, (H, W, 2), the form that torchmetrics takes."""
    ids, segments = panoptic_map
    category = np.zeros(1 + max(s.id for s in segments), np.int64)
    for s in segments:
        category[s.id] = s.category_id
    return np.stack([category[ids], ids], axis=-1)


def write_folders(folder: Path, pairs: Pairs) -> tuple[Path, Path]:
    """Write the pairs as COCO panoptic sets; returns the JSON paths of the ground truth and of the predictions."""
    records = [{"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": [c.id, 0, 0]} for c in CATEGORIES]
    images = [
        {"id": i, "file_name": f"{i}.jpg", "height": truth.panoptic.shape[0], "width": truth.panoptic.shape[1]}
        for i, (truth, _) in enumerate(pairs)
    ]
    paths = []
    for name, maps in zip(("truth", "prediction"), zip(*pairs, strict=True), strict=True):
        (folder / name).mkdir()
        annotations = []
        for i, (ids, segments) in enumerate(maps):
            bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{i}.png"), bgr)
            infos = [{"id": s.id, "category_id": s.category_id, "area": s.area, "iscrowd": 0} for s in segments]
            annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": infos})
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps({"images": images, "categories": records, "annotations": annotations}))
    return paths[0], paths[1]


def in_memory(pairs: Pairs) -> list[Contestant]:
    """Maps and segments to PQ."""
    contestants: list[Contestant] = [("panrt", lambda: evaluate(pairs, CATEGORIES).all.pq)]
    if importlib.util.find_spec("torchmetrics"):
        import torch
        from torchmetrics.detection import PanopticQuality

        torch.set_num_threads(1)
        truths = torch.from_numpy(np.stack([_categories_and_ids(truth) for truth, _ in pairs]))
        predictions = torch.from_numpy(np.stack([_categories_and_ids(prediction) for _, prediction in pairs]))

        def torchmetrics_run() -> float:
            things = {c.id for c in CATEGORIES if c.is_thing}
            metric = PanopticQuality(things=things, stuffs={c.id for c in CATEGORIES} - things)
            metric.update(predictions, truths)
            return float(metric.compute())

        contestants.append(("torchmetrics", torchmetrics_run))
    return contestants


def from_files(folder: Path, pairs: Pairs) -> list[Contestant]:
    """JSON and PNG folders to PQ."""
    truth, prediction = write_folders(folder, pairs)
    contestants: list[Contestant] = [("panrt", lambda: evaluate_folders(truth, prediction).all.pq)]
    if importlib.util.find_spec("panopticapi"):
        from panopticapi.evaluation import pq_compute

        contestants.append(("panopticapi", lambda: float(pq_compute(str(truth), str(prediction))["All"]["pq"])))
    if importlib.util.find_spec("hotcoco"):
        from hotcoco import panoptic

        contestants.append(("hotcoco", lambda: float(panoptic.pq_compute(truth, prediction)["All"]["pq"])))
    return contestants


def measure(contestants: list[Contestant], repeats: int) -> list[tuple[str, float, float]]:
    """Return (name, median milliseconds, PQ) of each, the runs interleaved."""
    times: dict[str, list[float]] = {name: [] for name, _ in contestants}
    qualities = {}
    for _ in range(repeats):
        for name, run in contestants:
            with contextlib.redirect_stdout(io.StringIO()):
                start = time.perf_counter()
                qualities[name] = run()
                times[name].append(1e3 * (time.perf_counter() - start))
    return [(name, median(times[name]), qualities[name]) for name, _ in contestants]


def main() -> None:
    """Measure both settings and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    pairs = make_pairs(args.images, args.height, args.width)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for setting, contestants in (("memory", in_memory(pairs)), ("files", from_files(Path(folder), pairs))):
            results = measure(contestants, args.repeats)
            (_, own, _), *_ = results
            rows += [(f"{setting}: {n}", f"{ms:.1f}", f"{ms / own:.1f}x", f"{100 * pq:.6f}") for n, ms, pq in results]
    print(f"{args.images} images of {args.width}x{args.height}, median of {args.repeats} interleaved runs")
    print(text_table(("", "ms", "time", "PQ"), rows))


if __name__ == "__main__":
    main()
