"""The four ops on torch tensors, computed by the CUDA kernels: a `CustomOps` of the network in PyTorch.

On a GPU the tensors are CUDA tensors and everything is queued on PyTorch's current stream, without a synchronisation,
so that the network can be captured. On the stand-ins the tensors are the CPU's and the simulated kernels run at once.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from panrt.model.custom_ops import CustomOps, Tensors, output_shapes
from panrt.plugins import contract, cuda_api
from panrt.plugins.cuda_api import DataType, Status
from panrt.plugins.schema import Op
from tools.gpu.machine import Machine

ALIGNMENT = 256


class KernelRefusedError(Exception):
    """A launch was rejected."""


class TorchOps(CustomOps):
    """The custom ops by CUDA kernels; see `panrt.model.custom_ops.CustomOps`."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._is_simulated = machine.simulated
        self._library = ctypes.CDLL(_unhooked(machine) if machine.simulated else machine.kernels)

    def run(self, op: Op, inputs: Tensors, attributes: Mapping[str, Any]) -> Sequence[Tensor]:
        """Run the kernels of an op, with channels first."""
        given = [x.contiguous() if isinstance(x, Tensor) else [level.contiguous() for level in x] for x in inputs]
        first = given[0] if isinstance(given[0], Tensor) else given[0][0]
        dtypes = {"int32": torch.int32, "features": first.dtype}
        outputs = [
            torch.empty(shape, dtype=dtypes.get(tensor.type, torch.float32), device=first.device)
            for tensor, shape in zip(op.outputs, output_shapes(op, given, attributes), strict=True)
        ]
        names = [tensor.name for tensor in (*op.inputs, *op.outputs)]
        both = dict(zip(names, [*given, *outputs], strict=True))
        levels, fields = cuda_api.values(
            op,
            {name: x.data_ptr() if isinstance(x, Tensor) else [y.data_ptr() for y in x] for name, x in both.items()},
            contract.sizes_of(op, given, attributes),
            attributes,
            types={name: _type(x if isinstance(x, Tensor) else x[0]) for name, x in both.items()},
        )
        args = cuda_api.arguments(op)()
        for i, level in enumerate(levels):
            for name, value in level.items():
                setattr(args.levels[i], name, value)
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(args, name)[: len(value)] = value
            else:
                setattr(args, name, value)
        self._launch(op.function, args, first)
        return outputs

    def _launch(self, op: str, args: ctypes.Structure, like: Tensor) -> None:
        size = ctypes.c_size_t(ctypes.sizeof(args))
        if hasattr(args, "workspace"):
            asks = getattr(self._library, f"panrt_cuda_{op}_workspace_bytes")
            asks.restype = ctypes.c_size_t
            args.workspace_bytes = asks(ctypes.byref(args), size)
            # Freed in stream order, as all that PyTorch allocates; on the CPU it aligns to 64 bytes alone.
            workspace = torch.empty(args.workspace_bytes + ALIGNMENT, dtype=torch.uint8, device=like.device)
            args.workspace = -(-workspace.data_ptr() // ALIGNMENT) * ALIGNMENT
        stream = 0 if self._is_simulated else torch.cuda.current_stream().cuda_stream
        function = getattr(self._library, f"panrt_cuda_{op}")
        function.restype = Status
        status: Status = function(ctypes.byref(args), size, ctypes.c_void_p(stream))
        if status.code != 0:
            raise KernelRefusedError(
                f"{op}: {status.message.decode()} (status {status.code}, CUDA {status.cuda_error})"
            )


def _type(tensor: Tensor) -> DataType:
    return DataType.FLOAT16 if tensor.dtype == torch.float16 else DataType.FLOAT32


def _unhooked(machine: Machine) -> str:
    """Copy the simulated kernels: loaded as a file of its own, it runs at once and not on the simulated streams."""
    copy = machine.folder / "kernels-at-once.so"
    if not copy.exists():
        shutil.copy2(Path(machine.kernels), copy)
    return str(copy)
