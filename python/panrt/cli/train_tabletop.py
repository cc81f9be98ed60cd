"""`panrt train-tabletop`: the demo model, from drawing its frames to measuring it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panrt.cli.support import JsonOption, Report, interactive, progress_bar
from panrt.formats.records import argument


def train_tabletop(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for frames, logs, checkpoints and the model.")],
    evaluation: Annotated[Path, typer.Option(help="The evaluation split, as a clone has it.")] = Path(
        "tests/data/tabletop/eval"
    ),
    seed: Annotated[int, typer.Option(help="Of weights, batches and samples.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train the demo model: draw 6000 frames, learn, measure. An hour or more on two cores.

    Started again with the same folder, it goes on where it was stopped.
    """
    from panrt.model.train_tabletop import draw_frames
    from panrt.model.train_tabletop import train_tabletop as train

    report = Report(as_json=as_json)
    with progress_bar("render") as show:
        draw_frames(out, workers=workers, progress=show)
    trained = train(out, evaluation=evaluation, seed=seed, progress=interactive())
    report.table(trained.quality.table(per_category=True))
    report.line("wrote", f"{trained.model}, {out / 'quality.json'}")
    facts = {"model": str(trained.model), "seed": seed, "evaluation": trained.quality.to_json()}
    report.end(facts, next_commands=[f"panrt info {argument(trained.model)}"])
