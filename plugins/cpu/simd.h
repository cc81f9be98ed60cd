// Vector code without intrinsics, for x86-64 and AArch64 alike.
#pragma once

#include <cstdlib>  // defines __GLIBC__ where there is one
#include <cstring>

// Compiles a function twice, for plain x86-64 and with AVX2, and lets the loader choose. For small hot loops only: what
// is inlined into them is doubled too. Results are equal, because contraction to fused multiply-add is off. Sanitizer
// builds define PANRT_NO_CLONES; other systems have no loader that chooses, or need none.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(PANRT_NO_CLONES)
#if __GNUC__ >= 12
#define PANRT_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#endif
#endif
#ifndef PANRT_CLONES
#define PANRT_CLONES
#endif

// For helpers of such functions: a call would leave the clone.
#define PANRT_INLINE inline __attribute__((always_inline))

namespace panrt {

// Eight floats: one AVX register, or two of SSE or NEON.
using Float8 = float __attribute__((vector_size(32)));

PANRT_INLINE void load(float const* from, Float8& to) { std::memcpy(&to, from, sizeof to); }
PANRT_INLINE void store(Float8 const& from, float* to) { std::memcpy(to, &from, sizeof from); }

// Lanes of a (0 to 7) and b (8 to 15), picked by number.
template <int... lanes>
PANRT_INLINE void shuffle(Float8 const& a, Float8 const& b, Float8& result) {
#ifdef __clang__
  result = __builtin_shufflevector(a, b, lanes...);
#else
  using Int8 = int __attribute__((vector_size(32)));
  result = __builtin_shuffle(a, b, Int8{lanes...});
#endif
}

// Transposes 8 x 8 floats.
PANRT_INLINE void transpose(Float8 (&square)[8]) {
  Float8 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    shuffle<0, 8, 1, 9, 4, 12, 5, 13>(square[i], square[i + 1], pairs[i]);
    shuffle<2, 10, 3, 11, 6, 14, 7, 15>(square[i], square[i + 1], pairs[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    shuffle<0, 1, 8, 9, 4, 5, 12, 13>(pairs[i], pairs[i + 2], quads[i]);
    shuffle<2, 3, 10, 11, 6, 7, 14, 15>(pairs[i], pairs[i + 2], quads[i + 1]);
    shuffle<0, 1, 8, 9, 4, 5, 12, 13>(pairs[i + 1], pairs[i + 3], quads[i + 2]);
    shuffle<2, 3, 10, 11, 6, 7, 14, 15>(pairs[i + 1], pairs[i + 3], quads[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    shuffle<0, 1, 2, 3, 8, 9, 10, 11>(quads[i], quads[i + 4], square[i]);
    shuffle<4, 5, 6, 7, 12, 13, 14, 15>(quads[i], quads[i + 4], square[i + 4]);
  }
}

}  // namespace panrt
