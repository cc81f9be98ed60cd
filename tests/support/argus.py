"""Stand-ins for the elements of GStreamer that read a CSI camera on a Jetson; see argus_plugin.c.

    os.environ |= build(folder)      and csi://0 is GStreamer's test picture, in this process and its children

GStreamer reads these variables when it starts; in this process it does so once.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

SETUP = (
    "apt-get install gstreamer1.0-tools gstreamer1.0-plugins-{base,good,bad} gir1.2-gst-plugins-base-1.0 "
    "libgstreamer1.0-dev python3-gi"
)


def cannot_build() -> str | None:
    """Why there can be no stand-ins here; None where there can."""
    probes = (
        ["gst-inspect-1.0", "gdppay"],
        ["pkg-config", "--exists", "gstreamer-base-1.0"],
        ["/usr/bin/python3", "-c", "import gi; gi.require_version('GstApp', '1.0')"],
    )
    if all(map(_succeeds, probes)):
        return None
    return f"GStreamer's tools or headers are missing; on Debian and Ubuntu: {SETUP}"


def _succeeds(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def build(folder: Path) -> dict[str, str]:
    """Compile the plugin into a folder; the environment in which GStreamer finds it there."""
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "gstreamer-base-1.0"], capture_output=True, text=True, check=True
    )
    source, target = Path(__file__).with_name("argus_plugin.c"), folder / "libgstpanrtargus.so"
    command: list[str | Path] = ["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", target, source]
    subprocess.run([*command, *shlex.split(flags.stdout)], check=True)
    return {"GST_PLUGIN_PATH": str(folder), "GST_REGISTRY": str(folder / "registry.bin")}
