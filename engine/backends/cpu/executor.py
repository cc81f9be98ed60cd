"""Run the steps of a partition: subgraphs in their runtime, ops in `panrt.plugins.native`.

Steps run one after another, each on all threads. What passes between them is memory that both sides see: the runtime
writes features where the kernels read them.

Shapes: N images, H x W network input, K detections of the file, k <= K that can enter the merge.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.cpu.dense import open_subgraph
from panrt.engine.backends.cpu.steps import Convolution, LookUpTable, Op, Partition, Subgraph
from panrt.formats.metadata import IMAGE
from panrt.formats.onnx_graph import RESULTS
from panrt.formats.thresholds import INSTANCE, Arrays
from panrt.plugins import native
from panrt.plugins.contract import Layout, PanopticSegments
from panrt.plugins.nodes import by_tensor, op_of
from panrt.plugins.schema import BOX_DETECTIONS

DENSE = "dense"  # the stage of subgraphs, convolutions and the look-up table

Values = dict[str, NDArray[Any]]


class Executor:
    """The steps of a partition, ready to run on a batch of network inputs."""

    def __init__(self, plan: Partition, path: Path, *, threads: int) -> None:
        """Open every step.

        Args:
            plan: what to run.
            path: names the file in messages.
            threads: of every step.

        Raises:
            UnsupportedModelError: the runtime of subgraphs cannot run one.
            ThreadLimitError: the system starts no more threads.
        """
        self.file = plan.file
        self.stages: dict[str, float] = {}  # seconds of the last run: DENSE, and each op by its name
        self._values: Values = {}
        self._table = None if plan.table is None else _LookUp(plan.table, threads)
        self._steps = [_ready(step, str(path), threads, free_rows=plan.free_rows) for step in plan.steps]
        self.settings = plan.settings  # the file's own thresholds, by the name of the graph's input

    def run(self, image: NDArray[np.uint8], settings: Arrays | None = None) -> PanopticSegments:
        """Run all steps: (N, H, W, 3) uint8 BGR at network size -> the panoptic maps.

        Args:
            image: of the network's size.
            settings: thresholds in place of the file's own; see `panrt.formats.thresholds`.
        """
        values = self._values
        values[IMAGE] = image
        values.update(self.settings if settings is None else settings)
        stages: dict[str, float] = {}
        for step in (*([self._table] if self._table is not None else []), *self._steps):
            started = time.perf_counter()
            step.run(values)
            stages[step.stage] = stages.get(step.stage, 0.0) + time.perf_counter() - started
        self.stages = stages
        return PanopticSegments(*(values[name] for name in RESULTS))

    def close(self) -> None:
        """Free everything."""
        self._steps.clear()
        self._values.clear()


def _ready(step: Subgraph | Op | Convolution, source: str, threads: int, *, free_rows: bool) -> _Step:
    if isinstance(step, Op):
        return _CustomOp(step, threads, free_rows=free_rows and step.type == BOX_DETECTIONS.name)
    if isinstance(step, Convolution):
        return _Conv3x3(step, threads)
    is_fixed = all(size >= 0 for tensor in (*step.inputs, *step.outputs) for size in tensor.shape)
    return _FixedSubgraph(step, source, threads) if is_fixed else _FreeSubgraph(step, source, threads)


class _FixedSubgraph:
    """A subgraph of fixed shapes, which writes to memory that is allocated once."""

    stage = DENSE

    def __init__(self, subgraph: Subgraph, source: str, threads: int) -> None:
        self._opened = open_subgraph(subgraph.model, threads=threads, source=source)
        self._inputs = [tensor.name for tensor in subgraph.inputs]
        self._outputs: Values = {}
        self._bound: Values = {}
        for name, dtype, shape in subgraph.outputs:
            self._outputs[name] = np.empty(shape, dtype)
            self._opened.bind_output(name, self._outputs[name])

    def run(self, values: Values) -> None:
        for name in self._inputs:
            array = values[name]
            if self._bound.get(name) is not array:  # what earlier steps write is in the same place every time
                self._opened.bind_input(name, array)
                self._bound[name] = array
        self._opened.run_bound()
        values.update(self._outputs)


class _FreeSubgraph:
    """A subgraph that accepts any number of detections."""

    stage = DENSE

    def __init__(self, subgraph: Subgraph, source: str, threads: int) -> None:
        self._opened = open_subgraph(subgraph.model, threads=threads, source=source)
        self._inputs = subgraph.inputs
        self._outputs = [tensor.name for tensor in subgraph.outputs]
        self._constants = subgraph.constants

    def run(self, values: Values) -> None:
        rows = {name: array[: self._rows(values)] for name, array in self._constants.items()}
        feeds = {tensor.name: values[tensor.name] for tensor in self._inputs if tensor.name not in rows}
        values.update(zip(self._outputs, self._opened.run(self._outputs, feeds | rows), strict=True))

    def _rows(self, values: Values) -> int:
        """Return the number of detections of all images together."""
        return next(len(values[t.name]) for t in self._inputs if len(t.shape) == 4 and t.name in values)


class _LookUp:
    """The look-up table of pixels."""

    stage = DENSE

    def __init__(self, table: LookUpTable, threads: int) -> None:
        self._table = table
        self._threads = threads

    def run(self, values: Values) -> None:
        image = values[IMAGE]
        N, H, W, _ = image.shape
        out = values.get(self._table.output)
        if out is None:
            out = np.empty((N, 3, H, W), np.float32)
        values[self._table.output] = native.look_up(image, self._table.table, out=out, threads=self._threads)


class _Conv3x3:
    """A convolution outside the runtime, which writes to memory that is allocated once."""

    stage = DENSE

    def __init__(self, convolution: Convolution, threads: int) -> None:
        (self._read,), (self._written,) = convolution.inputs, convolution.outputs
        self._convolve = native.Conv3x3(
            convolution.weight, convolution.bias, bounds=convolution.bounds, threads=threads
        )
        self._output = np.empty(convolution.shape, np.float32)

    def run(self, values: Values) -> None:
        values[self._written] = self._convolve(values[self._read], self._output)


class _CustomOp:
    """A custom op in its native kernel."""

    def __init__(self, op: Op, threads: int, *, free_rows: bool) -> None:
        self.stage = op.name or op.type
        self._op = op
        self._declaration = op_of(op.type, op.inputs)
        self._layout: Layout = "NHWC" if op.nhwc else "NCHW"
        self._threads = threads
        self._free_rows = free_rows  # it is BoxDetections, and may give fewer rows

    def run(self, values: Values) -> None:
        declaration = self._declaration
        inputs = by_tensor(declaration, [values[name] for name in self._op.inputs])
        found = native.run(declaration, inputs, self._op.attributes, layout=self._layout, threads=self._threads)
        if self._free_rows:
            found = _kept(found, values[INSTANCE][0])
        values.update(zip(self._op.outputs, found, strict=True))


_Step = _FixedSubgraph | _FreeSubgraph | _LookUp | _Conv3x3 | _CustomOp


def _kept(found: Sequence[NDArray[Any]], least_score: np.float32) -> list[NDArray[Any]]:
    """Drop the rows whose score the merge would reject; scores descend. One row stays, so that later steps run."""
    boxes, scores, classes, count = found
    real = np.arange(scores.shape[1]) < count[:, None]
    kept = max(int((real & (scores >= least_score)).sum(axis=1).max()), 1)
    rows = [np.ascontiguousarray(array[:, :kept]) for array in (boxes, scores, classes)]
    return [*rows, np.minimum(count, np.int32(kept))]
