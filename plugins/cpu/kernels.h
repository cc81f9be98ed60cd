// The four PanRT ops on the CPU. OPS.md says what they compute; plugins/contract.py checks what users pass, so
// arguments are trusted here. Arrays are C-contiguous and outputs are allocated by the caller. Results do not depend on
// `threads`.
//
// Shapes: N images, L pyramid levels, C channels, R RoIs an image, S bins a side.
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

}  // namespace panrt
