"""The custom ops as nodes of an ONNX graph: replaces `custom_ops.KERNELS` while the network is traced.

The dynamo exporter copies each call into the graph as one node, with all the attributes that `panrt.plugins.schema`
declares. What the call returns has the right shapes and no values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from panrt.model.custom_ops import CustomOps, Tensors, output_shapes
from panrt.plugins.schema import DOMAIN, Op

_DTYPES = {"float32": torch.float32, "floating": torch.float32, "int32": torch.int32}


class SymbolicOps(CustomOps):
    """Ops that record instead of computing."""

    def run(self, op: Op, inputs: Tensors, attributes: Mapping[str, Any]) -> Sequence[Tensor]:
        """Record one node of the domain, its attributes in the order and the types of the schema."""
        typed = {attribute.name: _typed(attributes[attribute.name]) for attribute in op.attributes}
        flat = [x for entry in inputs for x in ([entry] if isinstance(entry, Tensor) else entry)]
        results: Sequence[Tensor] = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{op.name}",
            flat,
            {**typed, **op.plugin},
            dtypes=[_DTYPES.get(tensor.type, flat[0].dtype) for tensor in op.outputs],
            shapes=output_shapes(op, inputs, attributes),
            version=op.version,
        )
        return results


def _typed(value: float | Sequence[float]) -> Any:
    return list(value) if isinstance(value, Sequence) else value
