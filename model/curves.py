"""Plot the losses of a training."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from panrt.files import write_atomically

SMOOTHING = 0.9  # of the line; the dots are what was logged


def plot_curves(log: Path, picture: Path) -> None:
    """Draw each loss of a `log.jsonl` over the iterations; needs matplotlib.

    Args:
        log: lines with "iteration" and, those that count, "losses".
        picture: the file to write; its suffix chooses the format.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import, and only this needs it

    curves: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for line in log.read_text().splitlines():
        record = json.loads(line)
        for name, value in record.get("losses", {}).items():
            curves[name][0].append(record["iteration"])
            curves[name][1].append(value)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, (iterations, values) in curves.items():
        (line_2d,) = axes.plot(iterations, smooth(values), label=name)
        axes.plot(iterations, values, ".", color=line_2d.get_color(), alpha=0.2, markersize=2)
    axes.set(xlabel="iteration", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(ncols=2)
    kind = picture.suffix.removeprefix(".")
    write_atomically(picture, lambda temporary: figure.savefig(temporary, dpi=120, format=kind))


def smooth(values: Sequence[float]) -> list[float]:
    """Return means of all values so far, older ones weighted less; the first values are not weighted more for it."""
    means: list[float] = []
    total = weights = 0.0
    for value in values:
        total, weights = SMOOTHING * total + value, SMOOTHING * weights + 1
        means.append(total / weights)
    return means
