"""`panrt cache`: list and prune cached engines, and the kernels compiled for them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from panrt.cli.support import JsonOption, Report, megabytes

cache = typer.Typer(
    help="The engines that panrt build keeps, and the kernels that TensorRT for RTX compiled for them.",
    no_args_is_help=True,
)


@cache.command("ls")
def ls(as_json: JsonOption = False) -> None:
    """List the cache, most recently used first."""
    from panrt.engine.backends.tensorrt import runtime_cache
    from panrt.export.cache import entries, root
    from panrt.formats.plan_file import PRODUCTS

    report = Report(as_json=as_json)
    found = entries()
    for entry in found:
        file = entry.file
        what = f"{file.model.name} {file.model.precision}  {PRODUCTS[file.flavour]} {file.tensorrt}"
        gpu = f"  {file.gpu}" if file.gpu else ""
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        report.line(entry.name, f"{megabytes(entry.bytes):>9}  used {used}  {file.onnx}  {what}{gpu}")
    report.line("total", f"{megabytes(sum(entry.bytes for entry in found))} in {len(found)} engines, {root()}")
    kernels = runtime_cache.sizes()
    where = runtime_cache.root()
    report.line("kernels", f"{megabytes(sum(kernels.values()))} compiled for {len(kernels)} engines, {where}")
    engines = [
        {
            "name": entry.name,
            "bytes": entry.bytes,
            "used": entry.used,
            "onnx": entry.file.onnx,
            "model": entry.file.model.name,
            "precision": entry.file.model.precision,
            "flavour": entry.file.flavour,
            "tensorrt": entry.file.tensorrt,
            "gpu": entry.file.gpu,
        }
        for entry in found
    ]
    compiled = {"folder": str(where), "engines": len(kernels), "bytes": sum(kernels.values())}
    report.end({"folder": str(root()), "engines": engines, "kernels": compiled})


@cache.command()
def prune(
    unused_days: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="Remove what was unused for this many days; 0: everything.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Remove engines and kernels that were not used recently, and remains of interrupted builds."""
    from panrt.engine.backends.tensorrt import runtime_cache
    from panrt.export import cache as engines

    count, freed = engines.prune(unused_days=unused_days)
    kernels, freed_of_kernels = runtime_cache.prune(unused_days=unused_days)
    report = Report(as_json=as_json)
    report.line("removed", f"{count} engines, {megabytes(freed)}")
    report.line("removed", f"compiled kernels of {kernels} engines, {megabytes(freed_of_kernels)}")
    report.end({"removed": count, "bytes": freed, "kernels": {"removed": kernels, "bytes": freed_of_kernels}})
