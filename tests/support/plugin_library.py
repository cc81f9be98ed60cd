"""The plugin library that the tests use, compiled from this checkout into build/ and kept while it is warm."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Literal

from panrt.plugins import library
from panrt.plugins.library import PluginLibrary

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "plugins"

Kernels = Literal["auto", "off"]


@lru_cache
def plugin_library(kernels: Kernels) -> PluginLibrary:
    """With kernels where there is nvcc; for one architecture, as all take minutes and no test runs them on a GPU."""
    architectures = () if os.environ.get("PANRT_TEST_PROFILE") == "full" else ("75",)
    return library.build(
        output=folder(kernels) / library.NAME, kernels=kernels, architectures=architectures, fetch_headers=True
    )


def driver(kernels: Kernels) -> Path:
    """The C++ tests of the plugin classes, tests/plugins/tensorrt/driver.cpp."""
    plugin_library(kernels)
    build = folder(kernels) / "libpanrt_plugins-build"
    command = ["cmake", "--build", str(build), "--target", "panrt_plugin_driver"]
    environment = {**os.environ, "PATH": library.tool_path()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return build / "panrt_plugin_driver"


def folder(kernels: Kernels) -> Path:
    return BUILD / f"kernels-{kernels}"
