"""`panrt predict`: images through a model, with a line and an annotated image for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panrt.cli.run import check_sinks
from panrt.cli.support import (
    MODEL_HELP,
    BackendOption,
    HeightOption,
    JsonOption,
    Report,
    ThreadsOption,
    WidthOption,
    chosen_size,
    find_model,
)
from panrt.errors import PanrtError, SourceError
from panrt.formats.records import legible

if TYPE_CHECKING:
    from panrt.engine.results.result import PanopticResult

SAVES = ("json", "coco", "masks")


def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, globs and http(s) addresses of images.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for annotated images and the files of --save.")
    ] = Path("predictions"),
    image_format: Annotated[
        Literal["jpg", "png", "none"], typer.Option("--format", help="Of annotated images; none writes no images.")
    ] = "jpg",
    save: Annotated[str, typer.Option(help="Also write json, coco or masks, separated by commas.")] = "",
    sinks: Annotated[
        list[str], typer.Option("--sink", "-s", help="Further sinks of 'panrt run', such as out.mp4. Repeatable.")
    ] = [],  # noqa: B006  (typer reads it, nobody writes to it)
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace images, masks and JSON of before; otherwise they are kept.")
    ] = False,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a server may stay silent.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Segment images, print what each shows, and write annotated images.

    An existing image is kept: the new one is photo-2.jpg. Exit codes: 0 done, 1 a file could not be written, 2 an image
    or the model is invalid; the other images are processed nevertheless.
    """
    import panrt

    report = Report(as_json=as_json)
    targets = [*_targets(out, image_format, save, overwrite=overwrite), *sinks]
    results: list[dict[str, Any]] = []
    problem: PanrtError | None = None
    found = find_model(report, model, backend=backend, threads=threads, input_hw=chosen_size(height, width))
    predictions = panrt.predict(
        images,
        found.path,
        sinks=targets,
        timeout=timeout,
        backend=backend,
        threads=threads,
        input_hw=found.input_hw,
    )
    with predictions:
        try:
            for _, result in predictions:
                report.line("image", _line(result))
                results.append(result.to_json())
        except SourceError as error:  # the images before it are reported first
            problem = error
    status = predictions.stream.status
    files = [file for sink in status.sinks for file in sink.files]
    if files:
        report.line("wrote", ", ".join(legible(file) for file in dict.fromkeys(files)))
    report.end({"results": results, "files": files, "error": str(problem) if problem else None})
    if problem is not None:
        raise problem
    check_sinks(status.sinks)


def _line(result: PanopticResult) -> str:
    """Return what an image shows."""
    size = "x".join(map(str, result.frame_hw))
    name = result.file_name or str(result.frame_index)
    return f"{name}: {result.findings() or 'nothing'}  ({size}, {1000 * sum(result.timings):.0f} ms)"


def _targets(out: Path, image_format: str, save: str, *, overwrite: bool) -> list[str]:
    """Return the sinks of the options.

    Raises:
        ValueError: --save names something else.
    """
    wanted = [each for each in save.split(",") if each]
    unknown = [each for each in wanted if each not in SAVES]
    if unknown:
        raise ValueError(f"--save: got {unknown[0]!r}, expected some of {', '.join(SAVES)}, separated by commas.")
    replace = "overwrite=yes" if overwrite else "overwrite=no"
    sinks = {
        "json": f"{out}/results.jsonl?{replace}",
        "coco": f"coco://{out}/coco",
        "masks": f"masks://{out}/masks?{replace}",
    }
    shown = [] if image_format == "none" else [f"images://{out}?format={image_format}&{replace}"]
    return shown + [sinks[each] for each in dict.fromkeys(wanted)]
