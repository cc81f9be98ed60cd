"""`panrt info`: show the architecture, the cost and the provenance of a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panrt.cli.info_onnx import info_onnx
from panrt.cli.info_plan import info_plan
from panrt.cli.support import JsonOption, Report, chosen_size, megabytes, named_config
from panrt.formats.records import argument

if TYPE_CHECKING:
    from panrt.hub.catalogue import Entry
    from panrt.model.complexity import PartComplexity
    from panrt.model.config import PanopticFPNConfig
    from panrt.model.header import Header


def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors, .onnx or .plan file, a name of 'panrt models', or a configuration.",
        ),
    ],
    height: Annotated[
        int | None,
        typer.Option(
            min=32, help="Input size to count for, or for an .onnx file with an open size; default: the network's."
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(min=32, help="Likewise.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the architecture, the cost and the provenance of a network."""
    if model.endswith(".onnx"):
        info_onnx(Path(model), chosen_size(height, width), as_json=as_json)
        return
    if model.endswith(".plan"):
        if height is not None or width is not None:
            raise ValueError(f"{model}: an engine has one input size; leave --height and --width out.")
        info_plan(Path(model), as_json=as_json)
        return

    from panrt.hub import catalogue
    from panrt.hub.weights import path_of
    from panrt.model.header import locate

    entry = catalogue.find(model)
    path = locate(model) if entry is None else path_of(entry)
    is_file = path.suffix == ".safetensors" or path.exists()
    header = _header(path) if is_file else None
    config = header.config if header is not None else named_config(model if entry is None else entry.config)

    size = height or config.input_hw[0], width or config.input_hw[1]
    rows = _complexity(config, size)
    report = Report(as_json=as_json)
    report.line("network", f"{config.name}: {_trunk(config)}")
    report.line("classes", f"{len(config.classes.things)} things, {len(config.classes.stuff)} stuff")
    report.line("input", f"{size[0]}x{size[1]} (height x width), BGR, uint8")
    _report_weights(report, model, entry, header, path)
    if rows is not None:
        report.table(_table(rows))
    else:
        report.line("cost", "not counted: that needs PyTorch, pip install 'panrt[export]'")
    report.end(
        _facts(config, header, path, size, rows),
        next_commands=[
            f"panrt eval --model {argument(path if entry is None else model)} --truth panoptic.json --images DIR"
            if header is not None
            else f"panrt train {config.name} --data panoptic.json --images DIR -o out"
        ],
    )


def _report_weights(report: Report, model: str, entry: Entry | None, header: Header | None, path: Path) -> None:
    """Report the file and where its weights come from."""
    from panrt.hub import catalogue

    if header is not None:
        report.line("file", f"{path}, {megabytes(path.stat().st_size)}")
        report.line("weights", header.provenance or "of unknown provenance")
    elif entry is not None:
        size_text = megabytes(entry.size)
        report.line("weights", f"{catalogue.provenance(entry)}; not downloaded, {size_text}: panrt pull {model}")
    else:
        report.line("weights", "none: this is a configuration")


def _complexity(config: PanopticFPNConfig, size: tuple[int, int]) -> tuple[PartComplexity, ...] | None:
    """Count the cost of the network; None if PyTorch, which builds it, is not installed."""
    try:
        from panrt.model.complexity import complexity
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None
    return complexity(config, height=size[0], width=size[1])


def _header(path: Path) -> Header:
    from panrt.model.header import read_header

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    return read_header(path)


def _trunk(config: PanopticFPNConfig) -> str:
    fpn = f"FPN of {config.fpn.width} channels" if config.fpn is not None else "dilated, no FPN"
    branches = [branch for branch in ("instance", "semantic") if getattr(config, branch) is not None]
    return f"{config.trunk.label}, {fpn}, {' and '.join(branches)} {'branches' if len(branches) > 1 else 'branch'}"


def _table(rows: tuple[PartComplexity, ...]) -> str:
    from panrt.model.metric_table import text_table

    cells = [(row.part, f"{row.parameters:,}", f"{row.multiply_adds / 1e9:.1f}") for row in rows]
    return text_table(("", "trainable parameters", "GMAC per image"), cells)


def _counts(row: PartComplexity) -> dict[str, int]:
    return {"parameters": row.parameters, "multiply_adds": row.multiply_adds}


def _facts(
    config: PanopticFPNConfig,
    header: Header | None,
    path: Path,
    size: tuple[int, int],
    rows: tuple[PartComplexity, ...] | None,
) -> dict[str, Any]:
    from panrt.model.config import to_json

    return {
        "name": config.name,
        "file": str(path) if header is not None else None,
        "provenance": header.provenance if header is not None else None,
        "height": size[0],
        "width": size[1],
        "things": [category.name for category in config.classes.things],
        "stuff": [category.name for category in config.classes.stuff],
        "complexity": None if rows is None else {row.part: _counts(row) for row in rows},
        "config": to_json(config),
    }
