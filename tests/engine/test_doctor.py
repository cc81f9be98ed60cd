"""The doctor on the machine of the tests, where some parts are there and others are not."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from panrt.engine import doctor


def by_part() -> dict[str, doctor.Finding]:
    return {finding.part: finding for finding in doctor.examine()}


def test_what_the_tests_themselves_use_is_found() -> None:
    found = by_part()
    for part in ("Python", "CPU kernels", "ONNX Runtime", "OpenCV", "video", "PyTorch"):
        assert found[part].state == "ok", found[part]
    assert "CPUExecutionProvider" in found["ONNX Runtime"].found
    assert "H.264 encoding" in found["video"].found


def test_everything_that_is_not_there_comes_with_advice() -> None:
    assert all(finding.advice for finding in doctor.examine() if finding.state != "ok")


def test_a_missing_runtime_breaks_panrt_and_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return importlib.import_module(name)

    monkeypatch.setattr(doctor, "importlib", type("Importlib", (), {"import_module": without, "util": importlib.util}))
    assert by_part()["ONNX Runtime"] == doctor.Finding(
        "ONNX Runtime", "broken", "No module named 'onnxruntime'", "pip install onnxruntime"
    )


def test_a_driver_that_fails_to_start_is_told_from_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "cuda.c"
    source.write_text("int cuInit(unsigned f){return 999;} int cuDeviceGetCount(int*n){return 3;}")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    code = "from panrt.engine import doctor; print(doctor._gpu().found)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "the driver is there but does not start: CUDA error 999"


def test_the_doctor_does_not_import_pytorch() -> None:
    code = "import sys; from panrt.engine.doctor import examine; examine(); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_the_command_prints_the_findings_as_json() -> None:
    said = subprocess.run(
        [Path(sys.executable).parent / "panrt", "doctor", "--json"], capture_output=True, text=True, check=True
    )
    facts = json.loads(said.stdout)
    assert facts["works"]
    assert {finding["part"] for finding in facts["findings"]} >= {"GPU", "plugin library", "cameras"}
