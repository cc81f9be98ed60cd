"""`panrt doctor`: check what works on this machine."""

from __future__ import annotations

import typer

from panrt.cli.support import JsonOption, Report

BROKEN = 1


def doctor(as_json: JsonOption = False) -> None:
    """Report what works on this machine, what does not, and how to fix it.

    Exit code 1 if PanRT itself cannot run; merely missing parts do not count.
    """
    from panrt.engine.doctor import examine

    findings = examine()
    report = Report(as_json=as_json)
    width = max(len(finding.part) for finding in findings)
    for finding in findings:
        mark = {"ok": "ok", "missing": "-", "broken": "BROKEN"}[finding.state]
        report.line(mark, f"{finding.part:<{width}}  {finding.found}")
        if finding.advice:
            report.line("", f"{'':<{width}}  > {finding.advice}")
    broken = any(finding.state == "broken" for finding in findings)
    report.end(
        {"works": not broken, "findings": [finding._asdict() for finding in findings]},
        next_commands=[] if broken else ["panrt demo"],
    )
    if broken:
        raise typer.Exit(BROKEN)
