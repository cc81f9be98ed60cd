// The four PanRT ops on the CPU. OPS.md defines what they compute; plugins/contract.py checks what users pass, so
// arguments are trusted here. Arrays are C-contiguous and outputs are allocated by the caller. Results do not depend on
// `threads`.
//
// Shapes: N images, L pyramid levels, C channels or thing classes, A anchors per cell, R RoIs per image, S bins per
// side; in the merge K detections, S semantic channels, h x w semantic map, H x W output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "half.h"
#include "panrt/boxes.h"

namespace panrt {

// Null if these kernels were compiled for the arithmetic of OPS.md; panrt/arithmetic.h.
char const* arithmetic_fault();

enum class Layout { kNchw, kNhwc };

template <typename T>
struct FeatureLevel {
  T const* data;  // (N, C, height, width), or (N, height, width, C)
  int height;
  int width;
  float stride;  // pixels of the network input per cell
};

template <typename T>
struct PyramidRoiAlignArgs {
  std::vector<FeatureLevel<T>> levels;  // L, finest first
  float const* rois;                    // (N, R, 4)
  T* pooled;                            // (N*R, C, S, S), or (N*R, S, S, C)
  Layout layout;                        // of features and pooled
  std::int64_t images;
  std::int64_t rois_per_image;
  int channels;
  int output_size;
  int sampling_ratio;  // samples per bin and axis, 0 is adaptive
  float canonical_size;
  int canonical_level;
  int min_level;
};

// T is float or Half. Throws std::bad_alloc only.
template <typename T>
void pyramid_roi_align(PyramidRoiAlignArgs<T> const& args, int threads);

struct RpnLevel {
  float const* logits;  // (N, A, height, width)
  float const* deltas;  // (N, 4A, height, width)
  int height;
  int width;
  float stride;  // pixels of the network input per cell
  float anchor_size;
};

struct RpnProposalsArgs {
  std::vector<RpnLevel> levels;      // L; at most 2^32 - 1 anchors per image
  std::vector<float> aspect_ratios;  // A
  float* rois;                       // (N, post_nms_top_k, 4)
  std::int32_t* roi_count;           // (N,)
  std::int64_t images;
  int pre_nms_top_k;
  int post_nms_top_k;
  float nms_threshold;
  int input_height;
  int input_width;
};

// Throws std::bad_alloc only.
void rpn_proposals(RpnProposalsArgs const& args, int threads);

struct BoxDetectionsArgs {
  float const* class_logits;      // (N, R, C + 1)
  float const* box_deltas;        // (N, R, 4C)
  float const* rois;              // (N, R, 4); R * C is at most 2^32 - 1
  std::int32_t const* roi_count;  // (N,)
  float* boxes;                   // (N, max_detections, 4)
  float* scores;                  // (N, max_detections)
  std::int32_t* classes;          // (N, max_detections)
  std::int32_t* count;            // (N,)
  std::int64_t images;
  std::int64_t rois_per_image;
  int thing_classes;
  BoxDeltas box_weights;          // by which the deltas are divided
  float const* score_thresholds;  // (C)
  float nms_threshold;
  int max_detections;
  int input_height;
  int input_width;
};

// Throws std::bad_alloc only.
void box_detections(BoxDetectionsArgs const& args, int threads);

struct PanopticMergeArgs {
  float const* semantic_logits;  // (N, S, h, w)
  float const* boxes;            // (N, K, 4)
  float const* scores;           // (N, K)
  std::int32_t const* classes;   // (N, K)
  std::int32_t const* count;     // (N)
  float const* mask_probs;       // (N, K, mask_height, mask_width)
  std::int32_t* panoptic;        // (N, H, W)
  std::int32_t* segments;        // (N, K + S, 8)
  float* segment_scores;         // (N, K + S)
  std::int32_t* segment_count;   // (N)
  std::int64_t images;
  std::int64_t detections;
  int channels;
  int height;  // of the semantic map
  int width;
  int mask_height;
  int mask_width;
  int input_height;  // valid part of the network input
  int input_width;
  int output_height;  // at most 32768
  int output_width;
  float score_threshold;
  float overlap_threshold;
  float mask_threshold;
  std::int32_t const* stuff_area_limits;  // (S); that of channel 0 is not read
};

// Throws std::bad_alloc only.
void panoptic_merge(PanopticMergeArgs const& args, int threads);

// Not an op: the largest convolutions of a network. `native.Conv3x3` describes the layout of the weights.
constexpr int kConv3x3Filters = 16;

struct Conv3x3Args {
  float const* input;    // (N, height, width, C)
  float const* weights;  // (36, O / 16, C, 16), transformed
  float const* bias;     // (O)
  float* output;         // (N, height, width, O)
  float* workspace;      // (threads, conv3x3_workspace); zero at first, then as the last call left it
  std::int64_t images;
  int height;
  int width;
  int channels;  // C, a multiple of 16
  int filters;   // O, a multiple of 16
  int variant;   // of conv3x3_variants
  float lower;   // bounds of the output
  float upper;
};

// The sets of vector instructions that it is compiled for and that this processor has, the fastest first.
std::vector<char const*> conv3x3_variants();

// Floats that a thread works in.
std::size_t conv3x3_workspace(int channels, int filters);

// Throws std::bad_alloc only.
void conv3x3(Conv3x3Args const& args, int threads);

// Not an op: pixels to the numbers that a network begins with.
struct LookUpArgs {
  std::uint8_t const* image;  // (N, height, width, 3)
  float const* table;         // (3, 256)
  float* output;              // (N, 3, height, width)
  std::int64_t images;
  int height;
  int width;
};

// Throws std::bad_alloc only.
void look_up(LookUpArgs const& args, int threads);

// Not an op: the colours of a panoptic map over a frame, for display. `frame_reference.overlay` defines it.
struct OverlayArgs {
  std::uint8_t const* frame;   // (height, width, 3)
  std::int32_t const* map;     // (map_height, map_width)
  std::uint8_t const* colors;  // (colors_count, 3), by id
  std::uint8_t* result;        // (height, width, 3)
  int height;
  int width;
  int map_height;
  int map_width;
  int colors_count;
  int opacity;  // of 256
  int border;   // its width in pixels, 0 for none
};

// Throws std::bad_alloc only.
void overlay(OverlayArgs const& args, int threads);

}  // namespace panrt
