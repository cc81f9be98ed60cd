// Where an output pixel reads the semantic logits: two successive bilinear resizes of one axis as one. The first takes
// the quarter-size map to 4 times as many pixels, of which `valid` are kept; the second takes those to `output`. Both
// have half-pixel centres and clamp at the edges. Float32 in the order written.
#pragma once

#include "panrt/host_device.h"

namespace panrt {

// Cells cell, cell + 1 and cell + 2 (the caller clamps them to the map) with a weight each. Weights are not negative
// and sum to 1 up to rounding.
struct ResizeTaps {
  int cell;
  float weight[3];
};

PANRT_HD ResizeTaps resize_taps(int pixel, int valid, int output) {
  float const scale = static_cast<float>(valid) / static_cast<float>(output);
  float const centre = (static_cast<float>(pixel) + 0.5F) * scale - 0.5F;
  float const source = centre > 0.0F ? centre : 0.0F;
  int const truncated = static_cast<int>(source);
  int const first = truncated < valid - 1 ? truncated : valid - 1;
  float const beyond = source - static_cast<float>(first);
  float const fraction = beyond < 1.0F ? beyond : 1.0F;
  int base = 0;
  float w0 = 0.0F, w1 = 0.0F, w2 = 0.0F;  // by name: a GPU keeps in registers only what no variable indexes
  for (int step = 0; step < 2; ++step) {  // the two neighbours in the map of 4 times as many pixels
    float const share = step == 0 ? 1.0F - fraction : fraction;
    int const neighbour = first + step < valid - 1 ? first + step : valid - 1;
    float const quarter = (static_cast<float>(neighbour) + 0.5F) * 0.25F - 0.5F;
    float const position = quarter > 0.0F ? quarter : 0.0F;
    int const cell = static_cast<int>(position);
    float const part = position - static_cast<float>(cell);
    if (step == 0) base = cell;
    float const lower = share * (1.0F - part), upper = share * part;
    if (cell == base) {
      w0 += lower;
      w1 += upper;
    } else {
      w1 += lower;
      w2 += upper;
    }
  }
  return {base, {w0, w1, w2}};
}

}  // namespace panrt
