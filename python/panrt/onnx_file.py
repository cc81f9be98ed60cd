"""Reading ONNX files back, with one clear word where one is not ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from panrt import model_file
from panrt.model_file import ModelFile, ModelFileError


class OnnxFile(NamedTuple):
    """An ONNX file of ours."""

    proto: ModelProto
    file: ModelFile  # what it says about itself
    content: bytes


def read_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """A file of `to_onnx` and what it says about itself.

    Raises:
        ModelFileError: it is not ONNX, not ours, damaged, or from a newer PanRT.
        OSError: from the file system.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelFileError(f"{path}: not an ONNX file, or cut off ({error}); export or copy it again.") from error
    said = next((entry.value for entry in proto.metadata_props if entry.key == model_file.KEY), None)
    if said is None:
        raise ModelFileError(
            f"{path}: not exported by PanRT, or cut off: it has no metadata {model_file.KEY!r}; "
            "make one with  panrt export MODEL -o model.onnx"
        )
    return OnnxFile(proto, model_file.loads(said, source=str(path)), content)
