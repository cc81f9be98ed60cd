"""The keys of detectron2's configurations: their defaults, and what each means to a network that only infers.

Sources: detectron2's `config/defaults.py`, `configs/Base-RCNN-FPN.yaml` and
`configs/COCO-PanopticSegmentation/Base-Panoptic-FPN.yaml`. Keys are dotted, without the `MODEL.` that most begin with.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Keys that the conversion reads, with detectron2's defaults.
READ: Mapping[str, Any] = MappingProxyType(
    {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "PIXEL_MEAN": [103.530, 116.280, 123.675],
        "PIXEL_STD": [1.0, 1.0, 1.0],
        "RESNETS.DEPTH": 50,
        "RESNETS.NORM": "FrozenBN",
        "RESNETS.NUM_GROUPS": 1,
        "RESNETS.WIDTH_PER_GROUP": 64,
        "RESNETS.STRIDE_IN_1X1": True,
        "FPN.OUT_CHANNELS": 256,
        "FPN.NORM": "",
        "FPN.FUSE_TYPE": "sum",
        "ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
        "ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
        "RPN.NMS_THRESH": 0.7,
        "RPN.PRE_NMS_TOPK_TEST": 6000,
        "RPN.POST_NMS_TOPK_TEST": 1000,
        "RPN.CONV_DIMS": [-1],
        "ROI_HEADS.NUM_CLASSES": 80,
        "ROI_HEADS.SCORE_THRESH_TEST": 0.05,
        "ROI_HEADS.NMS_THRESH_TEST": 0.5,
        "ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
        "ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
        "ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
        "ROI_BOX_HEAD.NUM_FC": 0,
        "ROI_BOX_HEAD.FC_DIM": 1024,
        "ROI_BOX_HEAD.NUM_CONV": 0,
        "ROI_BOX_HEAD.CONV_DIM": 256,
        "ROI_BOX_HEAD.NORM": "",
        "ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
        "ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
        "ROI_MASK_HEAD.NUM_CONV": 0,
        "ROI_MASK_HEAD.CONV_DIM": 256,
        "ROI_MASK_HEAD.NORM": "",
        "SEM_SEG_HEAD.NUM_CLASSES": 54,
        "SEM_SEG_HEAD.CONVS_DIM": 128,
        "SEM_SEG_HEAD.NORM": "GN",
        "PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": 0.5,
        "PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 4096,
        "PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.5,
        "TEST.DETECTIONS_PER_IMAGE": 100,
        "INPUT.MIN_SIZE_TEST": 800,
        "INPUT.MAX_SIZE_TEST": 1333,
        "INPUT.FORMAT": "BGR",
        "DATASETS.TRAIN": [],
        "DATASETS.TEST": [],
    }
)

# Keys that change results and that PanRT supports at one value only: detectron2's default, and that value.
FIXED: Mapping[str, tuple[Any, Any]] = MappingProxyType(
    {
        "VERSION": (2, 2),
        "BACKBONE.NAME": ("build_resnet_backbone", "build_resnet_fpn_backbone"),
        "LOAD_PROPOSALS": (False, False),
        "KEYPOINT_ON": (False, False),
        "RESNETS.OUT_FEATURES": (["res4"], ["res2", "res3", "res4", "res5"]),
        "RESNETS.RES5_DILATION": (1, 1),
        "RESNETS.RES2_OUT_CHANNELS": (256, 256),
        "RESNETS.STEM_OUT_CHANNELS": (64, 64),
        "RESNETS.DEFORM_ON_PER_STAGE": ([False] * 4, [False] * 4),
        "FPN.IN_FEATURES": ([], ["res2", "res3", "res4", "res5"]),
    }
)
FIXED_INSTANCES: Mapping[str, tuple[Any, Any]] = MappingProxyType(
    {
        "MASK_ON": (False, True),
        "PROPOSAL_GENERATOR.NAME": ("RPN", "RPN"),
        "PROPOSAL_GENERATOR.MIN_SIZE": (0, 0),
        "ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator", "DefaultAnchorGenerator"),
        "ANCHOR_GENERATOR.OFFSET": (0.0, 0.0),
        "RPN.HEAD_NAME": ("StandardRPNHead", "StandardRPNHead"),
        "RPN.IN_FEATURES": (["res4"], ["p2", "p3", "p4", "p5", "p6"]),
        "RPN.BBOX_REG_WEIGHTS": ([1.0] * 4, [1.0] * 4),
        "ROI_HEADS.NAME": ("Res5ROIHeads", "StandardROIHeads"),
        "ROI_HEADS.IN_FEATURES": (["res4"], ["p2", "p3", "p4", "p5"]),
        "ROI_BOX_HEAD.NAME": ("", "FastRCNNConvFCHead"),
        "ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlignV2"),
        "ROI_BOX_HEAD.USE_SIGMOID_CE": (False, False),
        "ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead", "MaskRCNNConvUpsampleHead"),
        "ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlignV2"),
    }
)
FIXED_STUFF: Mapping[str, tuple[Any, Any]] = MappingProxyType(
    {
        "SEM_SEG_HEAD.NAME": ("SemSegFPNHead", "SemSegFPNHead"),
        "SEM_SEG_HEAD.IN_FEATURES": (["p2", "p3", "p4", "p5"], ["p2", "p3", "p4", "p5"]),
        "SEM_SEG_HEAD.COMMON_STRIDE": (4, 4),
    }
)

# Keys that change nothing when a trained network infers: training, machinery, other networks. A dot at the end stands
# for all keys below. The weights show whether boxes and masks are class-agnostic.
IGNORED = (
    *("WEIGHTS", "DEVICE", "BACKBONE.FREEZE_AT", "RETINANET.", "ROI_KEYPOINT_HEAD.", "ROI_BOX_CASCADE_HEAD."),
    *("RESNETS.DEFORM_MODULATED", "RESNETS.DEFORM_NUM_GROUPS"),  # of deformable stages, of which there are none
    *("ANCHOR_GENERATOR.ANGLES", "RPN.BOUNDARY_THRESH", "RPN.IOU_THRESHOLDS", "RPN.IOU_LABELS"),
    *("RPN.BATCH_SIZE_PER_IMAGE", "RPN.POSITIVE_FRACTION", "RPN.BBOX_REG_LOSS_TYPE", "RPN.BBOX_REG_LOSS_WEIGHT"),
    *("RPN.SMOOTH_L1_BETA", "RPN.LOSS_WEIGHT", "RPN.PRE_NMS_TOPK_TRAIN", "RPN.POST_NMS_TOPK_TRAIN"),
    *("ROI_HEADS.IOU_THRESHOLDS", "ROI_HEADS.IOU_LABELS", "ROI_HEADS.BATCH_SIZE_PER_IMAGE"),
    *("ROI_HEADS.POSITIVE_FRACTION", "ROI_HEADS.PROPOSAL_APPEND_GT", "ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"),
    *("ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", "ROI_BOX_HEAD.SMOOTH_L1_BETA", "ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES"),
    *("ROI_BOX_HEAD.USE_FED_LOSS", "ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER", "ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES"),
    *("ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"),
    *("SEM_SEG_HEAD.IGNORE_VALUE", "SEM_SEG_HEAD.LOSS_WEIGHT", "PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT"),
    *("PANOPTIC_FPN.COMBINE.ENABLED", "TEST.EXPECTED_RESULTS", "TEST.EVAL_PERIOD", "TEST.KEYPOINT_OKS_SIGMAS"),
    *("TEST.AUG.", "TEST.PRECISE_BN.", "INPUT.MIN_SIZE_TRAIN", "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
    *("INPUT.MAX_SIZE_TRAIN", "INPUT.RANDOM_FLIP", "INPUT.CROP.", "INPUT.MASK_FORMAT"),
    *("DATASETS.PROPOSAL_FILES_TRAIN", "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN", "DATASETS.PROPOSAL_FILES_TEST"),
    *("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", "DATALOADER.", "SOLVER.", "OUTPUT_DIR", "SEED", "CUDNN_BENCHMARK"),
    *("FLOAT32_PRECISION", "VIS_PERIOD", "GLOBAL."),
)
ROOTS = ("VERSION", "INPUT", "DATASETS", "DATALOADER", "SOLVER", "TEST", "OUTPUT_DIR", "SEED", "CUDNN_BENCHMARK",
         "FLOAT32_PRECISION", "VIS_PERIOD", "GLOBAL")  # fmt: skip  # what does not begin with MODEL

# detectron2's base files: what they set of the keys above. Users often have nothing but the file on top of them.
_RCNN_FPN = {
    "BACKBONE.NAME": "build_resnet_fpn_backbone",
    "RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "RPN.PRE_NMS_TOPK_TEST": 1000,
    "RPN.POST_NMS_TOPK_TEST": 1000,
    "ROI_HEADS.NAME": "StandardROIHeads",
    "ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "ROI_BOX_HEAD.NUM_FC": 2,
    "ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "ROI_MASK_HEAD.NUM_CONV": 4,
    "ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "DATASETS.TRAIN": ["coco_2017_train"],
    "DATASETS.TEST": ["coco_2017_val"],
}
BASES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "Base-RCNN-FPN.yaml": _RCNN_FPN,
        "Base-Panoptic-FPN.yaml": {
            **_RCNN_FPN,
            "META_ARCHITECTURE": "PanopticFPN",
            "MASK_ON": True,
            "DATASETS.TRAIN": ["coco_2017_train_panoptic_separated"],
            "DATASETS.TEST": ["coco_2017_val_panoptic_separated"],
        },
    }
)


def written(key: str) -> str:
    """Return a key as configurations write it."""
    return key if key.split(".", 1)[0] in ROOTS else f"MODEL.{key}"


def is_ignored(key: str) -> bool:
    """Return whether a key changes nothing when a trained network infers."""
    return any(key.startswith(name) if name.endswith(".") else key == name for name in IGNORED)
