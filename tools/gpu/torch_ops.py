"""The four ops on torch tensors, computed by the CUDA kernels: an `IrregularOps` of the network in PyTorch.

On a GPU the tensors are CUDA tensors and everything is queued on PyTorch's current stream, without a synchronisation,
so that the network can be captured. On the stand-ins the tensors are the CPU's and the simulated kernels run at once.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from panrt.model.irregular import Detections, PanopticSegments, Proposals
from panrt.plugins.cuda_api import (
    BoxDetectionsArgs,
    DataType,
    MemoryLayout,
    PanopticMergeArgs,
    PyramidRoiAlignArgs,
    RpnProposalsArgs,
    Status,
)
from tools.gpu.machine import Machine

ALIGNMENT = 256


class KernelRefusedError(Exception):
    """A launch was refused."""


class TorchOps:
    """See `panrt.model.irregular.IrregularOps`; arguments as there."""

    def __init__(self, machine: Machine) -> None:
        self._is_simulated = machine.simulated
        self._library = ctypes.CDLL(_unhooked(machine) if machine.simulated else machine.kernels)

    def rpn_proposals(self, logits: Sequence[Tensor], deltas: Sequence[Tensor], **options: Any) -> Proposals:
        """As the kernels do."""
        logits, deltas = [x.contiguous() for x in logits], [x.contiguous() for x in deltas]
        images, rows = len(logits[0]), options["post_nms_top_k"]
        found = Proposals(_empty(logits[0], (images, rows, 4)), _empty(logits[0], (images,), torch.int32))
        args = RpnProposalsArgs(
            rois=found.rois.data_ptr(),
            roi_count=found.roi_count.data_ptr(),
            images=images,
            level_count=len(logits),
            anchor_count=len(options["aspect_ratios"]),
            pre_nms_top_k=options["pre_nms_top_k"],
            post_nms_top_k=rows,
            nms_threshold=options["nms_threshold"],
            input_height=options["input_hw"][0],
            input_width=options["input_hw"][1],
        )
        args.aspect_ratios[: args.anchor_count] = list(options["aspect_ratios"])
        for i, (level, x, d) in enumerate(zip(args.levels, logits, deltas, strict=False)):
            level.logits, level.deltas = x.data_ptr(), d.data_ptr()
            level.height, level.width = x.shape[2:]
            level.stride, level.anchor_size = options["strides"][i], options["anchor_sizes"][i]
        self._launch("rpn_proposals", args, logits[0])
        return found

    def pyramid_roi_align(self, features: Sequence[Tensor], rois: Tensor, **options: Any) -> Tensor:
        """As the kernels do, on channels first."""
        features, rois = [x.contiguous() for x in features], rois.contiguous()
        (images, channels), rows, side = features[0].shape[:2], rois.shape[1], options["output_size"]
        pooled = features[0].new_empty((images * rows, channels, side, side))
        args = PyramidRoiAlignArgs(
            rois=rois.data_ptr(),
            pooled=pooled.data_ptr(),
            images=images,
            rois_per_image=rows,
            level_count=len(features),
            channels=channels,
            type=_type(features[0]),
            layout=MemoryLayout.NCHW,
            **{name: value for name, value in options.items() if name != "strides"},
        )
        for level, x, stride in zip(args.levels, features, options["strides"], strict=False):
            level.data, level.stride = x.data_ptr(), stride
            level.height, level.width = x.shape[2:]
        self._launch("pyramid_roi_align", args, rois)
        return pooled

    def box_detections(self, *inputs: Tensor, **options: Any) -> Detections:
        """As the kernels do."""
        class_logits, box_deltas, rois, roi_count = (x.contiguous() for x in inputs)
        images, rows, classes = class_logits.shape
        most = options["max_detections"]
        found = Detections(
            _empty(rois, (images, most, 4)),
            _empty(rois, (images, most)),
            _empty(rois, (images, most), torch.int32),
            _empty(rois, (images,), torch.int32),
        )
        args = BoxDetectionsArgs(
            class_logits=class_logits.data_ptr(),
            box_deltas=box_deltas.data_ptr(),
            rois=rois.data_ptr(),
            roi_count=roi_count.data_ptr(),
            boxes=found.boxes.data_ptr(),
            scores=found.scores.data_ptr(),
            classes=found.classes.data_ptr(),
            count=found[3].data_ptr(),
            images=images,
            rois_per_image=rows,
            thing_classes=classes - 1,
            max_detections=most,
            box_weights=tuple(options["box_weights"]),
            score_threshold=options["score_threshold"],
            nms_threshold=options["nms_threshold"],
            input_height=options["input_hw"][0],
            input_width=options["input_hw"][1],
        )
        self._launch("box_detections", args, rois)
        return found

    def panoptic_merge(self, *inputs: Tensor, mask_threshold: float = 0.5, **options: Any) -> PanopticSegments:
        """As the kernels do."""
        semantic, boxes, scores, classes, count, masks = (x.contiguous() for x in inputs)
        images, channels, height, width = semantic.shape
        most, (out_height, out_width) = boxes.shape[1], options["output_hw"]
        found = PanopticSegments(
            _empty(boxes, (images, out_height, out_width), torch.int32),
            _empty(boxes, (images, most + channels, 8), torch.int32),
            _empty(boxes, (images, most + channels)),
            _empty(boxes, (images,), torch.int32),
        )
        args = PanopticMergeArgs(
            semantic_logits=semantic.data_ptr(),
            boxes=boxes.data_ptr(),
            scores=scores.data_ptr(),
            classes=classes.data_ptr(),
            count=count.data_ptr(),
            mask_probs=masks.data_ptr(),
            panoptic=found.panoptic.data_ptr(),
            segments=found.segments.data_ptr(),
            segment_scores=found.segment_scores.data_ptr(),
            segment_count=found.segment_count.data_ptr(),
            logit_type=_type(semantic),
            mask_type=_type(masks),
            images=images,
            detections=most,
            channels=channels,
            height=height,
            width=width,
            mask_height=masks.shape[2],
            mask_width=masks.shape[3],
            input_height=options["input_hw"][0],
            input_width=options["input_hw"][1],
            output_height=out_height,
            output_width=out_width,
            score_threshold=options["score_threshold"],
            overlap_threshold=options["overlap_threshold"],
            stuff_area_limit=options["stuff_area_limit"],
            mask_threshold=mask_threshold,
        )
        self._launch("panoptic_merge", args, boxes)
        return found

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


def _empty(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device)


def _type(tensor: Tensor) -> int:
    return int(DataType.FLOAT16 if tensor.dtype == torch.float16 else DataType.FLOAT32)


def _unhooked(machine: Machine) -> str:
    """Copy the simulated kernels: loaded as a file of its own, it runs at once and not on the simulated streams."""
    copy = machine.folder / "kernels-at-once.so"
    if not copy.exists():
        shutil.copy2(Path(machine.kernels), copy)
    return str(copy)
