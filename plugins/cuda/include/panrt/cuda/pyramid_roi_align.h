// PyramidRoiAlign on the GPU; OPS.md section 3.
//
// Shapes: N images, L levels of height x width cells, C channels, R RoIs per image, S bins per side.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "panrt/cuda/status.h"
#include "panrt/cuda/types.h"
#include "panrt/limits.h"

namespace panrt::cuda {

constexpr int kMaxPyramidLevels = kMaxLevels;

struct PyramidLevel {
  void const* data;  // (N, C, height, width) in `layout`; device
  std::int32_t height, width;
  float stride;  // pixels of the network input per cell
};

struct PyramidRoiAlignArgs {
  PyramidLevel levels[kMaxPyramidLevels];  // finest first
  float const* rois;                       // (N, R, 4); device
  void* pooled;                            // (N*R, C, S, S) in `layout`; device
  std::int64_t images;
  std::int64_t rois_per_image;
  std::int32_t level_count;
  std::int32_t channels;
  std::int32_t output_size;
  std::int32_t sampling_ratio;  // samples per bin and axis, 0 is adaptive
  float canonical_size;
  std::int32_t canonical_level;
  std::int32_t min_level;
  DataType type;  // of features and pooled
  Layout layout;  // of features and pooled
};

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not looked at.
Status check_pyramid_roi_align(PyramidRoiAlignArgs const& args) noexcept;

// One launch. Pointers are aligned to 16 bytes.
Status launch_pyramid_roi_align(PyramidRoiAlignArgs const& args, cudaStream_t stream) noexcept;

Status prepare_pyramid_roi_align() noexcept;  // panrt/cuda/prepare.h

}  // namespace panrt::cuda
