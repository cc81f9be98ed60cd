"""`panrt info` of an ONNX file: its metadata, and the steps in which the CPU runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from panrt.cli.support import Report, megabytes
from panrt.formats.records import argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from panrt.engine.backends.cpu.steps import Partition
    from panrt.formats.metadata import Category, ModelFile


def info_onnx(path: Path, size: tuple[int, int] | None, *, as_json: bool) -> None:
    """Report on a file; the size is for a file with an open one."""
    from panrt.engine.backends.cpu.partition import partition
    from panrt.engine.bundled import locate
    from panrt.formats import metadata
    from panrt.formats.onnx_file import read_onnx

    file = read_onnx(locate(path)).file
    is_open = file.input_hw is None
    steps = _steps(partition(locate(path), input_hw=size)) if size is not None or not is_open else []
    report = Report(as_json=as_json)
    report.line("network", f"{file.name}, {file.precision}, opset {file.opset}, target {file.target}")
    report.line("file", f"{path}, {megabytes(path.stat().st_size)}")
    report_model(report, file)
    if steps:
        report.table("\n".join(steps))
    else:
        report.line("steps", "depend on the size; --height and --width show them")
    facts = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "model": metadata.to_json(file),
        "steps": steps,
    }
    chosen = " --height 256 --width 320" if is_open else ""
    named = argument(path)
    commands = [f"panrt run demo://tabletop --model {named} --sink out.mp4{chosen}", f"panrt bench {named}{chosen}"]
    report.end(facts, next_commands=commands)


def report_model(report: Report, file: ModelFile) -> None:
    """Report input, output, classes and thresholds."""
    from panrt.formats.metadata import SIZE_DIVISOR

    if file.input_hw is None:
        report.line("input", f"{_images(file)} of dynamic height and width, multiples of {SIZE_DIVISOR}, BGR, uint8")
        report.line("frame", "in all of it; any size is resized to it")
        report.line("map", "of the input's size")
    else:
        input_hw, valid_hw, output_hw = file.sizes
        report.line("input", f"{_images(file)} of {_size(input_hw)} (height x width), BGR, uint8")
        report.line("frame", f"in the upper left {_size(valid_hw)} of it; any size is resized to it")
        report.line("map", _size(output_hw))
    report.line("things", _names(file.things))
    report.line("stuff", _names(file.stuff))
    report.line("thresholds", ", ".join(f"{name} {value:g}" for name, value in file.thresholds._asdict().items()))
    report.line("weights", file.provenance or "of unknown provenance")


def _size(hw: tuple[int, int]) -> str:
    return f"{hw[0]}x{hw[1]}"


def _images(file: ModelFile) -> str:
    return f"{file.batch} image{'s' if file.batch > 1 else ''}" if file.batch else "any number of images"


def _names(categories: Sequence[Category]) -> str:
    shown = ", ".join(category.name for category in categories[:12])
    return f"{len(categories)}: {shown}{', ...' if len(categories) > 12 else ''}" if categories else "none"


def _steps(plan: Partition) -> list[str]:
    """Return one line per step of the CPU backend."""
    import onnx

    from panrt.engine.backends.cpu.dense import NAME
    from panrt.engine.backends.cpu.steps import Convolution, Subgraph

    lines = []
    for step in plan.steps:
        if isinstance(step, Subgraph):
            nodes: Any = onnx.load_model_from_string(step.model).graph.node
            lines.append(f"dense        {len(nodes)} nodes, by {NAME}")
        elif isinstance(step, Convolution):
            lines.append(f"dense        {step.name}, 3 x 3, by PanRT")
        else:
            lines.append(f"op           {step.type}")
    return lines
