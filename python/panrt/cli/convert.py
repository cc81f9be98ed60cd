"""`panrt convert`: convert weights of detectron2 to a PanRT model file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panrt.cli.support import JsonOption, Report, megabytes, named_config
from panrt.formats.records import argument

if TYPE_CHECKING:
    from panrt.model.config import PanopticFPNConfig
    from panrt.model.panoptic_fpn import PanopticFPN
    from panrt.model.weight_files import Weights


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="Weights of detectron2: .pkl, .pth, .pt, .ckpt, .bin or .safetensors."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    config: Annotated[str, typer.Option(help="The network that the weights were trained in, e.g. panoptic_fpn_r50.")],
    classes: Annotated[
        Path | None,
        typer.Option(help="A COCO panoptic JSON with its categories, in order; default: those of the configuration."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The entry that holds the weights, in a file that holds several sets of them."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store matrices and kernels as float16.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert weights of a detectron2 panoptic FPN to a model file.

    The file is read as data; nothing in it is executed. Every tensor of the network must be present in the right
    shape, or nothing is written.
    """
    network = named_config(config)

    from panrt.model.checkpoints import detectron2_name, read_weights, save

    weights = read_weights(source, key=key)
    kind = f"{weights.kind}{f' by {weights.author}' if weights.author else ''}"
    model = _converted(weights, network, classes, source=source)
    save(model, output, half=half, provenance=f"converted from {source.name}, a {kind}")
    names = {name: detectron2_name(name) for name in model.state_dict()}
    renamed = sum(ours != theirs for ours, theirs in names.items())
    ignored = sorted(weights.tensors.keys() - set(names.values()))
    report = Report(as_json=as_json)
    report.line("read", f"{source}: {kind}, {len(weights.tensors)} tensors, {megabytes(source.stat().st_size)}")
    prefix = f", all without the prefix {weights.prefix!r}" if weights.prefix else ""
    report.line("took", f"{len(names)} tensors for {model.config.name}, {renamed} under another name{prefix}")
    report.line("ignored", _shown(ignored))
    report.line("wrote", f"{output}, {megabytes(output.stat().st_size)}, {'float16' if half else 'float32'}")
    facts = {
        "source": str(source), "kind": kind, "prefix": weights.prefix, "config": model.config.name,
        "tensors": len(names), "renamed": renamed, "ignored": ignored,
        "output": str(output), "half": half, "bytes": output.stat().st_size,
    }  # fmt: skip
    written = argument(output)
    next_commands = [f"panrt info {written}", f"panrt eval --model {written} --truth panoptic.json --images DIR"]
    report.end(facts, next_commands=next_commands)


def _converted(weights: Weights, network: PanopticFPNConfig, classes: Path | None, *, source: Path) -> PanopticFPN:
    """Return the network with these weights, for the classes of the JSON if one is given."""
    from panrt.errors import ClassesError
    from panrt.model.checkpoints import from_detectron2
    from panrt.model.data.coco_panoptic import read_classes

    if classes is not None:
        network = dataclasses.replace(network, classes=read_classes(classes))
    try:
        return from_detectron2(weights.tensors, network, source=str(source))
    except ClassesError as error:
        advice = "of the data set they were trained on" if classes is None else f"of another data set than {classes}"
        raise ValueError(f"{error.problem}; give the classes {advice}: --classes panoptic.json.") from error


def _shown(ignored: list[str]) -> str:
    """Return the names of ignored tensors, with the number of batch normalisation counters."""
    shown = [name for name in ignored if not name.endswith(".num_batches_tracked")]
    if counters := len(ignored) - len(shown):
        shown.append(f"{counters} counters num_batches_tracked")
    return ", ".join(shown) or "none"
