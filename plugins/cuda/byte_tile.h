// Pixels of three bytes in shared memory, so that a warp moves whole words of them and each thread still has a pixel.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace panrt::cuda {

constexpr int kTilePixels = 256;  // one per thread
constexpr int kTileWords = kTilePixels * 3 / 4;

__device__ __forceinline__ int whole_words(void const* memory, int bytes) {
  return reinterpret_cast<std::uintptr_t>(memory) % 4 == 0 ? bytes / 4 : 0;  // neighbouring bytes else
}

// `pixels` (at most kTilePixels) of three bytes from `from`, by kTilePixels threads; a barrier must follow.
__device__ __forceinline__ void load_pixels(std::uint8_t const* from, int pixels, std::uint32_t (&tile)[kTileWords]) {
  int const bytes = 3 * pixels, words = whole_words(from, bytes);
  auto* const tile_bytes = reinterpret_cast<std::uint8_t*>(tile);
  for (int i = threadIdx.x; i < words; i += kTilePixels) tile[i] = reinterpret_cast<std::uint32_t const*>(from)[i];
  for (int i = 4 * words + threadIdx.x; i < bytes; i += kTilePixels) tile_bytes[i] = from[i];
}

// The way back; a barrier must come before.
__device__ __forceinline__ void store_pixels(std::uint32_t const (&tile)[kTileWords], int pixels, std::uint8_t* to) {
  int const bytes = 3 * pixels, words = whole_words(to, bytes);
  auto const* const tile_bytes = reinterpret_cast<std::uint8_t const*>(tile);
  for (int i = threadIdx.x; i < words; i += kTilePixels) reinterpret_cast<std::uint32_t*>(to)[i] = tile[i];
  for (int i = 4 * words + threadIdx.x; i < bytes; i += kTilePixels) to[i] = tile_bytes[i];
}

}  // namespace panrt::cuda
