"""Draw the simulated tabletop and train the bundled model on it: `python -m examples.tabletop`, in a clone.

render OUT   a data set in the COCO panoptic format
clip OUT     a labelled clip
train OUT    the model `tabletop`, from drawing its frames to measuring it
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from panrt.cli.support import Commands, JsonOption, Report, interactive, progress_bar
from panrt.formats.records import argument

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EVALUATION = Path("tests/data/tabletop/eval")

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to; created if missing.")]
SeedOption = Annotated[int, typer.Option(help="First scene, counted within the split.")]
HeightOption = Annotated[int, typer.Option(help="Height of the images, a multiple of 32.")]
WidthOption = Annotated[int, typer.Option(help="Width of the images, a multiple of 32.")]


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error arose, for a bug report.")
    ] = False,
) -> None:
    """Draw the simulated tabletop, and train the bundled model on it."""


@app.command()
def render(
    out: OutArgument,
    count: Annotated[int, typer.Option(help="Number of images.")] = 1000,
    split: Annotated[
        Literal["train", "eval"], typer.Option(help="Four views of each scene, or one; the splits share no scene.")
    ] = "train",
    seed: SeedOption = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw; their number does not change the images.")] = 1,
    height: HeightOption = 256,
    width: WidthOption = 320,
    as_json: JsonOption = False,
) -> None:
    """Draw a data set in the COCO panoptic format.

    Writes OUT/panoptic.json, OUT/images and OUT/panoptic.
    """
    from examples.tabletop.dataset import generate

    report = Report(as_json=as_json)
    with progress_bar("render") as show:
        path = generate(split, out, count=count, seed=seed, hw=(height, width), workers=workers, progress=show)
    report.line("wrote", f"{path}: {count} images of {height}x{width} (height x width), split {split}")
    written, images = argument(path), argument(out / "images")
    uses = {
        "train": f"panrt train panoptic_fpn_lite --data {written} --images {images} -o out",
        "eval": f"panrt eval --model model.safetensors --truth {written} --images {images}",
    }
    facts = {"path": str(path), "split": split, "count": count, "seed": seed, "height": height, "width": width}
    report.end(facts, next_commands=[uses[split]])


@app.command()
def clip(
    out: OutArgument,
    frames: Annotated[int, typer.Option(help="Number of frames, at 25 frames per second.")] = 200,
    seed: SeedOption = 0,
    height: HeightOption = 256,
    width: WidthOption = 320,
    as_json: JsonOption = False,
) -> None:
    """Draw a clip with ids that stay the same over time.

    Writes OUT/clip.mp4, OUT/clip_ids.npz and OUT/clip.json.
    """
    from examples.tabletop.dataset import generate_clip

    report = Report(as_json=as_json)
    with progress_bar("render") as show:
        path = generate_clip(out, frames=frames, seed=seed, hw=(height, width), progress=show)
    report.line("wrote", f"{path}: {frames} frames of {height}x{width} (height x width)")
    report.end({"path": str(path), "frames": frames, "seed": seed, "height": height, "width": width})


@app.command()
def train(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for frames, logs, checkpoints and the model.")],
    evaluation: Annotated[Path, typer.Option(help="Folder of the evaluation split.")] = Path(
        "tests/data/tabletop/eval"
    ),
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and samples.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train the bundled model: draw 6000 frames, train, measure. Takes about two hours on two cores.

    Run again with the same folder, it resumes where it was stopped.
    """
    from examples.tabletop.train import draw_frames, train_tabletop

    report = Report(as_json=as_json)
    with progress_bar("render") as show:
        draw_frames(out, workers=workers, progress=show)
    trained = train_tabletop(out, evaluation=evaluation, seed=seed, progress=interactive())
    report.table(trained.quality.table(per_category=True))
    report.line("wrote", f"{trained.model}, {out / 'quality.json'}")
    facts = {"model": str(trained.model), "seed": seed, "evaluation": trained.quality.to_json()}
    report.end(facts, next_commands=[f"panrt info {argument(trained.model)}"])


if __name__ == "__main__":
    from panrt.cli import main

    main("examples.tabletop.__main__", name="python -m examples.tabletop")
