// Written by tools/generate_ops.py from plugins/schema.py: change the schema, and run  python -m tools.generate_ops.
//
// Of each op: the struct that its kernels take, the functions around them (plugins/cuda/launch.h), and a description in
// panrt::ops, of which tensorrt/op_plugin.h makes a plugin. plugins/OPS.md says what the ops compute.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "panrt/cuda/status.h"
#include "panrt/cuda/types.h"

struct CUstream_st;

namespace panrt::cuda {

using Stream = CUstream_st*;  // cudaStream_t, of which CPU code knows nothing

}  // namespace panrt::cuda

// --- RpnProposals

namespace panrt::cuda {
struct RpnLevel {
  float const* logits;  // (N, A, H, W)
  float const* deltas;  // (N, 4A, H, W)
  std::int32_t height;  // H
  std::int32_t width;   // W
  float stride;         // pixels of the network input per cell
  float anchor_size;    // side of the square anchor
};

struct RpnProposalsArgs {
  RpnLevel levels[8];       // L of them, finest first
  float aspect_ratios[16];  // height / width
  float* rois;              // (N, R, 4), aligned to 16 bytes
  std::int32_t* roi_count;  // (N)
  void* workspace;          // of any alignment
  std::size_t workspace_bytes;
  std::int32_t images;          // N
  std::int32_t level_count;     // L
  std::int32_t anchor_count;    // A
  std::int32_t pre_nms_top_k;   // maximum number of candidates per level that enter NMS
  std::int32_t post_nms_top_k;  // proposals per image
  float nms_threshold;          // IoU above which a box is suppressed
  std::int32_t input_height;    // valid size of the network input
  std::int32_t input_width;     // valid size of the network input
};

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

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not checked.
Status check_rpn_proposals(RpnProposalsArgs const& args) noexcept;
// Reads sizes and attributes only. 0 if the launch would reject them.
std::size_t rpn_proposals_workspace_bytes(RpnProposalsArgs const& args) noexcept;
Status prepare_rpn_proposals() noexcept;  // panrt/cuda/prepare.h
Status launch_rpn_proposals(RpnProposalsArgs const& args, Stream stream) noexcept;
}  // namespace panrt::cuda

namespace panrt::ops {
struct RpnProposals {
  static constexpr char const* kName = "RpnProposals";
  static constexpr char const* kVersion = "1";
  using Args = cuda::RpnProposalsArgs;

  std::vector<std::int32_t> strides{};
  std::vector<float> anchor_sizes{};
  std::vector<float> aspect_ratios{};
  std::int32_t pre_nms_top_k{};
  std::int32_t post_nms_top_k{};
  float nms_threshold{};
  std::array<std::int32_t, 2> input_hw{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("strides", strides);
    visit("anchor_sizes", anchor_sizes);
    visit("aspect_ratios", aspect_ratios);
    visit("pre_nms_top_k", pre_nms_top_k);
    visit("post_nms_top_k", post_nms_top_k);
    visit("nms_threshold", nms_threshold);
    visit("input_hw", input_hw);
  }

  template <typename Expect>
  void check_attributes(Expect const& expect) const {
    expect.levels("strides", strides.size());
    for (auto const number : strides) expect.integer("strides", number, 1, 32768, "pixels");
    expect.levels("anchor_sizes", anchor_sizes.size(), strides.size());
    for (auto const number : anchor_sizes) expect.above_zero("anchor_sizes", number);
    expect.entries("aspect_ratios", aspect_ratios.size(), 1, 16);
    for (auto const number : aspect_ratios) expect.above_zero("aspect_ratios", number);
    expect.integer("pre_nms_top_k", pre_nms_top_k, 1, INT32_MAX, "");
    expect.integer("post_nms_top_k", post_nms_top_k, 1, 1048576, "");
    expect.fraction("nms_threshold", nms_threshold);
    for (auto const number : input_hw) expect.integer("input_hw", number, 1, 32768, "sides");
  }

  template <typename Signature>
  void tensors(Signature& signature) const {
    signature.inputs_per_level(strides.size(), "logits", "N A H W", Signature::kFloat32);
    signature.inputs_per_level(strides.size(), "deltas", "N 4A H W", Signature::kFloat32);
    signature.output("rois", "N R 4", Signature::kFloat32);
    signature.output("roi_count", "N", Signature::kInt32);
    signature.constant("A", static_cast<std::int64_t>(aspect_ratios.size()));
    signature.constant("R", post_nms_top_k);
  }

  template <typename Sizes>
  Args arguments(Sizes const& sizes) const {
    Args args{};
    for (std::size_t i = 0; i < strides.size(); ++i) {
      args.levels[i].height = sizes("H", i);
      args.levels[i].width = sizes("W", i);
      args.levels[i].stride = static_cast<float>(strides[i]);
      args.levels[i].anchor_size = anchor_sizes[i];
    }
    std::copy(aspect_ratios.begin(), aspect_ratios.end(), args.aspect_ratios);
    args.images = sizes("N");
    args.level_count = static_cast<std::int32_t>(strides.size());
    args.anchor_count = sizes("A");
    args.pre_nms_top_k = pre_nms_top_k;
    args.post_nms_top_k = post_nms_top_k;
    args.nms_threshold = nms_threshold;
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    auto const levels = static_cast<std::size_t>(args.level_count);
    for (std::size_t i = 0; i < levels; ++i) {
      args.levels[i].logits = static_cast<float const*>(inputs[i]);
      args.levels[i].deltas = static_cast<float const*>(inputs[levels + i]);
    }
    args.rois = static_cast<float*>(outputs[0]);
    args.roi_count = static_cast<std::int32_t*>(outputs[1]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_rpn_proposals(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::rpn_proposals_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_rpn_proposals(); }
  static cuda::Status launch(Args const& args, cuda::Stream stream) { return cuda::launch_rpn_proposals(args, stream); }
};
}  // namespace panrt::ops

// --- PyramidRoiAlign

namespace panrt::cuda {
struct PyramidLevel {
  void const* data;     // (N, C, H, W)
  std::int32_t height;  // H
  std::int32_t width;   // W
  float stride;         // pixels of the network input per cell
};

struct PyramidRoiAlignArgs {
  PyramidLevel levels[8];        // L of them, finest first
  float const* rois;             // (N, R, 4)
  void* pooled;                  // (N*R, C, S, S)
  std::int64_t images;           // N
  std::int64_t rois_per_image;   // R
  std::int32_t level_count;      // L
  std::int32_t channels;         // C
  std::int32_t output_size;      // bins per axis
  std::int32_t sampling_ratio;   // samples per bin and axis; 0 is adaptive
  float canonical_size;          // side of a RoI of canonical_level, pixels
  std::int32_t canonical_level;  // level for RoIs of canonical_size
  std::int32_t min_level;        // level of features_0
  DataType type;
  Layout layout;  // of features and pooled
};

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

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not checked.
Status check_pyramid_roi_align(PyramidRoiAlignArgs const& args) noexcept;
Status prepare_pyramid_roi_align() noexcept;  // panrt/cuda/prepare.h
Status launch_pyramid_roi_align(PyramidRoiAlignArgs const& args, Stream stream) noexcept;
}  // namespace panrt::cuda

namespace panrt::ops {
struct PyramidRoiAlign {
  static constexpr char const* kName = "PyramidRoiAlign";
  static constexpr char const* kVersion = "1";
  using Args = cuda::PyramidRoiAlignArgs;

  std::vector<std::int32_t> strides{};
  std::int32_t output_size{};
  std::int32_t sampling_ratio{};
  float canonical_size{};
  std::int32_t canonical_level{};
  std::int32_t min_level{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("strides", strides);
    visit("output_size", output_size);
    visit("sampling_ratio", sampling_ratio);
    visit("canonical_size", canonical_size);
    visit("canonical_level", canonical_level);
    visit("min_level", min_level);
  }

  template <typename Expect>
  void check_attributes(Expect const& expect) const {
    expect.levels("strides", strides.size());
    for (auto const number : strides) expect.integer("strides", number, 1, 32768, "pixels");
    expect.integer("output_size", output_size, 1, 1024, "");
    expect.integer("sampling_ratio", sampling_ratio, 0, 1024, "");
    expect.above_zero("canonical_size", canonical_size);
    expect.integer("canonical_level", canonical_level, 0, 64, "");
    expect.integer("min_level", min_level, 0, 64, "");
  }

  template <typename Signature>
  void tensors(Signature& signature) const {
    signature.inputs_per_level(strides.size(), "features", "N C H W", Signature::kFeatures);
    signature.input("rois", "N R 4", Signature::kFloat32);
    signature.output("pooled", "N*R C S S", Signature::kFeatures);
    signature.constant("S", output_size);
  }

  template <typename Sizes>
  Args arguments(Sizes const& sizes) const {
    Args args{};
    for (std::size_t i = 0; i < strides.size(); ++i) {
      args.levels[i].height = sizes("H", i);
      args.levels[i].width = sizes("W", i);
      args.levels[i].stride = static_cast<float>(strides[i]);
    }
    args.images = sizes("N");
    args.rois_per_image = sizes("R");
    args.level_count = static_cast<std::int32_t>(strides.size());
    args.channels = sizes("C");
    args.output_size = output_size;
    args.sampling_ratio = sampling_ratio;
    args.canonical_size = canonical_size;
    args.canonical_level = canonical_level;
    args.min_level = min_level;
    args.type = sizes.type(0);
    args.layout = sizes.layout(0);
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    (void)workspace;
    (void)bytes;
    auto const levels = static_cast<std::size_t>(args.level_count);
    for (std::size_t i = 0; i < levels; ++i) {
      args.levels[i].data = inputs[i];
    }
    args.rois = static_cast<float const*>(inputs[levels + 0]);
    args.pooled = outputs[0];
  }

  static cuda::Status check(Args const& args) { return cuda::check_pyramid_roi_align(args); }
  static std::size_t workspace_bytes(Args const& /*args*/) { return 0; }
  static cuda::Status prepare() { return cuda::prepare_pyramid_roi_align(); }
  static cuda::Status launch(Args const& args, cuda::Stream stream) {
    return cuda::launch_pyramid_roi_align(args, stream);
  }
};
}  // namespace panrt::ops

// --- BoxDetections

namespace panrt::cuda {
struct BoxDetectionsArgs {
  float const* class_logits;      // (N, R, C+1)
  float const* box_deltas;        // (N, R, 4C), aligned to 16 bytes
  float const* rois;              // (N, R, 4), aligned to 16 bytes
  std::int32_t const* roi_count;  // (N)
  float* boxes;                   // (N, K, 4), aligned to 16 bytes
  float* scores;                  // (N, K)
  std::int32_t* classes;          // (N, K)
  std::int32_t* count;            // (N)
  float const* thresholds;        // (C+1), or null: the attributes
  void* workspace;                // of any alignment
  std::size_t workspace_bytes;
  std::int32_t images;          // N
  std::int32_t rois_per_image;  // R, may be 0
  std::int32_t thing_classes;   // C
  std::int32_t max_detections;  // detections per image
  float box_weights[4];         // by which the deltas are divided
  float score_threshold;        // probability that a detection must exceed
  float nms_threshold;          // IoU above which a box is suppressed
  std::int32_t input_height;    // valid size of the network input
  std::int32_t input_width;     // valid size of the network input
};

static_assert(sizeof(BoxDetectionsArgs) == 136);
static_assert(offsetof(BoxDetectionsArgs, class_logits) == 0);
static_assert(offsetof(BoxDetectionsArgs, box_deltas) == 8);
static_assert(offsetof(BoxDetectionsArgs, rois) == 16);
static_assert(offsetof(BoxDetectionsArgs, roi_count) == 24);
static_assert(offsetof(BoxDetectionsArgs, boxes) == 32);
static_assert(offsetof(BoxDetectionsArgs, scores) == 40);
static_assert(offsetof(BoxDetectionsArgs, classes) == 48);
static_assert(offsetof(BoxDetectionsArgs, count) == 56);
static_assert(offsetof(BoxDetectionsArgs, thresholds) == 64);
static_assert(offsetof(BoxDetectionsArgs, workspace) == 72);
static_assert(offsetof(BoxDetectionsArgs, workspace_bytes) == 80);
static_assert(offsetof(BoxDetectionsArgs, images) == 88);
static_assert(offsetof(BoxDetectionsArgs, rois_per_image) == 92);
static_assert(offsetof(BoxDetectionsArgs, thing_classes) == 96);
static_assert(offsetof(BoxDetectionsArgs, max_detections) == 100);
static_assert(offsetof(BoxDetectionsArgs, box_weights) == 104);
static_assert(offsetof(BoxDetectionsArgs, score_threshold) == 120);
static_assert(offsetof(BoxDetectionsArgs, nms_threshold) == 124);
static_assert(offsetof(BoxDetectionsArgs, input_height) == 128);
static_assert(offsetof(BoxDetectionsArgs, input_width) == 132);

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not checked.
Status check_box_detections(BoxDetectionsArgs const& args) noexcept;
// Reads sizes and attributes only. 0 if the launch would reject them.
std::size_t box_detections_workspace_bytes(BoxDetectionsArgs const& args) noexcept;
Status prepare_box_detections() noexcept;  // panrt/cuda/prepare.h
Status launch_box_detections(BoxDetectionsArgs const& args, Stream stream) noexcept;
}  // namespace panrt::cuda

namespace panrt::ops {
struct BoxDetections {
  static constexpr char const* kName = "BoxDetections";
  static constexpr char const* kVersion = "1";
  using Args = cuda::BoxDetectionsArgs;

  std::array<float, 4> box_weights{};
  float score_threshold{};
  float nms_threshold{};
  std::int32_t max_detections{};
  std::array<std::int32_t, 2> input_hw{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("box_weights", box_weights);
    visit("score_threshold", score_threshold);
    visit("nms_threshold", nms_threshold);
    visit("max_detections", max_detections);
    visit("input_hw", input_hw);
  }

  template <typename Expect>
  void check_attributes(Expect const& expect) const {
    for (auto const number : box_weights) expect.above_zero("box_weights", number);
    expect.finite("score_threshold", score_threshold);
    expect.fraction("nms_threshold", nms_threshold);
    expect.integer("max_detections", max_detections, 1, 1048576, "");
    for (auto const number : input_hw) expect.integer("input_hw", number, 1, 32768, "sides");
  }

  template <typename Signature>
  void tensors(Signature& signature) const {
    signature.input("class_logits", "N R C+1", Signature::kFloat32);
    signature.input("box_deltas", "N R 4C", Signature::kFloat32);
    signature.input("rois", "N R 4", Signature::kFloat32);
    signature.input("roi_count", "N", Signature::kInt32);
    signature.output("boxes", "N K 4", Signature::kFloat32);
    signature.output("scores", "N K", Signature::kFloat32);
    signature.output("classes", "N K", Signature::kInt32);
    signature.output("count", "N", Signature::kInt32);
    signature.constant("K", max_detections);
  }

  template <typename Sizes>
  Args arguments(Sizes const& sizes) const {
    Args args{};
    args.images = sizes("N");
    args.rois_per_image = sizes("R");
    args.thing_classes = sizes("C");
    args.max_detections = max_detections;
    std::copy(box_weights.begin(), box_weights.end(), args.box_weights);
    args.score_threshold = score_threshold;
    args.nms_threshold = nms_threshold;
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    args.class_logits = static_cast<float const*>(inputs[0]);
    args.box_deltas = static_cast<float const*>(inputs[1]);
    args.rois = static_cast<float const*>(inputs[2]);
    args.roi_count = static_cast<std::int32_t const*>(inputs[3]);
    args.boxes = static_cast<float*>(outputs[0]);
    args.scores = static_cast<float*>(outputs[1]);
    args.classes = static_cast<std::int32_t*>(outputs[2]);
    args.count = static_cast<std::int32_t*>(outputs[3]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_box_detections(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::box_detections_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_box_detections(); }
  static cuda::Status launch(Args const& args, cuda::Stream stream) {
    return cuda::launch_box_detections(args, stream);
  }
};
}  // namespace panrt::ops

// --- PanopticMerge

namespace panrt::cuda {
struct PanopticMergeArgs {
  void const* semantic_logits;            // (N, S, h, w)
  float const* boxes;                     // (N, K, 4)
  float const* scores;                    // (N, K)
  std::int32_t const* classes;            // (N, K)
  std::int32_t const* count;              // (N)
  void const* mask_probs;                 // (N, K, Gh, Gw)
  std::int32_t* panoptic;                 // (N, H, W), aligned to 16 bytes
  std::int32_t* segments;                 // (N, K+S, 8), aligned to 16 bytes
  float* segment_scores;                  // (N, K+S)
  std::int32_t* segment_count;            // (N)
  float const* thresholds;                // (3), or null: the attributes
  std::int32_t const* stuff_area_limits;  // (S), or null: the attributes
  void* workspace;                        // of any alignment
  std::size_t workspace_bytes;
  DataType logit_type;
  DataType mask_type;
  std::int32_t images;            // N
  std::int32_t detections;        // K, may be 0
  std::int32_t channels;          // S
  std::int32_t height;            // h
  std::int32_t width;             // w
  std::int32_t mask_height;       // Gh
  std::int32_t mask_width;        // Gw
  std::int32_t input_height;      // at most 4h
  std::int32_t input_width;       // at most 4w
  std::int32_t output_height;     // size of the panoptic map
  std::int32_t output_width;      // size of the panoptic map
  float score_threshold;          // smallest score of an instance
  float overlap_threshold;        // largest occluded share of an instance
  std::int32_t stuff_area_limit;  // smallest stuff segment
  float mask_threshold;           // smallest probability inside a mask
};

static_assert(sizeof(PanopticMergeArgs) == 184);
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
static_assert(offsetof(PanopticMergeArgs, thresholds) == 80);
static_assert(offsetof(PanopticMergeArgs, stuff_area_limits) == 88);
static_assert(offsetof(PanopticMergeArgs, workspace) == 96);
static_assert(offsetof(PanopticMergeArgs, workspace_bytes) == 104);
static_assert(offsetof(PanopticMergeArgs, logit_type) == 112);
static_assert(offsetof(PanopticMergeArgs, mask_type) == 116);
static_assert(offsetof(PanopticMergeArgs, images) == 120);
static_assert(offsetof(PanopticMergeArgs, detections) == 124);
static_assert(offsetof(PanopticMergeArgs, channels) == 128);
static_assert(offsetof(PanopticMergeArgs, height) == 132);
static_assert(offsetof(PanopticMergeArgs, width) == 136);
static_assert(offsetof(PanopticMergeArgs, mask_height) == 140);
static_assert(offsetof(PanopticMergeArgs, mask_width) == 144);
static_assert(offsetof(PanopticMergeArgs, input_height) == 148);
static_assert(offsetof(PanopticMergeArgs, input_width) == 152);
static_assert(offsetof(PanopticMergeArgs, output_height) == 156);
static_assert(offsetof(PanopticMergeArgs, output_width) == 160);
static_assert(offsetof(PanopticMergeArgs, score_threshold) == 164);
static_assert(offsetof(PanopticMergeArgs, overlap_threshold) == 168);
static_assert(offsetof(PanopticMergeArgs, stuff_area_limit) == 172);
static_assert(offsetof(PanopticMergeArgs, mask_threshold) == 176);

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not checked.
Status check_panoptic_merge(PanopticMergeArgs const& args) noexcept;
// Reads sizes and attributes only. 0 if the launch would reject them.
std::size_t panoptic_merge_workspace_bytes(PanopticMergeArgs const& args) noexcept;
Status prepare_panoptic_merge() noexcept;  // panrt/cuda/prepare.h
Status launch_panoptic_merge(PanopticMergeArgs const& args, Stream stream) noexcept;
}  // namespace panrt::cuda

namespace panrt::ops {
struct PanopticMerge {
  static constexpr char const* kName = "PanopticMerge";
  static constexpr char const* kVersion = "1";
  using Args = cuda::PanopticMergeArgs;

  std::array<std::int32_t, 2> input_hw{};
  std::array<std::int32_t, 2> output_hw{};
  float score_threshold{};
  float overlap_threshold{};
  std::int32_t stuff_area_limit{};
  float mask_threshold{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("input_hw", input_hw);
    visit("output_hw", output_hw);
    visit("score_threshold", score_threshold);
    visit("overlap_threshold", overlap_threshold);
    visit("stuff_area_limit", stuff_area_limit);
    visit("mask_threshold", mask_threshold);
  }

  template <typename Expect>
  void check_attributes(Expect const& expect) const {
    for (auto const number : input_hw) expect.integer("input_hw", number, 1, 32768, "sides");
    for (auto const number : output_hw) expect.integer("output_hw", number, 1, 32768, "sides");
    expect.finite("score_threshold", score_threshold);
    expect.fraction("overlap_threshold", overlap_threshold);
    expect.integer("stuff_area_limit", stuff_area_limit, 0, INT32_MAX, "output pixels");
    expect.above_zero("mask_threshold", mask_threshold, 1.0F);
  }

  template <typename Signature>
  void tensors(Signature& signature) const {
    signature.input("semantic_logits", "N S h w", Signature::kFloating);
    signature.input("boxes", "N K 4", Signature::kFloat32);
    signature.input("scores", "N K", Signature::kFloat32);
    signature.input("classes", "N K", Signature::kInt32);
    signature.input("count", "N", Signature::kInt32);
    signature.input("mask_probs", "N K Gh Gw", Signature::kFloating);
    signature.output("panoptic", "N H W", Signature::kInt32);
    signature.output("segments", "N K+S 8", Signature::kInt32);
    signature.output("segment_scores", "N K+S", Signature::kFloat32);
    signature.output("segment_count", "N", Signature::kInt32);
    signature.constant("H", output_hw[0]);
    signature.constant("W", output_hw[1]);
  }

  template <typename Sizes>
  Args arguments(Sizes const& sizes) const {
    sizes.expect_within("input_hw", input_hw, 4, {sizes("h"), sizes("w")}, "four times the semantic logits'");
    Args args{};
    args.logit_type = sizes.type(0);
    args.mask_type = sizes.type(5);
    args.images = sizes("N");
    args.detections = sizes("K");
    args.channels = sizes("S");
    args.height = sizes("h");
    args.width = sizes("w");
    args.mask_height = sizes("Gh");
    args.mask_width = sizes("Gw");
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    args.output_height = output_hw[0];
    args.output_width = output_hw[1];
    args.score_threshold = score_threshold;
    args.overlap_threshold = overlap_threshold;
    args.stuff_area_limit = stuff_area_limit;
    args.mask_threshold = mask_threshold;
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    args.semantic_logits = inputs[0];
    args.boxes = static_cast<float const*>(inputs[1]);
    args.scores = static_cast<float const*>(inputs[2]);
    args.classes = static_cast<std::int32_t const*>(inputs[3]);
    args.count = static_cast<std::int32_t const*>(inputs[4]);
    args.mask_probs = inputs[5];
    args.panoptic = static_cast<std::int32_t*>(outputs[0]);
    args.segments = static_cast<std::int32_t*>(outputs[1]);
    args.segment_scores = static_cast<float*>(outputs[2]);
    args.segment_count = static_cast<std::int32_t*>(outputs[3]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_panoptic_merge(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::panoptic_merge_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_panoptic_merge(); }
  static cuda::Status launch(Args const& args, cuda::Stream stream) {
    return cuda::launch_panoptic_merge(args, stream);
  }
};
}  // namespace panrt::ops

// --- BoxDetections, version 2

namespace panrt::ops {
struct BoxDetections2 {
  static constexpr char const* kName = "BoxDetections";
  static constexpr char const* kVersion = "2";
  using Args = cuda::BoxDetectionsArgs;

  std::array<float, 4> box_weights{};
  std::int32_t max_detections{};
  std::array<std::int32_t, 2> input_hw{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("box_weights", box_weights);
    visit("max_detections", max_detections);
    visit("input_hw", input_hw);
  }

  template <typename Expect>
  void check_attributes(Expect const& expect) const {
    for (auto const number : box_weights) expect.above_zero("box_weights", number);
    expect.integer("max_detections", max_detections, 1, 1048576, "");
    for (auto const number : input_hw) expect.integer("input_hw", number, 1, 32768, "sides");
  }

  template <typename Signature>
  void tensors(Signature& signature) const {
    signature.input("class_logits", "N R C+1", Signature::kFloat32);
    signature.input("box_deltas", "N R 4C", Signature::kFloat32);
    signature.input("rois", "N R 4", Signature::kFloat32);
    signature.input("roi_count", "N", Signature::kInt32);
    signature.input("thresholds", "C+1", Signature::kFloat32);
    signature.output("boxes", "N K 4", Signature::kFloat32);
    signature.output("scores", "N K", Signature::kFloat32);
    signature.output("classes", "N K", Signature::kInt32);
    signature.output("count", "N", Signature::kInt32);
    signature.constant("K", max_detections);
  }

  template <typename Sizes>
  Args arguments(Sizes const& sizes) const {
    Args args{};
    args.images = sizes("N");
    args.rois_per_image = sizes("R");
    args.thing_classes = sizes("C");
    args.max_detections = max_detections;
    std::copy(box_weights.begin(), box_weights.end(), args.box_weights);
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    args.class_logits = static_cast<float const*>(inputs[0]);
    args.box_deltas = static_cast<float const*>(inputs[1]);
    args.rois = static_cast<float const*>(inputs[2]);
    args.roi_count = static_cast<std::int32_t const*>(inputs[3]);
    args.boxes = static_cast<float*>(outputs[0]);
    args.scores = static_cast<float*>(outputs[1]);
    args.classes = static_cast<std::int32_t*>(outputs[2]);
    args.count = static_cast<std::int32_t*>(outputs[3]);
    args.thresholds = static_cast<float const*>(inputs[4]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_box_detections(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::box_detections_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_box_detections(); }
  static cuda::Status launch(Args const& args, cuda::Stream stream) {
    return cuda::launch_box_detections(args, stream);
  }
};
}  // namespace panrt::ops

// --- PanopticMerge, version 2

namespace panrt::ops {
struct PanopticMerge2 {
  static constexpr char const* kName = "PanopticMerge";
  static constexpr char const* kVersion = "2";
  using Args = cuda::PanopticMergeArgs;

  std::array<std::int32_t, 2> input_hw{};
  std::array<std::int32_t, 2> output_hw{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("input_hw", input_hw);
    visit("output_hw", output_hw);
  }

  template <typename Expect>
  void check_attributes(Expect const& expect) const {
    for (auto const number : input_hw) expect.integer("input_hw", number, 1, 32768, "sides");
    for (auto const number : output_hw) expect.integer("output_hw", number, 1, 32768, "sides");
  }

  template <typename Signature>
  void tensors(Signature& signature) const {
    signature.input("semantic_logits", "N S h w", Signature::kFloating);
    signature.input("boxes", "N K 4", Signature::kFloat32);
    signature.input("scores", "N K", Signature::kFloat32);
    signature.input("classes", "N K", Signature::kInt32);
    signature.input("count", "N", Signature::kInt32);
    signature.input("mask_probs", "N K Gh Gw", Signature::kFloating);
    signature.input("thresholds", "3", Signature::kFloat32);
    signature.input("stuff_area_limits", "S", Signature::kInt32);
    signature.output("panoptic", "N H W", Signature::kInt32);
    signature.output("segments", "N K+S 8", Signature::kInt32);
    signature.output("segment_scores", "N K+S", Signature::kFloat32);
    signature.output("segment_count", "N", Signature::kInt32);
    signature.constant("H", output_hw[0]);
    signature.constant("W", output_hw[1]);
  }

  template <typename Sizes>
  Args arguments(Sizes const& sizes) const {
    sizes.expect_within("input_hw", input_hw, 4, {sizes("h"), sizes("w")}, "four times the semantic logits'");
    Args args{};
    args.logit_type = sizes.type(0);
    args.mask_type = sizes.type(5);
    args.images = sizes("N");
    args.detections = sizes("K");
    args.channels = sizes("S");
    args.height = sizes("h");
    args.width = sizes("w");
    args.mask_height = sizes("Gh");
    args.mask_width = sizes("Gw");
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    args.output_height = output_hw[0];
    args.output_width = output_hw[1];
    args.mask_threshold = 1;  // read from an input
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    args.semantic_logits = inputs[0];
    args.boxes = static_cast<float const*>(inputs[1]);
    args.scores = static_cast<float const*>(inputs[2]);
    args.classes = static_cast<std::int32_t const*>(inputs[3]);
    args.count = static_cast<std::int32_t const*>(inputs[4]);
    args.mask_probs = inputs[5];
    args.panoptic = static_cast<std::int32_t*>(outputs[0]);
    args.segments = static_cast<std::int32_t*>(outputs[1]);
    args.segment_scores = static_cast<float*>(outputs[2]);
    args.segment_count = static_cast<std::int32_t*>(outputs[3]);
    args.thresholds = static_cast<float const*>(inputs[6]);
    args.stuff_area_limits = static_cast<std::int32_t const*>(inputs[7]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_panoptic_merge(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::panoptic_merge_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_panoptic_merge(); }
  static cuda::Status launch(Args const& args, cuda::Stream stream) {
    return cuda::launch_panoptic_merge(args, stream);
  }
};
}  // namespace panrt::ops

// X(name, function) for each op, for each version of one, and for each whose kernels need a workspace.
// A template cannot name functions of C.
// clang-format off
#define PANRT_FOR_EACH_OP(X) \
  X(RpnProposals, rpn_proposals) \
  X(PyramidRoiAlign, pyramid_roi_align) \
  X(BoxDetections, box_detections) \
  X(PanopticMerge, panoptic_merge)
#define PANRT_FOR_EACH_PLUGIN(X) \
  X(RpnProposals, rpn_proposals) \
  X(PyramidRoiAlign, pyramid_roi_align) \
  X(BoxDetections, box_detections) \
  X(PanopticMerge, panoptic_merge) \
  X(BoxDetections2, box_detections_2) \
  X(PanopticMerge2, panoptic_merge_2)
#define PANRT_FOR_EACH_WORKSPACE(X) \
  X(RpnProposals, rpn_proposals) \
  X(BoxDetections, box_detections) \
  X(PanopticMerge, panoptic_merge)
// clang-format on
