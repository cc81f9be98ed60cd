"""The commands of `panrt`, one module each.

Packages that are slow to import, such as PyTorch and OpenCV, are imported when a command runs, so that `panrt --help`
is immediate and commands that need no PyTorch work without it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from panrt.cli.bench import bench
from panrt.cli.build import build
from panrt.cli.cache import cache
from panrt.cli.convert import convert
from panrt.cli.demo import demo
from panrt.cli.doctor import doctor
from panrt.cli.evaluate import evaluate
from panrt.cli.export import export
from panrt.cli.info import info
from panrt.cli.models import models, pull
from panrt.cli.moved import MOVED, moved
from panrt.cli.plugins import plugins
from panrt.cli.predict import predict
from panrt.cli.run import run
from panrt.cli.support import Commands
from panrt.cli.train import train
from panrt.cli.verify import verify
from panrt.version import version

app = typer.Typer(
    name="panrt",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its boxes cut off the names of options
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("convert")(convert)
app.command("export")(export)
app.command("verify")(verify)
app.command("build")(build)
app.command("info")(info)
app.command("run")(run)
app.command("predict")(predict)
app.command("pull")(pull)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("doctor")(doctor)
app.add_typer(bench, name="bench")
app.add_typer(cache, name="cache")
app.add_typer(models, name="models")
app.add_typer(plugins, name="plugins")
for former in MOVED:
    app.command(
        former,
        hidden=True,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(moved)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"panrt {version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error arose, for a bug report.")
    ] = False,
) -> None:
    """Real-time panoptic segmentation: train, convert, evaluate, export and run Panoptic FPN.

    Exit codes: 0 done, 1 done with losses, 2 invalid options or input (the message explains), 129, 130 and 143 ended by
    SIGHUP, Ctrl-C (SIGINT) and SIGTERM; a second signal ends the process at once.
    """
