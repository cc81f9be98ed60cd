"""ONNX Runtime on the CPU. Only this module and the quantiser of `panrt.export.precision` import it.

Two rooms that may not import each other run models in it: the CPU backend its subgraphs, in
`panrt.engine.backends.cpu.dense`, and `panrt verify` whole files. They share its options and the errors that it raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
from numpy.typing import NDArray

VERSION: str = onnxruntime.__version__
SPIN_MICROSECONDS = 50  # that a thread waits for work before it sleeps, as in plugins/cpu/thread_pool.cpp

# How its threads wait: the system takes about as long to wake one as a node of a graph takes. Before 1.26 they spin
# without end or not at all.
SPINNING = {"session.intra_op.allow_spinning": "0"}
if tuple(int(part) for part in VERSION.split(".")[:2]) >= (1, 26):
    SPINNING = {
        "session.intra_op.allow_spinning": "1",
        "session.intra_op.spin_duration_us": str(SPIN_MICROSECONDS),
    }

# What it raises for a model that it cannot run, when it opens or runs it.
_states = onnxruntime.capi.onnxruntime_pybind11_state
ERRORS: tuple[type[Exception], ...] = (
    *(_states.EPFail, _states.EngineError, _states.Fail, _states.InvalidArgument, _states.InvalidGraph),
    *(_states.InvalidProtobuf, _states.NoModel, _states.NoSuchFile, _states.NotImplemented, _states.RuntimeException),
)


class Model:
    """An open model; it writes to memory that is bound, or to its own."""

    def __init__(self, content: bytes, *, threads: int) -> None:
        """Open a model.

        Args:
            content: an ONNX file.
            threads: 0 leaves the number to ONNX Runtime.

        Raises:
            ERRORS: it cannot run the model.
            RuntimeError: the system starts no more threads ("pthread_create").
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in SPINNING.items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        self._binding: Any = self._session.io_binding()

    def bind_input(self, name: str, array: NDArray[Any]) -> None:
        """Let `run_bound` read an input from this memory, from now on."""
        self._binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def bind_output(self, name: str, array: NDArray[Any]) -> None:
        """Let `run_bound` write an output to this memory, from now on."""
        self._binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run_bound(self) -> None:
        """Compute all bound outputs.

        Raises:
            RuntimeError: for any reason; here ONNX Runtime does not raise ERRORS.
        """
        self._session.run_with_iobinding(self._binding)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute outputs into new memory.

        Raises:
            ERRORS: the model cannot be run.
        """
        found: list[NDArray[Any]] = self._session.run(list(outputs), dict(inputs))
        return found


def problem(error: Exception) -> str:
    """Return ONNX Runtime's message on one line."""
    return " ".join(str(error).split())[:500]
