"""Profiles of the property tests, and the tests that this machine cannot run.

PANRT_TEST_PROFILE is "short" (the default, the same examples every time) or "full". Tests that draw need OpenGL, those
with a network camera GStreamer's RTSP server, those with a CSI camera its tools and headers, the one that looks at the
live page Chromium. A machine without them leaves such tests out and says so, CI never does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support import argus
from support.rendering import cannot_draw
from tools.rtsp_server import SETUP as RTSP_SETUP

if TYPE_CHECKING:
    from support.hub_server import Hub
    from support.named_models import Small

# A case is built from a drawn seed, so one example may take long and most of its size is not drawn: neither is a fault.
_slow_is_fine = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "short", max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=_slow_is_fine
)
settings.register_profile(
    "full", max_examples=2500, deadline=None, print_blob=True, suppress_health_check=_slow_is_fine
)
# What a developer or a CI service has set must not reach servers and terminals of the tests.
for name in (
    "PANRT_TOKEN",
    "PANRT_HUB",
    "PANRT_OFFLINE",
    "COLUMNS",
    "LINES",
    "TERMINAL_WIDTH",
    "FORCE_COLOR",
    "NO_COLOR",
    "PY_COLORS",
    "GITHUB_ACTIONS",
):
    os.environ.pop(name, None)
os.environ["no_proxy"] = "127.0.0.1,localhost"
# A job in the background of a shell, or under nohup, ignores signals, and so would the processes that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def csi_elements(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `csi://` is GStreamer's test picture; see `support.argus`."""
    return argus.build(tmp_path_factory.mktemp("argus"))


@pytest.fixture
def csi_camera(csi_elements: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process and its children a CSI camera, csi://0."""
    for name, value in csi_elements.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def small() -> Small:
    """The small model that stands in the catalogue for a large one."""
    from support.named_models import small_model  # noqa: PLC0415  # imports PyTorch

    return small_model()


@pytest.fixture
def small_hub(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has its weights; the cache is in the folder of the test."""
    from support.named_models import served  # noqa: PLC0415  # imports PyTorch

    with served(small, tmp_path / "cache", monkeypatch) as hub:
        yield hub


settings.load_profile(os.environ.get("PANRT_TEST_PROFILE", "short"))


def _cannot_serve_rtsp() -> str | None:
    python = Path("/usr/bin/python3")  # `gi` is a package of the system's Python
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if python.exists() and subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0:
        return None
    return f"GStreamer's RTSP server is missing; on Debian and Ubuntu: {RTSP_SETUP}"


def _cannot_browse() -> str | None:
    return None if shutil.which("chromium") else "Chromium is missing; on Debian: apt-get install chromium"


_NEEDS = {
    "examples/test_tabletop.py": cannot_draw,
    "engine/sinks/test_page.py": _cannot_browse,
    "engine/sources/test_csi.py": argus.cannot_build,
    "engine/sources/test_rtsp.py": _cannot_serve_rtsp,
}
_LEFT_OUT = {} if os.environ.get("CI") else {name: why for name, cannot in _NEEDS.items() if (why := cannot())}
collect_ignore = list(_LEFT_OUT)


# Files and folders whose tests take seconds each: processes, compilers, real networks, simulated GPUs.
_SLOW = (
    "benchmarks/",
    "cli/",
    "engine/sinks/test_page.py",
    "engine/sinks/test_recordings.py",
    "engine/sources/test_csi.py",
    "engine/sources/test_rtsp.py",
    "engine/test_forks.py",
    "engine/test_session.py",
    "engine/test_shared_session.py",
    "examples/",
    "export/",
    "formats/test_input_size.py",
    "fuzz/",
    "gpu/test_first_day.py",
    "hostcuda/",
    "model/test_parity.py",
    "model/test_train.py",
    "model/test_weights.py",
    "plugins/cuda/",
    "plugins/tensorrt/",
    "plugins/test_onnx_functions.py",
    "plugins/test_sanitizers.py",
    "ptxsim/",
    "simcuda/",
    "test_packaging.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).as_posix().startswith(_SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is seen, what did not run."""
    for name, why in _LEFT_OUT.items():
        terminalreporter.write_line(f"LEFT OUT tests/{name}: {why}", yellow=True)
