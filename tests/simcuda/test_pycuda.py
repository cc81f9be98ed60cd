"""PyCUDA itself and PanRT in one process, on the simulated driver."""

from __future__ import annotations

import pytest

from simcuda import build, build_pycuda
from support import hostcuda


def test_pycuda_and_panrt_share_a_process() -> None:
    variables = build_pycuda.environment()
    if variables is None:
        pytest.skip("PyCUDA is not installed; `make test-pycuda` builds it, in minutes")
    result = build.run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(build.HERE / "inside" / "test_pycuda.py")],
        **variables,
        PANRT_TEST_KERNELS=str(hostcuda.kernels("plain")),
    )
    print(result.stdout)
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"
