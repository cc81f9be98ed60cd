// IEEE half precision as storage: values are converted to float, computed on, and rounded back to nearest even.
// Branch-free integer arithmetic, which compilers vectorise on every target.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace panrt {

struct Half {
  std::uint16_t bits;
};

PANRT_INLINE float to_float(float value) { return value; }

PANRT_INLINE float to_float(Half half) {
  std::uint32_t const magnitude = (half.bits & 0x7FFFU) << 13;
  float value;
  std::memcpy(&value, &magnitude, sizeof value);
  value *= 0x1p112F;  // exponent bias 15 to 127; subnormals become normal
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits |= magnitude >= 0x0F800000U ? 0x7F800000U : 0U;  // infinity and NaN
  bits |= (half.bits & 0x8000U) << 16;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

PANRT_INLINE void from_float(float value, float& to) { to = value; }

PANRT_INLINE void from_float(float value, Half& to) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  std::uint32_t const sign = bits >> 16 & 0x8000U;
  bits &= 0x7FFFFFFFU;
  // Normal: rebias, and round by carrying into the exponent.
  std::uint32_t const normal = (bits - 0x38000000U + 0xFFFU + (bits >> 13 & 1U)) >> 13;
  // Below 2^-14: adding 1/2 lines the last bit of a float up with the last bit of a subnormal half, and rounds.
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof magnitude);
  magnitude += 0.5F;
  std::uint32_t subnormal;
  std::memcpy(&subnormal, &magnitude, sizeof subnormal);
  subnormal -= 0x3F000000U;
  std::uint32_t const infinity_or_nan = bits > 0x7F800000U ? 0x7E00U : 0x7C00U;
  std::uint32_t result = bits < 0x38800000U ? subnormal : normal;
  result = bits >= 0x47800000U ? infinity_or_nan : result;  // 65536 and more; from 65520 `normal` carries to infinity
  to.bits = static_cast<std::uint16_t>(result | sign);
}

}  // namespace panrt
