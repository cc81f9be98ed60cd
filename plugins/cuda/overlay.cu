// The colours of a panoptic map over a frame. Bound by memory bandwidth: 3 bytes and an id in, 3 bytes out per pixel;
// the ids to the right and below come from cache.
#include "byte_tile.h"
#include "checks.h"
#include "launch.h"
#include "panrt/cuda/overlay.h"
#include "panrt/limits.h"
#include "prepare.h"
#include "workspace.h"

namespace panrt::cuda {
namespace {

constexpr std::int32_t kMaxBorder = 64;
constexpr int kOpaque = 256;

// Cell of a map axis that pixel i of a frame axis shows: the one that its centre lies in. Sides are at most kMaxSide.
__device__ __forceinline__ int cell_below(int i, int pixels, int cells) {
  if (pixels == cells) return i;
  return static_cast<int>((2U * static_cast<unsigned>(i) + 1U) * static_cast<unsigned>(cells) /
                          (2U * static_cast<unsigned>(pixels)));
}

__device__ __forceinline__ std::uint8_t blend(int under, int over, int opacity) {
  return static_cast<std::uint8_t>((under * (kOpaque - opacity) + over * opacity + kOpaque / 2) / kOpaque);
}

// A block owns kTilePixels pixels that lie next to one another in memory, a thread one of them.
__global__ void __launch_bounds__(kTilePixels, 4) paint_segments(OverlayArgs const args) {
  __shared__ std::uint32_t tile[kTileWords];
  auto* const bytes = reinterpret_cast<std::uint8_t*>(tile);
  std::int64_t const area = static_cast<std::int64_t>(args.height) * args.width, total = area * args.images;
  std::int64_t const map_area = static_cast<std::int64_t>(args.map_height) * args.map_width;
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTilePixels; first < total;
       first += static_cast<std::int64_t>(gridDim.x) * kTilePixels) {
    int const pixels = total - first < kTilePixels ? static_cast<int>(total - first) : kTilePixels;
    load_pixels(args.frame + 3 * first, pixels, tile);
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < pixels) {
      std::int64_t const pixel = first + threadIdx.x, image = pixel / area;
      auto const within = static_cast<std::uint32_t>(pixel - image * area);  // an image has at most 2^30 pixels
      int const y = static_cast<int>(within / static_cast<std::uint32_t>(args.width));
      int const x = static_cast<int>(within % static_cast<std::uint32_t>(args.width));
      std::int32_t const* const map = args.panoptic + image * map_area;
      auto const id_at = [&](int row, int column) {
        std::int64_t const line = cell_below(row, args.height, args.map_height);
        return map[line * args.map_width + cell_below(column, args.width, args.map_width)];
      };
      int const id = id_at(y, x);
      if (id > 0 && id < args.color_count) {
        bool const on_border = args.border > 0 && (id_at(y, min(x + args.border, args.width - 1)) != id ||
                                                   id_at(min(y + args.border, args.height - 1), x) != id);
        std::uint8_t const* const color = args.colors + 3 * static_cast<std::int64_t>(id);
        std::uint8_t* const mine = bytes + 3 * threadIdx.x;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
          mine[c] =
              on_border ? static_cast<std::uint8_t>((color[c] + 256) / 2) : blend(mine[c], color[c], args.opacity);
        }
      }
    }
    __syncthreads();
    store_pixels(tile, pixels, args.output + 3 * first);
    __syncthreads();  // the tile is free again
  }
}

}  // namespace

Status launch_overlay(OverlayArgs const& args, cudaStream_t stream) noexcept {
  Checks checks("overlay");
  checks.range("images", args.images, 1, kMaxImages);
  checks.range("height", args.height, 1, kMaxSide);
  checks.range("width", args.width, 1, kMaxSide);
  checks.range("map_height", args.map_height, 1, kMaxSide);
  checks.range("map_width", args.map_width, 1, kMaxSide);
  checks.range("color_count", args.color_count, 0, INT32_MAX);
  checks.range("opacity", args.opacity, 0, kOpaque);
  checks.range("border", args.border, 0, INT32_MAX);
  checks.that(args.frame != nullptr && args.panoptic != nullptr && args.output != nullptr &&
                  (args.colors != nullptr || args.color_count <= 0),
              "frame, panoptic, colors or output is null");
  checks.that(is_aligned(args.panoptic, 4), "panoptic must be aligned to 4 bytes");
  if (!checks.ok()) return checks.status();
  OverlayArgs bounded = args;
  if (bounded.border > kMaxBorder) bounded.border = kMaxBorder;
  std::int64_t const pixels = static_cast<std::int64_t>(args.height) * args.width * args.images;
  LaunchShape const shape{blocks_for(pixels, kTilePixels), kTilePixels};
  return launch(paint_segments, shape, stream, bounded);
}

Status prepare_overlay() noexcept { return prepare(paint_segments); }

}  // namespace panrt::cuda
