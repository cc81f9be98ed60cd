// Half precision for kernels compiled for the CPU: storage, conversion to nearest even, and what few intrinsics ours
// use. Needs no CUDA toolkit.
#pragma once

#include <cstdint>
#include <cstring>

#include "hostcuda.h"

struct __half_raw {
  unsigned short x;
};

struct alignas(2) __half {
  unsigned short bits;

  __half() = default;
  __half(__half_raw raw) : bits(raw.x) {}
  operator __half_raw() const { return {bits}; }
};
using half = __half;

struct alignas(4) __half2 {
  __half x, y;
};
using half2 = __half2;

inline float __half2float(__half value) {
  unsigned const magnitude = static_cast<unsigned>(value.bits & 0x7FFF) << 13;
  float result = __uint_as_float(magnitude) * 0x1p112F;  // exponent bias 15 to 127; subnormals become normal
  if (magnitude >= 0x0F800000U) result = __uint_as_float(magnitude | 0x7F800000U);  // infinity and NaN
  return __uint_as_float(__float_as_uint(result) | static_cast<unsigned>(value.bits & 0x8000) << 16);
}

inline __half __float2half_rn(float value) {
  unsigned const bits = __float_as_uint(value), magnitude = bits & 0x7FFFFFFFU;
  unsigned result;
  if (magnitude > 0x7F800000U) {
    result = 0x7FFFU;
  } else if (magnitude >= 0x47800000U) {  // 65536 and more
    result = 0x7C00U;
  } else if (magnitude < 0x38800000U) {  // under 2^-14: adding 1/2 lines the last bits up, and rounds
    result = __float_as_uint(__uint_as_float(magnitude) + 0.5F) - 0x3F000000U;
  } else {  // rebias, and round by carrying into the exponent
    result = (magnitude - 0x38000000U + 0xFFFU + (magnitude >> 13 & 1U)) >> 13;
  }
  return __half_raw{static_cast<unsigned short>(result | (bits >> 16 & 0x8000U))};
}

inline __half __float2half(float value) { return __float2half_rn(value); }
inline float2 __half22float2(__half2 value) { return {__half2float(value.x), __half2float(value.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline __half2 __float22half2_rn(float2 value) { return __floats2half2_rn(value.x, value.y); }
inline float __low2float(__half2 value) { return __half2float(value.x); }
inline float __high2float(__half2 value) { return __half2float(value.y); }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
