"""The compiler options that the ops rely on: wrong ones do not compile, or are found when the code runs."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = [f"-I{ROOT / folder}" for folder in ("plugins/include", "plugins/cpu")]
FUSED = ["-ffp-contract=fast", *(["-mfma"] if platform.machine() == "x86_64" else [])]


def compile_check(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The self-check of the CPU kernels as a library, compiled with these options."""
    source, target = ROOT / "plugins" / "cpu" / "arithmetic.cpp", tmp_path / "check.so"
    command = ["g++", "-std=c++17", "-O3", "-shared", "-fPIC", *INCLUDE, *options, str(source), "-o", str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def has_fused_multiply_add() -> bool:
    """Whether this processor runs what the compiler makes of `FUSED`."""
    return platform.machine() != "x86_64" or " fma " in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["-ffp-contract=off"], None),
        (["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"], None),
        (FUSED, b"fused multiply-adds; it needs -ffp-contract=off"),
    ],
)
def test_the_self_check_finds_fused_multiply_adds_and_nothing_else(
    tmp_path: Path, options: list[str], found: bytes | None
) -> None:
    if found is not None and not has_fused_multiply_add():
        pytest.skip("this processor has no fused multiply-add")
    done = compile_check(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    check = ctypes.CDLL(str(tmp_path / "check.so"))["_ZN5panrt16arithmetic_faultEv"]
    check.restype = ctypes.c_char_p
    assert found in check() if found else check() is None


@pytest.mark.parametrize("option", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
def test_arithmetic_without_nan_does_not_compile(tmp_path: Path, option: str) -> None:
    done = compile_check(tmp_path, option)
    assert done.returncode != 0
    assert "PanRT needs IEEE arithmetic" in done.stderr
