// The panoptic map over the frame. Bound by memory bandwidth: 3 bytes and an id in, 3 bytes out a pixel; the ids above
// come from cache.
#include "byte_tile.h"
#include "launch.h"
#include "panrt/cuda/overlay.h"

namespace panrt::cuda {
namespace {

__device__ __forceinline__ std::uint8_t blend(int under, int over, int alpha) {
  return static_cast<std::uint8_t>((under * (255 - alpha) + over * alpha + 127) / 255);
}

// A block owns kTilePixels pixels in a row of memory, a thread one of them. Borders look at the image, not at the tile.
__global__ void __launch_bounds__(kTilePixels, 4) draw_segments(OverlayArgs const args) {
  __shared__ std::uint32_t tile[kTileWords];
  auto* const bytes = reinterpret_cast<std::uint8_t*>(tile);
  std::int64_t const area = static_cast<std::int64_t>(args.height) * args.width, total = area * args.images;
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTilePixels; first < total;
       first += static_cast<std::int64_t>(gridDim.x) * kTilePixels) {
    int const pixels = total - first < kTilePixels ? static_cast<int>(total - first) : kTilePixels;
    load_pixels(args.frame + 3 * first, pixels, tile);
    __syncthreads();
    bool const is_mine = static_cast<int>(threadIdx.x) < pixels;
    std::int64_t const pixel = first + threadIdx.x;
    int const id = is_mine ? args.panoptic[pixel] : 0;
    int left = __shfl_up_sync(0xFFFFFFFFU, id, 1);
    if (is_mine) {
      auto const within = static_cast<std::uint32_t>(pixel % area);  // an image has at most 2^30 pixels
      bool const has_left = within % static_cast<std::uint32_t>(args.width) != 0;
      bool const has_above = within >= static_cast<std::uint32_t>(args.width);
      if (has_left && threadIdx.x % 32 == 0) left = args.panoptic[pixel - 1];
      bool const on_border = (has_left && left != id) || (has_above && args.panoptic[pixel - args.width] != id);
      uchar4 colour{0, 0, 0, 0};
      if (on_border && args.border_colour[3] != 0) {
        colour = {args.border_colour[0], args.border_colour[1], args.border_colour[2], args.border_colour[3]};
      } else if (id >= 0 && id < args.colour_count) {
        colour = __ldg(reinterpret_cast<uchar4 const*>(args.colours) + id);
      }
      std::uint8_t* const mine = bytes + 3 * threadIdx.x;
      mine[0] = blend(mine[0], colour.x, colour.w);
      mine[1] = blend(mine[1], colour.y, colour.w);
      mine[2] = blend(mine[2], colour.z, colour.w);
    }
    __syncthreads();
    store_pixels(tile, pixels, args.output + 3 * first);
    __syncthreads();  // the tile is free again
  }
}

bool is_aligned(void const* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 4 == 0; }

}  // namespace

Status launch_overlay(OverlayArgs const& args, cudaStream_t stream) noexcept {
  constexpr std::int32_t kMaxSide = 32768;
  if (args.images < 1) return invalid("overlay: images must be at least 1");
  if (args.height < 1 || args.width < 1 || args.height > kMaxSide || args.width > kMaxSide) {
    return invalid("overlay: height and width must be from 1 to 32768");
  }
  if (args.colour_count < 0) return invalid("overlay: colour_count must not be negative");
  if (args.frame == nullptr || args.panoptic == nullptr || args.output == nullptr ||
      (args.colours == nullptr && args.colour_count > 0)) {
    return invalid("overlay: frame, panoptic, colours or output is null");
  }
  if (!is_aligned(args.panoptic) || !is_aligned(args.colours)) {
    return invalid("overlay: panoptic and colours must be aligned to 4 bytes");
  }
  std::int64_t const pixels = static_cast<std::int64_t>(args.height) * args.width * args.images;
  LaunchShape const shape{blocks_for(pixels, kTilePixels), kTilePixels};
  return launch(draw_segments, shape, stream, args);
}

}  // namespace panrt::cuda
