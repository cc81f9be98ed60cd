"""Export a file of weights to an ONNX file of open input size, as a program: `panrt.hub.exports` runs it.

Its arguments are the weights, the file to write, the configuration (empty: a PanRT model file, which has it), the
precision and the provenance. An error is one message on standard error, and exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

from panrt.errors import PanrtError
from panrt.export.onnx import Exported, to_onnx
from panrt.formats.metadata import Precision
from panrt.model.checkpoints import from_detectron2, load, read_weights
from panrt.model.config import make_config
from panrt.model.header import read_header

_PRECISIONS: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16"}


def export_weights(source: Path, target: Path, *, config: str, precision: Precision, provenance: str) -> Exported:
    """Export weights; arguments as in the module's description, errors as in `to_onnx` and `read_weights`."""
    if config:
        model = from_detectron2(read_weights(source).tensors, make_config(config), source=str(source))
    else:
        model, provenance = load(source), read_header(source).provenance
    return to_onnx(model, target, input_hw=None, precision=precision, provenance=provenance)


def main() -> None:
    """Run the program."""
    source, target, config, precision, provenance = sys.argv[1:]
    try:
        export_weights(
            Path(source), Path(target), config=config, precision=_PRECISIONS[precision], provenance=provenance
        )
    except (PanrtError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
