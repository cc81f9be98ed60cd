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

static_assert(sizeof(PanrtStatus) == 16);
static_assert(offsetof(PanrtStatus, code) == 0);
static_assert(offsetof(PanrtStatus, cuda_error) == 4);
static_assert(offsetof(PanrtStatus, message) == 8);

static_assert(sizeof(PyramidLevel) == 24);
static_assert(offsetof(PyramidLevel, data) == 0);
static_assert(offsetof(PyramidLevel, height) == 8);
static_assert(offsetof(PyramidLevel, width) == 12);
static_assert(offsetof(PyramidLevel, stride) == 16);

static_assert(sizeof(PyramidRoiAlignArgs) == 264);
static_assert(offsetof(PyramidRoiAlignArgs, levels) == 0);
static_assert(offsetof(PyramidRoiAlignArgs, rois) == 192);
static_assert(offsetof(PyramidRoiAlignArgs, pooled) == 200);
static_assert(offsetof(PyramidRoiAlignArgs, images) == 208);
static_assert(offsetof(PyramidRoiAlignArgs, rois_per_image) == 216);
static_assert(offsetof(PyramidRoiAlignArgs, level_count) == 224);
static_assert(offsetof(PyramidRoiAlignArgs, channels) == 228);
static_assert(offsetof(PyramidRoiAlignArgs, output_size) == 232);
static_assert(offsetof(PyramidRoiAlignArgs, sampling_ratio) == 236);
static_assert(offsetof(PyramidRoiAlignArgs, canonical_size) == 240);
static_assert(offsetof(PyramidRoiAlignArgs, canonical_level) == 244);
static_assert(offsetof(PyramidRoiAlignArgs, min_level) == 248);
static_assert(offsetof(PyramidRoiAlignArgs, type) == 252);
static_assert(offsetof(PyramidRoiAlignArgs, layout) == 256);

static_assert(sizeof(RpnLevel) == 32);
static_assert(offsetof(RpnLevel, logits) == 0);
static_assert(offsetof(RpnLevel, deltas) == 8);
static_assert(offsetof(RpnLevel, height) == 16);
static_assert(offsetof(RpnLevel, width) == 20);
static_assert(offsetof(RpnLevel, stride) == 24);
static_assert(offsetof(RpnLevel, anchor_size) == 28);

static_assert(sizeof(RpnProposalsArgs) == 384);
static_assert(offsetof(RpnProposalsArgs, levels) == 0);
static_assert(offsetof(RpnProposalsArgs, aspect_ratios) == 256);
static_assert(offsetof(RpnProposalsArgs, rois) == 320);
static_assert(offsetof(RpnProposalsArgs, roi_count) == 328);
static_assert(offsetof(RpnProposalsArgs, workspace) == 336);
static_assert(offsetof(RpnProposalsArgs, workspace_bytes) == 344);
static_assert(offsetof(RpnProposalsArgs, images) == 352);
static_assert(offsetof(RpnProposalsArgs, level_count) == 356);
static_assert(offsetof(RpnProposalsArgs, anchor_count) == 360);
static_assert(offsetof(RpnProposalsArgs, pre_nms_top_k) == 364);
static_assert(offsetof(RpnProposalsArgs, post_nms_top_k) == 368);
static_assert(offsetof(RpnProposalsArgs, nms_threshold) == 372);
static_assert(offsetof(RpnProposalsArgs, input_height) == 376);
static_assert(offsetof(RpnProposalsArgs, input_width) == 380);

static_assert(sizeof(BoxDetectionsArgs) == 128);
static_assert(offsetof(BoxDetectionsArgs, class_logits) == 0);
static_assert(offsetof(BoxDetectionsArgs, box_deltas) == 8);
static_assert(offsetof(BoxDetectionsArgs, rois) == 16);
static_assert(offsetof(BoxDetectionsArgs, roi_count) == 24);
static_assert(offsetof(BoxDetectionsArgs, boxes) == 32);
static_assert(offsetof(BoxDetectionsArgs, scores) == 40);
static_assert(offsetof(BoxDetectionsArgs, classes) == 48);
static_assert(offsetof(BoxDetectionsArgs, count) == 56);
static_assert(offsetof(BoxDetectionsArgs, workspace) == 64);
static_assert(offsetof(BoxDetectionsArgs, workspace_bytes) == 72);
static_assert(offsetof(BoxDetectionsArgs, images) == 80);
static_assert(offsetof(BoxDetectionsArgs, rois_per_image) == 84);
static_assert(offsetof(BoxDetectionsArgs, thing_classes) == 88);
static_assert(offsetof(BoxDetectionsArgs, max_detections) == 92);
static_assert(offsetof(BoxDetectionsArgs, box_weights) == 96);
static_assert(offsetof(BoxDetectionsArgs, score_threshold) == 112);
static_assert(offsetof(BoxDetectionsArgs, nms_threshold) == 116);
static_assert(offsetof(BoxDetectionsArgs, input_height) == 120);
static_assert(offsetof(BoxDetectionsArgs, input_width) == 124);

static_assert(sizeof(PanopticMergeArgs) == 168);
static_assert(offsetof(PanopticMergeArgs, semantic_logits) == 0);
static_assert(offsetof(PanopticMergeArgs, boxes) == 8);
static_assert(offsetof(PanopticMergeArgs, scores) == 16);
static_assert(offsetof(PanopticMergeArgs, classes) == 24);
static_assert(offsetof(PanopticMergeArgs, count) == 32);
static_assert(offsetof(PanopticMergeArgs, mask_probs) == 40);
static_assert(offsetof(PanopticMergeArgs, panoptic) == 48);
static_assert(offsetof(PanopticMergeArgs, segments) == 56);
static_assert(offsetof(PanopticMergeArgs, segment_scores) == 64);
static_assert(offsetof(PanopticMergeArgs, segment_count) == 72);
static_assert(offsetof(PanopticMergeArgs, workspace) == 80);
static_assert(offsetof(PanopticMergeArgs, workspace_bytes) == 88);
static_assert(offsetof(PanopticMergeArgs, logit_type) == 96);
static_assert(offsetof(PanopticMergeArgs, mask_type) == 100);
static_assert(offsetof(PanopticMergeArgs, images) == 104);
static_assert(offsetof(PanopticMergeArgs, detections) == 108);
static_assert(offsetof(PanopticMergeArgs, channels) == 112);
static_assert(offsetof(PanopticMergeArgs, height) == 116);
static_assert(offsetof(PanopticMergeArgs, width) == 120);
static_assert(offsetof(PanopticMergeArgs, mask_height) == 124);
static_assert(offsetof(PanopticMergeArgs, mask_width) == 128);
static_assert(offsetof(PanopticMergeArgs, input_height) == 132);
static_assert(offsetof(PanopticMergeArgs, input_width) == 136);
static_assert(offsetof(PanopticMergeArgs, output_height) == 140);
static_assert(offsetof(PanopticMergeArgs, output_width) == 144);
static_assert(offsetof(PanopticMergeArgs, score_threshold) == 148);
static_assert(offsetof(PanopticMergeArgs, overlap_threshold) == 152);
static_assert(offsetof(PanopticMergeArgs, stuff_area_limit) == 156);
static_assert(offsetof(PanopticMergeArgs, mask_threshold) == 160);

static_assert(sizeof(PreprocessArgs) == 88);
static_assert(offsetof(PreprocessArgs, frame) == 0);
static_assert(offsetof(PreprocessArgs, chroma) == 8);
static_assert(offsetof(PreprocessArgs, output) == 16);
static_assert(offsetof(PreprocessArgs, pitch) == 24);
static_assert(offsetof(PreprocessArgs, frame_bytes) == 32);
static_assert(offsetof(PreprocessArgs, images) == 40);
static_assert(offsetof(PreprocessArgs, format) == 44);
static_assert(offsetof(PreprocessArgs, standard) == 48);
static_assert(offsetof(PreprocessArgs, height) == 52);
static_assert(offsetof(PreprocessArgs, width) == 56);
static_assert(offsetof(PreprocessArgs, resized_height) == 60);
static_assert(offsetof(PreprocessArgs, resized_width) == 64);
static_assert(offsetof(PreprocessArgs, top) == 68);
static_assert(offsetof(PreprocessArgs, left) == 72);
static_assert(offsetof(PreprocessArgs, output_height) == 76);
static_assert(offsetof(PreprocessArgs, output_width) == 80);
static_assert(offsetof(PreprocessArgs, border) == 84);

static_assert(sizeof(OverlayArgs) == 64);
static_assert(offsetof(OverlayArgs, frame) == 0);
static_assert(offsetof(OverlayArgs, panoptic) == 8);
static_assert(offsetof(OverlayArgs, colors) == 16);
static_assert(offsetof(OverlayArgs, output) == 24);
static_assert(offsetof(OverlayArgs, images) == 32);
static_assert(offsetof(OverlayArgs, height) == 36);
static_assert(offsetof(OverlayArgs, width) == 40);
static_assert(offsetof(OverlayArgs, map_height) == 44);
static_assert(offsetof(OverlayArgs, map_width) == 48);
static_assert(offsetof(OverlayArgs, color_count) == 52);
static_assert(offsetof(OverlayArgs, opacity) == 56);
static_assert(offsetof(OverlayArgs, border) == 60);

static_assert(sizeof(NarrowMapArgs) == 32);
static_assert(offsetof(NarrowMapArgs, ids) == 0);
static_assert(offsetof(NarrowMapArgs, narrow) == 8);
static_assert(offsetof(NarrowMapArgs, count) == 16);
static_assert(offsetof(NarrowMapArgs, bytes_per_id) == 24);

}  // namespace panrt::cuda
