"""`panrt convert`: convert weights of detectron2 or mmdetection to a PanRT model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panrt.cli.support import JsonOption, Report, megabytes, named_config
from panrt.formats.records import argument

if TYPE_CHECKING:
    from panrt.model.conversion.convert import Conversion
    from panrt.model.weight_files import Weights


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="The weights: .pkl, .pth, .pt, .ckpt, .bin or .safetensors."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="What describes the network: detectron2's config.yaml, mmdetection's config.py, or a name, e.g. "
            "panoptic_fpn_r50 or mmdetection. Not needed for weights of detectron2's model zoo, and for checkpoints "
            "of mmdetection that hold their configuration.",
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            "--names",
            "--classes",
            help="The names of the classes: a text with a name on each line, or a JSON: a list, {id: name}, "
            "thing_classes and stuff_classes, or COCO's categories. Things first, in the order of the training.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The entry that holds the weights, in a file that holds several sets of them."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store matrices and kernels as float16.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert weights of a panoptic FPN of detectron2 or mmdetection to a model file.

    \b
    detectron2's own models:
      panrt convert model_final_c10459.pkl -o r50.safetensors
    a model that was trained with detectron2:
      panrt convert model_final.pth --config config.yaml --names names.txt -o mine.safetensors
    a model of mmdetection:
      panrt convert epoch_12.pth -o mine.safetensors

    detectron2 writes config.yaml beside its checkpoints; its bases (_BASE_) are read too. The numbers of classes are
    those of the weights. The files are read as data; nothing in them is executed. Every tensor of the network must be
    present in the right shape, and the configuration must describe a network that PanRT has, or nothing is written.
    """  # noqa: D301 - the backslash is click's sign that the lines of a paragraph stay
    if config is not None and not _is_file(config):
        named_config(config)

    from panrt.model.checkpoints import read_weights, save
    from panrt.model.conversion.convert import convert as converted

    weights = read_weights(source, key=key)
    conversion = converted(weights, source, config=config, names=names)
    kind = f"{weights.kind}{f' by {weights.author}' if weights.author else ''}"
    save(conversion.model, output, half=half, provenance=f"converted from {source.name}, a {kind}")
    _report(conversion, weights, source, output, kind=kind, half=half, report=Report(as_json=as_json))


def _is_file(config: str) -> bool:
    """Return whether it is a file of another framework, or the name of one of mmdetection's networks."""
    return Path(config).suffix.lower() in (".yaml", ".yml", ".py") or config in ("mmdetection", "mmdetection-caffe")


def _report(
    conversion: Conversion, weights: Weights, source: Path, output: Path, *, kind: str, half: bool, report: Report
) -> None:
    model, names = conversion.model, conversion.names
    renamed = sum(ours != theirs for ours, theirs in names.items())
    ignored = sorted(weights.tensors.keys() - set(names.values()))
    classes = model.config.classes
    report.line("read", f"{source}: {kind}, {len(weights.tensors)} tensors, {megabytes(source.stat().st_size)}")
    prefix = f", all without the prefix {weights.prefix!r}" if weights.prefix else ""
    report.line("took", f"{len(names)} tensors for {model.config.name}, {renamed} under another name{prefix}")
    report.line("network", f"of {conversion.framework}, described by {conversion.description}")
    report.line("classes", f"{len(classes.things)} things, {len(classes.stuff)} stuff")
    for note in conversion.notes:
        report.line("assumed", note)
    report.line("ignored", _shown(ignored))
    report.line("wrote", f"{output}, {megabytes(output.stat().st_size)}, {'float16' if half else 'float32'}")
    facts = {
        "source": str(source), "kind": kind, "prefix": weights.prefix, "framework": conversion.framework,
        "config": model.config.name, "described_by": conversion.description, "assumed": list(conversion.notes),
        "things": len(classes.things), "stuff": len(classes.stuff),
        "tensors": len(names), "renamed": renamed, "ignored": ignored,
        "output": str(output), "half": half, "bytes": output.stat().st_size,
    }  # fmt: skip
    written = argument(output)
    next_commands = [f"panrt info {written}", f"panrt export {written} -o {argument(output.with_suffix('.onnx'))}"]
    report.end(facts, next_commands=next_commands)


def _shown(ignored: list[str]) -> str:
    """Return the names of ignored tensors, with the number of batch normalisation counters."""
    shown = [name for name in ignored if not name.endswith(".num_batches_tracked")]
    if counters := len(ignored) - len(shown):
        shown.append(f"{counters} counters num_batches_tracked")
    return ", ".join(shown) or "none"
