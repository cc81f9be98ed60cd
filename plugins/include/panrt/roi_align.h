// Where a RoI is pooled from: its pyramid level, its sampling grid, and the taps of a sample. Semantics are
// detectron2's ROIPooler with ROIAlignV2 (aligned); float32 in the order written.
#pragma once

#include <cmath>

#include "panrt/host_device.h"

namespace panrt {

// A RoI in pixels of the network input, continuous coordinates; laid out as a row of `rois`.
struct Roi {
  float x0, y0, x1, y1;
};

// One axis of a RoI's sampling grid, in feature cells; integer positions are cell centres.
struct RoiAxis {
  float start;
  float bin_size;
  int samples;  // per bin; 0 when the RoI is so narrow that float32 gives it no extent
};

// A linear interpolation along one axis: cells low and high, high == low in the last cell.
struct LinearTaps {
  int low, high;
  float low_weight, high_weight;
};

// Coordinates beyond this are outside every image.
constexpr float kMaxRoiCoordinate = 65536.0F;

// Whether a RoI has an area and lies in any image at all; the others pool to zero. False for NaN.
PANRT_HD bool is_usable(Roi const& roi) {
  return std::fabs(roi.x0) <= kMaxRoiCoordinate && std::fabs(roi.y0) <= kMaxRoiCoordinate &&
         std::fabs(roi.x1) <= kMaxRoiCoordinate && std::fabs(roi.y1) <= kMaxRoiCoordinate &&  //
         roi.x1 > roi.x0 && roi.y1 > roi.y0;
}

// Index into the pyramid, 0 is min_level: floor(canonical_level + log2(sqrt(area) / canonical_size + 1e-8)), clamped.
// log2 is taken in double, so that every platform rounds it to the same float.
PANRT_HD int pyramid_level(Roi const& roi, float canonical_size, int canonical_level, int min_level, int levels) {
  float const area = (roi.x1 - roi.x0) * (roi.y1 - roi.y0);
  float const relative = std::sqrt(area) / canonical_size + 1e-8F;
  float const log = static_cast<float>(std::log2(static_cast<double>(relative)));
  float const level = std::floor(static_cast<float>(canonical_level) + log) - static_cast<float>(min_level);
  if (!(level > 0.0F)) return 0;
  return level < static_cast<float>(levels) ? static_cast<int>(level) : levels - 1;
}

// The grid between RoI coordinates low and high on a level of the given stride; sampling_ratio 0 takes ceil(bin size).
PANRT_HD RoiAxis roi_axis(float low, float high, float stride, int bins, int sampling_ratio) {
  float const scale = 1.0F / stride;
  float const start = low * scale - 0.5F;
  float const size = high * scale - 0.5F - start;
  float const bin_size = size / static_cast<float>(bins);
  return {start, bin_size, sampling_ratio > 0 ? sampling_ratio : static_cast<int>(std::ceil(bin_size))};
}

PANRT_HD float sample_position(RoiAxis const& axis, int bin, int sample) {
  return axis.start + static_cast<float>(bin) * axis.bin_size +
         (static_cast<float>(sample) + 0.5F) * axis.bin_size / static_cast<float>(axis.samples);
}

// A sample more than a cell outside the map counts as zero and has no taps. False for NaN.
PANRT_HD bool is_inside(float position, int size) { return position >= -1.0F && position <= static_cast<float>(size); }

// Taps of a position that is_inside.
PANRT_HD LinearTaps linear_taps(float position, int size) {
  float const clamped = position > 0.0F ? position : 0.0F;
  int const low = static_cast<int>(clamped);
  if (low >= size - 1) return {size - 1, size - 1, 1.0F, 0.0F};
  float const fraction = clamped - static_cast<float>(low);
  return {low, low + 1, 1.0F - fraction, fraction};
}

}  // namespace panrt
