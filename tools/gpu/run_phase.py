"""The process of one phase:  python -m tools.gpu.run_phase NUMBER MODULE FOLDER SECONDS"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tools.gpu import absent, planted
from tools.gpu.checks import LOST, Checks, DeviceLostError, running_file
from tools.gpu.machine import REPORT, Machine


def main() -> None:
    """Run it; 0 whether or not checks fail."""
    number, module, folder, seconds = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
    machine = Machine.read(folder)
    running_file(folder / REPORT).write_text("the start of the phase")
    running = Checks(number, folder / REPORT, seconds=seconds)
    if replaced := absent.stand_in():
        print(f"do not import: {', '.join(replaced)}", flush=True)
    planted.plant(machine.plant)
    try:
        importlib.import_module(module).run(running, machine)
    except DeviceLostError:
        raise SystemExit(LOST) from None


if __name__ == "__main__":
    main()
