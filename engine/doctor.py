"""Checks of this machine: which parts of PanRT work, and how to fix the others.

Every check looks at one part and never raises: a missing part is a finding. Nothing is installed or changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from panrt.engine.bench.machine import cpu_info, cpu_name, power_mode, usable_threads
from panrt.errors import GpuError, PluginLibraryError
from panrt.gpu import device as gpu
from panrt.plugins import library

_BOARD = Path("/proc/device-tree/model")
_JETPACKS = {gpu.JETPACK_6: "JetPack 6", 38: "JetPack 7"}  # by the number of Jetson Linux; older ones are too old

State = Literal["ok", "missing", "broken"]  # missing: something else works without it; broken: PanRT does not


class Finding(NamedTuple):
    """The result of one check."""

    part: str
    state: State
    found: str
    advice: str = ""  # the cure, if one is needed


def examine() -> tuple[Finding, ...]:
    """Run all checks, the most important first."""
    checks: tuple[Callable[[], Finding | None], ...] = (
        _jetson,
        _python,
        _processor,
        _kernels,
        _onnxruntime,
        _opencv,
        _video,
        _cameras,
        _csi_cameras,
        _window,
        _gpu,
        _cuda_python,
        _tensorrt,
        _tensorrt_rtx,
        _plugins,
        _torch,
    )
    return tuple(finding for check in checks if (finding := check()) is not None)


def _jetson() -> Finding | None:
    """Check a Jetson's system; None on other machines."""
    system = gpu.jetson_linux()
    if system is None:
        return None
    number, revision = system
    board = _BOARD.read_text().strip("\0\n ") if _BOARD.exists() else "a board without a name"
    if number < gpu.JETPACK_6:
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
            "video", "missing", found, "annotated video needs libx264; PyAV's wheels contain it: pip install av"
        )
    return Finding("video", "ok", found)


def _cameras() -> Finding:
    try:
        devices = importlib.import_module("panrt.engine.sources.v4l2").devices()
    except ImportError as error:
        return Finding("cameras", "missing", str(error), "repair what is broken above")
    if not devices:
        return Finding("cameras", "missing", "no /dev/video*", "plug one in; files, rtsp:// and demo:// need none")
    found = ", ".join(f"{one.path} ({one.name or 'without a name'}{', CSI' * one.is_csi})" for one in devices)
    closed = [str(one.path) for one in devices if not one.is_open_to_us]
    if closed:
        return Finding(
            "cameras",
            "missing",
            f"{found}; no access to {', '.join(closed)}",
            "sudo usermod -aG video $USER, then log in again",
        )
    return Finding("cameras", "ok", f"{found}; camera:// reads them through V4L2")


def _csi_cameras() -> Finding:
    part = "CSI cameras"
    try:
        gstreamer = importlib.import_module("panrt.engine.sources.gstreamer")
    except ImportError as error:
        return Finding(part, "missing", str(error), "repair what is broken above")
    way, plugins = gstreamer.way(), "gstreamer1.0-plugins-bad"
    if not way:
        advice = f"for csi:// on a Jetson: sudo apt-get install gstreamer1.0-tools {plugins}"
        return Finding(part, "missing", "no GStreamer", advice)
    found = f"csi:// reads them by GStreamer through {way}"
    if not gstreamer.has_element("nvarguscamerasrc"):
        advice = "for csi://: sudo apt-get install nvidia-l4t-gstreamer"
        if not gpu.is_jetson():
            advice = "only a Jetson has csi://; USB cameras are camera://0"
        return Finding(part, "missing", f"{found}, which has no nvarguscamerasrc", advice)
    if way == gstreamer.LAUNCHER and not gstreamer.has_element("gdppay"):
        return Finding(part, "missing", f"{found}, which has no gdppay", f"sudo apt-get install {plugins}")
    return Finding(part, "ok", found)


def _build_information(key: str) -> str:
    """Return what OpenCV reports about a part of its build."""
    if importlib.util.find_spec("cv2") is None:
        return "no OpenCV"
    lines = importlib.import_module("cv2").getBuildInformation().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.strip().startswith(f"{key}:")), "NO")


def _window() -> Finding:
    found = _build_information("GUI")
    if found in ("NONE", "NO", "no OpenCV"):
        return Finding(
            "window", "missing", "OpenCV was built without", "use --sink web://:8080, or pip install opencv-python"
        )
    return Finding("window", "ok", found)


def _gpu() -> Finding:
    """Return the GPU's finding, from the driver itself, so that no package is needed."""
    try:
        version, found = gpu.driver_version(), gpu.visible()
    except GpuError as error:
        return Finding("GPU", "missing", f"the driver is installed but fails: {error}", "reboot, or check dmesg")
    if version is None:
        return Finding("GPU", "missing", f"no NVIDIA driver ({gpu.DRIVER})", "the CPU backend works without")
    if not found:
        return Finding("GPU", "missing", "the driver sees none", "check CUDA_VISIBLE_DEVICES")
    names = []
    for one in found:
        shares = ", shares the host's memory" if one.is_integrated and one.maps_memory else ""
        names.append(f"{one.name} (sm_{one.compute_capability.replace('.', '')}{shares})")
    return Finding("GPU", "ok", f"{', '.join(names)}; driver for CUDA {version[0]}.{version[1]}")


def _cuda_python() -> Finding:
    extra = gpu.cuda_extra()
    try:
        bindings, core = version("cuda-bindings"), version("cuda-core")
    except PackageNotFoundError as error:
        return Finding("cuda-python", "missing", f"no {error.name}", f"for the GPU: pip install 'panrt[{extra}]'")
    found = f"cuda-bindings {bindings}, cuda-core {core}"
    try:
        driver = gpu.driver_version()
    except GpuError as error:
        return Finding("cuda-python", "missing", f"{found}; {error}", "reboot, or check dmesg")
    if driver is not None and int(bindings.partition(".")[0]) > driver[0]:
        found = f"{found}, which is for a newer driver than this one for CUDA {driver[0]}.{driver[1]}"
        cure = f"panrt[{extra}]" if extra != "cuda" else f"cuda-bindings<{driver[0] + 1}"
        return Finding("cuda-python", "missing", found, f"pip install '{cure}'")
    return Finding("cuda-python", "ok", found)


def _tensorrt() -> Finding:
    jetson = gpu.jetson_linux()
    if jetson is None:
        return _importable("TensorRT", "tensorrt", "on a desktop: pip install 'panrt[tensorrt]'")
    own = "JetPack provides it; a virtual environment sees it only with --system-site-packages"
    finding = _importable("TensorRT", "tensorrt", own)
    if jetson[0] == gpu.JETPACK_6 and finding.state == "ok" and not finding.found.startswith("10."):
        found = f"{finding.found}, which is not JetPack 6's and does not run there"
        return Finding("TensorRT", "missing", found, f"pip uninstall tensorrt; {own}")
    return finding


def _tensorrt_rtx() -> Finding:
    advice = "for GeForce and RTX GPUs: pip install 'panrt[rtx]'"
    if gpu.jetson_linux() is not None:
        advice = "it is for desktops; a Jetson uses TensorRT"
    return _importable("TensorRT-RTX", "tensorrt_rtx", advice)


def _plugins() -> Finding:
    try:
        found = library.find()
    except PluginLibraryError as error:
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
