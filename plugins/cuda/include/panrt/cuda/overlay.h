// The panoptic map drawn over the frame.
//
// Each pixel takes the colour of its segment's row, (b, g, r, a): out = (frame * (255 - a) + colour * a + 127) / 255,
// in integers. Ids without a row are not tinted. A pixel whose id is not that of the pixel to the left or above is on a
// border and takes border_colour in the same way instead, unless its a is 0.
//
// Shapes: N images of height x width, M colours.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "panrt/cuda/status.h"

namespace panrt::cuda {

struct OverlayArgs {
  std::uint8_t const* frame;     // (N, height, width, 3) BGR; device
  std::int32_t const* panoptic;  // (N, height, width); device
  std::uint8_t const* colours;   // (M, 4) b, g, r, a by id, row 0 is void's; aligned to 4 bytes; device
  std::uint8_t* output;          // (N, height, width, 3) BGR; may be `frame`; device
  std::int32_t images;
  std::int32_t height, width;
  std::int32_t colour_count;      // M
  std::uint8_t border_colour[4];  // b, g, r, a
};

// One launch.
Status launch_overlay(OverlayArgs const& args, cudaStream_t stream) noexcept;

}  // namespace panrt::cuda
