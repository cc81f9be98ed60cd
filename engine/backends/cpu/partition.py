"""Turn an ONNX file into the steps that the CPU executes: subgraphs for a runtime, and the custom ops between them.

Three stages, each in a file of its own:

1. Passes on the whole graph rewrite it for the CPU; see `passes`.
2. The graph is cut once, at its custom ops and at the convolutions that a pass took out; see `split`. Passes on the
   sections follow.
3. Each section that is not empty is written as an ONNX model; see `subgraphs`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
from onnx.numpy_helper import to_array

from panrt.engine.backends.cpu.draft import Draft, Sections
from panrt.engine.backends.cpu.passes import PASSES, VARIABLE, GraphPass, SectionPass, switched_off
from panrt.engine.backends.cpu.split import split
from panrt.engine.backends.cpu.steps import Convolution, Op, Partition, Subgraph
from panrt.engine.backends.cpu.subgraphs import subgraph
from panrt.errors import PanrtError, UnsupportedModelError
from panrt.formats.onnx_graph import read_graph
from panrt.formats.thresholds import NAMES

log = logging.getLogger("panrt")


def partition(path: Path, *, input_hw: tuple[int, int] | None = None) -> Partition:
    """Read a file, rewrite its graph for the CPU and split it.

    Args:
        path: of the file.
        input_hw: of the network's input, for a file that leaves it open.

    Raises:
        BackendError: the environment variable PANRT_CPU_PASSES is invalid.
        ModelFileError: the file is not ONNX, not PanRT's, damaged, or from a newer PanRT; its graph is not one that
            PanRT runs, or contradicts its metadata.
        InputSizeError: the file needs an input size and got none, or has another one.
    """
    source = str(path)
    off = switched_off(os.environ.get(VARIABLE, ""))
    if off:
        log.warning("%s: %s switches off the passes %s", source, VARIABLE, ", ".join(sorted(off)))
    model, file, _ = read_graph(path, input_hw=input_hw)
    own = {tensor.name: to_array(tensor) for tensor in model.graph.initializer if tensor.name in NAMES}
    draft = Draft(source, model)
    active = [each for each in PASSES if each.name not in off]
    try:
        with np.errstate(all="ignore"):  # weights may be anything
            for on_graph in (each for each in active if isinstance(each, GraphPass)):
                _report(source, on_graph.name, on_graph.apply(draft))
            sections = split(draft)
            for on_sections in (each for each in active if isinstance(each, SectionPass)):
                _report(source, on_sections.name, on_sections.apply(sections))
            return Partition(file, _steps(sections), own, sections.free_rows is not None, draft.table)
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error, PanrtError):
            raise
        raise UnsupportedModelError(  # valid, but not what the passes were written for
            f"{path}: its graph is not of the form that panrt export writes ({type(error).__name__}: {error}); export "
            "the model again."
        ) from error


def _report(source: str, name: str, obstacle: str | None) -> None:
    if obstacle is not None:
        log.debug("%s: the pass %s does not apply: %s", source, name, obstacle)


def _steps(sections: Sections) -> tuple[Subgraph | Op | Convolution, ...]:
    """Return sections and ops in turn, without empty sections and without nodes that no op waits for."""
    steps: list[Subgraph | Op | Convolution] = []
    for i, op in enumerate(sections.ops):
        if sections.nodes[i]:
            steps.append(subgraph(sections, i))
        steps.append(op)
    return tuple(steps)
