"""The process of one phase:  python -m gpu.run_phase NUMBER FOLDER SECONDS"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from gpu import planted
from gpu.checks import LOST, Checks, DeviceLost, running_file
from gpu.machine import REPORT, Machine
from gpu.phases import PHASES


def main() -> None:
    """Run it; 0 whether or not checks fail."""
    number, folder, seconds = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    machine = Machine.read(folder)
    running_file(folder / REPORT).write_text("the start of the phase")
    running = Checks(number, folder / REPORT, seconds=seconds)
    (phase,) = (phase for phase in PHASES if phase.number == number)
    planted.plant(machine.plant)
    try:
        importlib.import_module(f"gpu.{phase.module}").run(running, machine)
    except DeviceLost:
        raise SystemExit(LOST) from None


if __name__ == "__main__":
    main()
