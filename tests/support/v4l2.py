"""A V4L2 camera, /dev/video40, for processes of their own; see v4l2_device.c."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def build(folder: Path) -> Path:
    """Compile the device; a library for a process to preload."""
    source, target = Path(__file__).with_name("v4l2_device.c"), folder / "libv4l2_device.so"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", target, source, "-ldl"], check=True)
    return target


def capture(device: Path, stories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read the camera in one process, once for each story; what came of it.

    Args:
        device: of `build`.
        stories: each with "uri", "pixel_format", and the settings of the device.
    """
    run = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(stories),
        env={**os.environ, "LD_PRELOAD": str(device)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told: list[dict[str, Any]] = json.loads(run.stdout)
    return told


def _tell(story: dict[str, Any]) -> dict[str, Any]:
    """Read the camera until it ends; its frames are looked at after it is closed."""
    import numpy as np  # noqa: PLC0415  (this file is also imported where no camera is read)

    from panrt.engine.sources import SourceOptions, open_source  # noqa: PLC0415

    settings = {name: str(value) for name, value in story.items() if name.startswith("V4L2_")}
    os.environ.update(settings)
    frames, memories = [], []
    original = np.frombuffer

    def counted(buffer: Any, *arguments: Any) -> Any:
        """Note whether what is copied into a frame's memory is the driver's own."""
        array = original(buffer, *arguments)
        if type(buffer).__name__ == "Packet":
            memories.append(_is_driver_memory(array.ctypes.data))
        return array

    np.frombuffer = counted  # type: ignore[assignment]
    options = SourceOptions(
        policy="block",
        reconnect=False,
        pixel_format=story["pixel_format"],
        timeout=story.get("timeout", 60.0),
    )
    with open_source(story["uri"], options=options) as source:
        while not source.exhausted:
            frame = source.take(0.05)
            if frame is not None:
                frames.append((frame, time.monotonic() - frame.captured_at))
    np.frombuffer = original
    for name in settings:
        del os.environ[name]
    error = source.error
    return {
        "frames": [
            {
                "format": frame.pixel_format,
                "shape": frame.image.shape,
                "values": sorted({int(value) for value in frame.image.ravel()[::7]})[:4],
                "mean": float(frame.image.mean()),
                "age": age,
                "time": frame.media_time,
            }
            for frame, age in frames
        ],
        "driver_memory": memories,
        "error": type(error).__name__,
        "said": str(error),
        "damaged": source.status.damaged,
        "threads_left": source._thread.is_alive(),
    }


def _is_driver_memory(address: int) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) .*panrt-camera", line)
        if found and int(found[1], 16) <= address < int(found[2], 16):
            return True
    return False


if __name__ == "__main__":
    print(json.dumps([_tell(story) for story in json.load(sys.stdin)]))
