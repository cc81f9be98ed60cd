"""The process behind `RealGpu`: runs kernels on the device, in buffers between canaries, and answers on stdout.

It is to the compiled library what tools/hostcuda/worker.py is to the simulated kernels. Each call runs twice, plainly
and then as a captured graph on poisoned outputs, which has to give the same bytes.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins.cuda_api import Status
from tools.gpu.device import CANARY_BYTES, POISON, Buffer, Stream, open_context
from tools.gpu.machine import Machine, load_kernels
from tools.hostcuda import Out, Reply, Request
from tools.hostcuda.worker import Device

CALL_SECONDS = 30.0  # on a GPU, a hundred times what the slowest one takes
SIMULATED_CALL_SECONDS = 300.0


class Buffers(Device):
    """Buffers of one call.

    For compute-sanitizer they are bare: no canaries, which it would take for a part of the buffer, and outputs that
    nobody has written to.
    """

    def __init__(self, library: ctypes.CDLL, *, bare: bool = False) -> None:
        super().__init__(library)
        self._canary = 0 if bare else CANARY_BYTES
        self._poisons = not bare
        self.guarded: list[tuple[Buffer, NDArray[np.uint8]]] = []  # with what each held before the call

    def upload(self, array: NDArray[Any], offset: int = 0) -> int:
        """A device buffer of just this size."""
        return self._place(np.ascontiguousarray(array).reshape(-1).view(np.uint8), offset)

    def reserve(self, out: Out) -> int:
        """A device buffer that is read back after the call."""
        offset = getattr(out, "offset", 0)
        if out.copy is not None:
            address = self.upload(out.copy, offset)
        else:
            size = int(np.prod(out.shape)) * np.dtype(out.dtype).itemsize
            address = self._place(np.full(size, POISON, np.uint8), offset, fill=self._poisons)
        self.outputs.append((len(self.guarded) - 1, out))
        return address

    def rewind(self) -> None:
        """Fill the outputs as before the call."""
        for number, _ in self.outputs:
            buffer, before = self.guarded[number]
            buffer.write(before)

    def download(self) -> list[NDArray[Any]]:
        """Return the contents of the outputs, after checking their canaries."""
        return [
            self.guarded[number][0].read().view(out.dtype).reshape(out.shape).copy() for number, out in self.outputs
        ]

    def check_inputs(self) -> None:
        """Check that inputs and their canaries are unchanged."""
        written = {number for number, _ in self.outputs}
        for number, (buffer, before) in enumerate(self.guarded):
            if number not in written:
                assert np.array_equal(buffer.read(), before), f"input {number} was written to"

    def close(self) -> None:
        """Free all."""
        for buffer, _ in self.guarded:
            buffer.close()

    def _place(self, content: NDArray[np.uint8], offset: int, *, fill: bool = True) -> int:
        size = max(content.size, 1 - self._canary)  # the driver gives no empty memory
        buffer = Buffer(size, canary=self._canary, offset=offset)
        if fill:
            buffer.write(content)
        self.guarded.append((buffer, content))
        return buffer.address


def answer(library: ctypes.CDLL, request: Request, stream: Stream) -> Reply:
    """Do one call."""
    assert request.as_struct, "the compiled library has the functions of the C interface alone"
    function = getattr(library, request.function)
    function.restype = Status
    if not request.arguments:  # such as panrt_cuda_prepare
        status = function()
        return Reply([], status.code, status.message.decode(), "", 0, None)
    buffers = Buffers(library)
    try:
        struct = buffers.fill(request.arguments[0])

        def launch() -> Status:
            status: Status = function(
                ctypes.byref(struct), ctypes.c_size_t(ctypes.sizeof(struct)), ctypes.c_void_p(stream.address)
            )
            return status

        status = launch()
        stream.synchronize()
        if status.code != 0:
            return Reply([], status.code, status.message.decode(), "", 0, None)
        plain = buffers.download()
        buffers.rewind()
        with stream.capture() as graph:
            launch()
        graph.launch()
        stream.synchronize()
        graph.close()
        scratch = request.arguments[0].fields.get("workspace")  # may hold anything afterwards
        for (_, out), one, other in zip(buffers.outputs, plain, buffers.download(), strict=True):
            same = np.array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8))
            assert same or out is scratch, f"{request.function}: a replay gave another output of shape {out.shape}"
        buffers.check_inputs()
        return Reply(plain, 0, "", "", graph.nodes, None)
    finally:
        buffers.close()


def main() -> None:
    """Answer until stdin ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to stderr
    machine = Machine.read(Path(sys.argv[1]))
    open_context()
    library, stream = load_kernels(machine), Stream()
    seconds = SIMULATED_CALL_SECONDS if machine.simulated else CALL_SECONDS
    while True:
        try:
            request: Request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        watch = threading.Timer(seconds, _give_up, [request.function, seconds])
        watch.daemon = True
        watch.start()
        pickle.dump(answer(library, request, stream), replies)
        watch.cancel()
        replies.flush()


def _give_up(function: str, seconds: float) -> None:
    print(f"{function} did not end within {seconds:.0f} s", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
