// The decisions of PanopticMerge that the CPU and the CUDA kernels share: which detections may be painted, which
// instances are accepted, which stuff segments are kept, and what a semantic logit counts as. Float32 in the order
// written.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "panrt/boxes.h"
#include "panrt/host_device.h"
#include "panrt/paste.h"

namespace panrt {

// A detection that may be painted.
struct Instance {
  std::int32_t detection;
  Extent y, x;               // its box, in output pixels
  PixelRange rows, columns;  // outside them its mask is empty
};

// Whether a detection's score is high enough; false for NaN.
PANRT_HD bool is_candidate(float score, float score_threshold) { return score >= score_threshold; }

// Scales a detection's box to the output. False if nothing of it remains there, or if a coordinate is NaN.
PANRT_HD bool place_box(Box const& box, int input_height, int input_width, int output_height, int output_width,
                        Extent& y, Extent& x) {
  y = scaled_extent(box.y0, box.y1, input_height, output_height);
  x = scaled_extent(box.x0, box.x1, input_width, output_width);
  return !is_empty(y) && !is_empty(x);
}

// Whether an instance is painted: `area` pixels of its mask, of which better instances own `taken`.
PANRT_HD bool is_accepted(std::uint32_t area, std::uint32_t taken, float overlap_threshold) {
  if (area == taken) return false;  // no pixel, or no free one
  auto const share = static_cast<float>(static_cast<double>(taken) / static_cast<double>(area));
  return !(share > overlap_threshold);
}

// Whether a stuff channel becomes a segment.
PANRT_HD bool is_large_enough(std::int32_t area, std::int32_t stuff_area_limit) {
  return area >= (stuff_area_limit > 1 ? stuff_area_limit : 1);
}

// Semantic logits are clamped to +-kLargestLogit, and NaN becomes the lowest: no resize of them overflows.
constexpr float kLargestLogit = 1e30F;

PANRT_HD float clamp_logit(float logit) {
  float const above = logit > -kLargestLogit ? logit : -kLargestLogit;  // NaN too
  return above < kLargestLogit ? above : kLargestLogit;
}

// How far a resized logit may lie outside the interval [low, high] of the clamped logits that it is a mean of. The
// weights of an axis sum to 1 within 4 roundings and the mean takes 3, of at most 2^-24 of the largest magnitude each:
// 14 for both axes, and 64 are allowed. FLT_MIN is far above what is lost where results are subnormal.
PANRT_HD float resize_margin(float low, float high) {
  float const a = std::fabs(low), b = std::fabs(high);
  return (a > b ? a : b) * 0x1p-18F + FLT_MIN;
}

}  // namespace panrt
