"""The bundled models: ONNX files inside the package, found by name."""

from __future__ import annotations

import os
from pathlib import Path

from panrt.errors import ModelFileError, UnknownModelError
from panrt.files import PACKAGE, kind_of
from panrt.formats.records import argument
from panrt.hub import catalogue

MODELS = {"tabletop": PACKAGE / "models" / "tabletop.onnx"}


def locate(model: str | os.PathLike[str]) -> Path:
    """Return the file of a bundled model by its name; anything else is a path already, such as `./tabletop`.

    Raises:
        UnknownModelError: there is no such file; it is a FileNotFoundError.
        ModelFileError: the path is a folder, a pipe or a device.
    """
    name = os.fspath(model)
    path = MODELS.get(name, Path(name))
    if not _is_file(path):
        if name in MODELS:
            raise UnknownModelError(
                f"{path}: this installation lacks the bundled model {name!r}; "
                f"'panrt export {name} --precision fp16 -o {argument(path)}' creates it."
            )
        raise UnknownModelError(f"{path}: no such file{_hint(name)}")
    return path


def _hint(name: str) -> str:
    """Return what a name may have meant, for one that looks like no file."""
    if Path(name).suffix or os.sep in name:
        return "."
    return f", and no model of that name; {catalogue.suggestion(name)}"


def _is_file(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if (kind := kind_of(mode)) != "a file":
        raise ModelFileError(
            f"{path}: is {kind}, expected an .onnx file of panrt export or a .plan file of panrt build."
        )
    return True
