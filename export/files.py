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
    proto: ModelProto
    file: ModelFile


def read_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """A file of `to_onnx` and what it says about itself.

    Raises:
        ModelFileError: it is not ONNX, not ours, damaged, or from a newer PanRT.
        OSError: from the file system.
    """
    path = Path(path)
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise ModelFileError(f"{path}: no ONNX file, or only a part of one; export the model again.") from error
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    if model_file.KEY not in entries:
        raise ModelFileError(
            f"{path}: no PanRT metadata in it, so it is no file of ours or its end is missing; files of ours come from "
            "`panrt export`."
        )
    return OnnxFile(proto, model_file.loads(entries[model_file.KEY], source=os.fspath(path)))
