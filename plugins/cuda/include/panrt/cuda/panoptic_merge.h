// PanopticMerge on the GPU. plugins/OPS.md defines what it computes.
//
// Shapes: N images, K detections, Gh x Gw a mask, S semantic channels, h x w semantic map, H x W output.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "panrt/cuda/status.h"
#include "panrt/cuda/types.h"

namespace panrt::cuda {

struct PanopticMergeArgs {
  void const* semantic_logits;  // (N, S, h, w), logit_type
  float const* boxes;           // (N, K, 4)
  float const* scores;          // (N, K)
  std::int32_t const* classes;  // (N, K)
  std::int32_t const* count;    // (N)
  void const* mask_probs;       // (N, K, Gh, Gw), mask_type
  std::int32_t* panoptic;       // (N, H, W), aligned to 16 bytes
  std::int32_t* segments;       // (N, K + S, 8), aligned to 16 bytes
  float* segment_scores;        // (N, K + S)
  std::int32_t* segment_count;  // (N)
  void* workspace;              // of any alignment
  std::size_t workspace_bytes;
  DataType logit_type;
  DataType mask_type;
  std::int32_t images;
  std::int32_t detections;  // K, may be 0
  std::int32_t channels;    // S
  std::int32_t height;      // h
  std::int32_t width;       // w
  std::int32_t mask_height;
  std::int32_t mask_width;
  std::int32_t input_height;   // valid part of the network input, at most 4h
  std::int32_t input_width;    // at most 4w
  std::int32_t output_height;  // H, at most 32768
  std::int32_t output_width;   // W, at most 32768
  float score_threshold;
  float overlap_threshold;
  std::int32_t stuff_area_limit;
  float mask_threshold;
};

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not checked.
Status check_panoptic_merge(PanopticMergeArgs const& args) noexcept;

// Reads sizes and attributes only. 0 if launch_panoptic_merge would reject them.
std::size_t panoptic_merge_workspace_bytes(PanopticMergeArgs const& args) noexcept;

// Five kernels.
Status launch_panoptic_merge(PanopticMergeArgs const& args, cudaStream_t stream) noexcept;

Status prepare_panoptic_merge() noexcept;  // panrt/cuda/prepare.h

}  // namespace panrt::cuda
