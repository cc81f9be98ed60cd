"""`panrt data`: data sets that PanRT draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from panrt.cli.support import JsonOption, Report, progress_bar
from panrt.formats.records import argument

data = typer.Typer(help="Generate the simulated tabletop.", no_args_is_help=True)

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to; made if need be.")]
SeedOption = Annotated[int, typer.Option(help="The first scene, counted within the split.")]
HeightOption = Annotated[int, typer.Option(help="Of the pictures, a multiple of 32.")]
WidthOption = Annotated[int, typer.Option(help="Likewise.")]


@data.command()
def tabletop(
    out: OutArgument,
    count: Annotated[int, typer.Option(help="Pictures.")] = 1000,
    split: Annotated[
        Literal["train", "eval"], typer.Option(help="Four views of each scene, or one; no scene is in both.")
    ] = "train",
    seed: SeedOption = 0,
    workers: Annotated[int, typer.Option(help="Processes; the pictures do not depend on how many.")] = 1,
    height: HeightOption = 256,
    width: WidthOption = 320,
    as_json: JsonOption = False,
) -> None:
    """A data set in the COCO panoptic format.

    Written are OUT/panoptic.json, OUT/images and OUT/panoptic.
    """
    from panrt.model.data.tabletop.dataset import generate

    report = Report(as_json=as_json)
    with progress_bar("render") as show:
        path = generate(split, out, count=count, seed=seed, height=height, width=width, workers=workers, progress=show)
    report.line("wrote", f"{path}: {count} pictures of {height}x{width} (height x width), split {split}")
    written, images = argument(path), argument(out / "images")
    uses = {
        "train": f"panrt train panoptic_fpn_lite --data {written} --images {images} -o out",
        "eval": f"panrt eval --model model.safetensors --truth {written} --images {images}",
    }
    facts = {"path": str(path), "split": split, "count": count, "seed": seed, "height": height, "width": width}
    report.end(facts, next_commands=[uses[split]])


@data.command()
def clip(
    out: OutArgument,
    frames: Annotated[int, typer.Option(help="Length, at 25 frames a second.")] = 200,
    seed: SeedOption = 0,
    height: HeightOption = 256,
    width: WidthOption = 320,
    as_json: JsonOption = False,
) -> None:
    """A clip with ids that stay the same over time.

    Written are OUT/clip.mp4, OUT/clip_ids.npz and OUT/clip.json.
    """
    from panrt.model.data.tabletop.dataset import generate_clip

    report = Report(as_json=as_json)
    with progress_bar("render") as show:
        path = generate_clip(out, frames=frames, seed=seed, height=height, width=width, progress=show)
    report.line("wrote", f"{path}: {frames} frames of {height}x{width} (height x width)")
    report.end({"path": str(path), "frames": frames, "seed": seed, "height": height, "width": width})
