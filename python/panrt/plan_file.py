"""What a TensorRT engine was built from and for: written by the build, checked by the runtime before it is loaded.

An engine `street.plan` has this as JSON beside it, in `street.plan.json`. TensorRT's own refusal of an engine that does
not fit is a pair of numbers after a long load; this one names what differs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from panrt import model_file
from panrt.errors import PanrtError
from panrt.model_file import ModelFile, ModelFileError

SCHEMA = 1

Runtime = Literal["tensorrt", "rtx"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
NAMES: dict[Runtime, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}


class PlanMismatchError(PanrtError, RuntimeError):
    """An engine was built for something else than what is here."""


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """An engine's sidecar."""

    model: ModelFile  # of the ONNX file
    runtime: Runtime
    runtime_version: str  # that built it, and alone can run it, e.g. "10.3.0"
    gpu: str  # that it was built on, e.g. "Orin (nvgpu)"; "" where it was built without one
    compute_capability: str  # of that GPU, e.g. "8.7"; "" where it is bound to none
    plugins_sha256: str  # of the sources of the plugin library that it was built with; "" for one built by hand
    onnx_name: str  # of the file, without folder
    onnx_sha256: str
    plan_bytes: int
    plan_sha256: str


@dataclass(frozen=True, kw_only=True)
class Here:
    """What this process would run an engine with."""

    runtime: Runtime
    runtime_version: str
    gpu: str
    compute_capability: str
    plugins_sha256: str


def sidecar(plan: Path) -> Path:
    """Where an engine's sidecar lies."""
    return plan.with_name(plan.name + ".json")


def dumps(file: PlanFile) -> str:
    """As JSON, with the schema version first."""
    fields = {field.name: getattr(file, field.name) for field in dataclasses.fields(PlanFile) if field.name != "model"}
    return json.dumps({"schema": SCHEMA, **fields, "model": json.loads(model_file.dumps(file.model))}, indent=2)


def read(plan: Path) -> PlanFile:
    """The sidecar of an engine.

    Raises:
        FileNotFoundError: it has none.
        ModelFileError: the sidecar is damaged, or from a newer PanRT.
    """
    path = sidecar(plan)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; an engine of `panrt build` has it beside it. Copy both, or build the engine here."
        )
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFileError(f"{path}: not JSON ({error}); build the engine again.") from error
    return _from_json(data, source=str(path))


def check(file: PlanFile, here: Here, plan: Path) -> None:
    """Raise PlanMismatchError where an engine cannot run here, saying all that differs and how to rebuild it."""
    size = plan.stat().st_size
    if size != file.plan_bytes:
        raise PlanMismatchError(
            f"{plan}: has {size} bytes, its sidecar says {file.plan_bytes}: the copy is not whole, or they are of "
            f"different engines. Copy both again, or rebuild it here:\n  {rebuild(file, here, plan)}"
        )
    facts = [
        (
            f"{NAMES[side.runtime]} {side.runtime_version}",
            f"'{side.gpu}' of compute capability {side.compute_capability}",
            f"plugins {side.plugins_sha256[:12]}",
        )
        for side in (file, here)
    ]
    differs = (
        (file.runtime, file.runtime_version) != (here.runtime, here.runtime_version),
        file.compute_capability not in ("", here.compute_capability),
        file.plugins_sha256 != here.plugins_sha256 and "" not in (file.plugins_sha256, here.plugins_sha256),
    )
    if any(differs):
        wanted, found = (" with ".join(itertools.compress(side, differs)) for side in facts)
        raise PlanMismatchError(
            f"{plan} was built for {wanted}, this process has {found}.\n  Rebuild it here:  {rebuild(file, here, plan)}"
        )


def rebuild(file: PlanFile, here: Here, plan: Path) -> str:
    """The command that builds an engine for this process."""
    return f"panrt build {file.onnx_name} -o {plan}" + (" --backend rtx" if here.runtime == "rtx" else "")


def _from_json(data: Any, *, source: str) -> PlanFile:
    if not isinstance(data, dict):
        raise ModelFileError(f"{source}: got {type(data).__name__}, expected an object; build the engine again.")
    if data.get("schema") != SCHEMA:
        raise ModelFileError(
            f"{source}: schema: got {data.get('schema')!r}, this PanRT reads {SCHEMA}; upgrade panrt, or build the "
            "engine again with this version."
        )
    names = {field.name for field in dataclasses.fields(PlanFile)}
    for problem, wrong in (("missing", names - data.keys()), ("unknown", data.keys() - names - {"schema"})):
        if wrong:
            raise ModelFileError(f"{source}: {problem} field {', '.join(sorted(wrong))}; build the engine again.")
    for name in names - {"model", "plan_bytes"}:
        if not isinstance(data[name], str):
            raise ModelFileError(f"{source}: {name}: got {data[name]!r}, expected a string; build the engine again.")
    if type(data["plan_bytes"]) is not int:
        raise ModelFileError(f"{source}: plan_bytes: got {data['plan_bytes']!r}, expected an integer.")
    if data["runtime"] not in RUNTIMES:
        raise ModelFileError(f"{source}: runtime: got {data['runtime']!r}, expected {' or '.join(RUNTIMES)}.")
    fields = {name: data[name] for name in names - {"model"}}
    return PlanFile(model=model_file.from_json(data["model"], source=source), **fields)
