"""Every exception that PanRT raises for a reason its user can act on, in one hierarchy.

    PanrtError
    ├── model files        ModelFileError, InputSizeError, PlanMismatch
    ├── models by name     UnknownModelError, DownloadError, ChecksumError, OfflineError
    ├── sessions           BackendError, SessionError, FrameError, DeviceMapError, ThreadLimitError,
    │                      ThresholdsFixedError
    ├── streams            StreamError, SourceError, UnknownSourceError, SinkError, UnknownSinkError, SameFileError
    ├── GPU                GpuError, CudaError, CudaStreamError, EngineError, KernelError, MissingError,
    │                      PluginLibraryError
    ├── export and build   ExportError, VerifyError, BuildError
    ├── training and data  CheckpointError, TrainingError, RecipeError, ClassMismatchError, PanopticFormatError
    └── other files        ImageFileError, ImageNotFoundError, ImageDeniedError, BenchmarkFileError, NoCacheFolderError

There is one class for each case that a caller would handle differently. Each also has a built-in base (ValueError,
RuntimeError, OSError, ...), so that either can be caught. This module imports nothing else of PanRT: an `except` clause
that names one of its classes never loads a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "BackendError",
    "BenchmarkFileError",
    "BuildError",
    "CheckpointError",
    "ChecksumError",
    "ClassMismatchError",
    "ClassesError",
    "ConfigFileError",
    "CudaError",
    "CudaStreamError",
    "DeviceMapError",
    "DownloadError",
    "EngineError",
    "ExportError",
    "FrameError",
    "GpuError",
    "ImageDeniedError",
    "ImageFileError",
    "ImageNotFoundError",
    "InputSizeError",
    "KernelError",
    "LintError",
    "MissingError",
    "ModelFileError",
    "NoCacheFolderError",
    "OfflineError",
    "OtherTrainingError",
    "PanopticFormatError",
    "PanopticNotFoundError",
    "PanrtError",
    "PlanFileError",
    "PlanMismatch",
    "PluginLibraryError",
    "ReaderLeftError",
    "RecipeError",
    "SameFileError",
    "SessionBusyError",
    "SessionClosedError",
    "SessionError",
    "SessionForkedError",
    "SharedMemoryError",
    "SinkError",
    "SourceDeniedError",
    "SourceError",
    "SourceNotFoundError",
    "SourceRefusedError",
    "SourceTimeoutError",
    "SourceUndecodableError",
    "StreamError",
    "ThreadLimitError",
    "ThresholdsFixedError",
    "TrainingError",
    "UnknownModelError",
    "UnknownSinkError",
    "UnknownSourceError",
    "UnsupportedModelError",
    "VerifyError",
    "WriterGoneError",
]


class PanrtError(Exception):
    """The base class; the message says what was found, what was expected and how to fix it."""


# Model files


class ModelFileError(PanrtError, ValueError):
    """A file was not written by PanRT, is damaged, or is from a newer PanRT."""


class UnsupportedModelError(ModelFileError):
    """A PanRT file holds something that this version cannot run."""


class PlanFileError(ModelFileError):
    """An engine's sidecar is missing, damaged, from a newer PanRT, or of another engine."""


class PlanMismatch(PanrtError, RuntimeError):  # noqa: N818  # the word that the message is known by
    """An engine was built for another environment than this process; `field` names the difference."""

    def __init__(self, path: Path, field: str, *, built: str, found: str, rebuild: str) -> None:
        super().__init__(
            f"{path}: {field}: built with {built}, this process has {found}.\n  Rebuild it here:  {rebuild}"
        )
        self.path = path
        self.field = field
        self.built = built
        self.found = found
        self.rebuild = rebuild


class InputSizeError(PanrtError, ValueError):
    """The size chosen for a network's input is invalid, or a model of open size was given none."""


# Models by name


class UnknownModelError(PanrtError, FileNotFoundError):
    """No file and no model of the catalogue has this name; the message lists the nearest."""


class DownloadError(PanrtError, OSError):
    """A file cannot be downloaded: the server does not have it, the disk is full, the connection is cut too often."""


class ChecksumError(DownloadError):
    """A downloaded file is not the one that was expected."""


class OfflineError(DownloadError):
    """A file is not in the cache, and the server cannot be reached or may not be asked."""


# Sessions


class BackendError(PanrtError, RuntimeError):
    """A backend cannot run a file on this machine."""


class SessionError(PanrtError, RuntimeError):
    """A session is used out of turn: called between submit and collect, or filled beyond its capacity."""


class SessionClosedError(SessionError):
    """A session is used after its `close`, or was closed by another thread while this one waited for it."""


class SessionBusyError(SessionError):
    """A session is in use by another thread or stream; retry later, or use another session."""


class SessionForkedError(SessionError):
    """A session is used in a process that was forked from the one that opened it."""


class FrameError(PanrtError, ValueError):
    """A frame is not an image that a session accepts; the message names its shape and type."""


class DeviceMapError(PanrtError, RuntimeError):
    """The panoptic map of a result is not, or no longer, in GPU memory."""


class ThresholdsFixedError(PanrtError, ValueError):
    """A threshold or class is to change that a file or engine has fixed."""


class ThreadLimitError(PanrtError, RuntimeError):
    """The system starts no more threads for this process."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the system starts no more threads for this process (limits: `ulimit -u`, a container's pids.max, "
            "memory); end other processes, raise the limit, or use fewer threads."
        )


# Streams, sources and sinks


class StreamError(PanrtError, RuntimeError):
    """A stream is used a second time, by two threads at once, or in a process that was forked from its own."""


class UnknownSourceError(PanrtError, ValueError):
    """No source is registered for a URI, or a source has no such option."""


class SourceError(PanrtError, OSError):
    """A source cannot be opened, or stopped delivering frames; the subclasses say why."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A file, device, host or stream does not exist."""


class SourceRefusedError(SourceError, ConnectionError):
    """The other side does not listen, is busy, or closed the connection."""


class SourceDeniedError(SourceError, PermissionError):
    """A login or a permission is missing; retrying does not help."""


class SourceUndecodableError(SourceError, ValueError):
    """An image or video cannot be decoded, or is damaged."""


class SourceTimeoutError(SourceError, TimeoutError):
    """No data arrived within the timeout."""


class UnknownSinkError(PanrtError, ValueError):
    """No sink is registered for a URI, or a sink has no such option."""


class SameFileError(PanrtError, ValueError):
    """A sink would write to a file that a source reads, or two sinks would write to one place."""


class SinkError(PanrtError, OSError):
    """A sink cannot be opened on this machine, or cannot write a result."""


class ReaderLeftError(SinkError):
    """Nobody reads the output of a sink any more."""


class SharedMemoryError(SinkError):
    """The memory under a name was not written by PanRT, is damaged, or is of another version."""


class WriterGoneError(SinkError):
    """The process that wrote to shared memory ended without closing it; read again to wait for the next one."""


# GPU


class GpuError(PanrtError, RuntimeError):
    """The GPU driver is installed, but a call to it failed."""


class CudaError(PanrtError, RuntimeError):
    """A call of the CUDA driver failed; `name` is the driver's name of the error."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class CudaStreamError(PanrtError, ValueError):
    """An argument is not a CUDA stream, or is a stream of another context than the session's."""


class EngineError(PanrtError, RuntimeError):
    """TensorRT rejected an engine, or the engine contradicts its sidecar."""


class KernelError(PanrtError, RuntimeError):
    """A kernel could not be launched."""


class MissingError(PanrtError, RuntimeError):
    """A package or library that the engine needs is not installed."""


class PluginLibraryError(PanrtError, RuntimeError):
    """The plugin library is missing, is not PanRT's, or does not build or load."""


# Export and build


class ExportError(PanrtError, ValueError):
    """A network cannot be exported with these options; nothing was written."""


class LintError(ExportError):
    """No engine can be built from a file; `findings` holds every reason, each a `panrt.export.lint.Finding`."""

    def __init__(self, source: str, findings: Sequence[Any]) -> None:
        lines = "\n".join(f"  {finding}" for finding in findings)
        super().__init__(f"{source}: no engine can be built from it:\n{lines}")
        self.findings: tuple[Any, ...] = tuple(findings)


class VerifyError(PanrtError, ValueError):
    """Two runs cannot be compared."""


class BuildError(PanrtError, RuntimeError):
    """TensorRT is missing, is too old, or rejected the network; nothing was written."""


# Training and data


class CheckpointError(PanrtError, ValueError):
    """A file cannot be read, is not safe to read, or its tensors do not fit the network."""


class ClassesError(CheckpointError):
    """Weights were trained on other numbers of things and stuff than the network has; `problem` says which."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"{problem}; pass a configuration with classes=read_classes('panoptic.json') of their data set."
        )


class ConfigFileError(CheckpointError):
    """A configuration of another framework cannot be read, or describes a network that PanRT does not have."""


class OtherTrainingError(CheckpointError):
    """A directory holds a training with another recipe; `fields` are those that differ."""

    def __init__(self, path: Path, fields: list[str]) -> None:
        self.path, self.fields = path, fields
        super().__init__(
            f"{path}: from a training with another {', '.join(fields)}; "
            "continue with the same configuration, or choose another directory."
        )


class TrainingError(PanrtError, RuntimeError):
    """Training cannot continue: a loss is not finite."""


class RecipeError(PanrtError, ValueError):
    """A field of a recipe contradicts the network, the data or the other fields.

    `field` is its name, `problem` what is wrong, `cure` the fields and values that would be valid; the command line
    words them as its options.
    """

    def __init__(self, field: str, problem: str, **cure: object) -> None:
        self.field, self.problem, self.cure = field, problem, cure
        advice = f"; set {', '.join(f'{name}={value!r}' for name, value in cure.items())}" if cure else ""
        super().__init__(f"{field}: {problem}{advice}.")


class ClassMismatchError(PanrtError, ValueError):
    """A data set has other classes than the network, or has them in another order."""


class PanopticFormatError(PanrtError, ValueError):
    """A panoptic map, its list of segments or their files contradict each other or the format."""


class PanopticNotFoundError(PanopticFormatError, FileNotFoundError):
    """A JSON, a folder or a file that a JSON names does not exist."""


# Other files


class ImageFileError(PanrtError, ValueError):
    """A file is not an image that PanRT reads, is damaged, or is too large."""


class ImageNotFoundError(PanrtError, FileNotFoundError):
    """An image does not exist."""


class ImageDeniedError(PanrtError, PermissionError):
    """An image exists, but this user has no permission to read it."""


class BenchmarkFileError(PanrtError, ValueError):
    """A file is not a PanRT benchmark, or is one of another schema."""


class NoCacheFolderError(PanrtError, RuntimeError):
    """The user has no home folder, and no environment variable names a cache folder."""
