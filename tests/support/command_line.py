"""Commands of `panrt`, run in the process of the test."""

from __future__ import annotations

import torch
from typer.testing import CliRunner, Result

from panrt.cli import app


def run(*arguments: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def fail(*arguments: object) -> str:
    """What a command that must fail says; it says so on stderr alone, in one voice."""
    result = run(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr
