"""`panrt plugins`: the library of the four custom ops for TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panrt.cli.support import JsonOption, Report, megabytes

if TYPE_CHECKING:
    from panrt.plugins.library import PluginLibrary

plugins = typer.Typer(help="Build and inspect the TensorRT plugin library.", no_args_is_help=True)


@plugins.command()
def build(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The .so to write; default: the cache, where PanRT looks.")
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SM",
            help="A CUDA architecture such as 87, repeatable, or all; default: this machine's GPU.",
        ),
    ] = None,
    kernels: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="CUDA kernels: if nvcc is found, always, or never (to build engines, not run them)."),
    ] = "auto",
    tensorrt_include: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of NvInferRuntime.h; default: TENSORRT_HOME, the system's."),
    ] = None,
    fetch_headers: Annotated[
        bool, typer.Option("--fetch-headers", help="Without TensorRT's headers, use those of a PyPI package.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compile the plugins for TensorRT and TensorRT for RTX.

    Needs a C++ compiler, CMake (pip install 'panrt[plugins]') and, for kernels, nvcc of a CUDA toolkit or of
    'panrt[cuda-build]'. For all architectures it takes minutes. Files are compiled in parallel as far as memory allows,
    about 2 GB each.
    """
    from panrt.plugins import library

    report = Report(as_json=as_json)
    built = library.build(
        output=output,
        kernels=kernels,
        architectures=arch or (),
        tensorrt_include=tensorrt_include,
        fetch_headers=fetch_headers,
        progress=report.line,
    )
    found_by_default = output is None
    _report(
        built,
        as_json=as_json,
        next_commands=["panrt build model.onnx -o model.plan"]
        if found_by_default
        else [f"export {library.VARIABLE}={built.path}"],
    )


@plugins.command()
def info(as_json: JsonOption = False) -> None:
    """Show which library is used, and what it contains."""
    from panrt.plugins import library

    _report(library.find(), as_json=as_json, next_commands=[])


def _report(found: PluginLibrary, *, as_json: bool, next_commands: list[str]) -> None:
    report = Report(as_json=as_json)
    report.line("library", f"{found.path}  {megabytes(found.path.stat().st_size)}")
    kernels = (
        f"CUDA architectures {', '.join(found.cuda_architectures)}"
        if found.cuda_architectures
        else "none: engines can be built, not run; build it on a machine with nvcc"
    )
    report.line("kernels", kernels)
    report.line("headers", f"TensorRT {found.tensorrt_headers}")
    facts: dict[str, Any] = {**found._asdict(), "path": str(found.path)}
    facts["cuda_architectures"] = list(found.cuda_architectures)
    report.end(facts, next_commands=next_commands)
