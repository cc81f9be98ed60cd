// A video pixel to BGR: limited range, the usual coefficients of three digits, in integers of 20 fractional bits. With
// BT.601 the result is that of OpenCV's cvtColor to the bit.
#pragma once

#include <cstdint>

#include "panrt/host_device.h"

namespace panrt {

struct Bgr {
  std::uint8_t b, g, r;
};

// Coefficients times 2^20.
struct YuvMatrix {
  std::int32_t y, r_v, g_u, g_v, b_u;
};

constexpr YuvMatrix kBt601{1220542, 1673527, -409993, -852492, 2116026};  // 1.164 1.596 -0.391 -0.813 2.018
constexpr YuvMatrix kBt709{1220542, 1880097, -223347, -558891, 2214593};  // 1.164 1.793 -0.213 -0.533 2.112

PANRT_HD std::uint8_t yuv_channel(std::int32_t scaled) {
  std::int32_t const value = scaled >> 20;
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

PANRT_HD Bgr yuv_to_bgr(YuvMatrix const& matrix, int y, int u, int v) {
  constexpr std::int32_t kHalf = 1 << 19;
  std::int32_t const luma = (y > 16 ? y - 16 : 0) * matrix.y + kHalf;
  std::int32_t const cb = u - 128, cr = v - 128;
  return {yuv_channel(luma + matrix.b_u * cb), yuv_channel(luma + matrix.g_u * cb + matrix.g_v * cr),
          yuv_channel(luma + matrix.r_v * cr)};
}

}  // namespace panrt
