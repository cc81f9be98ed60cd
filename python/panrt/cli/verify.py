"""`panrt verify`: two forms of one network, compared stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panrt.cli.frames import network_frames
from panrt.cli.support import HeightOption, JsonOption, Report, WidthOption, chosen_size, progress_bar

if TYPE_CHECKING:
    from panrt.engine.session import Session
    from panrt.export.frames import Frame
    from panrt.export.verify import Runner, Stages
    from panrt.formats.metadata import ModelFile

PAST_LIMITS = 1
_FORMS = (
    "a .safetensors file or a name of 'panrt models' (PyTorch), an .onnx file (plain ONNX Runtime), or cpu:FILE, "
    "tensorrt:FILE, rtx:FILE (PanRT)"
)


def verify(
    a: Annotated[str, typer.Argument(metavar="A", help=f"The reference: {_FORMS}.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with it, likewise.")],
    frames: Annotated[Path, typer.Option(help="Images or a clip to compare on.")],
    max_frames: Annotated[int, typer.Option(min=1, help="Frames that are taken from --frames, evenly.")] = 64,
    height: HeightOption = None,
    width: WidthOption = None,
    pixels: Annotated[
        float | None, typer.Option(min=0, max=100, help="Smallest share of pixels that agree, in percent.")
    ] = None,
    pq: Annotated[
        float | None, typer.Option(min=0, max=100, help="Smallest panoptic quality of B against A, in percent.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two forms of one network stage by stage.

    Without --pixels and --pq the limits are those of the coarser precision of the two. Exit codes: 0 within the limits,
    1 beyond them, 2 the two cannot be compared.
    """
    from panrt.errors import VerifyError
    from panrt.export.verify import compare, limits_of

    size = chosen_size(height, width)
    files = [file for file in (_described(form, size) for form in (a, b)) if file is not None]
    if not files:
        raise VerifyError("A and B are both PyTorch models, whose sizes are not fixed; give an exported file for one.")
    runners = [_runner(form, files[0], size) for form in (a, b)]
    file = files[0]
    images = network_frames(
        frames, limit=max_frames, input_hw=file.sizes.input_hw, valid_hw=file.valid_hw, free=file.pixel_mean
    )
    limits = limits_of(runners[0].file, runners[1].file)
    limits = limits._replace(
        pixels=limits.pixels if pixels is None else pixels / 100, pq=limits.pq if pq is None else pq / 100
    )
    with progress_bar("compare") as show:
        found = compare(runners[0], runners[1], images, limits=limits, progress=show)
    report = Report(as_json=as_json)
    report.line("A", found.a)
    report.line("B", found.b)
    report.table(found.table())
    report.line("segments", f"{found.matched} matched, of {found.segments[0]} of A and {found.segments[1]} of B")
    report.line("verdict", f"{'within' if found.passed else 'BEYOND'} the limits on {found.images} frames")
    report.end(found.to_json())
    if not found.passed:
        raise typer.Exit(PAST_LIMITS)


def _described(form: str, size: tuple[int, int] | None) -> ModelFile | None:
    """Return the metadata of a file; None for a PyTorch model, which takes that of the other one."""
    from panrt.formats.metadata import sized
    from panrt.formats.onnx_file import read_onnx

    backend, path = _split(form)
    if backend is None and path.suffix == ".onnx":
        return sized(read_onnx(path).file, size, source=form)
    if backend is None:
        return None
    with _open(backend, path, size) as session:
        return session.model


def _runner(form: str, file: ModelFile, size: tuple[int, int] | None) -> Runner:
    from panrt.export.verify import OnnxRunner, TorchRunner
    from panrt.model.checkpoints import load, locate

    backend, path = _split(form)
    if backend is not None:
        return SessionRunner(_open(backend, path, size), f"{form} with TF32" if _has_tf32(path) else form)
    if path.suffix == ".onnx":
        return OnnxRunner(path, input_hw=size)
    network = load(locate(form))
    if network.config.name != file.name:
        from panrt.errors import VerifyError

        raise VerifyError(f"{form}: a {network.config.name}, the other is a {file.name}.")
    return TorchRunner(network, file, name=f"{form} in PyTorch")


def _split(form: str) -> tuple[str | None, Path]:
    """Split `cpu:street.onnx` into ("cpu", street.onnx); a .plan file needs no backend, the best one is used."""
    from panrt.engine.load import AUTO, BACKENDS

    backend, colon, rest = form.partition(":")
    if colon and backend in (AUTO, *BACKENDS):
        return backend, Path(rest)
    return (AUTO if form.endswith(".plan") else None), Path(form)


def _has_tf32(path: Path) -> bool:
    """Return whether an engine may use TF32, so that it differs by more than another order of sums."""
    from panrt.formats import plan_file

    return path.suffix == plan_file.SUFFIX and plan_file.read(path).options.tf32


def _open(backend: str, path: Path, size: tuple[int, int] | None) -> Session:
    import panrt

    return panrt.load(path, backend=backend, input_hw=size)


class SessionRunner:
    """A file in a PanRT session, which reports the panoptic map alone."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = f"{name} in PanRT ({session.backend})"
        self.file = session.model
        self._session = session

    def __call__(self, image: Frame) -> Stages:
        from panrt.export.verify import Stages
        from panrt.model.panoptic_map import PanopticMap, Segment

        height, width = self.file.sizes.valid_hw
        result = self._session(image[:height, :width])
        return Stages(PanopticMap(result.panoptic, [Segment(s.id, s.category_id) for s in result.map_segments]))
