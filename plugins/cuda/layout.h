// How the argument structs of the C interface lie in memory on a 64-bit machine. plugins/cuda_api.py has them for
// ctypes, and a test compares its offsets with these.
#pragma once

#include <cstddef>

#include "c_api.h"
#include "panrt/cuda/narrow_map.h"
#include "panrt/cuda/overlay.h"
#include "panrt/cuda/preprocess.h"
#include "panrt/ops.h"

namespace panrt::cuda {

static_assert(sizeof(PanrtStatus) == 16 && offsetof(PanrtStatus, code) == 0 && offsetof(PanrtStatus, cuda_error) == 4 &&
              offsetof(PanrtStatus, message) == 8);

static_assert(sizeof(PyramidLevel) == 24 && offsetof(PyramidLevel, data) == 0 && offsetof(PyramidLevel, height) == 8 &&
              offsetof(PyramidLevel, width) == 12 && offsetof(PyramidLevel, stride) == 16);

static_assert(sizeof(PyramidRoiAlignArgs) == 264 && offsetof(PyramidRoiAlignArgs, levels) == 0 &&
              offsetof(PyramidRoiAlignArgs, rois) == 192 && offsetof(PyramidRoiAlignArgs, pooled) == 200 &&
              offsetof(PyramidRoiAlignArgs, images) == 208 && offsetof(PyramidRoiAlignArgs, rois_per_image) == 216 &&
              offsetof(PyramidRoiAlignArgs, level_count) == 224 && offsetof(PyramidRoiAlignArgs, channels) == 228 &&
              offsetof(PyramidRoiAlignArgs, output_size) == 232 &&
              offsetof(PyramidRoiAlignArgs, sampling_ratio) == 236 &&
              offsetof(PyramidRoiAlignArgs, canonical_size) == 240 &&
              offsetof(PyramidRoiAlignArgs, canonical_level) == 244 &&
              offsetof(PyramidRoiAlignArgs, min_level) == 248 && offsetof(PyramidRoiAlignArgs, type) == 252 &&
              offsetof(PyramidRoiAlignArgs, layout) == 256);

static_assert(sizeof(RpnLevel) == 32 && offsetof(RpnLevel, logits) == 0 && offsetof(RpnLevel, deltas) == 8 &&
              offsetof(RpnLevel, height) == 16 && offsetof(RpnLevel, width) == 20 && offsetof(RpnLevel, stride) == 24 &&
              offsetof(RpnLevel, anchor_size) == 28);

static_assert(sizeof(RpnProposalsArgs) == 384 && offsetof(RpnProposalsArgs, levels) == 0 &&
              offsetof(RpnProposalsArgs, aspect_ratios) == 256 && offsetof(RpnProposalsArgs, rois) == 320 &&
              offsetof(RpnProposalsArgs, roi_count) == 328 && offsetof(RpnProposalsArgs, workspace) == 336 &&
              offsetof(RpnProposalsArgs, workspace_bytes) == 344 && offsetof(RpnProposalsArgs, images) == 352 &&
              offsetof(RpnProposalsArgs, level_count) == 356 && offsetof(RpnProposalsArgs, anchor_count) == 360 &&
              offsetof(RpnProposalsArgs, pre_nms_top_k) == 364 && offsetof(RpnProposalsArgs, post_nms_top_k) == 368 &&
              offsetof(RpnProposalsArgs, nms_threshold) == 372 && offsetof(RpnProposalsArgs, input_height) == 376 &&
              offsetof(RpnProposalsArgs, input_width) == 380);

static_assert(sizeof(BoxDetectionsArgs) == 128 && offsetof(BoxDetectionsArgs, class_logits) == 0 &&
              offsetof(BoxDetectionsArgs, box_deltas) == 8 && offsetof(BoxDetectionsArgs, rois) == 16 &&
              offsetof(BoxDetectionsArgs, roi_count) == 24 && offsetof(BoxDetectionsArgs, boxes) == 32 &&
              offsetof(BoxDetectionsArgs, scores) == 40 && offsetof(BoxDetectionsArgs, classes) == 48 &&
              offsetof(BoxDetectionsArgs, count) == 56 && offsetof(BoxDetectionsArgs, workspace) == 64 &&
              offsetof(BoxDetectionsArgs, workspace_bytes) == 72 && offsetof(BoxDetectionsArgs, images) == 80 &&
              offsetof(BoxDetectionsArgs, rois_per_image) == 84 && offsetof(BoxDetectionsArgs, thing_classes) == 88 &&
              offsetof(BoxDetectionsArgs, max_detections) == 92 && offsetof(BoxDetectionsArgs, box_weights) == 96 &&
              offsetof(BoxDetectionsArgs, score_threshold) == 112 &&
              offsetof(BoxDetectionsArgs, nms_threshold) == 116 && offsetof(BoxDetectionsArgs, input_height) == 120 &&
              offsetof(BoxDetectionsArgs, input_width) == 124);

static_assert(sizeof(PanopticMergeArgs) == 168 && offsetof(PanopticMergeArgs, semantic_logits) == 0 &&
              offsetof(PanopticMergeArgs, boxes) == 8 && offsetof(PanopticMergeArgs, scores) == 16 &&
              offsetof(PanopticMergeArgs, classes) == 24 && offsetof(PanopticMergeArgs, count) == 32 &&
              offsetof(PanopticMergeArgs, mask_probs) == 40 && offsetof(PanopticMergeArgs, panoptic) == 48 &&
              offsetof(PanopticMergeArgs, segments) == 56 && offsetof(PanopticMergeArgs, segment_scores) == 64 &&
              offsetof(PanopticMergeArgs, segment_count) == 72 && offsetof(PanopticMergeArgs, workspace) == 80 &&
              offsetof(PanopticMergeArgs, workspace_bytes) == 88 && offsetof(PanopticMergeArgs, logit_type) == 96 &&
              offsetof(PanopticMergeArgs, mask_type) == 100 && offsetof(PanopticMergeArgs, images) == 104 &&
              offsetof(PanopticMergeArgs, detections) == 108 && offsetof(PanopticMergeArgs, channels) == 112 &&
              offsetof(PanopticMergeArgs, height) == 116 && offsetof(PanopticMergeArgs, width) == 120 &&
              offsetof(PanopticMergeArgs, mask_height) == 124 && offsetof(PanopticMergeArgs, mask_width) == 128 &&
              offsetof(PanopticMergeArgs, input_height) == 132 && offsetof(PanopticMergeArgs, input_width) == 136 &&
              offsetof(PanopticMergeArgs, output_height) == 140 && offsetof(PanopticMergeArgs, output_width) == 144 &&
              offsetof(PanopticMergeArgs, score_threshold) == 148 &&
              offsetof(PanopticMergeArgs, overlap_threshold) == 152 &&
              offsetof(PanopticMergeArgs, stuff_area_limit) == 156 &&
              offsetof(PanopticMergeArgs, mask_threshold) == 160);

static_assert(sizeof(PreprocessArgs) == 88 && offsetof(PreprocessArgs, frame) == 0 &&
              offsetof(PreprocessArgs, chroma) == 8 && offsetof(PreprocessArgs, output) == 16 &&
              offsetof(PreprocessArgs, pitch) == 24 && offsetof(PreprocessArgs, frame_bytes) == 32 &&
              offsetof(PreprocessArgs, images) == 40 && offsetof(PreprocessArgs, format) == 44 &&
              offsetof(PreprocessArgs, standard) == 48 && offsetof(PreprocessArgs, height) == 52 &&
              offsetof(PreprocessArgs, width) == 56 && offsetof(PreprocessArgs, resized_height) == 60 &&
              offsetof(PreprocessArgs, resized_width) == 64 && offsetof(PreprocessArgs, top) == 68 &&
              offsetof(PreprocessArgs, left) == 72 && offsetof(PreprocessArgs, output_height) == 76 &&
              offsetof(PreprocessArgs, output_width) == 80 && offsetof(PreprocessArgs, border) == 84);

static_assert(sizeof(OverlayArgs) == 64 && offsetof(OverlayArgs, frame) == 0 && offsetof(OverlayArgs, panoptic) == 8 &&
              offsetof(OverlayArgs, colors) == 16 && offsetof(OverlayArgs, output) == 24 &&
              offsetof(OverlayArgs, images) == 32 && offsetof(OverlayArgs, height) == 36 &&
              offsetof(OverlayArgs, width) == 40 && offsetof(OverlayArgs, map_height) == 44 &&
              offsetof(OverlayArgs, map_width) == 48 && offsetof(OverlayArgs, color_count) == 52 &&
              offsetof(OverlayArgs, opacity) == 56 && offsetof(OverlayArgs, border) == 60);

static_assert(sizeof(NarrowMapArgs) == 32 && offsetof(NarrowMapArgs, ids) == 0 &&
              offsetof(NarrowMapArgs, narrow) == 8 && offsetof(NarrowMapArgs, count) == 16 &&
              offsetof(NarrowMapArgs, bytes_per_id) == 24);

}  // namespace panrt::cuda
