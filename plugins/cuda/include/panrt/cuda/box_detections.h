// BoxDetections on the GPU. plugins/OPS.md defines what it computes.
//
// Shapes: N images, R RoIs, C thing classes, K = max_detections.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "panrt/cuda/status.h"

namespace panrt::cuda {

struct BoxDetectionsArgs {
  float const* class_logits;      // (N, R, C + 1)
  float const* box_deltas;        // (N, R, 4C), aligned to 16 bytes
  float const* rois;              // (N, R, 4), aligned to 16 bytes
  std::int32_t const* roi_count;  // (N)
  float* boxes;                   // (N, K, 4), aligned to 16 bytes
  float* scores;                  // (N, K)
  std::int32_t* classes;          // (N, K)
  std::int32_t* count;            // (N)
  void* workspace;                // of any alignment
  std::size_t workspace_bytes;
  std::int32_t images;
  std::int32_t rois_per_image;  // R, may be 0
  std::int32_t thing_classes;   // C
  std::int32_t max_detections;
  float box_weights[4];  // by which dx, dy, dw, dh are divided
  float score_threshold;
  float nms_threshold;
  std::int32_t input_height;
  std::int32_t input_width;
};

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not looked at.
Status check_box_detections(BoxDetectionsArgs const& args) noexcept;

// Reads sizes and attributes only. 0 if launch_box_detections would reject them.
std::size_t box_detections_workspace_bytes(BoxDetectionsArgs const& args) noexcept;

// Two kernels.
Status launch_box_detections(BoxDetectionsArgs const& args, cudaStream_t stream) noexcept;

Status prepare_box_detections() noexcept;  // panrt/cuda/prepare.h

}  // namespace panrt::cuda
