"""Commands of earlier releases that are no longer part of the package. Each reports where it has moved."""

from __future__ import annotations

import typer

MOVED = {  # command -> what to run instead
    "data": "python -m examples.tabletop render OUT, or clip OUT",
    "train-tabletop": "python -m examples.tabletop train OUT",
}


def moved(ctx: typer.Context) -> None:
    """Report where the command has moved."""
    raise ValueError(
        f"'panrt {ctx.info_name}' has moved to examples/tabletop of the repository; in a clone, run: "
        f"{MOVED[str(ctx.info_name)]}"
    )
