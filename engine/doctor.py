"""What of PanRT works on this machine, what does not, and what to do about it.

Every check looks at one thing and never raises: a missing part is a finding. Nothing is installed or changed.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from panrt.engine.machine import cpu_info, cpu_name, power_mode, usable_threads
from panrt.plugins import library

_RELEASE = Path("/etc/nv_tegra_release")  # of Jetson Linux
_BOARD = Path("/proc/device-tree/model")
_OLDEST = 36  # Jetson Linux: JetPack 6
_JETPACKS = {36: "JetPack 6", 38: "JetPack 7"}  # by Jetson Linux

State = Literal["ok", "missing", "broken"]  # missing: something else works without it; broken: PanRT does not


class Finding(NamedTuple):
    """What one check saw."""

    part: str
    state: State
    found: str
    advice: str = ""  # what to do, where there is something to do


def examine() -> tuple[Finding, ...]:
    """Look at everything, in the order in which it matters."""
    checks: tuple[Callable[[], Finding | None], ...] = (
        _jetson,
        _python,
        _processor,
        _kernels,
        _onnxruntime,
        _opencv,
        _video,
        _cameras,
        _gstreamer,
        _window,
        _gpu,
        _cuda_python,
        _tensorrt,
        _tensorrt_rtx,
        _plugins,
        _torch,
    )
    return tuple(finding for check in checks if (finding := check()) is not None)


def _jetson_linux() -> tuple[int, str] | None:
    """Number and revision of a Jetson's system, (36, "4.3"); None elsewhere."""
    try:
        said = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _RELEASE.read_text())
    except OSError:
        return None
    return (int(said[1]), said[2]) if said is not None else (0, "unknown")


def _jetson() -> Finding | None:
    """Nothing to say elsewhere."""
    system = _jetson_linux()
    if system is None:
        return None
    number, revision = system
    board = _BOARD.read_text().strip("\0\n ") if _BOARD.exists() else "a board without a name"
    if number < _OLDEST:
        found = f"{board}, Jetson Linux {number}.{revision}"
        return Finding(
            "Jetson", "missing", found, "its Python and TensorRT are too old for PanRT; flash JetPack 6 or 7"
        )
    jetpack = _JETPACKS.get(number, "a JetPack newer than this PanRT")
    mode = re.search(r"NV Power Mode: (\S+)", power_mode())
    found = f"{board}, {jetpack} (Jetson Linux {number}.{revision}), power mode {mode[1] if mode else 'unknown'}"
    return Finding("Jetson", "ok", found, "before measuring: sudo nvpmodel -m 0 && sudo jetson_clocks")


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")


def _processor() -> Finding:
    info = cpu_info()
    there = set(info.get("flags", info.get("Features", "")).split())
    units = [name for name in ("avx2", "avx512f", "amx_int8", "asimd", "asimddp") if name in there]
    found = f"{cpu_name()}, {usable_threads()} threads, {' '.join(units) or 'no vector units known'}"
    return Finding("processor", "ok", found)


def _kernels() -> Finding:
    try:
        importlib.import_module("panrt.plugins.native")
    except ImportError as error:
        return Finding("CPU kernels", "broken", str(error), "install again: pip install --force-reinstall panrt")
    return Finding("CPU kernels", "ok", f"panrt {version('panrt')}")


def _onnxruntime() -> Finding:
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        return Finding("ONNX Runtime", "broken", str(error), "pip install onnxruntime")
    return Finding("ONNX Runtime", "ok", f"{module.__version__}: {', '.join(module.get_available_providers())}")


def _opencv() -> Finding:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        return Finding("OpenCV", "broken", str(error), "pip install opencv-python-headless")
    return Finding("OpenCV", "ok", str(cv2.__version__))


def _video() -> Finding:
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        return Finding("video", "broken", str(error), "pip install av")
    able = []
    for name, mode, what in (("h264", "r", "H.264"), ("hevc", "r", "H.265"), ("libx264", "w", "H.264 encoding")):
        try:
            av.Codec(name, mode)
        except ValueError:  # PyAV's UnknownCodecError is one
            continue
        able.append(what)
    found = f"PyAV {av.__version__}: {', '.join(able) or 'neither H.264 nor H.265'}"
    if "H.264 encoding" not in able:
        return Finding(
            "video", "missing", found, "annotated video needs libx264; PyAV's wheels bring it: pip install av"
        )
    return Finding("video", "ok", found)


def _cameras() -> Finding:
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", "missing", "no /dev/video*", "plug one in; files, rtsp:// and demo:// need none")
    closed = [str(device) for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    found = ", ".join(map(str, devices))
    if closed:
        return Finding(
            "cameras",
            "missing",
            f"{found}; no access to {', '.join(closed)}",
            "sudo usermod -aG video $USER, log in anew",
        )
    return Finding("cameras", "ok", found)


def _build_information(key: str) -> str:
    """What OpenCV says about a part of its build."""
    if importlib.util.find_spec("cv2") is None:
        return "no OpenCV"
    lines = importlib.import_module("cv2").getBuildInformation().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.strip().startswith(f"{key}:")), "NO")


def _gstreamer() -> Finding:
    found = _build_information("GStreamer")
    if not found.startswith("YES"):
        return Finding("GStreamer", "missing", "OpenCV was built without", "csi:// needs it: use JetPack's own OpenCV")
    return Finding("GStreamer", "ok", found)


def _window() -> Finding:
    found = _build_information("GUI")
    if found in ("NONE", "NO", "no OpenCV"):
        return Finding(
            "window", "missing", "OpenCV was built without", "use --sink web://:8080, or pip install opencv-python"
        )
    return Finding("window", "ok", found)


def _gpu() -> Finding:
    """Asks the driver itself, so that no package is needed."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Finding("GPU", "missing", "no NVIDIA driver (libcuda.so.1)", "the CPU backend works without")
    count, number = ctypes.c_int(), ctypes.c_int()
    if (status := driver.cuInit(0)) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return Finding(
            "GPU", "missing", f"the driver is there but does not start: CUDA error {status}", "reboot, or check dmesg"
        )
    driver.cuDriverGetVersion(ctypes.byref(number))
    names = []
    for index in range(count.value):
        device, major, minor, integrated, maps = (ctypes.c_int() for _ in range(5))
        name = ctypes.create_string_buffer(128)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR, _INTEGRATED, _CAN_MAP_HOST_MEMORY
        for attribute, value in ((75, major), (76, minor), (18, integrated), (19, maps)):
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        shares = ", shares the host's memory" if integrated.value and maps.value else ""
        names.append(f"{name.value.decode()} (sm_{major.value}{minor.value}{shares})")
    if not names:
        return Finding("GPU", "missing", "the driver sees none", "check CUDA_VISIBLE_DEVICES")
    return Finding(
        "GPU", "ok", f"{', '.join(names)}; driver for CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    )


def _cuda_python() -> Finding:
    try:
        return Finding(
            "cuda-python", "ok", f"cuda-bindings {version('cuda-bindings')}, cuda-core {version('cuda-core')}"
        )
    except PackageNotFoundError as error:
        return Finding("cuda-python", "missing", f"no {error.name}", "for the GPU: pip install 'panrt[cuda]'")


def _tensorrt() -> Finding:
    jetson = _jetson_linux()
    if jetson is None:
        return _importable("TensorRT", "tensorrt", "on a desktop: pip install 'panrt[tensorrt]'")
    own = "JetPack brings it; a virtual environment sees it only with --system-site-packages"
    finding = _importable("TensorRT", "tensorrt", own)
    if jetson[0] == 36 and finding.state == "ok" and not finding.found.startswith("10."):
        found = f"{finding.found}, which is not JetPack 6's own and does not run there"
        return Finding("TensorRT", "missing", found, f"pip uninstall tensorrt; {own}")
    return finding


def _tensorrt_rtx() -> Finding:
    advice = "for GeForce and RTX GPUs: pip install 'panrt[rtx]'"
    if _jetson_linux() is not None:
        advice = "it is for desktops; on a Jetson TensorRT does its work"
    return _importable("TensorRT-RTX", "tensorrt_rtx", advice)


def _plugins() -> Finding:
    try:
        found = library.find()
    except library.PluginLibraryError as error:
        return Finding("plugin library", "missing", str(error).partition("; ")[0], "for TensorRT: panrt plugins build")
    return Finding("plugin library", "ok", f"{found.path}, sha256 {found.sha256[:12]}")


def _torch() -> Finding:
    return _importable(
        "PyTorch", "torch", "only for training and export: pip install 'panrt[train,export]'", load=False
    )


def _importable(part: str, module: str, advice: str, *, load: bool = True) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(part, "missing", "not installed", advice)
    if not load:
        return Finding(part, "ok", version(module))
    try:
        return Finding(part, "ok", str(importlib.import_module(module).__version__))
    except (ImportError, OSError, RuntimeError) as error:
        return Finding(part, "missing", f"installed, but does not load: {error}", advice)
