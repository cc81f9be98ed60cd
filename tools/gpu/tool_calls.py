"""Each kernel once, in buffers without canaries, for compute-sanitizer and ncu.

python -m tools.gpu.tool_calls FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.gpu.device import Stream, open_context
from tools.gpu.local_gpu import launch_of, opened
from tools.gpu.machine import Machine
from tools.gpu.phase_repeats import TINY
from tools.kernel_workloads import OPS


def main() -> None:
    """Run them."""
    machine = Machine.read(Path(sys.argv[1]))
    open_context()
    stream = Stream()
    for op, make in OPS.items():
        with opened(machine, launch_of(machine, make(TINY)), bare=True) as call:
            call.queue(stream)
            stream.synchronize()
        print(f"ran {op}", flush=True)


if __name__ == "__main__":
    main()
