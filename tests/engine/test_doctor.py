"""`panrt doctor` on the test machine, with some parts installed and others missing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from panrt.engine import doctor
from panrt.engine.sources import gstreamer, v4l2
from panrt.gpu import device as gpu


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


def gpu_found_with(folder: Path, driver: str) -> str:
    """What the doctor finds with a driver of this C source."""
    source = folder / "cuda.c"
    source.write_text(driver)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    code = "from panrt.engine import doctor; print(doctor._gpu().found)"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return said.stdout.strip()


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        ("int cuInit(unsigned f) {return 999;}", "the driver is installed but fails: cuInit: CUDA error 999; "),
        (
            "int cuInit(unsigned f) {return 0;} int cuDeviceGetCount(int* n) {*n = 1; return 0;}"
            "int cuDeviceGet(int* device, int index) {return 101;}",
            "the driver is installed but fails: cuDeviceGet: CUDA error 101; ",
        ),
        ("int cuInit(unsigned f) {return 100;}", "the driver sees none"),
    ],
)
def test_a_driver_that_fails_is_told_from_one_without_gpus(tmp_path: Path, driver: str, found: str) -> None:
    version = "int cuDriverGetVersion(int* version) {*version = 12060; return 0;}"
    assert gpu_found_with(tmp_path, version + driver).startswith(found)


def test_a_gpu_that_shares_the_hosts_memory_is_told(tmp_path: Path) -> None:
    driver = """
        #include <string.h>
        int cuInit(unsigned flags) { return 0; }
        int cuDeviceGetCount(int* count) { return *count = 2, 0; }
        int cuDriverGetVersion(int* version) { return *version = 12060, 0; }
        int cuDeviceGet(int* device, int index) { return *device = index, 0; }
        int cuDeviceGetName(char* name, int size, int device) { return strcpy(name, device ? "GPU" : "Orin"), 0; }
        int cuDeviceGetAttribute(int* value, int attribute, int device) {
            return *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? !device : 1, 0;
        }
    """
    found = gpu_found_with(tmp_path, driver)
    assert found == "Orin (sm_87, shares the host's memory), GPU (sm_87); driver for CUDA 12.6"


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Make this machine a Jetson, as far as its files and programs tell."""
    release, board, program = tmp_path / "nv_tegra_release", tmp_path / "model", tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\necho 'NV Power Mode: 25W'\necho 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    board.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    monkeypatch.setattr(gpu, "JETSON_RELEASE", release)
    monkeypatch.setattr(doctor, "_BOARD", board)

    def become(system: str) -> None:
        release.write_text(f"# R{system}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 2025\n")

    return become


def test_a_jetson_is_known_by_its_jetpack(jetson: Callable[[str], None]) -> None:
    jetson("36 (release), REVISION: 4.3")
    assert by_part()["Jetson"] == doctor.Finding(
        "Jetson",
        "ok",
        "NVIDIA Jetson Orin Nano Developer Kit, JetPack 6 (Jetson Linux 36.4.3), power mode 25W",
        "before measuring: sudo nvpmodel -m 0 && sudo jetson_clocks",
    )
    jetson("38 (release), REVISION: 2.1")
    assert "JetPack 7 (Jetson Linux 38.2.1)" in by_part()["Jetson"].found
    jetson("99 (release), REVISION: 1.0")
    assert "a JetPack newer than this PanRT (Jetson Linux 99.1.0)" in by_part()["Jetson"].found


def test_tensorrt_for_rtx_is_not_asked_for_on_a_jetson(
    jetson: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorrt_rtx" else find(name))
    assert by_part()["TensorRT-RTX"].advice.startswith("for GeForce and RTX GPUs")
    jetson("36 (release), REVISION: 4.3")
    assert by_part()["TensorRT-RTX"].advice == "it is for desktops; a Jetson uses TensorRT"


@pytest.mark.parametrize(
    ("bindings", "driver", "state"),
    [
        ("12.9.10", (12, 6), "ok"),
        ("13.4.1", (13, 0), "ok"),
        ("12.9.10", (13, 0), "ok"),  # drivers know older CUDAs
        ("13.4.1", (12, 6), "missing"),
        ("13.4.1", None, "ok"),  # another finding says that there is no driver
    ],
)
def test_bindings_for_a_newer_driver_are_found_out(
    jetson: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    bindings: str,
    driver: tuple[int, int] | None,
    state: str,
) -> None:
    monkeypatch.setattr(doctor, "version", {"cuda-bindings": bindings, "cuda-core": "1.2.2"}.__getitem__)
    monkeypatch.setattr(gpu, "driver_version", lambda: driver)
    found = doctor._cuda_python()
    assert found.state == state
    assert found.found.startswith(f"cuda-bindings {bindings}, cuda-core 1.2.2")
    if state == "missing":
        assert found.found.endswith(", which is for a newer driver than this one for CUDA 12.6")
        assert found.advice == "pip install 'cuda-bindings<13'"
        jetson("36 (release), REVISION: 4.3")
        assert doctor._cuda_python().advice == "pip install 'panrt[jetpack6]'"


def test_jetpack_6_is_told_the_extra_of_its_own(jetson: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def without(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "version", without)
    assert doctor._cuda_python().advice == "for the GPU: pip install 'panrt[cuda]'"
    jetson("38 (release), REVISION: 2.1")
    assert doctor._cuda_python().advice == "for the GPU: pip install 'panrt[cuda]'"
    jetson("36 (release), REVISION: 4.3")
    assert doctor._cuda_python().advice == "for the GPU: pip install 'panrt[jetpack6]'"


def test_a_jetson_that_is_too_old_is_told_what_to_flash(jetson: Callable[[str], None]) -> None:
    jetson("35 (release), REVISION: 4.1")
    found = by_part()["Jetson"]
    assert (found.state, found.found) == ("missing", "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 35.4.1")
    assert "flash JetPack 6 or 7" in found.advice


def test_cameras_are_listed_with_the_way_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    usb = v4l2.Device(Path("/dev/video0"), "USB Camera", is_open_to_us=True)
    sensor = v4l2.Device(Path("/dev/video1"), "vi-output, imx219 9-0010", is_open_to_us=True)
    monkeypatch.setattr(v4l2, "devices", lambda: (usb, sensor))
    assert doctor._cameras() == doctor.Finding(
        "cameras",
        "ok",
        "/dev/video0 (USB Camera), /dev/video1 (vi-output, imx219 9-0010, CSI); camera:// reads them through V4L2",
    )
    monkeypatch.setattr(v4l2, "devices", lambda: (usb, sensor._replace(is_open_to_us=False)))
    found = doctor._cameras()
    assert (found.state, found.advice) == ("missing", "sudo usermod -aG video $USER, then log in again")
    assert found.found.endswith("no access to /dev/video1")


@pytest.mark.parametrize(
    ("way", "elements", "on_jetson", "state", "said"),
    [
        ("python3-gi", {"nvarguscamerasrc"}, True, "ok", "csi:// reads them by GStreamer through python3-gi"),
        ("gst-launch-1.0", {"nvarguscamerasrc", "gdppay"}, True, "ok", "through gst-launch-1.0"),
        ("gst-launch-1.0", {"nvarguscamerasrc"}, True, "missing", "sudo apt-get install gstreamer1.0-plugins-bad"),
        ("python3-gi", set(), True, "missing", "sudo apt-get install nvidia-l4t-gstreamer"),
        ("python3-gi", set(), False, "missing", "only a Jetson has csi://; USB cameras are camera://0"),
        ("", set(), True, "missing", "sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-bad"),
    ],
)
def test_csi_cameras_are_read_by_what_gstreamer_has(
    jetson: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    elements: set[str],
    on_jetson: bool,
    state: str,
    said: str,
) -> None:
    if on_jetson:
        jetson("36 (release), REVISION: 4.3")
    monkeypatch.setattr(gstreamer, "way", lambda: way)
    monkeypatch.setattr(gstreamer, "has_element", elements.__contains__)
    found = doctor._csi_cameras()
    assert found.state == state
    assert said in (found.advice or found.found)


def test_a_tensorrt_of_pip_on_jetpack_6_is_found_out(
    jetson: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("__version__ = '11.0.1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    jetson("36 (release), REVISION: 4.3")
    found = by_part()["TensorRT"]
    assert (found.state, found.found) == ("missing", "11.0.1, which is not JetPack 6's and does not run there")
    assert found.advice.startswith("pip uninstall tensorrt; JetPack provides it")
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.3.0")
    assert by_part()["TensorRT"].state == "ok"
    monkeypatch.delitem(sys.modules, "tensorrt")


def test_elsewhere_there_is_no_talk_of_jetsons() -> None:
    assert "Jetson" not in by_part()


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
