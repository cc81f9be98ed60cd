"""Networks from checkpoints of other frameworks, whatever describes them.

The tensors' names show the framework. The network is described by a configuration of the framework, by the name of one
of PanRT's, by what mmdetection stores in its checkpoints, or, for detectron2's own panoptic FPNs, by the weights alone.
Names of classes come from a file, from the data set that is named, or are numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from panrt.errors import CheckpointError, ClassesError
from panrt.formats import records
from panrt.model.checkpoints import from_detectron2, from_mmdetection
from panrt.model.config import CONFIGS, PanopticFPNConfig, ResNetConfig, make_config, panoptic_fpn_r50
from panrt.model.conversion.class_names import class_table, read_names
from panrt.model.conversion.described import Described
from panrt.model.conversion.detectron2_config import read_detectron2_config
from panrt.model.conversion.mmdetection_config import (
    PUBLISHED,
    described_in_checkpoint,
    published,
    read_mmdetection_config,
)
from panrt.model.conversion.structure import class_counts, with_structure
from panrt.model.conversion.tensor_names import detectron2_name, is_detectron2, is_mmdetection, mmdetection_name
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.model.weight_files import Weights

Framework = Literal["detectron2", "mmdetection"]
_ZOO = "Detectron2 Model Zoo"  # the author of detectron2's own weights


class Conversion(NamedTuple):
    """A converted network and how it was made."""

    model: PanopticFPN
    framework: Framework
    description: str  # what described the network
    names: dict[str, str]  # PanRT's name of each tensor -> the checkpoint's
    notes: tuple[str, ...]  # what was assumed, each one readable line


class _Found(NamedTuple):
    """A checkpoint and its framework's conventions."""

    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    source: Path
    framework: Framework

    def their_name(self, config: PanopticFPNConfig) -> Callable[[str], str]:
        return detectron2_name if self.framework == "detectron2" else mmdetection_name(config)


def convert(weights: Weights, source: Path, *, config: str | None = None, names: Path | None = None) -> Conversion:
    """Make the network of a checkpoint of detectron2 or mmdetection.

    Args:
        weights: as `read_weights` reads them.
        source: their file, for messages.
        config: the path of a configuration of the framework (`.yaml` of detectron2, `.py` of mmdetection), or the
            name of one of PanRT's. None: as the checkpoint says, or as its weights show.
        names: a file of names of the classes, see `class_names`.

    Raises:
        ClassesError: the configuration has other numbers of classes than the weights.
        CheckpointError: a file cannot be read, nothing describes the network, the network is none of PanRT's, or a
            tensor does not fit.
        OSError: from the file system.
    """
    framework: Framework = "mmdetection" if is_mmdetection(weights.tensors) else "detectron2"
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    found = _Found(weights.tensors, shapes, source, framework)
    described, description = _describe(found, weights, config)
    counts = class_counts(shapes, found.their_name(described.config))
    things, stuff = (count or 0 for count in counts)
    network, notes = described.config, list(described.notes)
    if names is not None:
        notes = [note for note in notes if "--names" not in note]
        network = dataclasses.replace(network, classes=read_names(names, things=things, stuff=stuff))
    make = from_detectron2 if framework == "detectron2" else from_mmdetection
    try:
        model = make(weights.tensors, network, source=str(source), rgb=described.rgb)
    except ClassesError as error:
        raise CheckpointError(f"{error.problem}, by {description}; give the configuration of these weights.") from error
    their_name = found.their_name(network)
    renamed = {name: their_name(name) for name in model.state_dict()}
    return Conversion(model, framework, description, renamed, tuple(notes))


def _describe(found: _Found, weights: Weights, config: str | None) -> tuple[Described, str]:
    """Return the network, and what described it."""
    if config is not None and config not in CONFIGS and Path(config).suffix.lower() in (".yaml", ".yml", ".py"):
        return _from_file(found, Path(config)), Path(config).name
    if config in PUBLISHED:
        _check_framework(found, "mmdetection", config)
        return _fitted(found, published(config)), config
    if config is not None:
        named = make_config(config)
        _check_framework(found, "detectron2", config)
        return _with_counted_classes(found, Described(named, rgb=False, notes=())), config
    if found.framework == "mmdetection":
        described = described_in_checkpoint(weights.meta, found.source)
        if described is None:
            raise CheckpointError(
                f"{found.source}: weights of mmdetection without a configuration; give it: --config FILE.py, as "
                f"mmdetection writes it to its working directory, or --config {PUBLISHED[0]} for the network of "
                "mmdetection's own models."
            )
        return described, f"the configuration in {found.source.name}"
    return _from_zoo(found, weights.author), "its weights and detectron2's model zoo"


def _from_file(found: _Found, path: Path) -> Described:
    if path.suffix.lower() == ".py":
        _check_framework(found, "mmdetection", path)
        return read_mmdetection_config(path)
    _check_framework(found, "detectron2", path)
    return read_detectron2_config(path)


def _check_framework(found: _Found, framework: Framework, config: str | Path) -> None:
    is_known = is_mmdetection(found.tensors) or is_detectron2(found.tensors)
    if is_known and found.framework != framework:
        raise CheckpointError(
            f"{found.source}: weights of {found.framework}, but {config} is a configuration of {framework}."
        )


def _fitted(found: _Found, described: Described) -> Described:
    """With the structure and the classes of the weights."""
    try:
        fitted = with_structure(described.config, found.shapes, found.their_name(described.config))
    except ValueError as error:
        raise CheckpointError(f"{found.source}: {error}") from error
    return _with_counted_classes(found, described._replace(config=fitted))


def _with_counted_classes(found: _Found, described: Described) -> Described:
    """With as many classes as the weights have."""
    config = described.config
    counts = class_counts(found.shapes, found.their_name(config))
    classes = config.classes
    branches = (config.instance, classes.things), (config.semantic, classes.stuff)
    if all(n is None or b is None or n == len(t) for n, (b, t) in zip(counts, branches, strict=True)):
        return described
    notes = list(described.notes)
    things, stuff = (count or 0 for count in counts)
    try:
        table = class_table(things, stuff, data_sets=(), notes=notes)
        return described._replace(config=dataclasses.replace(config, classes=table), notes=tuple(notes))
    except ValueError as error:
        raise CheckpointError(f"{found.source}: {error}") from error


def _from_zoo(found: _Found, author: str) -> Described:
    """Return the network of detectron2's own panoptic FPN weights, which differ in depth alone."""
    problem = "these are none of PanRT's known networks"
    if is_detectron2(found.tensors):
        described = _fitted(found, Described(panoptic_fpn_r50(), rgb=False, notes=()))
        config, trunk = described.config, described.config.trunk
        if author == _ZOO and isinstance(trunk, ResNetConfig):
            zoo = dataclasses.replace(
                panoptic_fpn_r50(), name=f"panoptic_fpn_r{trunk.depth}", trunk=ResNetConfig(depth=trunk.depth)
            )
            if dataclasses.replace(config, name=zoo.name) == zoo:
                return described._replace(config=zoo)
        problem = "the weights do not show thresholds, anchors and pixel statistics"
    beside = found.source.parent / "config.yaml"
    given = records.argument(beside) if beside.is_file() else "config.yaml"
    raise CheckpointError(
        f"{found.source}: {problem}; give the configuration of the network: --config {given}, which detectron2 writes "
        "beside its checkpoints, or the name of one, e.g. --config panoptic_fpn_r50."
    )
