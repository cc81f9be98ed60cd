"""The first hour on real hardware: is PanRT right on this GPU, and how fast is it?

    python -m tools.gpu.first_day --expected FILE --out DIR --seconds N        on a GPU
    python -m tools.gpu.first_day --simulated --out DIR                        the suite itself, on stand-ins for one

Eight phases, each in a process of its own with a time limit. Writes DIR/checks.jsonl, a JSON line for each check,
DIR/summary.md, DIR/facts.json and DIR/measured.json. Ends with 1 where anything failed; docs/gpu_validation.md says
what to do with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.gpu import machine, planted, summary
from tools.gpu.checks import Record
from tools.gpu.machine import SetupError
from tools.gpu.phases import PHASES, SECONDS, run_all


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu.first_day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expected", type=Path, help="file of python -m tools.gpu.expected; without it phase 5 waits")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="folder of the reports (default: out/gpu)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all phases (default: {SECONDS})")
    parser.add_argument("--phases", help="only these, such as 0,4")
    parser.add_argument("--library", default="", help="plugin library; default: what panrt plugins build has built")
    parser.add_argument("--simulated", action="store_true", help="run on stand-ins: shows that the suite works")
    parser.add_argument("--small", action="store_true", help="as few cases as touch everything")
    parser.add_argument("--tools", default="", help="folder of compute-sanitizer and ncu; default: those on PATH")
    parser.add_argument("--plant", choices=sorted(planted.FAULTS), default="", help="a fault that must be reported")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the phases; return 1 if anything failed, 2 if nothing could run."""
    chosen = parser().parse_args(arguments)
    numbers = {int(number) for number in chosen.phases.split(",")} if chosen.phases else {p.number for p in PHASES}
    phases = [phase for phase in PHASES if phase.number in numbers]
    out: Path = chosen.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    (out / machine.REPORT).unlink(missing_ok=True)
    make = machine.simulated if chosen.simulated else machine.real
    try:
        described = make(
            out,
            expected=str(chosen.expected.absolute()) if chosen.expected else "",
            profile="small" if chosen.small else "full",
            plant=chosen.plant,
            tools=chosen.tools,
            kernels=chosen.library,
        )
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    described.write()
    records = run_all(described, phases, seconds=chosen.seconds, progress=_show)
    text = summary.markdown(records, phases, simulated=described.simulated)
    (out / "summary.md").write_text(text)
    print("\n" + summary.verdict(records, phases), f"written: {out}/summary.md", sep="\n")
    return int(summary.has_failed(records, phases))


def _show(record: Record) -> None:
    detail = record.detail or ", ".join(f"{name} {value}" for name, value in record.figures.items())
    print(f"{record.phase}  {record.status:8}{record.seconds:8.2f} s  {record.check}  {detail[:160]}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
