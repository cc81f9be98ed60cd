"""The plugin library that tests use, compiled from this checkout into build/ if its sources changed."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Literal

from panrt.plugins import library
from panrt.plugins.library import PluginLibrary

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "plugins"

Kernels = Literal["auto", "off"]


@lru_cache
def plugin_library(kernels: Kernels) -> PluginLibrary:
    """Build the library for one architecture, as all take minutes; with kernels if nvcc is found."""
    architectures = (library.ALL,) if os.environ.get("PANRT_TEST_PROFILE") == "full" else ("75",)
    return library.build(
        output=folder(kernels) / library.NAME, kernels=kernels, architectures=architectures, fetch_headers=True
    )


def driver(kernels: Kernels) -> Path:
    """The C++ tests of the plugin classes, tests/plugins/tensorrt/driver.cpp."""
    plugin_library(kernels)
    build = folder(kernels) / "libpanrt_plugins-build"
    cmake("--build", build, "--target", "panrt_plugin_driver")
    return build / "panrt_plugin_driver"


@lru_cache
def sanitized() -> tuple[Path, Path]:
    """Library, without kernels, and driver, both with AddressSanitizer and UndefinedBehaviorSanitizer."""
    build = BUILD / "sanitized"
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
    headers = library.fetched_headers(folder("off") / "tensorrt-headers")
    options = {
        "CMAKE_BUILD_TYPE": "None",
        "CMAKE_CXX_FLAGS": flags,
        "PANRT_KERNELS": "OFF",
        "PANRT_TENSORRT_FALLBACK": headers,
        "PANRT_WHEELS": sysconfig.get_path("purelib"),
    }
    cmake("-S", library.SOURCES, "-B", build, "-G", "Ninja", *(f"-D{name}={value}" for name, value in options.items()))
    cmake("--build", build, "--target", "panrt_plugins", "panrt_plugin_driver")
    return build / library.NAME, build / "panrt_plugin_driver"


def cmake(*arguments: str | Path) -> None:
    environment = {**os.environ, "PATH": library.tool_path()}
    done = subprocess.run(["cmake", *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def folder(kernels: Kernels) -> Path:
    return BUILD / f"kernels-{kernels}"
