"""PyCUDA itself and PanRT in one process, on the simulated driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import hostcuda
from tools.simcuda import build, build_pycuda


def test_pycuda_and_panrt_share_a_process() -> None:
    variables = build_pycuda.environment()
    if variables is None:
        pytest.skip("PyCUDA is not installed; `make test-pycuda` builds it, in minutes")
    result = build.run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent / "inside" / "test_pycuda.py")],
        **variables,
        PANRT_TEST_KERNELS=str(hostcuda.kernels("plain")),
    )
    print(result.stdout)
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"
