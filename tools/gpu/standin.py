"""Stand-in engines for the TensorRT session, for machines without TensorRT.

`KernelEngine` runs one kernel of PanRT on the frame's own bytes: fast, in any context, without PyTorch, and its results
are known from the reference. `TorchEngine` runs the network in PyTorch with the CUDA kernels as its ops.

Shapes: N images, h x w network input; S semantic channels.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.engine import Engine, Tensor, wanted_tensors
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.session import TensorRTSession
from panrt.engine.session import Preprocess
from panrt.errors import EngineError
from panrt.formats.metadata import Category, FileThresholds, ModelFile
from panrt.formats.thresholds import INSTANCE, NAMES, STUFF
from panrt.plugins import reference
from panrt.plugins.contract import PanopticSegments
from panrt.plugins.cuda_api import DataType, PanopticMergeArgs, Status
from tools import model_files
from tools.gpu.device import Buffer, host_view
from tools.gpu.machine import Machine, load_kernels

if TYPE_CHECKING:
    from panrt.model import PanopticFPN

CHANNELS = 24  # an image of bytes (h, w, 3) has the size of float16 logits (24, h / 4, w / 4)
MASK_SIDE = 28


class StandIn:
    """An engine, but for how it runs."""

    scratch_bytes = 0

    def __init__(self, model: ModelFile) -> None:
        self.path = Path(f"{model.name}.standin")
        self.tensors: tuple[Tensor, ...] = wanted_tensors(model)

    def execution(self, scratch: int) -> Any:
        """See `Engine.execution`."""
        raise NotImplementedError

    def keep_kernels(self) -> None:
        """Do nothing: nothing was compiled for the next start."""

    def close(self) -> None:
        """Free what it holds; idempotent."""


def open_session(
    machine: Machine,
    model: ModelFile,
    engine: StandIn,
    *,
    in_mapped_memory: bool = False,
    preprocess: Preprocess = "host",
    slots: int = 2,
) -> TensorRTSession:
    """Open a session on a stand-in.

    Args:
        machine: whose kernels the session launches itself.
        model: what the engine says about itself.
        engine: closed with the session.
        in_mapped_memory: as on a device that shares the host's memory, whatever this one does.
        preprocess: as in `panrt.load`.
        slots: submissions at once.
    """
    load_kernels(machine)
    context = driver.Context()
    if in_mapped_memory:
        context.device = context.device._replace(shares_memory=True)
    return TensorRTSession(
        model,
        cast(Engine, engine),
        context,
        backend="tensorrt",
        kernels=Kernels(Path(machine.kernels)),
        preprocess=preprocess,
        slots=slots,
        gpu_memory="mapped" if in_mapped_memory else "auto",
    )


# --- One kernel -------------------------------------------------------------------------------------------------------


def kernel_model(hw: tuple[int, int]) -> ModelFile:
    """Describe the network that `KernelEngine` is."""
    stuff = tuple(Category(i, f"stuff {i}", False, (i, 2 * i, 3 * i)) for i in range(1, CHANNELS))
    return model_files.make(
        name="kernel",
        things=(Category(100, "thing", True, (255, 0, 0)),),
        stuff=stuff,
        input_hw=hw,
        valid_hw=hw,
        output_hw=hw,
        thresholds=FileThresholds(0.05, 0.5, 1, 0.5, 0.5, 0, 0.5),
        precision="fp32",
    )


class KernelEngine(StandIn):
    """PanopticMerge with the frame's bytes for logits and no detections."""

    def __init__(self, machine: Machine, model: ModelFile) -> None:
        super().__init__(model)
        self._library = load_kernels(machine)
        self.function = self._library.panrt_cuda_panoptic_merge
        self.function.restype = Status
        height, width = model.sizes.input_hw
        sizes = {"boxes": 16, "scores": 4, "classes": 4, "count": 4, "mask_probs": 4 * MASK_SIDE**2}
        self._zeros = Buffer(sum(256 * -(-size // 256) for size in sizes.values()), canary=0)
        self._zeros.write(np.zeros(self._zeros.size, np.uint8))
        starts = itertools.accumulate((256 * -(-size // 256) for size in sizes.values()), initial=self._zeros.address)
        self._fields: dict[str, Any] = dict(zip(sizes, starts, strict=False)) | {
            "logit_type": DataType.FLOAT16,
            "mask_type": DataType.FLOAT32,
            "images": 1,
            "detections": 1,
            "channels": CHANNELS,
            "height": height // 4,
            "width": width // 4,
            "mask_height": MASK_SIDE,
            "mask_width": MASK_SIDE,
            "input_height": height,
            "input_width": width,
            "output_height": height,
            "output_width": width,
            "score_threshold": 0.5,
            "overlap_threshold": 0.5,
            "stuff_area_limit": 0,
            "mask_threshold": 0.5,
        }
        args = PanopticMergeArgs(**self._fields)
        asks = self._library.panrt_cuda_panoptic_merge_workspace_bytes
        asks.restype = ctypes.c_size_t
        self.scratch_bytes = int(asks(ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))))

    def execution(self, scratch: int) -> KernelExecution:
        """See `Engine.execution`."""
        return KernelExecution(self, scratch)

    def args(self, scratch: int, addresses: Mapping[str, int]) -> ctypes.Structure:
        """Return the arguments of a run."""
        args = PanopticMergeArgs(**self._fields, workspace=scratch, workspace_bytes=self.scratch_bytes)
        args.semantic_logits = addresses["image"]
        args.thresholds, args.stuff_area_limits = addresses[INSTANCE], addresses[STUFF]
        for name in PanopticSegments._fields:
            setattr(args, name, addresses[name])
        return args

    def close(self) -> None:
        """Free the inputs."""
        if self._zeros is not None:
            self._zeros.close()
            self._zeros = None  # type: ignore[assignment]


class KernelExecution:
    """See `panrt.engine.backends.tensorrt.engine.Execution`."""

    def __init__(self, engine: KernelEngine, scratch: int) -> None:
        self._engine, self._scratch = engine, scratch
        self._args: ctypes.Structure | None = None

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Take addresses."""
        self._args = self._engine.args(self._scratch, addresses)

    def enqueue(self, stream: int) -> None:
        """Queue a run."""
        size = ctypes.c_size_t(ctypes.sizeof(PanopticMergeArgs))
        assert self._args is not None, "bind before enqueue"
        status: Status = self._engine.function(ctypes.byref(self._args), size, ctypes.c_void_p(stream))
        if status.code != 0:
            raise EngineError(f"stand-in: {status.message.decode()} (CUDA error {status.cuda_error})")

    def close(self) -> None:
        """Do nothing: nothing is held."""


def kernel_map(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the panoptic map that `KernelEngine` gives for (h, w, 3) BGR, by the reference."""
    height, width, _ = image.shape
    logits = np.ascontiguousarray(image).reshape(-1).view(np.float16).reshape(1, CHANNELS, height // 4, width // 4)
    with np.errstate(all="ignore"):  # bytes of noise are any float16, NaN too
        found = reference.panoptic_merge(
            logits.astype(np.float32),
            np.zeros((1, 1, 4), np.float32),
            np.zeros((1, 1), np.float32),
            np.zeros((1, 1), np.int32),
            np.zeros(1, np.int32),
            np.zeros((1, 1, MASK_SIDE, MASK_SIDE), np.float32),
            input_hw=(height, width),
            output_hw=(height, width),
            score_threshold=0.5,
            overlap_threshold=0.5,
            stuff_area_limit=0,
            mask_threshold=0.5,
        )
    panoptic: NDArray[np.int32] = found.panoptic[0]
    return panoptic


# --- The network in PyTorch -------------------------------------------------------------------------------------------


class TorchEngine(StandIn):
    """A network of `panrt.model` with the CUDA kernels for its ops."""

    def __init__(self, machine: Machine, model: ModelFile, network: PanopticFPN) -> None:
        super().__init__(model)
        from tools.gpu.torch_ops import TorchOps  # noqa: PLC0415  # PyTorch may be missing

        self.tensors = tuple(tensor for tensor in self.tensors if tensor.name not in NAMES)  # its thresholds are fixed
        self._machine = machine
        ops = TorchOps(machine)
        self.run: Callable[[Any], Any] = lambda image: network.infer(image, output_hw=model.output_hw, ops=ops)

    def execution(self, scratch: int) -> Any:
        """See `Engine.execution`."""
        del scratch  # PyTorch has its own
        return SimulatedTorchExecution(self) if self._machine.simulated else TorchExecution(self)


class TorchExecution:
    """A run on a GPU: everything in PyTorch's allocator comes from a pool of its own, so that what a captured graph
    uses is never given to anybody else, and a capture finds in it what the runs before have left.
    """

    def __init__(self, engine: TorchEngine) -> None:
        import torch  # noqa: PLC0415

        self._torch, self._engine = torch, engine
        self._pool: Any = torch.cuda.MemPool()
        self._views: dict[str, Any] = {}

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Take addresses, and see tensors there."""
        for tensor in self._engine.tensors:
            memory = _OnDevice(addresses[tensor.name], tensor)
            self._views[tensor.name] = self._torch.as_tensor(memory, device="cuda")

    def enqueue(self, stream: int) -> None:
        """Queue a run."""
        torch = self._torch
        with (
            torch.no_grad(),
            torch.cuda.stream(torch.cuda.ExternalStream(stream)),
            torch.cuda.use_mem_pool(self._pool),
        ):
            found = self._engine.run(self._views["image"])
            for name, value in zip(PanopticSegments._fields, found, strict=True):
                self._views[name].copy_(value)

    def close(self) -> None:
        """Forget the pool; its graphs must be gone, or never be launched again."""
        self._views.clear()
        self._pool = None


class _OnDevice:
    """Memory at an address, as PyTorch takes it."""

    def __init__(self, address: int, tensor: Tensor) -> None:
        self.__cuda_array_interface__ = {
            "shape": tensor.shape,
            "typestr": tensor.dtype.str,
            "data": (address, False),
            "strides": None,
            "version": 3,
        }


class SimulatedTorchExecution:
    """A run as work of the simulated device: PyTorch on the CPU, when the work's turn comes."""

    _kept: list[Any] = []  # noqa: RUF012  # callbacks, of all executions: captured work may come to them at any time

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._callback: Any = None

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Take addresses."""
        from tools.simcuda import control  # noqa: PLC0415

        self._addresses = dict(addresses)
        self._callback = control.KERNEL(self._run)
        self._kept.append(self._callback)

    def enqueue(self, stream: int) -> None:
        """Queue a run."""
        from tools.simcuda import control  # noqa: PLC0415

        touched = [(self._addresses[tensor.name], tensor.bytes) for tensor in self._engine.tensors]
        if error := control.launch(stream, "network", self._callback, 0, touched):
            raise EngineError(f"stand-in: the launch gives {error}")

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def _run(self, _: int) -> int:
        import torch  # noqa: PLC0415

        views = {t.name: host_view(self._addresses[t.name], t.shape, t.dtype) for t in self._engine.tensors}
        try:
            with torch.no_grad():
                found = self._engine.run(torch.from_numpy(views["image"].copy()))
        except Exception as error:  # an exception cannot leave the device's work
            print(f"the network failed: {error}", flush=True)
            return 719  # CUDA_ERROR_LAUNCH_FAILED
        for name, value in zip(PanopticSegments._fields, found, strict=True):
            views[name][...] = value.numpy()
        return 0
