"""What runs on the simulated driver runs, each module in a process of its own."""

from __future__ import annotations

import pytest

from simcuda import build

MODULES = sorted(path.name for path in (build.HERE / "inside").glob("test_*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_everything_inside_passes(module: str) -> None:
    result = build.run(["-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/simcuda/inside/{module}"])
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"
