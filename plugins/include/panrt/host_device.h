// PANRT_HD marks arithmetic that the CPU and the CUDA kernels share. Device code must be compiled with --fmad=false,
// host code with -ffp-contract=off: both then round after every operation, and agree to the bit. panrt/arithmetic.h
// checks at run time whether they were.
#pragma once

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error "PanRT needs IEEE arithmetic, with NaN and infinities: compile without -ffast-math, -Ofast and -use_fast_math"
#endif

#ifdef __CUDACC__
#define PANRT_HD __host__ __device__ __forceinline__
#else
#define PANRT_HD inline
#endif
