"""Measure the speed of this machine in the CPU backend, in a few tenths of a second."""

from __future__ import annotations

import time

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from panrt.engine.backends.cpu.dense import open_subgraph

_CHANNELS, _MAP = 256, (16, 64)  # of the convolution: those of an FPN
_OPSET = 17
_RUNS = 20  # short ones, so that one of them is not disturbed by other programs


def products_per_second(threads: int) -> float:
    """Return the multiply-adds per second of a 3x3 convolution such as Panoptic FPN has, the best of some runs.

    Args:
        threads: that may run.

    Raises:
        ThreadLimitError: the system starts no more threads.
    """
    shape = [1, _CHANNELS, *_MAP]
    weight = numpy_helper.from_array(np.full((_CHANNELS, _CHANNELS, 3, 3), 1e-3, np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "speed", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    opened = open_subgraph(model.SerializeToString(), threads=threads, source="speed measurement")
    ones, results = np.ones(shape, np.float32), np.empty(shape, np.float32)  # alive as long as they are bound
    opened.bind_input("x", ones)
    opened.bind_output("y", results)
    opened.run_bound()
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        opened.run_bound()
        seconds.append(time.perf_counter() - start)
    return 9 * _CHANNELS**2 * _MAP[0] * _MAP[1] / min(seconds)
