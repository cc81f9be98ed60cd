"""Names of a network's tensors in the checkpoints of detectron2 and mmdetection."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from panrt.model.backbones.resnet import torchvision_name
from panrt.model.config import PanopticFPNConfig, ResNetConfig

# PanRT's prefix -> detectron2's; the first match counts.
_DETECTRON2: Mapping[str, str] = MappingProxyType(
    {
        "backbone.trunk.": "backbone.bottom_up.",
        **{f"backbone.fpn.lateral.{level - 2}.": f"backbone.fpn_lateral{level}." for level in (2, 3, 4, 5)},
        **{f"backbone.fpn.output.{level - 2}.": f"backbone.fpn_output{level}." for level in (2, 3, 4, 5)},
        "instance.rpn_head.": "proposal_generator.rpn_head.",
        "instance.box_head.fc": "roi_heads.box_head.fc",
        "instance.box_head.conv": "roi_heads.box_head.conv",
        "instance.box_head.": "roi_heads.box_predictor.",
        **{f"instance.mask_head.fcn.{index}.": f"roi_heads.mask_head.mask_fcn{index + 1}." for index in range(64)},
        "instance.mask_head.": "roi_heads.mask_head.",
        **{
            f"semantic.p{level}.{step}.0.": f"sem_seg_head.p{level}.{step}."
            for level in (2, 3, 4, 5)
            for step in (0, 2, 4)
        },
        "semantic.": "sem_seg_head.",
    }
)


def detectron2_name(name: str) -> str:
    """Return the name of a tensor of `PanopticFPN` in a detectron2 checkpoint."""
    for ours, theirs in _DETECTRON2.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


# PanRT's names -> mmdetection's, of the tensors of a layer and of the norm after it; the first match counts.
_MMDETECTION: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), theirs)
    for pattern, theirs in (
        (r"backbone\.fpn\.lateral\.(\d)\.", r"neck.lateral_convs.\1.conv."),
        (r"backbone\.fpn\.output\.(\d)\.", r"neck.fpn_convs.\1.conv."),
        (r"instance\.rpn_head\.conv\.conv(\d+)\.", r"rpn_head.rpn_conv.\1.conv."),
        (r"instance\.rpn_head\.conv\.", r"rpn_head.rpn_conv."),
        (r"instance\.rpn_head\.objectness_logits\.", r"rpn_head.rpn_cls."),
        (r"instance\.rpn_head\.anchor_deltas\.", r"rpn_head.rpn_reg."),
        (r"instance\.box_head\.cls_score\.", r"roi_head.bbox_head.fc_cls."),
        (r"instance\.box_head\.bbox_pred\.", r"roi_head.bbox_head.fc_reg."),
        (r"instance\.mask_head\.fcn\.(\d+)\.", r"roi_head.mask_head.convs.\1.conv."),
        (r"instance\.mask_head\.deconv\.", r"roi_head.mask_head.upsample."),
        (r"instance\.mask_head\.predictor\.", r"roi_head.mask_head.conv_logits."),
        (r"semantic\.predictor\.", r"semantic_head.conv_logits."),
    )
)
MMDETECTION_STEM = "backbone.conv1.weight"
DETECTRON2_STEM = "backbone.bottom_up.stem.conv1.weight"


def mmdetection_name(config: PanopticFPNConfig) -> Callable[[str], str]:
    """Return what gives the name of a tensor of the network of `config` in an mmdetection checkpoint."""
    instance, semantic = config.instance, config.semantic
    norms = {
        "backbone.trunk.": config.trunk.norm if isinstance(config.trunk, ResNetConfig) else "",
        "backbone.fpn.": config.fpn.norm if config.fpn is not None else "",
        "instance.box_head.": instance.box.norm if instance is not None else "",
        "instance.mask_head.": instance.mask.norm if instance is not None else "",
        "semantic.": semantic.norm if semantic is not None else "",
    }

    def name_in_checkpoint(name: str) -> str:
        is_group = next((norm == "group" for prefix, norm in norms.items() if name.startswith(prefix)), False)
        norm = "gn" if is_group else "bn"
        if name.startswith("backbone.trunk."):
            theirs = "backbone." + torchvision_name(name.removeprefix("backbone.trunk."))
            return re.sub(r"\bbn(\d)\.", rf"{norm}\1.", theirs)
        return _in_mmdetection(name).replace(".conv.norm.", f".{norm}.")

    return name_in_checkpoint


def _in_mmdetection(name: str) -> str:
    if match := re.match(r"instance\.box_head\.fc(\d+)\.", name):
        return f"roi_head.bbox_head.shared_fcs.{int(match[1]) - 1}.{name[match.end() :]}"
    if match := re.match(r"instance\.box_head\.conv(\d+)\.", name):
        return f"roi_head.bbox_head.shared_convs.{int(match[1]) - 1}.conv.{name[match.end() :]}"
    if match := re.match(r"semantic\.p(\d)\.(\d)\.0\.", name):
        # every second layer of PanRT's is an upsampling
        layer = f"conv_upsample_layers.{int(match[1]) - 2}.conv.{int(match[2]) // 2}"
        return f"semantic_head.{layer}.conv.{name[match.end() :]}"
    for pattern, theirs in _MMDETECTION:
        if match := pattern.match(name):
            return match.expand(theirs) + name[match.end() :]
    return name


def is_mmdetection(names: Collection[str]) -> bool:
    """Return whether these are the tensors of a panoptic FPN of mmdetection."""
    return MMDETECTION_STEM in names and any(name.startswith(("semantic_head.", "roi_head.")) for name in names)


def is_detectron2(names: Collection[str]) -> bool:
    """Return whether these are the tensors of a network of detectron2 with an FPN."""
    return DETECTRON2_STEM in names
