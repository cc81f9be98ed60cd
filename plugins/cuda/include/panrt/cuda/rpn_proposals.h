// RpnProposals on the GPU. plugins/OPS.md defines what it computes.
//
// Shapes: N images, L pyramid levels, A anchors per cell, R = post_nms_top_k.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "panrt/cuda/status.h"
#include "panrt/limits.h"

namespace panrt::cuda {

constexpr int kMaxRpnLevels = kMaxLevels;
constexpr int kMaxRpnAnchors = kMaxAnchorsPerCell;
constexpr int kMaxRpnCandidates = kMaxCandidates;

struct RpnLevel {
  float const* logits;  // (N, A, height, width)
  float const* deltas;  // (N, 4A, height, width)
  std::int32_t height;
  std::int32_t width;
  float stride;  // pixels of the network input per cell
  float anchor_size;
};

struct RpnProposalsArgs {
  RpnLevel levels[kMaxRpnLevels];       // L of them, finest first
  float aspect_ratios[kMaxRpnAnchors];  // A of them
  float* rois;                          // (N, R, 4), aligned to 16 bytes
  std::int32_t* roi_count;              // (N)
  void* workspace;                      // of any alignment
  std::size_t workspace_bytes;
  std::int32_t images;
  std::int32_t level_count;   // L
  std::int32_t anchor_count;  // A
  std::int32_t pre_nms_top_k;
  std::int32_t post_nms_top_k;
  float nms_threshold;
  std::int32_t input_height;
  std::int32_t input_width;
};

// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not looked at.
Status check_rpn_proposals(RpnProposalsArgs const& args) noexcept;

// Reads sizes and attributes only. 0 if launch_rpn_proposals would reject them.
std::size_t rpn_proposals_workspace_bytes(RpnProposalsArgs const& args) noexcept;

// Five kernels. Boxes, and the order of equal scores, are the reference's to the bit.
Status launch_rpn_proposals(RpnProposalsArgs const& args, cudaStream_t stream) noexcept;

Status prepare_rpn_proposals() noexcept;  // panrt/cuda/prepare.h

}  // namespace panrt::cuda
