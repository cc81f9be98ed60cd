"""The metadata of an engine: the JSON file beside it, written by `panrt build` and read by the runtime.

`street.plan` is opaque; `street.plan.json` holds the model's metadata (`panrt.formats.metadata`) and what the engine
was built with. The runtime compares that with the process it is in before it deserialises, so that a
mismatch is reported in one sentence, before a long load. Reading needs neither TensorRT nor ONNX.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from panrt.errors import ModelFileError, PlanFileError, PlanMismatch
from panrt.files import kind_of, read_whole
from panrt.formats import metadata, records
from panrt.formats.decoding import Reader, decode
from panrt.formats.metadata import ModelFile
from panrt.formats.records import argument, shown

SCHEMA = 2  # 1: without TF32, auxiliary streams and the workspace that a build had
SUFFIX = ".plan"
LONGEST_SIDECAR = 2**24  # bytes; the classes and the names of nodes take some ten thousands

_ENGINE = "an engine of panrt build"

Flavour = Literal["tensorrt", "rtx"]
HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]

FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
HARDWARE_COMPATIBILITIES: tuple[HardwareCompatibility, ...] = get_args(HardwareCompatibility)
PRODUCTS: dict[Flavour, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}  # their Python packages
OLDEST: dict[Flavour, tuple[int, ...]] = {"tensorrt": (10, 3), "rtx": (1, 7)}  # that PanRT supports; 10.3: JetPack 6


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of a build. With the ONNX file, TensorRT and the GPU, they determine the engine."""

    optimization_level: int = 3  # 0..5, TensorRT's; higher takes longer to build
    workspace_bytes: int = 0  # scratch memory that tactics may use; 0: half of the GPU's memory, less if it is short
    tf32: bool = False  # float32 convolutions and products may round their inputs to TF32, 10 bits of mantissa
    aux_streams: int = 0  # on which TensorRT may run branches beside its main stream, each with memory of its own
    version_compatible: bool = False  # also for later TensorRT versions of the same major version
    hardware_compatibility: HardwareCompatibility = "none"  # also for other GPUs
    compute_capabilities: tuple[str, ...] = ()  # TensorRT-RTX: of the GPUs it is for, e.g. "8.6"; (): 8.0 and newer
    dla_core: int = -1  # of a Jetson; -1: the GPU alone
    input_hw: tuple[int, int] | None = None  # of the input where the ONNX file leaves it open


@dataclass(frozen=True, kw_only=True)
class Precisions:
    """The number of layers that compute in each type, as parsed."""

    fp32: int
    fp16: int
    int8: int
    plugins: int  # layers of the four ops, whose geometry is float32 in every file
    other: int  # that compute nothing, or integers: constants, copies, conversions
    fallen_to_fp32: tuple[
        str, ...
    ]  # nodes with weights that compute in float32 although the file declares another precision


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """The metadata of one engine."""

    model: ModelFile
    flavour: Flavour
    tensorrt: str  # version
    gpu: str  # on which it was built; "": none took part, as TensorRT-RTX needs none
    compute_capability: str  # of that GPU, e.g. "8.7"; ""
    driver: str  # the newest CUDA that the driver supports, e.g. "13.0"; ""
    panrt: str  # version
    plugin_version: str
    plugins_sha256: str  # of the plugin library
    plugins_sources_sha256: str  # of what it was compiled from; "": unknown
    onnx: str  # name of the file that it was built from
    onnx_sha256: str
    plan_sha256: str
    plan_bytes: int
    options: BuildOptions
    workspace_bytes: int  # that tactics could use; 0: TensorRT's own limit
    precisions: Precisions
    build_seconds: float


class Process(NamedTuple):
    """The environment in which an engine is to run."""

    flavour: Flavour
    tensorrt: str  # version
    gpu: str
    compute_capability: str  # e.g. "8.7"
    plugin_version: str
    plugins_sha256: str
    plugins_sources_sha256: str


def sidecar(plan: str | os.PathLike[str]) -> Path:
    """Return the path of an engine's JSON file."""
    return Path(f"{os.fspath(plan)}.json")


def dumps(file: PlanFile) -> str:
    """Return the metadata as JSON, with the schema version first."""
    fields = dataclasses.asdict(file)
    fields["model"] = {"schema": metadata.SCHEMA, **metadata.to_json(file.model)}
    fields["options"] = options_to_json(file.options)
    return json.dumps({"schema": SCHEMA, **fields}, indent=2)


def options_to_json(options: BuildOptions) -> dict[str, Any]:
    """Return the options as they are written: an open size is an empty list."""
    return dataclasses.asdict(options) | {"input_hw": list(options.input_hw or ())}


def read(plan: str | os.PathLike[str]) -> PlanFile:
    """Read the sidecar of an engine; the engine itself is not opened.

    Raises:
        PlanFileError: there is no sidecar, or it is damaged or from a newer PanRT; the message names the field.
    """
    path = sidecar(plan)
    try:
        content = read_whole(path, longest=LONGEST_SIDECAR, error=PlanFileError, expected="the sidecar of an engine")
    except FileNotFoundError as error:
        raise PlanFileError(
            f"{path}: no such file; it belongs to {Path(plan).name} and states its build options. Copy it as well, "
            "or build the engine again:  panrt build"
        ) from error
    return loads(content, source=str(path))


def loads(text: str | bytes, *, source: str) -> PlanFile:
    """Read what `dumps` wrote; `source` names the file in messages.

    Raises:
        PlanFileError: not JSON, another schema, or a field that is missing, unknown, of the wrong type or range.
        ModelFileError: likewise, about the model.
    """
    data = records.parse(text, source=source, error=PlanFileError, cure="build the engine again:  panrt build")
    if not isinstance(data, dict):
        raise PlanFileError(f"{source}: got {type(data).__name__}, expected an object; build the engine again.")
    schema = data.pop("schema", None)
    if type(schema) is int and schema > SCHEMA:
        raise PlanFileError(
            f"{source}: written with schema {shown(schema)}, this PanRT reads up to {SCHEMA}; upgrade panrt, or build "
            "the engine again with this version."
        )
    if type(schema) is not int or schema != SCHEMA:
        raise PlanFileError(f"{source}: schema: got {shown(schema)}, expected {SCHEMA}; build the engine again.")
    model: dict[Any, Reader] = {ModelFile: lambda value, where: metadata.from_json(value, source=where)}
    if isinstance(options := data.get("options"), dict) and options.get("input_hw") == []:
        data["options"] = options | {"input_hw": None}
    try:
        file: PlanFile = decode(PlanFile, data, source=source, least=-1, readers=model)  # -1: no DLA core
    except ModelFileError:
        raise
    except ValueError as error:
        raise PlanFileError(f"{error}; build the engine again.") from error
    if file.onnx != Path(file.onnx).name or file.onnx in ("", ".."):
        raise PlanFileError(
            f"{source}: onnx: got {shown(file.onnx)}, expected the name of a file without a folder; build the engine "
            "again."
        )
    return file


def check(plan: str | os.PathLike[str], file: PlanFile, process: Process) -> None:
    """Check that an engine fits the process that runs it; of the engine itself, only the size is examined.

    Raises:
        PlanMismatch: it was built with another TensorRT, for another GPU, or with other plugins.
        PlanFileError: the engine is cut off.
        OSError: there is no engine.
    """
    path = Path(plan)

    def expect(field: str, built: str, found: str, fits: bool) -> None:
        if not fits:
            raise PlanMismatch(path, field, built=built, found=found, rebuild=rebuild_command(path, file, process))

    expect("kind of TensorRT", PRODUCTS[file.flavour], PRODUCTS[process.flavour], file.flavour == process.flavour)
    expect("TensorRT version", _built_with(file), process.tensorrt, _fits_version(file, process))
    expect("GPU", built_for(file), _gpu(process.gpu, process.compute_capability), _fits_gpu(file, process))
    expect("plugin version", file.plugin_version, process.plugin_version, file.plugin_version == process.plugin_version)
    libraries = [f"sha256 {digest[:12]}" for digest in (file.plugins_sha256, process.plugins_sha256)]
    expect("plugin library", libraries[0], f"{libraries[1]} from other sources", _fits_plugins(file, process))
    _check_size(path, file)


def check_engine(path: Path, file: PlanFile) -> None:
    """Check that an engine is the one that its sidecar describes.

    Raises:
        PlanFileError: it is not, or it is damaged.
        OSError: it cannot be read.
    """
    _check_size(path, file)
    _check_sha256(path, file, sha256_of(path))


def read_engine(path: Path, file: PlanFile) -> bytes:
    """Read an engine, and check that its sidecar describes it; errors as in `check_engine`."""
    _check_size(path, file)
    engine = read_whole(path, longest=file.plan_bytes, error=PlanFileError, expected=_ENGINE)
    _check_sha256(path, file, hashlib.sha256(engine).hexdigest())
    return engine


def rebuild_command(plan: Path, file: PlanFile, process: Process) -> str:
    """Return the command that builds this engine for a process; the ONNX file is expected beside the engine.

    It has the options that are about the engine, not those about the machine that it was built on or for.
    """
    options, is_rtx = file.options, process.flavour == "rtx"
    chosen = (
        ("--flavour rtx", is_rtx),
        (
            f"--optimization-level {options.optimization_level}",
            options.optimization_level != BuildOptions().optimization_level,
        ),
        ("--tf32", options.tf32),
        (f"--aux-streams {options.aux_streams}", options.aux_streams != 0),
        ("--version-compatible", options.version_compatible and not is_rtx),
        ("--height {} --width {}".format(*options.input_hw or ("", "")), options.input_hw is not None),
    )
    given = "".join(f" {option}" for option, is_chosen in chosen if is_chosen)
    return f"panrt build {argument(plan.parent / file.onnx)} -o {argument(plan)}{given}"


def version_of(text: str) -> tuple[int, ...]:
    """Parse `10.3.0` to (10, 3, 0)."""
    return tuple(int(part) for part in text.split(".") if part.isascii() and part.isdigit() and len(part) < 10)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _check_size(path: Path, file: PlanFile) -> None:
    status = path.stat()
    if (kind := kind_of(status.st_mode)) != "a file":
        raise PlanFileError(f"{path}: is {kind}, expected {_ENGINE}.")
    size = status.st_size
    if size != file.plan_bytes:
        raise PlanFileError(
            f"{path}: has {size} bytes, {sidecar(path).name} states {file.plan_bytes}; the file is cut off, or the "
            "two do not belong together. Copy both again, or build the engine again."
        )


def _check_sha256(path: Path, file: PlanFile, found: str) -> None:
    if found != file.plan_sha256:
        raise PlanFileError(
            f"{path}: sha256 is {found[:12]}..., {sidecar(path).name} states {file.plan_sha256[:12]}...; the file is "
            "damaged, or the two do not belong together. Copy both again, or build the engine again."
        )


def _fits_version(file: PlanFile, process: Process) -> bool:
    """Return whether the version is the builder's, or a later one of the same major version."""
    if not file.options.version_compatible:
        return file.tensorrt == process.tensorrt
    built, found = version_of(file.tensorrt), version_of(process.tensorrt)
    return found >= built and found[:1] == built[:1]


def _built_with(file: PlanFile) -> str:
    if not file.options.version_compatible:
        return file.tensorrt
    return f"{file.tensorrt} for itself and later {file.tensorrt.partition('.')[0]}.x"


def _fits_plugins(file: PlanFile, process: Process) -> bool:
    """Return whether the library is the same, or was compiled elsewhere from the same sources."""
    if file.plugins_sha256 == process.plugins_sha256:
        return True
    return file.plugins_sources_sha256 != "" and file.plugins_sources_sha256 == process.plugins_sources_sha256


def _fits_gpu(file: PlanFile, process: Process) -> bool:
    if file.flavour == "rtx":
        targets = file.options.compute_capabilities
        found = process.compute_capability
        return found in targets if targets else version_of(found) >= (8, 0)
    match file.options.hardware_compatibility:
        case "ampere_plus":
            return version_of(process.compute_capability) >= (8, 0)
        case "same_compute_capability":
            return file.compute_capability == process.compute_capability
        case "none":
            return (file.gpu, file.compute_capability) == (process.gpu, process.compute_capability)


def built_for(file: PlanFile) -> str:
    """Return the GPUs that an engine is for."""
    if file.flavour == "rtx":
        return f"compute capability {' or '.join(file.options.compute_capabilities) or '8.0 and newer'} as target"
    if file.options.hardware_compatibility == "ampere_plus":
        return "compute capability 8.0 and newer as target"
    if file.options.hardware_compatibility == "same_compute_capability":
        return f"compute capability {file.compute_capability} as target"
    return _gpu(file.gpu, file.compute_capability)


def _gpu(name: str, compute_capability: str) -> str:
    return f"{name!r} (compute capability {compute_capability})"
