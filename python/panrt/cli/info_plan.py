"""`panrt info` of an engine: what it was built with and for, from its sidecar."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from panrt.cli.info_onnx import report_model
from panrt.cli.support import Report, megabytes
from panrt.formats.records import argument

if TYPE_CHECKING:
    from panrt.formats.plan_file import PlanFile


def info_plan(path: Path, *, as_json: bool) -> None:
    """Report on an engine; neither TensorRT nor a GPU is needed, and the engine itself is not opened."""
    from panrt.formats import metadata, plan_file

    file = plan_file.read(path)
    size = path.stat().st_size
    report = Report(as_json=as_json)
    report.line("network", f"{file.model.name}, {file.model.precision}, of {file.onnx}")
    report.line("file", f"{path}, {megabytes(size)}")
    report.line("built with", f"{plan_file.PRODUCTS[file.flavour]} {file.tensorrt}, PanRT {file.panrt}{_driver(file)}")
    report.line("built for", plan_file.built_for(file))
    report.line("layers", layers(file))
    report.line("float32", tf32(file))
    report.line("options", options(file))
    report_model(report, file.model)
    fields = dataclasses.asdict(file)
    fields |= {"model": metadata.to_json(file.model), "options": plan_file.options_to_json(file.options)}
    report.end({"file": str(path), "bytes": size, **fields}, next_commands=[f"panrt bench {argument(path)}"])


def layers(file: PlanFile) -> str:
    """Return how many layers compute in which precision."""
    precisions = file.precisions
    counts = {"fp32": precisions.fp32, "fp16": precisions.fp16, "int8": precisions.int8, "plugin": precisions.plugins}
    computing = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{computing}, {precisions.other} that only move or convert"


def tf32(file: PlanFile) -> str:
    """Return how layers in float32 multiply."""
    if file.options.tf32:
        return "products may be rounded to TF32, 10 bits of mantissa (--tf32)"
    return "products in float32, not in TF32"


def options(file: PlanFile) -> str:
    """Return the options that were chosen, or set by PanRT's rules."""
    chosen = file.options
    workspace = f"{file.workspace_bytes / 1e9:.1f} GB" if file.workspace_bytes else "TensorRT's default"
    parts = [
        f"optimization level {chosen.optimization_level}",
        f"workspace {workspace}",
        f"auxiliary streams {chosen.aux_streams}",
    ]
    if chosen.version_compatible:
        parts.append("version compatible")
    if chosen.dla_core >= 0:
        parts.append(f"DLA core {chosen.dla_core}")
    return ", ".join(parts)


def _driver(file: PlanFile) -> str:
    return f", a driver for CUDA {file.driver}" if file.driver else ""
