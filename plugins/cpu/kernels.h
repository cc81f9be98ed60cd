// The four PanRT ops on the CPU. OPS.md says what they compute; plugins/contract.py checks what users pass, so
// arguments are trusted here. Arrays are C-contiguous and outputs are allocated by the caller. Results do not depend on
// `threads`.
//
// Shapes: N images, L pyramid levels, C channels, R RoIs an image, S bins a side; in the merge K detections, S semantic
// channels, h x w semantic map, H x W output.
#pragma once

#include <cstdint>
#include <vector>

#include "half.h"

namespace panrt {

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
  int stuff_area_limit;
  float mask_threshold;
};

// Throws std::bad_alloc only.
void panoptic_merge(PanopticMergeArgs const& args, int threads);

}  // namespace panrt
