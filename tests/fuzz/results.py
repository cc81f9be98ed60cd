"""What every panoptic result promises."""

from __future__ import annotations

import numpy as np

from fuzz.target import require
from panrt.engine.results.result import PanopticResult
from panrt.formats.metadata import ModelFile


def check_result(result: PanopticResult, model: ModelFile | None = None) -> None:
    """Map and segments agree, and the segments are of classes that the model has."""
    ids, counts = np.unique(result.panoptic, return_counts=True)
    areas = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    areas.pop(0, None)
    require(result.panoptic.dtype == np.int32 and result.panoptic.ndim == 2, "the map is int32 (H, W)")
    require(
        len({segment.id for segment in result.map_segments}) == len(result.map_segments), "ids of segments are unique"
    )
    require(areas.keys() == {segment.id for segment in result.map_segments}, "the map has the ids of the segments")
    classes = None if model is None else {(c.id, c.name, c.is_thing) for c in (*model.things, *model.stuff)}
    for segment in result.map_segments:
        require(segment.area == areas[segment.id], "an area is the number of pixels")
        rows, columns = np.nonzero(result.panoptic == segment.id)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        require(tuple(segment.box) == tuple(map(int, box)), "a box is tight")
        require(bool(np.isfinite(segment.score)), "a score is a number")
        require(
            classes is None or (segment.category_id, segment.name, segment.is_thing) in classes,
            "a segment is of a class of the model",
        )
