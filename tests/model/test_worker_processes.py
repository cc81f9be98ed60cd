"""Worker processes end with the process that started them, however it ended."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tools.clock import PATIENCE

_PROGRAM = """
import sys
from panrt.model.worker_processes import worker_processes

if __name__ == "__main__":
    with worker_processes(2) as pool:
        print(len({*pool.map(len, ["worker"] * 8)}), flush=True)
        for process in pool._processes.values():
            print(process.pid, flush=True)
        sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="tells by a pidfd that a process has ended")
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    with subprocess.Popen([sys.executable, program], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        ends = [os.pidfd_open(int(process.stdout.readline())) for _ in range(2)]
        process.kill()
    for end in ends:
        assert select.select([end], [], [], PATIENCE)[0], "a worker lives on"
        os.close(end)
