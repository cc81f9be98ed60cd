"""Sidecars of engines for tests, without the engines."""

from __future__ import annotations

import hashlib
from typing import Any

from panrt.formats.plan_file import BuildOptions, PlanFile, Precisions
from tools import model_files

ENGINE = b"an engine"

MODEL = model_files.make()


def plan_file(**changes: Any) -> PlanFile:
    """Of an engine for a Jetson Orin with JetPack 6, whose bytes are `ENGINE`."""
    fields: dict[str, Any] = {
        "model": MODEL,
        "flavour": "tensorrt",
        "tensorrt": "10.3.0",
        "gpu": "Orin (nvgpu)",
        "compute_capability": "8.7",
        "driver": "12.6",
        "panrt": "0.1.0",
        "plugin_version": "1",
        "plugins_sha256": "a" * 64,
        "plugins_sources_sha256": "b" * 64,
        "onnx": "street.onnx",
        "onnx_sha256": "c" * 64,
        "plan_sha256": hashlib.sha256(ENGINE).hexdigest(),
        "plan_bytes": len(ENGINE),
        "options": BuildOptions(workspace_bytes=2**30),
        "workspace_bytes": 2**30,
        "precisions": Precisions(fp32=10, fp16=90, int8=0, plugins=5, other=20, fallen_to_fp32=("box/Gemm",)),
        "build_seconds": 61.5,
    }
    return PlanFile(**{**fields, **changes})
