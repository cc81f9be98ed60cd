"""`panrt models` and `panrt pull`: models by name, what is here of them, and getting them before they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from panrt.cli.support import JsonOption, Report, megabytes
from panrt.formats.records import argument

if TYPE_CHECKING:
    from panrt.hub.catalogue import Entry

models = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of 'panrt models', such as coco.")]


class _Here(NamedTuple):
    """The files of a model in the cache."""

    weights: Path | None
    sha256: str | None  # that the weights have to have; None: not known before the first download
    exports: dict[str, Path]  # by precision


@models.callback()
def listing(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List the models that go by a name, or remove one.

    A name does wherever a command takes a model, and in panrt.load.

    The first use of one downloads its weights and exports them to ONNX, which needs PyTorch (pip install
    'panrt[export]') and about half a minute; later ones use the cache, without a network. Sizes are those of downloads.
    PQ is panoptic quality on COCO val2017, as published.

    PANRT_HUB=ADDRESS or PANRT_HUB=FOLDER replaces the server, PANRT_OFFLINE=1 forbids requests. A file of PanRT on the
    Hugging Face hub is given as hf://OWNER/NAME/FILE.
    """
    if ctx.invoked_subcommand is not None:
        return
    from panrt.engine.bundled import MODELS
    from panrt.hub import catalogue, weights

    report = Report(as_json=as_json)
    rows = [("name", "or", "here", "download", "PQ", "licence of the weights")]
    rows += [(name, "", "bundled", "-", "-", "Apache-2.0; a simulated tabletop") for name in MODELS]
    facts: list[dict[str, Any]] = [{"name": name, "here": True, "file": str(path)} for name, path in MODELS.items()]
    for entry in catalogue.ENTRIES:
        here = _here(entry)
        rows.append(
            (entry.name, ", ".join(entry.aliases), _state(here), megabytes(entry.size), f"{entry.pq}", entry.licence)
        )
        facts.append(_facts(entry, here))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = (map(str.ljust, row, widths) for row in rows)
    report.table("\n".join("  ".join(row) for row in padded))
    report.line("cache", str(weights.root()))
    report.line("weights", "trained on COCO by the authors of detectron2; PanRT distributes none of them")
    report.end(
        {"cache": str(weights.root()), "models": facts},
        next_commands=["panrt predict photo.jpg --model coco", "panrt pull coco", "panrt models rm coco"],
    )


def _here(entry: Entry) -> _Here:
    from panrt.hub import weights
    from panrt.hub.models import ready

    path = weights.path_of(entry)
    return _Here(path if path.is_file() else None, weights.known_hash(entry), ready(entry))


def _state(here: _Here) -> str:
    if here.exports:
        return f"ready ({', '.join(here.exports)})"
    return "weights" if here.weights is not None else "no"


def _facts(entry: Entry, here: _Here) -> dict[str, Any]:
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "here": bool(here.exports),
        "weights": str(here.weights) if here.weights is not None else None,
        "exports": {precision: str(path) for precision, path in here.exports.items()},
        "path": entry.path,
        "bytes": entry.size,
        "md5_prefix": entry.md5_prefix,
        "sha256": here.sha256,
        "sha256_published": entry.sha256 is not None,
        "licence": entry.licence,
        "source": entry.source,
        "pq": entry.pq,
        "reference_latency": entry.latency,
    }


@models.command("rm")
def rm(
    name: NameArgument,
    forget_hash: Annotated[
        bool,
        typer.Option(
            "--forget-hash", help="Also forget the SHA-256 of the first download, which later ones are held to."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the weights of a model, and the files made of them, from the cache."""
    from panrt.hub import catalogue
    from panrt.hub.models import remove

    removed = remove(catalogue.get(name), forget_hash=forget_hash)
    report = Report(as_json=as_json)
    report.line("removed", f"weights {megabytes(removed.weights)}, exported files {megabytes(removed.exports)}")
    if removed.hash_forgotten:
        report.line("", "and the SHA-256 of the first download")
    report.end(removed._asdict())


def pull(
    name: NameArgument,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="Of the exported file.")] = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Download and export a model ahead of its first use.

    After that it opens in seconds and needs no network. The input size stays open: every later command chooses its own.
    The file also runs on a machine without PyTorch.
    """
    from panrt.hub import models as hub

    path = hub.onnx_file(name, precision=precision)
    report = Report(as_json=as_json)
    report.line("ready", f"{name}: {path}, {megabytes(path.stat().st_size)}, {precision}")
    report.end(
        {"name": name, "file": str(path), "bytes": path.stat().st_size, "precision": precision},
        next_commands=[
            f"panrt predict photo.jpg --model {argument(name)}",
            f"panrt build {argument(name)} -o {argument(_plan(name))} --precision {precision}     (TensorRT)",
        ],
    )


def _plan(name: str) -> str:
    return f"{Path(name).stem}.plan"
