"""JetPack 6 rehearsed in a process of its own, on the simulated Orin: see inside/test_jetson.py.

Its camera is `csi://0` where the tests can make one of GStreamer's test picture, else the demo clip.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support import argus
from tools import hostcuda
from tools.simcuda import build


def camera(folder: Path) -> dict[str, str]:
    """The environment in which there is a CSI camera; empty where the tests cannot make one."""
    return {} if argus.cannot_build() else {**argus.build(folder), "PANRT_TEST_SOURCE": "csi://0"}


@pytest.mark.slow
def test_jetpack_6_is_rehearsed_from_the_doctor_to_frames(tmp_path: Path) -> None:
    inside = Path(__file__).parent / "inside" / "test_jetson.py"
    result = build.run(
        ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(inside)],
        PANRT_TEST_KERNELS=str(hostcuda.kernels("plain")),
        **camera(tmp_path),
    )
    print(result.stdout)  # what differs from the board
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"
