"""Whether this machine can draw the simulated tabletop."""

from __future__ import annotations

import ctypes.util
import sys


def cannot_draw() -> str | None:
    """Why not; None where it can."""
    old = sys.version_info < (3, 11)
    if old:
        return "MuJoCo 4 needs Python 3.11 or newer"
    if sys.platform == "linux" and ctypes.util.find_library("EGL") is None:
        return "libEGL is missing; on Debian and Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"
    return None
