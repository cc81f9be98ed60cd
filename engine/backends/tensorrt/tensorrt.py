"""The TensorRT backend; see `panrt.engine.load` for what a backend is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from panrt.engine.backends.tensorrt import plans

if TYPE_CHECKING:
    from panrt.engine.backends.tensorrt.session import TensorRTSession
    from panrt.engine.session import GpuMemory, Preprocess


def obstacle(path: Path) -> str | None:
    """Why this backend cannot run a file here."""
    return plans.obstacle(path, "tensorrt")


def open_session(
    path: Path,
    *,
    threads: int | None = None,
    input_hw: tuple[int, int] | None = None,
    preprocess: Preprocess = "host",
    gpu_memory: GpuMemory = "auto",
) -> TensorRTSession:
    """Load an engine; errors as in `plans.open_session`. The GPU takes no threads."""
    del threads
    return plans.open_session(path, "tensorrt", input_hw=input_hw, preprocess=preprocess, gpu_memory=gpu_memory)
