"""A plugin class on device memory, plainly or with its first launch inside a capture.

python -m tools.gpu.plugin_runs FOLDER        the second, for every case: a line for each that fails
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tools.gpu import planted
from tools.gpu.device import Buffer, Stream, open_context
from tools.gpu.machine import Machine, load_kernels
from tools.gpu.plugin_calls import Plugin, arrays_for
from tools.gpu.plugin_cases import PluginCase, cases


class Node:
    """A plugin with buffers for its tensors."""

    def __init__(self, machine: Machine, case: PluginCase) -> None:
        self._case = case
        tensors = [*case.inputs, *case.outputs]
        described = [(tensor.shape, tensor.dtype, case.layout_of(tensor)) for tensor in tensors]
        self._plugin = Plugin(machine, case.op, described, inputs=len(case.inputs), attributes=case.attributes)
        placed = [arrays_for(case.layout_of(tensor), tensor) for tensor in tensors]
        self._buffers = [Buffer(array.nbytes) for array in placed]
        for buffer, array in zip(self._buffers, placed, strict=True):
            buffer.write(array)
        for buffer in self._buffers[len(case.inputs) :]:
            buffer.poison()
        self._workspace = Buffer(self._plugin.workspace_bytes, offset=1)  # kernels align what they put into it
        self._workspace.poison()

    def queue(self, stream: Stream) -> None:
        """Put a run on a stream."""
        addresses = [buffer.address for buffer in self._buffers]
        self._plugin.enqueue(addresses, self._workspace.address, stream.address)

    def check(self) -> None:
        """Compare outputs with the reference, and look at all canaries.

        Raises:
            AssertionError, CanaryError: something is wrong.
        """
        self._workspace.read()
        count = len(self._case.inputs)
        for number, (buffer, wanted) in enumerate(
            zip(self._buffers, [*self._case.inputs, *self._case.outputs], strict=True)
        ):
            raw = buffer.read()
            layout = self._case.layout_of(wanted)
            placed = arrays_for(layout, wanted)
            found = raw.view(wanted.dtype).reshape(placed.shape)
            if number < count:
                assert np.array_equal(found, placed), f"input {number} was written to"
            elif wanted.dtype == np.int32 or self._case.tolerance == 0:
                assert np.array_equal(found, placed), f"output {number - count} differs from the reference"
            else:
                scale = float(np.abs(placed.astype(np.float32)).max(initial=1))
                worst = float(np.abs(found.astype(np.float32) - placed.astype(np.float32)).max(initial=0))
                limit = self._case.tolerance * scale
                assert worst <= limit, f"output {number - count} is off by {worst:.3g}, allowed {limit:.3g}"

    def close(self) -> None:
        """Free everything; its work must be done."""
        for buffer in (*self._buffers, self._workspace):
            buffer.close()
        self._plugin.close()


def run_plainly(machine: Machine, case: PluginCase) -> None:
    """Run a case once and check it."""
    load_kernels(machine)
    node, stream = Node(machine, case), Stream()
    node.queue(stream)
    stream.synchronize()
    node.check()
    node.close()
    stream.close()


def run_captured(machine: Machine, case: PluginCase) -> None:
    """Launch for the first time inside a capture, replay it and check that."""
    load_kernels(machine)
    node, stream = Node(machine, case), Stream()
    with stream.capture() as graph:
        node.queue(stream)
    graph.launch()
    stream.synchronize()
    node.check()
    graph.close()
    node.close()
    stream.close()


def main() -> None:
    """Take each case through `run_captured`; ends with 1 where one fails."""
    machine = Machine.read(Path(sys.argv[1]))
    planted.plant(machine.plant)
    open_context()
    failures = 0
    for case in cases():
        try:
            run_captured(machine, case)
        except Exception as error:  # the next case may fare better
            print(f"{case.name}: {type(error).__name__}: {error}", flush=True)
            failures += 1
    raise SystemExit(min(failures, 1))


if __name__ == "__main__":
    main()
