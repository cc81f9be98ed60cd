// How the mask of a detection is stretched over its box: detectron2's paste_masks_in_image, axis by axis. Float32 in
// the order written.
#pragma once

#include <cmath>

#include "panrt/host_device.h"

namespace panrt {

// A box along one axis, in output pixels.
struct Extent {
  float low, high;
};

// A box along one axis, low and high in pixels of the network input, scaled to the output and clipped to it. NaN
// stays.
PANRT_HD Extent scaled_extent(float low, float high, int input, int output) {
  auto const scale = static_cast<float>(static_cast<double>(output) / static_cast<double>(input));
  auto const limit = static_cast<float>(output);
  float const ends[2] = {low * scale, high * scale};
  float clipped[2];
  for (int i = 0; i < 2; ++i) clipped[i] = ends[i] < 0.0F ? 0.0F : ends[i] > limit ? limit : ends[i];
  return {clipped[0], clipped[1]};
}

// True for NaN too.
PANRT_HD bool is_empty(Extent const& extent) { return !(extent.high - extent.low > 0.0F); }

// Where an output pixel samples the mask, in cells of which `cells` lie along the axis; integers are cell centres.
// Grows with the pixel. At -1 and at `cells` nothing of the mask is left. The extent is not empty.
PANRT_HD float paste_position(int pixel, Extent const& extent, int cells) {
  float const across = (static_cast<float>(pixel) + 0.5F - extent.low) / (extent.high - extent.low);
  auto const limit = static_cast<float>(cells);
  float const position = across * limit - 0.5F;
  return position < -1.0F ? -1.0F : position > limit ? limit : position;
}

// Pixels begin to end - 1 of an axis; empty where end <= begin.
struct PixelRange {
  int begin, end;

  PANRT_HD int size() const { return end > begin ? end - begin : 0; }
};

// The first pixel whose position is greater, or `output`.
PANRT_HD int first_pixel_above(float position, Extent const& extent, int cells, int output) {
  int begin = 0, end = output;
  while (begin < end) {
    int const middle = (begin + end) / 2;
    if (paste_position(middle, extent, cells) > position) {
      end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return begin;
}

// The pixels whose samples touch the mask; all, when even nothing reaches the threshold.
PANRT_HD PixelRange paste_support(Extent const& extent, int cells, int output, float threshold) {
  if (!(threshold > 0.0F)) return {0, output};
  return {first_pixel_above(-1.0F, extent, cells, output),
          first_pixel_above(std::nextafter(static_cast<float>(cells), 0.0F), extent, cells, output)};
}

// The lower of the two cells of a sample, from -1 to cells - 1, and the share of the next. Cells -1 and `cells` are 0.
struct PasteTaps {
  int cell;
  float fraction;
};

PANRT_HD PasteTaps paste_taps(float position, int cells) {
  int const truncated = static_cast<int>(position);
  int const below = static_cast<float>(truncated) > position ? truncated - 1 : truncated;
  int const cell = below < cells - 1 ? below : cells - 1;
  return {cell, position - static_cast<float>(cell)};
}

// A probability as the paste reads it: NaN and infinity count as 0.
PANRT_HD float paste_probability(float probability) { return probability - probability == 0.0F ? probability : 0.0F; }

// From a to b; exactly a where they are equal, so that a flat mask at the threshold stays whole. Between rows first,
// then between columns. For finite a and b it never turns back as t goes from 0 to 1.
PANRT_HD float lerp(float a, float b, float t) { return a + (b - a) * t; }

}  // namespace panrt
