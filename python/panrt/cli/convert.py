"""`panrt convert`: weights of detectron2 become a model file of ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from panrt.cli.support import JsonOption, Report, megabytes, named_config
from panrt.formats.records import argument


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="Weights of detectron2: .pkl, .pth, .pt, .ckpt, .bin or .safetensors."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    config: Annotated[str, typer.Option(help="The network that the weights were trained in, e.g. panoptic_fpn_r50.")],
    classes: Annotated[
        Path | None,
        typer.Option(help="A COCO panoptic JSON with the categories it learnt, in order; default: the network's own."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The entry that holds the weights, in a file that holds several sets of them."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store matrices and kernels as float16.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Weights of a detectron2 panoptic FPN -> a model file.

    A file is read as data and nothing in it is ever run. Every tensor of the network must be there in the right
    shape, or nothing is written.
    """
    network = named_config(config)

    from panrt.errors import ClassesError
    from panrt.model.checkpoints import detectron2_name, from_detectron2, read_weights, save
    from panrt.model.data.coco_panoptic import read_classes

    if classes is not None:
        network = dataclasses.replace(network, classes=read_classes(classes))
    weights = read_weights(source, key=key)
    kind = f"{weights.kind}{f' by {weights.author}' if weights.author else ''}"
    try:
        model = from_detectron2(weights.tensors, network, source=str(source))
    except ClassesError as error:
        advice = "of the data set they were trained on" if classes is None else f"of another data set than {classes}"
        raise ValueError(f"{error.problem}; give the classes {advice}: --classes panoptic.json.") from error
    names = {name: detectron2_name(name) for name in model.state_dict()}
    renamed = sum(ours != theirs for ours, theirs in names.items())
    ignored = sorted(weights.tensors.keys() - set(names.values()))
    save(model, output, half=half, provenance=f"converted from {source.name}, a {kind}")
    report = Report(as_json=as_json)
    report.line("read", f"{source}: {kind}, {len(weights.tensors)} tensors, {megabytes(source.stat().st_size)}")
    prefix = f", all without {weights.prefix!r} before their names" if weights.prefix else ""
    report.line("took", f"{len(names)} tensors for {network.name}, {renamed} under another name{prefix}")
    counters = [name for name in ignored if name.endswith(".num_batches_tracked")]
    told = [name for name in ignored if name not in counters]
    told += [f"{len(counters)} counters num_batches_tracked"] if counters else []
    report.line("ignored", ", ".join(told) or "none")
    report.line("wrote", f"{output}, {megabytes(output.stat().st_size)}, {'float16' if half else 'float32'}")
    facts = {
        "source": str(source),
        "kind": kind,
        "prefix": weights.prefix,
        "config": network.name,
        "tensors": len(names),
        "renamed": renamed,
        "ignored": ignored,
        "output": str(output),
        "half": half,
        "bytes": output.stat().st_size,
    }
    report.end(
        facts,
        next_commands=[
            f"panrt info {argument(output)}",
            f"panrt eval --model {argument(output)} --truth panoptic.json --images DIR",
        ],
    )
