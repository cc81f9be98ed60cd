// PANRT_HD marks arithmetic that the CPU and the CUDA kernels share. Device code must be compiled with --fmad=false,
// host code with -ffp-contract=off: both then round after every operation, and agree to the bit.
#pragma once

#ifdef __CUDACC__
#define PANRT_HD __host__ __device__ __forceinline__
#else
#define PANRT_HD inline
#endif
