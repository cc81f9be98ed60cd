"""`panrt build`: build a TensorRT engine from an ONNX file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panrt.cli.info_plan import layers, options, tf32
from panrt.cli.support import HeightOption, JsonOption, Report, WidthOption, chosen_size, interactive, megabytes
from panrt.formats.records import argument

if TYPE_CHECKING:
    from panrt.export.build import Built
    from panrt.formats.plan_file import PlanFile

_SHOWN = 8  # nodes and findings that are listed


FlavourOption = Annotated[
    Literal["tensorrt", "rtx"],
    typer.Option(help="rtx: TensorRT for RTX; any machine builds such an engine, GeForce and RTX GPUs run it."),
]
RtxOption = Annotated[bool, typer.Option("--rtx", hidden=True, help="Deprecated: --flavour rtx.")]
ComputeCapabilityOption = Annotated[
    list[str] | None,
    typer.Option(metavar="X.Y", help="With --flavour rtx: a GPU to build for; repeatable; default: 8.0 and newer."),
]
OptimizationLevelOption = Annotated[
    int, typer.Option(min=0, max=5, help="0 to 5; a higher level tries more kernels and takes longer.")
]
WorkspaceOption = Annotated[
    float,
    typer.Option(metavar="GB", min=0, help="Scratch memory for kernels; default: half of the GPU's, or what is free."),
]
Tf32Option = Annotated[
    bool,
    typer.Option(
        "--tf32/--no-tf32",
        help="Let float32 layers round their inputs to TF32 (10 bits of mantissa), from Ampere on: faster, but results "
        "no longer differ from the CPU's by rounding of float32 alone. fp16 is faster still.",
    ),
]
AuxStreamsOption = Annotated[
    int, typer.Option(metavar="N", min=0, help="Streams for parallel branches, each with its own memory.")
]
VersionCompatibleOption = Annotated[
    bool,
    typer.Option(
        "--version-compatible", help="The engine also runs with later TensorRT versions of the same major version."
    ),
]
HardwareCompatibilityOption = Annotated[
    Literal["none", "ampere_plus", "same_compute_capability"],
    typer.Option(help="Other GPUs that run the engine too; it may be slower. Not on a Jetson."),
]
DlaOption = Annotated[
    int | None,
    typer.Option(
        metavar="CORE",
        min=0,
        help="Deep learning accelerator of a Jetson AGX Orin, from TensorRT 11.4.1 (JetPack 7.2.2) on; not in JetPack "
        "6. PanRT's layers, and all that it does not support, stay on the GPU.",
    ),
]


def build(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="An .onnx file of panrt export, or a name of 'panrt models' such as coco."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .plan file to write, with a .plan.json beside.")],
    flavour: FlavourOption = "tensorrt",
    rtx: RtxOption = False,
    compute_capability: ComputeCapabilityOption = None,
    optimization_level: OptimizationLevelOption = 3,
    workspace: WorkspaceOption = 0.0,
    tf32: Tf32Option = False,
    aux_streams: AuxStreamsOption = 0,
    version_compatible: VersionCompatibleOption = False,
    hardware_compatibility: HardwareCompatibilityOption = "none",
    dla: DlaOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    precision: Annotated[
        Literal["fp32", "fp16"] | None, typer.Option(help="Of a model by name; default: fp32. A file has its own.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Build even if the cache has this engine, and do not cache the result.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build a TensorRT engine from an ONNX file.

    TensorRT builds on the GPU that runs the engine later, which takes minutes. The same engine is never built twice:
    see panrt cache. An engine has one input size, as it is then faster and its memory is known; from a file of panrt
    export --dynamic, build one engine for each --height and --width.
    """
    from panrt.export.build import build_engine
    from panrt.formats.plan_file import BuildOptions

    if rtx:
        typer.echo("warning: --rtx is deprecated; use --flavour rtx", err=True)
        flavour = "rtx"
    size = chosen_size(height, width)
    path, size = _located(Report(as_json=as_json), model, precision, size)
    options = BuildOptions(
        optimization_level=optimization_level,
        workspace_bytes=round(workspace * 1e9),
        tf32=tf32,
        aux_streams=aux_streams,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        compute_capabilities=tuple(compute_capability or ()),
        dla_core=-1 if dla is None else dla,
        input_hw=size,
    )
    with _phases() as show:
        built = build_engine(path, output, flavour=flavour, options=options, cache=not no_cache, progress=show)
    _report(built, output, as_json=as_json)


def _located(
    report: Report, model: Path, precision: Literal["fp32", "fp16"] | None, size: tuple[int, int] | None
) -> tuple[Path, tuple[int, int] | None]:
    """The ONNX file of a model, and the size of its engine; a model of the catalogue gets the default of a GPU."""
    from panrt.engine.named import GPU_HW
    from panrt.hub import catalogue, models

    if not models.is_remote(str(model)):
        if precision is not None:
            raise ValueError(f"--precision is for a model by name; {model} has the one that it was exported with.")
        return model, size
    if (entry := catalogue.find(str(model))) is not None:
        default, size = " (the default for a GPU)" if size is None else "", size or GPU_HW
        report.line("size", f"{entry.name} at {size[0]}x{size[1]}{default}; others: --height H --width W")
    return models.onnx_file(str(model), precision=precision or "fp32"), size


@contextmanager
def _phases() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr for each phase of the build; call what it gives with (phase, done, of)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not interactive()) as bar:
        tasks: dict[str, Any] = {}

        def show(phase: str, done: int, of: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=of)
            bar.update(tasks[phase], completed=done, total=of, visible=done < of)

        yield show


def _report(built: Built, output: Path, *, as_json: bool) -> None:
    from panrt.formats.plan_file import PRODUCTS, sidecar

    file = built.file
    report = Report(as_json=as_json)
    where = f"for {file.gpu} (compute capability {file.compute_capability})" if file.gpu else _targets(file.options)
    report.line("built", f"{PRODUCTS[file.flavour]} {file.tensorrt}, {where}")
    took = "taken from the cache; it took" if built.from_cache else "in"
    report.line("", f"{took} {file.build_seconds} s")
    report.line("layers", layers(file))
    fallen = file.precisions.fallen_to_fp32
    _list(report, "fp32", [f"{node}, though the file says {file.model.precision}" for node in fallen])
    report.line("float32", tf32(file))
    report.line("options", options(file))
    _list(report, "note", [str(finding) for finding in built.warnings if finding.node not in fallen])
    report.line("plugins", f"version {file.plugin_version}, sha256 {file.plugins_sha256[:12]}")
    report.line("wrote", f"{output}  {megabytes(file.plan_bytes)}  {file.model.precision}, and {sidecar(output).name}")
    facts = {"output": str(output), "from_cache": built.from_cache, **_facts(file)}
    facts["warnings"] = [str(finding) for finding in built.warnings]
    report.end(facts, next_commands=[f"panrt run demo://tabletop --model {argument(output)}"])


def _facts(file: PlanFile) -> dict[str, Any]:
    return {
        "bytes": file.plan_bytes,
        "build_seconds": file.build_seconds,
        "flavour": file.flavour,
        "tensorrt": file.tensorrt,
        "gpu": file.gpu,
        "precision": file.model.precision,
        "precisions": dataclasses.asdict(file.precisions),
        "tf32": file.options.tf32,
        "aux_streams": file.options.aux_streams,
        "workspace_bytes": file.workspace_bytes,
        "plan_sha256": file.plan_sha256,
    }


def _targets(options: Any) -> str:
    targets = options.compute_capabilities
    return f"for compute capability {', '.join(targets)}" if targets else "for compute capability 8.0 and newer"


def _list(report: Report, label: str, lines: list[str]) -> None:
    for index, line in enumerate(lines[:_SHOWN]):
        report.line("" if index else label, line)
    if len(lines) > _SHOWN:
        report.line("", f"and {len(lines) - _SHOWN} more; --json has them all")
