// Where an output pixel of an antialiased resize reads the source, axis by axis: a triangle as wide as two source
// pixels, or two output pixels where the resize shrinks; half-pixel centres. Enlarging is plain bilinear. Pillow's and
// PyTorch's antialiased bilinear filter. Float32 in the order written.
#pragma once

#include "panrt/host_device.h"

namespace panrt {

// Source pixels first to end - 1, at least one; their weights are antialias_weight(taps, pixel), not normalised.
struct AntialiasTaps {
  int first, end;
  float centre;  // in source pixels; pixel i covers [i, i + 1)
  float width;   // of half the triangle
};

PANRT_HD AntialiasTaps antialias_taps(int pixel, int source, int output) {
  float const scale = static_cast<float>(source) / static_cast<float>(output);
  float const width = scale > 1.0F ? scale : 1.0F;
  float const centre = (static_cast<float>(pixel) + 0.5F) * scale;
  auto const low = static_cast<int>(centre - width + 0.5F);  // towards 0 where negative
  auto const high = static_cast<int>(centre + width + 0.5F);
  return {low > 0 ? low : 0, high < source ? high : source, centre, width};
}

// Not negative; positive for one of the taps at least.
PANRT_HD float antialias_weight(AntialiasTaps const& taps, int pixel) {
  float const distance = (static_cast<float>(pixel) + 0.5F - taps.centre) / taps.width;
  float const weight = 1.0F - (distance < 0.0F ? -distance : distance);
  return weight > 0.0F ? weight : 0.0F;
}

}  // namespace panrt
