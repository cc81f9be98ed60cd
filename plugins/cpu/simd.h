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

}  // namespace panrt
