// Whether code was compiled as the ops need it: float32 as in IEEE 754, rounded once per operation. Compiler options
// can change that silently; the values here reveal it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "panrt/host_device.h"

namespace panrt {

// Which tests this code fails; bits.
enum ArithmeticFault : std::uint32_t {
  kFusedMultiplyAdd = 1,     // -ffp-contract=fast, --fmad=true
  kSubnormalsAreZero = 2,    // -ftz=true
  kApproximateDivision = 4,  // -prec-div=false
  kApproximateRoot = 8,      // -prec-sqrt=false
};

// The numbers to test with. The compiler must not know them, or it computes with them itself.
struct ArithmeticProbe {
  float above_one = 1.0F + 0x1p-12F;
  float smallest_normal = 0x1p-126F;
};

// Half way from a positive float to the next one in this direction, 1 or -1; exact.
PANRT_HD double half_way(float from, std::uint32_t direction) {
  float next;
  std::uint32_t bits;
  std::memcpy(&bits, &from, sizeof bits);
  bits += direction;
  std::memcpy(&next, &bits, sizeof next);
  return 0.5 * (static_cast<double>(from) + static_cast<double>(next));
}

PANRT_HD std::uint32_t arithmetic_faults(ArithmeticProbe const& probe) {
  std::uint32_t faults = 0;
  // The square is 1 + 2^-11 + 2^-24, of which float32 keeps all but the last term; fused, that is the result.
  if (probe.above_one * probe.above_one - (1.0F + 0x1p-11F) != 0.0F) faults |= kFusedMultiplyAdd;
  float const subnormal = probe.smallest_normal * 0.5F;
  std::uint32_t bits;
  std::memcpy(&bits, &subnormal, sizeof bits);  // a comparison may take it as zero too
  if (bits != 0x00400000U) faults |= kSubnormalsAreZero;
  // What is rounded correctly lies no further from the true value than half way to its neighbours. All of float64 is
  // exact here; a comparison with float64's quotient would be folded into nothing.
  for (int i = 1; i <= 64; ++i) {
    float const a = probe.above_one + static_cast<float>(i), b = a * a + 3.0F;
    float const quotient = a / b, root = std::sqrt(b);
    auto const wide_a = static_cast<double>(a), wide_b = static_cast<double>(b);
    double const low = half_way(quotient, ~0U), high = half_way(quotient, 1);
    if (!(low * wide_b <= wide_a && wide_a <= high * wide_b)) faults |= kApproximateDivision;
    double const below = half_way(root, ~0U), above = half_way(root, 1);
    if (!(below * below <= wide_b && wide_b <= above * above)) faults |= kApproximateRoot;
  }
  return faults;
}

// The faults of this code as compiled for the host, without subnormals: there they are not the compiler's choice, as
// another library may have set the thread so.
inline std::uint32_t host_arithmetic_faults() {
  ArithmeticProbe const volatile probe;
  return arithmetic_faults({probe.above_one, probe.smallest_normal}) & ~std::uint32_t{kSubnormalsAreZero};
}

// How code with the first of these faults was compiled, and how to compile it; null without a fault.
inline char const* fault_text(std::uint32_t faults) {
  if ((faults & kFusedMultiplyAdd) != 0) {
    return "it was compiled with fused multiply-adds; it needs -ffp-contract=off, and nvcc's --fmad=false";
  }
  if ((faults & kSubnormalsAreZero) != 0) {
    return "it was compiled to take subnormal numbers as 0; it needs nvcc's --ftz=false";
  }
  if ((faults & kApproximateDivision) != 0) return "it was compiled to divide inexactly; it needs --prec-div=true";
  if ((faults & kApproximateRoot) != 0) return "it was compiled for inexact square roots; it needs --prec-sqrt=true";
  return nullptr;
}

}  // namespace panrt
