"""The tabletop network in PyTorch with the CUDA kernels for its ops, on the GPU or, with the stand-ins, on the CPU."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.formats.metadata import Category, FileThresholds, ModelFile
from tools.gpu.checks import MissingError
from tools.gpu.machine import ROOT, Machine

HW = (256, 320)
WEIGHTS = ROOT / "model" / "weights" / "tabletop.safetensors"
MASK_THRESHOLD = 0.5
Precision = Literal["fp32", "tf32", "fp16"]


class Found(NamedTuple):
    """The objects that the network found in an image."""

    panoptic: NDArray[np.int32]  # (h, w)
    segments: NDArray[np.int32]  # (rows, 8)


def import_torch(machine: Machine) -> ModuleType:
    """Return PyTorch.

    Raises:
        MissingError: it is missing, or does not see the GPU.
    """
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        raise MissingError(f"PyTorch does not import ({error})") from error
    if not machine.simulated and not torch.cuda.is_available():
        raise MissingError("PyTorch sees no GPU; is it a build for the CPU?")
    return torch


class Network:
    """The network in a precision."""

    def __init__(self, machine: Machine, *, hw: tuple[int, int] = HW, precision: Precision = "fp32") -> None:
        """Load it.

        Args:
            machine: whose kernels are the ops.
            hw: of images.
            precision: of convolutions and products; the ops' inputs are float32 but for features in fp16.

        Raises:
            MissingError: PyTorch is missing, or does not see the GPU.
        """
        self._torch = torch = import_torch(machine)
        try:
            from panrt.model import load  # noqa: PLC0415
            from tools.gpu.torch_ops import TorchOps  # noqa: PLC0415
        except ImportError as error:
            raise MissingError(f"the network in PyTorch does not import ({error})") from error

        self._device = "cpu" if machine.simulated else "cuda"
        self._machine, self._hw = machine, hw
        # A replay has to give what a run gave, so the same algorithms in the same order.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self.module = load(str(WEIGHTS)).to(self._device)
        if precision == "fp16":
            self.module = self.module.half()
        self._ops = TorchOps(machine)
        self.file = _describe(self.module, hw)

    def run(self, image: NDArray[np.uint8]) -> Found:
        """Segment an image (h, w, 3) BGR without a session."""
        torch = self._torch
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(image))[None].to(self._device)
            found = self.module.infer(batch, output_hw=image.shape[:2], ops=self._ops)
        return Found(found.panoptic[0].cpu().numpy(), found.segments[0, : int(found.segment_count[0])].cpu().numpy())

    def some_images(self, count: int) -> list[NDArray[np.uint8]]:
        """Return images of the network's size: of the evaluation set if its file is there, else of random blocks."""
        if self._machine.expected and self._hw == HW:
            from tools.gpu import expected  # noqa: PLC0415

            return list(expected.read(self._machine.expected).images[:count])
        height, width = self._hw
        images = []
        for seed in range(count):
            grains = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
            images.append(np.ascontiguousarray(grains.repeat(16, axis=0).repeat(16, axis=1)))
        return images


def _describe(module: Any, hw: tuple[int, int]) -> ModelFile:
    """Describe the network as `panrt.export` would, which needs ONNX."""
    config = module.config
    box, merge = config.instance.box, config.merge
    return ModelFile(
        name=config.name,
        things=tuple(Category(*category) for category in config.classes.things),
        stuff=tuple(Category(*category) for category in config.classes.stuff),
        batch=1,
        input_hw=hw,
        valid_hw=hw,
        output_hw=hw,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
        thresholds=FileThresholds(
            box.score_threshold,
            box.nms_threshold,
            box.max_detections,
            merge.score_threshold,
            merge.overlap_threshold,
            merge.stuff_area_limit,
            MASK_THRESHOLD,
        ),
        precision="fp32",
        opset=20,
        provenance="none",
    )
