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

// The same with a body each, between which the loader chooses: a function that compares lanes is written for any vector
// and defined twice, since GCC compares a vector wider than the registers one lane at a time.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(PANRT_NO_CLONES)
#define PANRT_AVX2 __attribute__((target("avx2")))
#define PANRT_DEFAULT __attribute__((target("default")))
#else
#define PANRT_DEFAULT
#endif

// For helpers of such functions: a call would leave the clone.
#define PANRT_INLINE inline __attribute__((always_inline))

namespace panrt {

// Eight floats: one AVX register, or two of SSE or NEON.
using Float8 = float __attribute__((vector_size(32)));

// Four floats: one register of SSE or NEON. For shuffles: GCC takes those of wider vectors apart before it clones.
using Float4 = float __attribute__((vector_size(16)));

// The vector for functions marked PANRT_DEFAULT. A sanitizer build of x86-64 has no others, and shall see what users
// run.
#if defined(__x86_64__) && !defined(PANRT_AVX2)
using DefaultFloats = Float8;
#else
using DefaultFloats = Float4;
#endif

template <typename Vector>
PANRT_INLINE void load(float const* from, Vector& to) {
  std::memcpy(&to, from, sizeof to);
}

template <typename Vector>
PANRT_INLINE void store(Vector const& from, float* to) {
  std::memcpy(to, &from, sizeof from);
}

// Lanes of a (0 to 3) and b (4 to 7), picked by number.
template <int... lanes>
PANRT_INLINE void shuffle(Float4 const& a, Float4 const& b, Float4& result) {
#ifdef __clang__
  result = __builtin_shufflevector(a, b, lanes...);
#else
  using Int4 = int __attribute__((vector_size(16)));
  result = __builtin_shuffle(a, b, Int4{lanes...});
#endif
}

// Transposes 4 x 4 floats.
PANRT_INLINE void transpose(Float4 (&square)[4]) {
  Float4 halves[4];
  shuffle<0, 4, 1, 5>(square[0], square[1], halves[0]);
  shuffle<2, 6, 3, 7>(square[0], square[1], halves[1]);
  shuffle<0, 4, 1, 5>(square[2], square[3], halves[2]);
  shuffle<2, 6, 3, 7>(square[2], square[3], halves[3]);
  shuffle<0, 1, 4, 5>(halves[0], halves[2], square[0]);
  shuffle<2, 3, 6, 7>(halves[0], halves[2], square[1]);
  shuffle<0, 1, 4, 5>(halves[1], halves[3], square[2]);
  shuffle<2, 3, 6, 7>(halves[1], halves[3], square[3]);
}

}  // namespace panrt
