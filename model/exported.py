"""A bundled network in PyTorch, read from its ONNX file.

A wheel has the weights of a bundled model once, in the ONNX file that the runtime loads. There every batch norm is part
of the convolution before it, and matrices and kernels are float16. The network read from it computes what that file
computes, and `panrt export --precision fp16` writes the same weights again.
"""

from __future__ import annotations

from pathlib import Path

import torch
from onnx import numpy_helper
from torch import nn

from panrt.formats.onnx_file import read_onnx
from panrt.model.config import make_config
from panrt.model.layers import FrozenBatchNorm2d
from panrt.model.panoptic_fpn import PanopticFPN


@torch.no_grad()
def load_exported(path: Path) -> PanopticFPN:
    """Return the network of the ONNX file, in eval mode and float32.

    Raises:
        ModelFileError: it is not an ONNX file of PanRT.
        FileNotFoundError: there is no such file.
    """
    exported = read_onnx(path)
    stored = {weight.name: numpy_helper.to_array(weight) for weight in exported.proto.graph.initializer}
    model = PanopticFPN(make_config(exported.file.name)).eval()
    for name, tensor in model.state_dict().items():
        layer, _, kind = name.rpartition(".norm.")
        if not layer:
            tensor.copy_(torch.tensor(stored[name]))
        elif kind == "bias":  # of the convolution, with the norm's shift
            tensor.copy_(torch.tensor(stored[f"{layer}.bias"]))
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            _keep_shift_alone(module)
    return model


def _keep_shift_alone(norm: FrozenBatchNorm2d | nn.BatchNorm2d) -> None:
    """Make everything of a norm the identity but its bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
