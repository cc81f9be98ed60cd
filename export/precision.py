"""The precision of a file: which features are float16 or int8 is decided here, for every runtime.

Float32 in every file are the pixels until they are normalised, all boxes and scores, the softmax, the sigmoid of the
masks and the geometry of the ops. Int8 is explicit: QuantizeLinear and DequantizeLinear round each convolution that
computes in int8, weights by output channel, activations by tensor, both symmetric, as TensorRT takes them.

Shapes: images are (N, H, W, 3) uint8 BGR at the network's input size.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime import quantization
from torch import Tensor, nn

from panrt.errors import ExportError
from panrt.formats.metadata import IMAGE
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.plugins.onnx_functions import add_functions

Images = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # done, total

_GROUP_NORMALIZATION = 21  # the opset from which on PyTorch exports a group norm as one operator
LARGEST_HALF = float(torch.finfo(torch.float16).max)


class Peak(NamedTuple):
    """The largest magnitude that occurred."""

    value: float
    module: str  # where


# float16 --------------------------------------------------------------------------------------------------------------


def to_half(network: PanopticFPN, *, opset: int) -> None:
    """Convert backbone and heads to float16, in place; the ops between them stay float32.

    So do group norms in a file of an older opset: there they consist of InstanceNormalization, which sums the squares
    of a whole group in the type of its input. GroupNormalization has float32 for that.

    Raises:
        ExportError: a weight is beyond float16.
    """
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight.half()).all()):
            raise ExportError(
                f"{name}: a weight of {float(weight.abs().max()):.3g} is beyond float16, which ends at "
                f"{LARGEST_HALF:.0f}; export in fp32."
            )
    network.backbone.half().register_forward_pre_hook(_in_half)
    if network.semantic is not None:
        network.semantic.half()
    if network.instance is not None:
        network.instance.half()
    if opset < _GROUP_NORMALIZATION:
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.float().register_forward_pre_hook(_in_float)
                module.register_forward_hook(_out_half)


def _in_half(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.half() for tensor in inputs)


def _in_float(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.float() for tensor in inputs)


def _out_half(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.half()


@torch.no_grad()
def largest_feature(network: PanopticFPN, images: Sequence[Images], progress: Progress | None = None) -> Peak:
    """Run the float32 network on images and return where features are largest.

    Raises:
        ExportError: a feature is beyond float16; the message names the module.
    """
    peak = Peak(0.0, "")

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            nonlocal peak
            if isinstance(output, Tensor):
                peak = max(peak, Peak(float(output.abs().max()), name))

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in network.named_modules()]
    try:
        for done, image in enumerate(images, start=1):
            network.branches(torch.from_numpy(image))
            if not peak.value <= LARGEST_HALF:
                raise ExportError(
                    f"{peak.module}: a feature of {peak.value:.3g} on sample frame {done} is beyond float16, which "
                    f"ends at {LARGEST_HALF:.0f}; export in fp32."
                )
            if progress is not None:
                progress(done, len(images))
    finally:
        for handle in hooks:
            handle.remove()
    return peak


# int8 -----------------------------------------------------------------------------------------------------------------

_TRUNK = ("backbone.", "semantic.")
_HEADS = ("instance.",)


class _Images(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
    def __init__(self, images: Sequence[Images], progress: Progress | None) -> None:
        self._images = images
        self._next = 0
        self._progress = progress

    def get_next(self) -> dict[str, Images] | None:
        if self._progress is not None:
            self._progress(self._next, len(self._images))
        if self._next == len(self._images):
            return None
        self._next += 1
        return {IMAGE: self._images[self._next - 1]}


def quantize(
    proto: ModelProto, images: Sequence[Images], *, heads: bool, progress: Progress | None = None
) -> ModelProto:
    """Insert QuantizeLinear and DequantizeLinear around the convolutions of a float32 graph.

    Args:
        proto: as it was traced and named.
        images: to calibrate on, each a batch of the graph's size.
        heads: quantise the RPN, box and mask heads too, not only backbone, FPN and semantic branch.
        progress: called before each image and at the end.
    """
    prefixes = _TRUNK + (_HEADS if heads else ())
    kinds = ["Conv", "Gemm"] if heads else ["Conv"]
    chosen = [node.name for node in proto.graph.node if node.op_type in kinds and node.name.startswith(prefixes)]
    calibrated = ModelProto()
    calibrated.CopyFrom(proto)
    add_functions(calibrated)  # ONNX Runtime has to run it
    with tempfile.TemporaryDirectory(prefix="panrt-") as folder, _quiet_quantizer():
        path = Path(folder) / "quantized.onnx"
        quantization.quantize_static(
            calibrated,
            path,
            _Images(images, progress),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=kinds,
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT rejects int32 biases
                "OpTypesToExcludeOutputQuantization": kinds,  # what leaves a convolution is rounded by who reads it
            },
        )
        quantized = onnx.load(path)
    _spare_the_others(quantized, set(chosen))
    return quantized


def _spare_the_others(proto: ModelProto, chosen: set[str]) -> None:
    """Let only the chosen nodes, and the shortcuts round them, read rounded features, in place.

    What reads the same feature unrounded costs nothing more, and the heads and P6 stay as exact as they were.
    """
    rounded = {node.output[0]: node for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    source = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    for node in proto.graph.node:
        if node.name not in chosen and node.op_type not in ("Add", "QuantizeLinear", "DequantizeLinear"):
            for index, name in enumerate(node.input):
                if name in rounded:
                    node.input[index] = source[rounded[name].input[0]]


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Silence the quantiser's advice on preparing the graph, which the exporter has done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
