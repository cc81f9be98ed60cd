"""Export a network to one portable ONNX file: pixels in, panoptic IDs out.

    to_onnx(model, "street.onnx", input_hw=(512, 1024))

Graph input: `image` (N, H, W, 3) uint8 BGR at network size, normalised in the graph. Graph outputs: `panoptic`,
`segments`, `segment_scores`, `segment_count`, as PanopticMerge gives them. Everything between is plain ONNX but for the
four ops of the domain `panrt`, whose ONNX functions are in the file. `panrt.formats.metadata` describes the file's
metadata, `naming` the names of its nodes and edges.

Shapes: N images, H x W the network's input, multiples of 32.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper
from torch import Tensor, nn

from panrt.errors import ExportError, InputSizeError, ModelFileError
from panrt.export.folding import fold_batch_norms
from panrt.export.frames import Frame
from panrt.export.naming import name_graph
from panrt.export.precision import Peak, Progress, largest_feature, quantize, to_half
from panrt.export.symbolic import SymbolicOps
from panrt.files import write_atomically
from panrt.formats import metadata
from panrt.formats.input_size import Static, open_size
from panrt.formats.metadata import IMAGE, SIZE_DIVISOR, FileThresholds, ModelFile, Precision, Target, side_problem
from panrt.formats.settable import make_settable
from panrt.formats.thresholds import INPUTS, LEAST_JOINT_SCORE, Thresholds
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.plugins.onnx_functions import OUTPUTS, add_functions
from panrt.plugins.schema import DOMAIN, MAX_SIDE
from panrt.version import version

P = ParamSpec("P")

OPSETS: dict[Target, int] = {
    "portable": 21,
    # TensorRT 10.3 reads opsets up to 20, and would take a function in place of the plugin of the same name
    "tensorrt-10.3": 20,
}
MASK_THRESHOLD = 0.5
# The sizes that an open file is derived from; `open_size` gives the reason for these.
_SIZES = ((288, 416), (352, 480))


class Exported(NamedTuple):
    """The file that was written."""

    file: ModelFile
    nodes: int  # of the graph, without those of functions
    bytes: int
    peak: Peak | None  # of a float16 file: the largest feature on the sample frames, if there were any


def _with_former_names(export: Callable[P, Exported]) -> Callable[P, Exported]:
    """Accept the sizes under their names of version 0.1: height, width (0: open) and output_size."""
    call: Callable[..., Exported] = export

    @functools.wraps(export)
    def accepting(*arguments: P.args, **options: P.kwargs) -> Exported:
        given: dict[str, Any] = dict(options)
        if former := given.keys() & {"height", "width", "output_size"}:
            warnings.warn(
                f"to_onnx: {', '.join(sorted(former))} is deprecated; use input_hw=(height, width), None for an open "
                "size, and output_hw.",
                DeprecationWarning,
                stacklevel=2,
            )
        if {"height", "width"} & given.keys():
            size = given.pop("height", 0), given.pop("width", 0)
            given["input_hw"] = None if size == (0, 0) else size
        if "output_size" in given:
            given["output_hw"] = given.pop("output_size")
        return call(*arguments, **given)

    return accepting


@_with_former_names
def to_onnx(
    model: PanopticFPN,
    path: str | os.PathLike[str],
    *,
    input_hw: tuple[int, int] | None,
    valid_hw: tuple[int, int] | None = None,
    output_hw: tuple[int, int] | None = None,
    batch: int = 1,
    precision: Precision = "fp32",
    target: Target = "portable",
    thresholds: Thresholds | FileThresholds | None = None,
    samples: Sequence[Frame] = (),
    int8_heads: bool = False,
    provenance: str = "",
    progress: Progress | None = None,
) -> Exported:
    """Export a network to one ONNX file, whole or not at all.

    Args:
        model: in either mode; it is not changed.
        path: destination; a file of that name is replaced.
        input_hw: (height, width) of the network's input, multiples of 32. None leaves the size open, to be chosen when
            the file is loaded or an engine is built.
        batch: images per inference.
        precision: of weights and features; boxes, scores and all decisions are float32 in every file.
        valid_hw: the part of the input, from the upper left, that holds the frame; by default, and if the size is
            open, all of it.
        output_hw: (height, width) of the panoptic map; by default, and if the size is open, `valid_hw`.
        thresholds: of scores, areas and masks, unless others are set where the file runs; by default those of the
            model's configuration.
        target: "portable" runs everywhere; "tensorrt-10.3" (JetPack 6) has an older opset and no functions.
        samples: frames of the kind that the network will see, each of the input's size, or of one size if that
            is open: int8 is calibrated on them, fp16 is checked on them for overflow.
        int8_heads: in an int8 file the RPN, box and mask heads are int8 too.
        provenance: of the weights, one readable line.
        progress: called with the samples that are done and their number.

    Raises:
        ExportError: an option does not fit, or a weight or feature is beyond float16; the message names it.
        OSError: from the file system.
    """
    path = Path(path)
    _check_destination(path)
    file = describe(
        model, input_hw=input_hw, batch=batch, precision=precision, valid_hw=valid_hw, output_hw=output_hw,
        thresholds=thresholds, target=target, provenance=provenance,
    )  # fmt: skip
    images = _batches(samples, file)
    network = prepared(model, file.thresholds)
    peak = None
    if precision == "fp16":
        peak = largest_feature(network, images, progress) if images else None
        to_half(network, opset=file.opset)
    proto = _open(network, file) if file.input_hw is None else _traced(network, file)
    if precision == "int8":
        proto = quantize(proto, images, heads=int8_heads, progress=progress)
    finish(proto, file)
    write_atomically(path, lambda temporary: temporary.write_bytes(proto.SerializeToString(deterministic=True)))
    return Exported(file, len(proto.graph.node), path.stat().st_size, peak)


def describe(
    model: PanopticFPN,
    *,
    input_hw: tuple[int, int] | None,
    batch: int = 1,
    precision: Precision = "fp32",
    valid_hw: tuple[int, int] | None = None,
    output_hw: tuple[int, int] | None = None,
    thresholds: Thresholds | FileThresholds | None = None,
    target: Target = "portable",
    provenance: str = "",
) -> ModelFile:
    """Return the metadata of a file of the network; arguments and errors as in `to_onnx`."""
    if input_hw is None:
        _check_open(model, precision, valid_hw, output_hw)
    else:
        valid_hw = _checked_valid(valid_hw, _checked_input(*input_hw))
        output_hw = _checked_size("output_hw", output_hw or valid_hw)
    file = ModelFile(
        name=model.config.name,
        things=model.config.classes.things,
        stuff=model.config.classes.stuff,
        batch=_checked_batch(batch),
        input_hw=input_hw,
        valid_hw=valid_hw,
        output_hw=output_hw,
        pixel_mean=model.config.pixel_mean,
        pixel_std=model.config.pixel_std,
        thresholds=_checked_thresholds(model, _complete(thresholds, model)),
        precision=precision,
        target=target,
        opset=OPSETS[target],
        provenance=provenance,
    )
    try:
        metadata.loads(metadata.dumps(file), source=file.name)
    except ModelFileError as error:
        raise ExportError(f"the file would not be readable: {error}") from error
    return file


def default_thresholds(model: PanopticFPN) -> FileThresholds:
    """Return those of the model's configuration; without an instance branch those of detections accept everything."""
    instance, merge = model.config.instance, model.config.merge
    return FileThresholds(
        detection_score=instance.box.score_threshold if instance is not None else 0.0,
        detection_nms=instance.box.nms_threshold if instance is not None else 1.0,
        max_detections=instance.box.max_detections if instance is not None else 0,
        instance_score=merge.score_threshold,
        instance_overlap=merge.overlap_threshold,
        stuff_area=merge.stuff_area_limit,
        mask=MASK_THRESHOLD,
    )


def _complete(thresholds: Thresholds | FileThresholds | None, model: PanopticFPN) -> FileThresholds:
    if isinstance(thresholds, FileThresholds):
        return thresholds
    own = default_thresholds(model)
    return own if thresholds is None else thresholds.over(own)


def fit_camera(camera_hw: tuple[int, int], *, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the input size for frames of a camera, `height` high, and the part that the frame fills: (input, valid).

    The frame keeps its aspect ratio to the pixel; only its width is padded, to a multiple of 32.

    Raises:
        ExportError: a side of the camera is not positive.
    """
    if min(camera_hw) < 1:
        raise ExportError(f"camera: got {camera_hw}, expected a positive height and width.")
    valid = max(1, round(height * camera_hw[1] / camera_hw[0]))
    return (height, valid + -valid % SIZE_DIVISOR), (height, valid)


def finish(proto: ModelProto, file: ModelFile) -> None:
    """Make thresholds inputs of a graph, add the functions of its ops and the file's metadata, and check it; in place.

    Raises:
        onnx.checker.ValidationError: the graph is not valid ONNX, a bug of this exporter.
    """
    proto.producer_name, proto.producer_version = "panrt", version()
    proto.graph.name = file.name
    proto.ClearField("metadata_props")
    helper.set_model_props(proto, {metadata.KEY: metadata.dumps(file)})
    del proto.functions[:]
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*proto.graph.value_info, *proto.graph.input)}
    read = {node.op_type: shapes[node.input[0]] for node in proto.graph.node if node.op_type in INPUTS}
    classes = read["BoxDetections"][-1].dim_value - 1 if "BoxDetections" in read else 0
    make_settable(proto, thing_classes=classes, channels=read["PanopticMerge"][1].dim_value)
    if file.target == "portable":
        add_functions(proto)
    onnx.checker.check_model(proto)


# Options --------------------------------------------------------------------------------------------------------------


def _check_destination(path: Path) -> None:
    """Check the destination before minutes of work, not after."""
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: suffix {path.suffix!r}, expected '.onnx'.")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))


def _checked_batch(batch: int) -> int:
    if batch < 1:
        raise ExportError(f"batch: got {batch}, expected at least 1.")
    return batch


def _checked_input(height: int, width: int) -> tuple[int, int]:
    for name, side in (("height", height), ("width", width)):
        if (problem := side_problem(name, side)) is not None:
            raise ExportError(problem)
    return height, width


def _check_open(
    model: PanopticFPN, precision: Precision, valid_hw: tuple[int, int] | None, output_hw: tuple[int, int] | None
) -> None:
    """Reject options that follow from the input size, or are measured at one, if it is open."""
    for name, size in (("valid_hw", valid_hw), ("output_hw", output_hw)):
        if size is not None:
            raise ExportError(f"{name}: got {size} for an input whose size is open; give input_hw too.")
    if precision == "int8":
        raise ExportError("int8 is calibrated at one input size, so that cannot be open; give input_hw.")
    if _suppresses_all_classes(model):
        raise ExportError(
            f"{model.config.name}: boxes suppress those of all classes, for which the input size must be known; give "
            "input_hw."
        )


def _checked_valid(valid_hw: tuple[int, int] | None, input_hw: tuple[int, int]) -> tuple[int, int]:
    if valid_hw is None:
        return input_hw
    if not all(1 <= valid <= size for valid, size in zip(valid_hw, input_hw, strict=True)):
        raise ExportError(f"valid_hw: got {valid_hw}, expected at least (1, 1) and at most the input's {input_hw}.")
    return valid_hw


def _checked_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise ExportError(f"{name}: got {size}, expected sides from 1 to {MAX_SIDE}.")
    return size


def _suppresses_all_classes(model: PanopticFPN) -> bool:
    return model.config.instance is not None and model.config.instance.box.suppression == "all_classes"


def _checked_thresholds(model: PanopticFPN, thresholds: FileThresholds) -> FileThresholds:
    if _suppresses_all_classes(model) and thresholds.detection_score < LEAST_JOINT_SCORE:
        raise ExportError(
            f"detection_score: got {thresholds.detection_score}, expected at least {LEAST_JOINT_SCORE}, as boxes of "
            f"{model.config.name} suppress those of all classes."
        )
    for name in ("detection_nms", "instance_overlap", "mask"):
        value = getattr(thresholds, name)
        if not 0 <= value <= 1:
            raise ExportError(f"{name}: got {value}, expected a share from 0 to 1.")
    for name in ("max_detections", "stuff_area"):
        value = getattr(thresholds, name)
        if value < 0:
            raise ExportError(f"{name}: got {value}, expected at least 0.")
    return thresholds


def _batches(samples: Sequence[Frame], file: ModelFile) -> list[NDArray[np.uint8]]:
    """Yield the samples in batches for the graph; the last sample fills up an incomplete batch."""
    if len(samples):
        height, width = file.input_hw or _checked_input(*samples[0].shape[:2])
    for index, frame in enumerate(samples):
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ExportError(
                f"samples[{index}]: got {frame.shape} {frame.dtype}, expected {(height, width, 3)} uint8, the "
                "network's input."
            )
    if file.precision == "int8" and len(samples) == 0:
        raise ExportError("int8 is calibrated on sample frames, and there are none; give samples.")
    starts = range(0, len(samples), file.batch)
    groups = [[*samples[start : start + file.batch]] for start in starts]
    return [np.stack(group + group[-1:] * (file.batch - len(group))) for group in groups]


# Tracing --------------------------------------------------------------------------------------------------------------


class _Traced(nn.Module):
    """The module that is traced: the network with symbolic custom ops."""

    def __init__(self, network: PanopticFPN, file: ModelFile) -> None:
        super().__init__()
        self.network = network
        self.ops = SymbolicOps(mask_threshold=file.thresholds.mask)
        self.valid_hw = None if file.valid_hw == file.input_hw else file.valid_hw
        self.output_hw = file.output_hw

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.network.infer(image, valid_hw=self.valid_hw, output_hw=self.output_hw, ops=self.ops)


def prepared(model: PanopticFPN, thresholds: FileThresholds) -> PanopticFPN:
    """Return a copy on the CPU, for inference alone, with these thresholds."""
    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    fold_batch_norms(network)
    merge = dataclasses.replace(
        network.config.merge,
        score_threshold=thresholds.instance_score,
        overlap_threshold=thresholds.instance_overlap,
        stuff_area_limit=thresholds.stuff_area,
    )
    network.config = dataclasses.replace(network.config, merge=merge)
    if network.instance is not None:
        box = dataclasses.replace(
            network.instance.config.box,
            score_threshold=thresholds.detection_score,
            nms_threshold=thresholds.detection_nms,
            max_detections=thresholds.max_detections,
        )
        network.instance.config = dataclasses.replace(network.instance.config, box=box)
    return network


def _traced(network: PanopticFPN, file: ModelFile) -> ModelProto:
    """Return the graph of the network, with PanRT's names."""
    image = torch.zeros((file.batch, *file.sizes.input_hw, 3), dtype=torch.uint8)
    with _quiet_tracer():
        program = torch.onnx.export(
            _Traced(network, file).eval(),
            (image,),
            dynamo=True,
            opset_version=file.opset,
            input_names=[IMAGE],
            output_names=list(OUTPUTS["PanopticMerge"]),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    proto: ModelProto = program.model_proto
    name_graph(proto.graph, module="network")
    _check_static(proto)
    return proto


def _open(network: PanopticFPN, file: ModelFile) -> ModelProto:
    """Return a graph of open input size: the network is traced at two sizes, and the numbers that differ are opened."""
    files = [metadata.sized(file, size, source=file.name) for size in _SIZES]
    proto, other = (_traced(network, static) for static in files)
    try:
        opened = open_size(Static(proto.graph, files[0]), Static(other.graph, files[1]))
    except InputSizeError as error:
        raise ExportError(
            f"{file.name}: its input size cannot be left open, as {error}; export it with input_hw."
        ) from error
    proto.graph.CopyFrom(opened)
    return proto


# Operators whose result depends on data, or that compute a shape that tracing did not know.
_DYNAMIC = {"Shape", "If", "Loop", "NonZero", "NonMaxSuppression", "Scan", "Unique"}


def _check_static(proto: ModelProto) -> None:
    found = [node.name for node in proto.graph.node if node.op_type in _DYNAMIC and node.domain != DOMAIN]
    if found:
        raise ExportError(f"the traced graph is not static: {', '.join(found[:8])}; please report this network.")


@contextmanager
def _quiet_tracer() -> Iterator[None]:
    """Silence torch about deprecations inside it and optional packages that it lacks."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        logger.setLevel(level)
