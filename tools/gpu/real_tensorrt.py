"""The bundled model through TensorRT itself, if it is installed."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np

from tools.gpu.checks import MissingError, Record
from tools.gpu.machine import Machine
from tools.gpu.phase_quality import DIFFERING

BUILD_SECONDS = 900.0
FRAMES = 8


def run(check: Record, machine: Machine) -> None:
    """Build an engine in float32 and compare its maps.

    Raises:
        MissingError: TensorRT is missing, or the file of expected maps.
        AssertionError: more pixels differ than rounding explains.
    """
    if machine.simulated:
        raise MissingError("TensorRT has no GPU here")
    try:
        check.figures["TensorRT"] = importlib.import_module("tensorrt").__version__
    except ImportError as error:
        raise MissingError(f"TensorRT does not import ({error})") from error
    if not machine.expected:
        raise MissingError("--expected was not given")
    import panrt  # noqa: PLC0415
    from tools.gpu import expected  # noqa: PLC0415

    onnx, plan = machine.folder / "tabletop.onnx", machine.folder / "tabletop.plan"
    for command in (["export", "tabletop", "-o", str(onnx)], ["build", str(onnx), "-o", str(plan)]):
        done = subprocess.run(
            [sys.executable, "-m", "panrt", *command],
            env={**os.environ, "PANRT_PLUGINS": machine.plugins},
            check=False,
            text=True,
            capture_output=True,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            raise AssertionError(f"panrt {command[0]}: {done.stderr.strip()[-500:]}")
    os.environ["PANRT_PLUGINS"] = machine.plugins
    data = expected.read(machine.expected)
    with panrt.load(str(plan), backend="tensorrt") as session:
        shares = [
            float(np.mean(session(image).panoptic != ids))
            for image, ids in zip(data.images[:FRAMES], data.panoptic[:FRAMES], strict=True)
        ]
    check.figures["differing %"] = round(100 * float(np.mean(shares)), 4)
    assert np.mean(shares) <= DIFFERING["tf32"], f"{100 * np.mean(shares):.3f} % of the pixels differ"
