"""The interface to the runtime of subgraphs: open, bind, run.

    opened = open_subgraph(model, threads=4, source="street.onnx")
    opened.bind_input("features", features)
    opened.bind_output("logits", logits)
    opened.run_bound()

The runtime is ONNX Runtime. Another one needs a class with the interface of `OpenSubgraph`, and an `open_subgraph`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from panrt.errors import ThreadLimitError, UnsupportedModelError
from panrt.formats import onnx_runtime

NAME = "ONNX Runtime"  # of the runtime, in reports


class OpenSubgraph(Protocol):
    """A subgraph in a runtime, used by one thread at a time.

    Every method raises UnsupportedModelError if the runtime finds only now that it cannot run the subgraph.
    """

    def bind_input(self, name: str, array: NDArray[Any]) -> None:
        """Let `run_bound` read an input from this memory, which the caller keeps and may write to between runs."""
        ...

    def bind_output(self, name: str, array: NDArray[Any]) -> None:
        """Let `run_bound` write an output to this memory, which the caller keeps."""
        ...

    def run_bound(self) -> None:
        """Compute a subgraph of fixed shapes, whose inputs and outputs are all bound."""
        ...

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """Compute a subgraph of any shapes into new memory; the outputs in the order of their names."""
        ...


def open_subgraph(model: bytes, *, threads: int, source: str) -> OpenSubgraph:
    """Open a subgraph.

    Args:
        model: ONNX, of PanRT's operators and opsets, without custom ops.
        threads: that may run.
        source: names the file in messages.

    Raises:
        UnsupportedModelError: the runtime cannot run it.
        ThreadLimitError: the system starts no more threads.
    """
    return _OnnxRuntimeSubgraph(model, threads=threads, source=source)


_RUN_ERRORS: tuple[type[Exception], ...] = (*onnx_runtime.ERRORS, RuntimeError)


class _OnnxRuntimeSubgraph:
    """A subgraph in ONNX Runtime."""

    def __init__(self, model: bytes, *, threads: int, source: str) -> None:
        self._source = source
        try:
            self._model = onnx_runtime.Model(model, threads=threads)
        except onnx_runtime.ERRORS as error:
            raise self._rejected(error) from error
        except RuntimeError as error:
            if "pthread_create" not in str(error):
                raise
            raise ThreadLimitError(source) from error
        self.bind_input = self._model.bind_input
        self.bind_output = self._model.bind_output

    def run_bound(self) -> None:
        try:
            self._model.run_bound()
        except _RUN_ERRORS as error:
            raise self._rejected(error) from error

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        try:
            return self._model.run(outputs, inputs)
        except _RUN_ERRORS as error:
            raise self._rejected(error) from error

    def _rejected(self, error: Exception) -> UnsupportedModelError:
        problem = onnx_runtime.problem(error)
        return UnsupportedModelError(
            f"{self._source}: {NAME} {onnx_runtime.VERSION} cannot run a subgraph of it ({problem}); "
            "export the model again, or upgrade onnxruntime."
        )
