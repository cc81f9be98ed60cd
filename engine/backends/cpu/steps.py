"""The steps that the CPU executes: a model as a sequence of subgraphs, custom ops and 3 x 3 convolutions.

Shapes: N images, H x W cells, C channels in, O filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.formats.metadata import ModelFile
from panrt.formats.onnx_shapes import Tensor
from panrt.formats.thresholds import Arrays

NHWC = ":nhwc"  # suffix of the name of a value whose channels come last
CONVOLUTION_DOMAIN = "panrt.cpu"  # of graph nodes that stand for a Convolution


class Subgraph(NamedTuple):
    """Operators of ONNX, for a runtime."""

    model: bytes  # ONNX
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: dict[str, NDArray[Any]]  # inputs of which as many rows are passed as there are detections


class Op(NamedTuple):
    """A custom op."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    nhwc: bool = False  # of PyramidRoiAlign: features and result


class Convolution(NamedTuple):
    """A 3 x 3 convolution for `native.Conv3x3`, with the activation that follows it."""

    name: str
    inputs: tuple[str]  # (N, H, W, C)
    outputs: tuple[str]  # (N, H, W, O)
    shape: tuple[int, ...]  # of the output
    weight: NDArray[np.float32]  # (O, C, 3, 3)
    bias: NDArray[np.float32]  # (O,)
    bounds: tuple[float, float]  # of the output

    @property
    def type(self) -> str:
        """The counterpart of `Op.type`."""
        return "Conv3x3"


class LookUpTable(NamedTuple):
    """The normalisation of pixels: (N, H, W, 3) uint8 -> (N, 3, H, W) float32."""

    output: str
    table: NDArray[np.float32]  # (3, 256)


@dataclass(frozen=True)
class Partition:
    """A model as the CPU executes it."""

    file: ModelFile
    steps: tuple[Subgraph | Op | Convolution, ...]
    settings: Arrays  # the file's own thresholds, by the name of the graph's input
    free_rows: bool  # the steps after BoxDetections accept any number of detections
    table: LookUpTable | None  # what precedes the steps; None: the first one reads the image
