// The colours of a panoptic map over a frame, as `frame_reference.overlay` defines it.
//
// Each pixel shows the cell of the map that its centre lies in: with c the colour of the id, out = (frame * (256 -
// opacity)
// + c * opacity + 128) / 256 in integers. A pixel whose id differs from the one `border` pixels to its right or below
// (the last pixel stands for those beyond) is (c + 256) / 2, opaque. Ids under 1 and from color_count on leave the
// frame unchanged.
//
// Shapes: N frames of height x width, maps of map_height x map_width.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "panrt/cuda/status.h"

namespace panrt::cuda {

struct OverlayArgs {
  std::uint8_t const* frame;     // (N, height, width, 3); device
  std::int32_t const* panoptic;  // (N, map_height, map_width); device
  std::uint8_t const* colors;    // (color_count, 3) by id; device
  std::uint8_t* output;          // (N, height, width, 3); may be `frame`; device
  std::int32_t images;
  std::int32_t height, width;
  std::int32_t map_height, map_width;
  std::int32_t color_count;
  std::int32_t opacity;  // 0 to 256
  std::int32_t border;   // 0 draws none; more than 64 is 64
};

// One launch.
Status launch_overlay(OverlayArgs const& args, cudaStream_t stream) noexcept;

Status prepare_overlay() noexcept;  // panrt/cuda/prepare.h

}  // namespace panrt::cuda
